"""Sums of powers of a block's weights along its rows and columns."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ncut import kernels

if TYPE_CHECKING:
    from ncut.graphs.data import GraphData
    from ncut.types import Weights

    Vector = NDArray[np.float64]

KEPT_ENTRIES = 2**24
"""Squares of larger dense blocks (128 MiB) are recomputed whenever needed."""

CHUNK_ENTRIES = 2**16


class PowerSums:
    """|w|^p of a block in units of the graph's, summed along rows or columns in float64.

    Parameters
    ----------
    weights : ndarray or scipy.sparse.csr_array
    exponent : {1, 2}
    unit : float
        Weights are divided by it, so that their squares stay in range.
    keep : bool
        Whether the powers will be needed more than once.
    """

    def __init__(self, weights: Weights, exponent: int, unit: float, keep: bool) -> None:
        self._weights, self._exponent, self._unit = weights, exponent, unit
        self._kept: Any = None
        if not isinstance(weights, np.ndarray):
            self._kept = same_places(weights, self._powers(weights.data))
        elif keep and weights.size <= KEPT_ENTRIES:
            self._kept = self._powers(weights)

    def into(self, x: Vector) -> Vector:
        """Sum over the sources i of |w_ij|^p x_i, for each target j."""
        if self._kept is not None:
            return x @ self._kept  # type: ignore[no-any-return]
        total = np.zeros(self._weights.shape[1])
        for rows, powers in self._chunks():
            total += x[rows] @ powers
        return total

    def out_of(self, x: Vector) -> Vector:
        """Sum over the targets j of |w_ij|^p x_j, for each source i."""
        if self._kept is not None:
            return self._kept @ x  # type: ignore[no-any-return]
        total = np.empty(self._weights.shape[0])
        for rows, powers in self._chunks():
            total[rows] = powers @ x
        return total

    def _chunks(self) -> Iterator[tuple[slice, Vector]]:
        for rows in row_chunks(self._weights.shape):
            yield rows, self._powers(self._weights[rows])

    def _powers(self, values: Any) -> Vector:
        powers: Vector = values.astype(np.float64)
        if self._unit != 1:
            powers /= self._unit
        return np.square(powers, out=powers) if self._exponent == 2 else powers


def unit_of(graph: GraphData) -> float:
    """1 if all squares of weights lie in the range of float64, else the largest weight."""
    if kernels.wide_type(graph.blocks) == np.float32:
        return 1.0
    return max(float(block.weights.max()) for block in graph.blocks if block.weights.size) or 1.0


def row_chunks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Rows of a matrix in parts that fit the cache in double precision."""
    step = max(1, CHUNK_ENTRIES // max(shape[1], 1))
    for first in range(0, shape[0], step):
        yield slice(first, first + step)


def same_places(weights: Any, data: NDArray[np.floating]) -> Any:
    """A CSR matrix with other values at the same positions, sharing the index arrays."""
    matrix = copy(weights)  # without SciPy's checks, which cost more than a small matrix
    matrix.data = data
    return matrix
