"""Streams of random numbers: a seed, and a stream for each purpose and shuffle.

The generator is counter-based, so the numbers of a stream do not depend on other streams, and
shuffle i of seed s is the same in every thread and process.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from ncut.errors import InputError

if TYPE_CHECKING:
    import numpy as np

MAX_GRAPHS = 2**30
"""Largest number of graphs; streams are numbered with 32 bits."""

NETWORK = 0
"""Number of the measured network among the graphs of an analysis; shuffle i is graph i + 1."""


class Purpose(enum.IntEnum):
    """Use of a stream's numbers."""

    SHUFFLE = 0
    KMEANS = 1
    START_VECTORS = 2
    KMEANS_REPEATS = 3


def random_stream(purpose: Purpose, graph_number: int) -> int:
    """The number (32 bits) of the random stream of one purpose for one graph of an analysis."""
    return 4 * graph_number + purpose


def check_seed(seed: object) -> int:
    """Return the seed as an int; refuse invalid seeds."""
    import numpy as np

    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise InputError(f"seed: must be a whole number, got {seed!r}")
    if not 0 <= seed < 2**64:
        raise InputError(f"seed: must lie between 0 and 2**64 - 1, got {seed}")
    return int(seed)


def numpy_generator(
    seed: int, purpose: Purpose, graph_number: int, part: int = 0
) -> np.random.Generator:
    """A NumPy generator for one purpose and graph; parts of its stream do not overlap."""
    import numpy as np

    key = np.array([seed, random_stream(purpose, graph_number)], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key).jumped(part))
