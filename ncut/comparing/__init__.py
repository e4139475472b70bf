"""Comparison of models: paired differences, and neurons that moved between partitions."""

from ncut.comparing.comparison import ModelComparison
from ncut.comparing.entry import compare
from ncut.comparing.pairs import Moved, Pair

__all__ = ["ModelComparison", "Moved", "Pair", "compare"]
