"""Expands TensorFlow Lite's sparse tensors."""

from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncut.errors import ModelError
from ncut.files import Budget

_VECTORS = {1: "Int32Vector", 2: "Uint16Vector", 3: "Uint8Vector"}
_DENSE, _CSR = 0, 1


def positions(
    sparsity: Any, shape: tuple[int, ...], n_values: int, name: str, budget: Budget
) -> NDArray[np.int64]:
    """The flat positions of a sparse tensor's stored values in the dense tensor.

    The dimensions are traversed in a stored order, those of the blocks last. Each level has all
    indices (dense) or, for each entry of the level before, a segment of a list of indices (CSR).

    Parameters
    ----------
    sparsity : tflite.SparsityParameters
        The stored order, blocks and levels.
    shape : tuple of int
        Shape of the dense tensor.
    n_values : int
        Number of stored values.
    name : str
        The tensor's name, for messages.
    budget : Budget
        Limits the numbers of entries of the levels.

    Returns
    -------
    ndarray of int64, shape (n_values,)
        Row-major positions, all different.

    Raises
    ------
    ModelError
        If the levels do not fit each other, the shape or the number of values.

    Source: the schema's SparsityParameters, and `FormatConverter::Populate` of
    tensorflow/lite/kernels/internal/utils/sparsity_format_converter.cc.
    """
    rank = len(shape)
    order, blocks = _ints(sparsity.TraversalOrderAsNumpy()), _ints(sparsity.BlockMapAsNumpy())
    n_levels = rank + len(blocks)
    if (
        sorted(order[:rank]) != list(range(rank))
        or sorted(order[rank:]) != list(range(rank, n_levels))
        or sparsity.DimMetadataLength() != n_levels
        or len(set(blocks)) < len(blocks)
        or not set(blocks) <= set(range(rank))
    ):
        raise ModelError(f"sparse tensor {name!r} of shape {shape} has the order {order}")
    levels = [sparsity.DimMetadata(level) for level in range(n_levels)]
    steps = list(shape)  # sizes of the dimensions in blocks, then of the blocks
    for at, axis in enumerate(blocks):
        size = levels[order.index(rank + at)].DenseSize()
        if size < 1 or shape[axis] % size:
            raise ModelError(f"sparse tensor {name!r} of shape {shape} has blocks of {size}")
        steps[axis] //= size
        steps.append(size)

    before = np.zeros(1, np.int64)
    indices: dict[int, NDArray[np.int64]] = {}
    for level, axis in zip(levels, order, strict=True):
        parents, here, before = _level(level, steps[axis], before, n_values, name, budget)
        indices = {other: found[parents] for other, found in indices.items()}
        indices[axis] = here
    if before.size != n_values:
        raise ModelError(f"sparse tensor {name!r} has {n_values} values, its levels {before.size}")
    for at, axis in enumerate(blocks):
        indices[axis] = indices[axis] * steps[rank + at] + indices[rank + at]
    flat = np.zeros(n_values, np.int64)
    for axis in range(rank):
        flat = flat * shape[axis] + indices[axis]
    if np.unique(flat).size < n_values:
        raise ModelError(f"sparse tensor {name!r} has two values at one place")
    return flat


def _level(
    level: Any, size: int, before: NDArray[np.int64], n_values: int, name: str, budget: Budget
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Of each entry of a level: its parent's number, its index, and its place in the level."""
    if level.Format() == _DENSE:
        if level.DenseSize() != size:
            raise ModelError(
                f"sparse tensor {name!r} has a level of {level.DenseSize()}, expected {size}"
            )
        budget.take(f"sparse tensor {name!r}", before.size * size * 24)
        parents = np.repeat(np.arange(before.size), size)
        here = np.tile(np.arange(size), before.size)
        return parents, here, before[parents] * size + here
    segments = _vector(level.ArraySegmentsType(), level.ArraySegments())
    listed = _vector(level.ArrayIndicesType(), level.ArrayIndices())
    if (
        level.Format() != _CSR
        or segments.size != before.size + 1
        or segments[0] != 0
        or segments[-1] != listed.size
        or (np.diff(segments) < 0).any()
        or listed.size > n_values
        or (listed.size and not 0 <= listed.min() <= listed.max() < size)
    ):
        raise ModelError(
            f"sparse tensor {name!r} has a level whose segments do not fit its indices"
        )
    return np.repeat(np.arange(before.size), np.diff(segments)), listed, np.arange(listed.size)


def _vector(kind: int, table: Any) -> NDArray[np.int64]:
    """The numbers of a vector of one of three types."""
    if kind not in _VECTORS or table is None:
        return np.zeros(0, np.int64)
    vector = getattr(importlib.import_module(f"tflite.{_VECTORS[kind]}"), _VECTORS[kind])()
    vector.Init(table.Bytes, table.Pos)
    found = vector.ValuesAsNumpy()
    return np.zeros(0, np.int64) if isinstance(found, int) else found.astype(np.int64)


def _ints(numbers: Any) -> list[int]:
    return [] if isinstance(numbers, int) else [int(number) for number in numbers]


def dense(values: NDArray[Any], at: NDArray[np.int64], shape: tuple[int, ...]) -> NDArray[Any]:
    """The dense tensor with `values` at the positions `at`, and zeros."""
    made = np.zeros(math.prod(shape), values.dtype)
    made[at] = values
    return made.reshape(shape)
