"""Models as programs: typed nodes over shaped values, written by readers."""
