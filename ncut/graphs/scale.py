"""The unit of a graph's weights: a power of two that keeps their sums and squares in range.

Clustering does not depend on the unit, but sums of weights above 1e300, squares of weights above
1e150 and float32 vectors times weights above 1e38 overflow. Multiplying by a power of two is exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ncut.errors import InputError
from ncut.graphs.scratch import in_scratch_file
from ncut.types import Block

if TYPE_CHECKING:
    from ncut.graphs.data import G
    from ncut.types import Weights

FAR = 60
"""Weights keep their unit if the largest lies between 2^-FAR and 2^FAR."""


def in_range(blocks: Sequence[Block], scratch: Path | None) -> tuple[tuple[Block, ...], int]:
    """Blocks in a unit that is safe for computations, and the unit's exponent.

    The blocks themselves and 0, unless the largest weight is far from 1; it is then scaled to lie
    between 1 and 2. Blocks keep their type, or become float64 if float32 would lose small weights.

    Raises
    ------
    InputError
        If a layer has weights so much smaller than the largest weight that float64 cannot represent
        both.
    """
    largest = max(_largest(block.weights) for block in blocks)
    exponent = math.frexp(largest)[1] - 1
    if abs(exponent) <= FAR:
        return tuple(blocks), 0
    made: dict[int, Weights] = {}
    for block in blocks:
        if id(block.weights) not in made:  # weights that are used twice are stored once
            moved = _times_power(block.weights, -exponent)
            if moved is None:
                raise InputError(
                    f"layer {block.name!r}: weights as small as {_smallest(block.weights):.3g} "
                    f"next to weights of {largest:.3g} exceed the range of float64"
                )
            made[id(block.weights)] = in_scratch_file(moved, scratch)
    return tuple(replace(block, weights=made[id(block.weights)]) for block in blocks), exponent


def brought_into_range(graph: G) -> G:
    """The graph in a unit that is safe for computations; itself if its unit is safe."""
    blocks, exponent = in_range(graph.blocks, graph.scratch)
    if not exponent:
        return graph
    return replace(graph, blocks=blocks, exponent=graph.exponent + exponent)


def in_own_unit(graph: G) -> G:
    """The graph with its original weights; itself if they are unchanged."""
    if not graph.exponent:
        return graph
    blocks = []
    for block in graph.blocks:
        weights = _times_power(block.weights, graph.exponent)
        assert weights is not None  # it had them
        blocks.append(replace(block, weights=in_scratch_file(weights, graph.scratch)))
    return replace(graph, blocks=tuple(blocks), exponent=0)


def _times_power(weights: Weights, exponent: int) -> Weights | None:
    """Weights times 2^exponent, exactly, as float64 if needed; None if float64 is not enough."""
    largest = _largest(weights)
    if not largest:
        return weights
    smallest = _smallest(weights)
    narrow = np.float64 if weights.dtype == np.float64 else np.float32
    for dtype in dict.fromkeys((narrow, np.float64)):
        limits = np.finfo(dtype)
        low, high = (math.frexp(extreme)[1] + exponent for extreme in (smallest, largest))
        if low > limits.minexp and high <= limits.maxexp:
            values = np.ldexp(_entries(weights).astype(dtype), exponent)
            return values if isinstance(weights, np.ndarray) else _with_data(weights, values)
    return None


def _with_data(weights: Any, values: NDArray[np.floating]) -> Weights:
    made: Weights = type(weights)((values, weights.indices, weights.indptr), shape=weights.shape)
    return made


def _entries(weights: Weights) -> NDArray[np.floating]:
    return weights if isinstance(weights, np.ndarray) else weights.data


def _bits(weights: Weights) -> NDArray[np.signedinteger]:
    """The entries as integers, which have the same order as non-negative floats."""
    entries = np.ascontiguousarray(_entries(weights))
    return entries.view(f"i{entries.dtype.itemsize}")


def _value(bits: Any, weights: Weights) -> float:
    return float(np.array([bits], dtype=f"i{weights.dtype.itemsize}").view(weights.dtype)[0])


def _largest(weights: Weights) -> float:
    return _value(_bits(weights).max(initial=0), weights)


def _smallest(weights: Weights) -> float:
    """The smallest non-zero weight."""
    bits = _bits(weights)
    return _value(bits[bits > 0].min(), weights)
