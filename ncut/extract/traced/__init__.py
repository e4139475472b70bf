"""A torch module -> the record of its forward pass, by running it on tensors without data."""
