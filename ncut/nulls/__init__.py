"""Null models: shuffled networks, their normalized cuts, and the comparison with ours."""

from ncut.nulls.distribution import Interrupted, cluster_shuffles
from ncut.nulls.models import NULL_MODELS, check_null, shuffle
from ncut.nulls.statistics import Comparison, compare

__all__ = [
    "NULL_MODELS",
    "Comparison",
    "Interrupted",
    "check_null",
    "cluster_shuffles",
    "compare",
    "shuffle",
]
