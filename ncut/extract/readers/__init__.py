"""Readers: each follows the forward pass of one kind of model and writes a Program."""
