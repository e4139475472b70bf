"""Checks of what users hand in; each failure names the culprit and says what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ncut import kernels
from ncut.errors import InputError

if TYPE_CHECKING:
    from scipy import sparse


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


def check_adjacency(adjacency: sparse.csr_array) -> None:
    """Refuse an adjacency matrix that is not square, finite, non-negative and symmetric."""
    rows, columns = adjacency.shape
    if rows != columns:
        raise InputError(f"adjacency: shape {rows} x {columns}; it must be square")
    check_block(adjacency.data, "adjacency")
    difference = abs(adjacency - adjacency.T)
    worst = difference.max() if difference.nnz else 0.0
    if worst > 1e-6 * adjacency.data.max():
        entries = difference.tocoo()
        at = int(entries.data.argmax())
        i, j = entries.row[at], entries.col[at]
        raise InputError(
            f"adjacency: not symmetric, entries [{i}, {j}] and [{j}, {i}] differ by {worst:.3g}; "
            "pass (A + A.T) / 2 if the graph is meant to be undirected"
        )


def canonical_csr(matrix: sparse.csr_array) -> sparse.csr_array:
    """Sort the indices, and give them int32 where they fit and int64 where they do not."""
    matrix.sort_indices()
    fits = max(matrix.nnz, *matrix.shape) <= np.iinfo(np.int32).max
    index = np.int32 if fits else np.int64
    matrix.indptr = matrix.indptr.astype(index, copy=False)
    matrix.indices = matrix.indices.astype(index, copy=False)
    return matrix


def check_n_clusters(k: object, n_vertices: int) -> int:
    """Return `k` as an int if a graph of `n_vertices` connected vertices can be cut into k."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer):
        raise InputError(f"k: must be a whole number, got {k!r}")
    if k < 2:
        raise InputError(f"k: must be at least 2, got {k}")
    if k >= n_vertices:
        raise InputError(
            f"k: {k} clusters asked of a graph with {n_vertices} vertices that have edges; "
            "choose a smaller k"
        )
    return int(k)
