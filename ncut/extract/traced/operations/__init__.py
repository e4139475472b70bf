"""What each operation of ATen does to neurons, a file per kind of operation."""
