"""Null models: shuffled networks, what is measured on them, and the comparison with ours."""

from ncut.axes import NULL_MODELS
from ncut.nulls.distribution import Interrupted, over_shuffles
from ncut.nulls.models import (
    check_null,
    check_null_fits,
    null_notes,
    shuffle,
    uses_weights_twice,
)
from ncut.nulls.statistics import compare, compare_all

__all__ = [
    "NULL_MODELS",
    "Interrupted",
    "check_null",
    "check_null_fits",
    "compare",
    "compare_all",
    "null_notes",
    "over_shuffles",
    "shuffle",
    "uses_weights_twice",
]
