"""The torch side: networks are trained to be clusterable, started clusterable, normalized, pruned."""
