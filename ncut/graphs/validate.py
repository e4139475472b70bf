"""Checks of what users hand in; each failure names the culprit and says what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ncut.errors import InputError

if TYPE_CHECKING:
    from scipy import sparse


def check_finite(values: NDArray[np.floating], what: str) -> None:
    """Refuse NaN and infinite entries."""
    finite = np.isfinite(values)
    if not finite.all():
        n_nan = int(np.isnan(values).sum())
        n_inf = int(values.size - finite.sum()) - n_nan
        raise InputError(
            f"{what}: {n_nan} NaN and {n_inf} infinite values among {values.size}; "
            "the weights must be finite (did training diverge?)"
        )


def check_block(values: NDArray[np.floating], what: str) -> None:
    """Refuse weights that cannot be edge weights: not finite, negative, or all zero."""
    check_finite(values, what)
    if values.size and values.min() < 0:
        raise InputError(f"{what}: {int((values < 0).sum())} negative edge weights; take |w| first")
    if not values.any():
        raise InputError(
            f"{what}: all {values.size} weights are zero, so the graph falls apart there; "
            "leave the layer out or check that the weights were loaded"
        )


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
