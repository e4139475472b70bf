"""A model as a program: typed nodes over shaped values, which readers write and print."""
