"""Models side by side: paired differences, and where neurons moved between two partitions."""

from ncut.comparing.comparison import ModelComparison
from ncut.comparing.entry import compare
from ncut.comparing.pairs import Moved, Pair

__all__ = ["ModelComparison", "Moved", "Pair", "compare"]
