"""The torch side: networks trained to be clusterable, begun clusterable, normalized, pruned."""
