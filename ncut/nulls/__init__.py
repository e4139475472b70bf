"""Null models: shuffled networks, their measurements, and the comparison with the network."""

from ncut.axes import NULL_MODELS
from ncut.nulls.base import Null, substreams
from ncut.nulls.distribution import at_once_and_inside, side_by_side_in_order
from ncut.nulls.models import (
    check_null,
    check_null_fits,
    fitted,
    normalization_of,
    shuffle,
    shuffle_connected,
)
from ncut.nulls.statistics import compare, compare_all, statistics_of
from ncut.nulls.tied import uses_weights_twice

__all__ = [
    "NULL_MODELS",
    "Null",
    "at_once_and_inside",
    "check_null",
    "check_null_fits",
    "compare",
    "compare_all",
    "fitted",
    "normalization_of",
    "shuffle",
    "shuffle_connected",
    "side_by_side_in_order",
    "statistics_of",
    "substreams",
    "uses_weights_twice",
]
