"""A graph's edges for reports: sums over groups of vertices, and the strongest edges.

Each function passes over the blocks once, in pieces, so that no n x n matrix is built and weights
of any type need little extra memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

if TYPE_CHECKING:
    from ncut.graphs import NeuronGraph
    from ncut.types import Weights

PIECE = 2**20
"""Weights processed together."""


class Edge(NamedTuple):
    """Two vertices and the weight between them."""

    first: int
    second: int
    weight: float


class Piece(NamedTuple):
    """All edges between some vertices of one layer and another (or the same) layer."""

    source: int
    target: int
    rows: slice
    columns: slice
    weights: NDArray[np.float64] | sparse.csr_array


def layer_flows(
    graph: NeuronGraph, labels: NDArray[np.int32], k: int
) -> dict[tuple[int, int], NDArray[np.float64]]:
    """The weight between clusters, for each pair of layers joined by edges.

    Parameters
    ----------
    graph : NeuronGraph
    labels : ndarray of int32, shape (n,)
        Cluster of each vertex, 0 to k - 1; vertices with -1 are left out.
    k : int

    Returns
    -------
    dict of (int, int) to ndarray of float64, shape (k, k)
        By the layers' positions; entry (a, b) is the weight between cluster a in the first layer
        and cluster b in the second. Within one layer each edge counts once, in either entry.
    """
    flows: dict[tuple[int, int], NDArray[np.float64]] = {}
    for piece in _pieces(graph):
        flow = flows.setdefault((piece.source, piece.target), np.zeros((k, k)))
        flow += _summed(piece.weights, labels[piece.rows], labels[piece.columns], k)
    return flows


def strongest_edges(
    graph: NeuronGraph, labels: NDArray[np.int32], k: int, count: int
) -> list[list[Edge]]:
    """The edges of largest weight that have an end in each cluster, in descending order."""
    first, second = np.empty(0, dtype=np.intp), np.empty(0, dtype=np.intp)
    weights = np.empty(0)
    # An edge is kept if it is heavier than the last one kept for either of its clusters.
    least = np.zeros(k)
    kept = [first] * k
    for piece in _pieces(graph):
        rows, columns, found = _heavy(piece, labels, least)
        first = np.concatenate([first, rows])
        second = np.concatenate([second, columns])
        weights = np.concatenate([weights, found])
        a, b = labels[first], labels[second]
        kept = [_largest(weights, np.flatnonzero((a == c) | (b == c)), count) for c in range(k)]
        least = np.array([weights[at[-1]] if at.size == count else 0.0 for at in kept])
        held = np.unique(np.concatenate(kept))
        kept = [np.searchsorted(held, at) for at in kept]
        first, second, weights = first[held], second[held], weights[held]
    return [
        [Edge(int(first[at]), int(second[at]), float(weights[at])) for at in best] for best in kept
    ]


def _largest(weights: NDArray[np.float64], among: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    """Positions among ascending ones of the `count` largest weights; of equal weights the first."""
    found = weights[among]
    if count < among.size:  # sorting all takes several times as long
        among = among[found >= np.partition(found, -count)[-count]]
    return among[np.argsort(-weights[among], kind="stable")[:count]]


def _heavy(
    piece: Piece, labels: NDArray[np.int32], least: NDArray[np.float64]
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """Ends and weights of the edges above the threshold of the cluster of either end."""
    for_rows, for_columns = least[labels[piece.rows]], least[labels[piece.columns]]
    shift = np.array([[piece.rows.start], [piece.columns.start]], dtype=np.intp)
    if isinstance(piece.weights, np.ndarray):
        heavy = piece.weights > np.minimum(for_rows[:, None], for_columns[None, :])
        rows, columns = np.nonzero(heavy) + shift
        return rows, columns, piece.weights[heavy]
    every = piece.weights.tocoo()
    found = every.data > np.minimum(for_rows[every.row], for_columns[every.col])
    rows, columns = np.array([every.row[found], every.col[found]], dtype=np.intp) + shift
    return rows, columns, every.data[found]


def _summed(
    weights: NDArray[np.float64] | sparse.csr_array,
    rows: NDArray[np.integer],
    columns: NDArray[np.integer],
    n_groups: int,
) -> NDArray[np.float64]:
    """Weights summed over groups of rows and of columns, (n_groups, n_groups)."""
    if isinstance(weights, np.ndarray):
        by_row = _indicator(rows, n_groups) @ weights
        return np.asarray(_indicator(columns, n_groups) @ by_row.T).T
    every = weights.tocoo()
    a, b = rows[every.row].astype(np.int64), columns[every.col].astype(np.int64)
    inside = (a >= 0) & (b >= 0)
    places = a[inside] * n_groups + b[inside]
    sums = np.bincount(places, weights=every.data[inside], minlength=n_groups**2)
    return np.asarray(sums, dtype=np.float64).reshape(n_groups, n_groups)


def _indicator(groups: NDArray[np.integer], n_groups: int) -> sparse.csr_array:
    """A matrix (n_groups, n) with a 1 where a vertex is in a group."""
    members = np.flatnonzero(groups >= 0)
    return sparse.csr_array(
        (np.ones(members.size), (groups[members], members)), shape=(n_groups, groups.size)
    )


def _pieces(graph: NeuronGraph) -> Iterator[Piece]:
    """All edges, a few rows of a matrix at a time; blocks between the same layers added up."""
    blocks: dict[tuple[int, int], list[Weights]] = {}
    for block in graph.blocks:
        blocks.setdefault((block.source, block.target), []).append(block.weights)
    for (source, target), matrices in blocks.items():
        start = graph.layers[source].start
        columns = graph.layers[target].slice
        for first, last, weights in _added(matrices):
            yield Piece(source, target, slice(start + first, start + last), columns, weights)


def _added(
    matrices: list[Weights],
) -> Iterator[tuple[int, int, NDArray[np.float64] | sparse.csr_array]]:
    """First row, last row and the sum of these rows of matrices of one shape, bit by bit."""
    n_rows, n_columns = matrices[0].shape
    if any(isinstance(matrix, np.ndarray) for matrix in matrices):
        step = max(1, PIECE // max(1, n_columns))
        for first in range(0, n_rows, step):
            part = np.zeros((min(step, n_rows - first), n_columns))
            for matrix in matrices:
                rows = matrix[first : first + step]
                dense = rows if isinstance(rows, np.ndarray) else rows.toarray()
                part += dense.astype(np.float64)
            yield first, first + part.shape[0], part
        return
    csr = [sparse.csr_array(matrix) for matrix in matrices]
    stored = np.sum([matrix.indptr.astype(np.int64) for matrix in csr], axis=0)
    first = 0
    while first < n_rows:
        last = int(np.searchsorted(stored, stored[first] + PIECE, side="right")) - 1
        last = min(max(last, first + 1), n_rows)
        parts = [sparse.csr_array(matrix[first:last]).astype(np.float64) for matrix in csr]
        yield first, last, sparse.csr_array(sum(parts[1:], start=parts[0]))
        first = last
