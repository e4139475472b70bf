"""Does ncut give the right numbers on this machine, and how fast? What `ncut selftest` runs."""
