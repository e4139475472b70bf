"""Checks of user input; each error names the culprit and the remedy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ncut import kernels
from ncut.errors import InputError

if TYPE_CHECKING:
    from scipy import sparse


TILE = 256
"""Rows and columns compared at a time, which fit in the cache."""

ASYMMETRY = 1e-6
"""Tolerated difference of mirrored entries, relative to a vertex's largest weight."""

MOVE_EDGES = ("layer", "layer-kde")
"""Null models that may leave vertices without edges."""

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
            f"{what}: all {values.size} weights are zero, so the graph is disconnected there; "
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
    if not rows:
        raise InputError(f"{argument}: is empty, 0 x 0")
    diagonal = adjacency.diagonal()
    if not np.isfinite(diagonal).all() or (diagonal < 0).any():
        at = int(np.flatnonzero(~(diagonal >= 0) | np.isinf(diagonal))[0])
        raise InputError(
            f"{argument}: {diagonal[at]} on the diagonal, in row {at}; self-loops are left out, "
            "so set the diagonal to 0"
        )
    check_block(adjacency if isinstance(adjacency, np.ndarray) else adjacency.data, argument)
    pair = _asymmetric_pair(adjacency)
    if pair is not None:
        i, j = pair
        here, there = (float(adjacency[place]) for place in ((i, j), (j, i)))
        raise InputError(
            f"{argument}: not symmetric, entries [{i}, {j}] and [{j}, {i}] are {here:.6g} and "
            f"{there:.6g}; pass (A + A.T) / 2 if the graph is meant to be undirected"
        )


def _asymmetric_pair(
    matrix: NDArray[np.floating] | sparse.csr_array,
) -> tuple[int, int] | None:
    """Return an entry that differs from its mirror image; None if there is none.

    The tolerance is ASYMMETRY of the largest weight of the entry's row or column, whichever is
    smaller: a vertex's weights are compared with its own, not with those of others.
    """
    if isinstance(matrix, np.ndarray):
        largest = _largest_of_rows(matrix)
        largest = np.minimum(largest, _largest_of_rows(matrix.T))
        for top, left in _tiles(len(matrix), above=True):
            across = matrix[top : top + TILE, left : left + TILE]
            back = matrix[left : left + TILE, top : top + TILE].T
            least = np.minimum(largest[top : top + TILE, None], largest[left : left + TILE])
            places = np.argwhere(abs(across - back) > ASYMMETRY * least)
            if places.size:
                return top + int(places[0, 0]), left + int(places[0, 1])
        return None
    both = abs(matrix).tocoo()
    away = both.row != both.col
    weights = both.data[away].astype(np.float64)
    by_row, by_column = np.zeros((2, matrix.shape[0]))
    np.maximum.at(by_row, both.row[away], weights)
    np.maximum.at(by_column, both.col[away], weights)
    largest = np.minimum(by_row, by_column)
    difference = abs(matrix - matrix.T).tocoo()
    least = np.minimum(largest[difference.row], largest[difference.col])
    wrong = np.flatnonzero(difference.data > ASYMMETRY * least)
    return (int(difference.row[wrong[0]]), int(difference.col[wrong[0]])) if wrong.size else None


def _largest_of_rows(matrix: NDArray[np.floating]) -> NDArray[np.float64]:
    """The largest off-diagonal entry of each row."""
    largest = np.zeros(len(matrix))
    for top, left in _tiles(len(matrix)):
        tile = matrix[top : top + TILE, left : left + TILE]
        if top == left:
            tile = tile * ~np.eye(len(tile), dtype=bool)
        rows = slice(top, top + TILE)
        largest[rows] = np.maximum(largest[rows], tile.max(axis=1))
    return largest


def _tiles(n: int, *, above: bool = False) -> Iterator[tuple[int, int]]:
    """First row and column of each tile of an n x n matrix, or of its upper triangle."""
    for top in range(0, n, TILE):
        for left in range(top if above else 0, n, TILE):
            yield top, left


def check_structure(matrix: Any, what: str) -> None:
    """Refuse a sparse matrix whose indices lead out of its arrays, which compiled code trusts.

    `check_format` of scipy 1.17 passes over row pointers that fall below zero, and over differences
    of them that overflow.
    """
    try:
        if hasattr(matrix, "check_format"):
            matrix.check_format(full_check=False)
            if (matrix.indptr[1:] < matrix.indptr[:-1]).any():
                raise ValueError("indptr must not decrease")
            matrix.check_format(full_check=True)
        elif matrix.format == "coo":
            for at, size in zip(matrix.coords, matrix.shape, strict=True):
                if len(at) != len(matrix.data):
                    raise ValueError("indices and data should have the same size")
                if len(at) and (at.min() < 0 or at.max() >= size):
                    raise ValueError(f"indices must be >= 0 and < {size}")
    except ValueError as error:
        raise InputError(f"{what}: a damaged sparse matrix: {error}") from error


def canonical_csr(matrix: sparse.csr_array) -> sparse.csr_array:
    """Sort the indices, add up duplicates, and store indices as int32 if they fit, else int64."""
    matrix.sum_duplicates()
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
            f"{argument}: must be less than {n_vertices}, the number of vertices with edges, "
            f"got {k}"
        )
    return int(k)


def too_few_left(k: int, n_left: int, n_vertices: int, number: int, null: str) -> str:
    """The message for a shuffle that isolates so many of a network's vertices that k is too large.

    `number`: of the shuffle, as `ncut.shuffle` counts them; -1 for the network itself.
    """
    which = f"shuffle {number} of the null model" if number >= 0 else "the network of the test"
    other = ", or null='layer-nonzero', which moves no edge" if null in MOVE_EDGES else ""
    return (
        f"k: {which} {null!r} has edges at only {n_left:,} of {n_vertices:,} vertices, too few for "
        f"k={k}; use a smaller k{other}"
    )
