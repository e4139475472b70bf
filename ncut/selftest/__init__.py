"""Checks of correctness and speed on this machine, run by `ncut selftest`."""
