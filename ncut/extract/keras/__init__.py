"""Models that Keras saved -> the record of their forward pass."""
