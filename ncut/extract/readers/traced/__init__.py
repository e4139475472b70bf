"""Tracing: a torch module's forward pass, recorded by running it on tensors without data."""
