"""Checks of what users hand in; each failure names the culprit and says what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ncut import kernels
from ncut.errors import InputError

if TYPE_CHECKING:
    from scipy import sparse


TILE = 256
"""Rows and columns that are compared at a time, as they stay in the cache."""

WEIGHT_TYPES = ("float16", "bfloat16", "float32", "float64")


def bfloat16() -> np.dtype[Any]:
    """The type of 16-bit "brain" floats as NumPy arrays."""
    import ml_dtypes

    found: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return found


def check_block(values: NDArray[np.floating], what: str) -> int:
    """Refuse weights that cannot be edge weights: not finite, negative, or all zero.

    `values` is contiguous and of one of WEIGHT_TYPES. Returns the number of non-zero weights.
    """
    found = kernels.scan(values)
    if found.n_nan or found.n_infinite:
        raise InputError(
            f"{what}: {found.n_nan} NaN and {found.n_infinite} infinite values among "
            f"{values.size}; the weights must be finite (did training diverge?)"
        )
    if found.n_negative:
        raise InputError(f"{what}: {found.n_negative} negative edge weights; take |w| first")
    if not found.n_nonzero:
        raise InputError(
            f"{what}: all {values.size} weights are zero, so the graph falls apart there; "
            "leave the layer out or check that the weights were loaded"
        )
    return found.n_nonzero


def check_adjacency(
    adjacency: NDArray[np.floating] | sparse.csr_array, argument: str = "adjacency"
) -> None:
    """Refuse an adjacency matrix that is not square, finite, non-negative and symmetric."""
    rows, columns = adjacency.shape
    if rows != columns:
        raise InputError(f"{argument}: shape {rows} x {columns}; it must be square")
    entries = adjacency if isinstance(adjacency, np.ndarray) else adjacency.data
    check_block(entries, argument)
    worst, i, j = _asymmetry(adjacency)
    if worst > 1e-6 * entries.max():
        raise InputError(
            f"{argument}: not symmetric, entries [{i}, {j}] and [{j}, {i}] differ by {worst:.3g}; "
            "pass (A + A.T) / 2 if the graph is meant to be undirected"
        )


def _asymmetry(matrix: NDArray[np.floating] | sparse.csr_array) -> tuple[float, int, int]:
    """The largest difference of an entry and its mirror image, and its row and column."""
    if not isinstance(matrix, np.ndarray):
        entries = abs(matrix - matrix.T).tocoo()
        if not entries.nnz:
            return 0.0, 0, 0
        at = int(entries.data.argmax())
        return float(entries.data[at]), int(entries.row[at]), int(entries.col[at])
    found = (0.0, 0, 0)
    for top in range(0, len(matrix), TILE):
        for left in range(top, len(matrix), TILE):
            across = matrix[top : top + TILE, left : left + TILE]
            difference = abs(across - matrix[left : left + TILE, top : top + TILE].T)
            i, j = np.unravel_index(difference.argmax(), difference.shape)
            found = max(found, (float(difference[i, j]), top + int(i), left + int(j)))
    return found


def canonical_csr(matrix: sparse.csr_array) -> sparse.csr_array:
    """Sort the indices, and give them int32 where they fit and int64 where they do not."""
    matrix.sort_indices()
    fits = max(matrix.nnz, *matrix.shape) <= np.iinfo(np.int32).max
    index = np.int32 if fits else np.int64
    matrix.indptr = matrix.indptr.astype(index, copy=False)
    matrix.indices = matrix.indices.astype(index, copy=False)
    return matrix


def check_n_clusters(k: object, n_vertices: int, argument: str = "k", least: int = 2) -> int:
    """Return `k` as an int if a graph of `n_vertices` connected vertices can be cut into k."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer):
        raise InputError(f"{argument}: must be a whole number, got {k!r}")
    if k < least:
        raise InputError(f"{argument}: must be at least {least}, got {k}")
    if k >= n_vertices:
        raise InputError(
            f"{argument}: {k} clusters asked of a graph with {n_vertices} vertices that have "
            f"edges; choose a smaller {argument}"
        )
    return int(k)
