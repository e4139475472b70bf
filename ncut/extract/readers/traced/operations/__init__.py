"""Rules for ATen's operations, a file per kind of operation."""
