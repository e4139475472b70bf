"""Null models: shuffled networks, what is measured on them, and the comparison with ours."""

from ncut.axes import NULL_MODELS
from ncut.nulls.distribution import (
    at_once_and_inside,
    over_shuffles,
    side_by_side_in_order,
)
from ncut.nulls.models import (
    check_null,
    check_null_fits,
    null_notes,
    shuffle,
    shuffle_connected,
    substreams,
    uses_weights_twice,
)
from ncut.nulls.statistics import compare, compare_all, statistics_of

__all__ = [
    "NULL_MODELS",
    "at_once_and_inside",
    "check_null",
    "check_null_fits",
    "compare",
    "compare_all",
    "null_notes",
    "over_shuffles",
    "shuffle",
    "shuffle_connected",
    "side_by_side_in_order",
    "statistics_of",
    "substreams",
    "uses_weights_twice",
]
