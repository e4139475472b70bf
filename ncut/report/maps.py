"""A report's graph in little space: flows between clusters, and the matrix in few cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ncut.report.edges import grouped_adjacency
from ncut.report.words import printable

if TYPE_CHECKING:
    from ncut.graphs import NeuronGraph
    from ncut.results import Measurement

# What keeps a picture of a large network readable, and light.
MAX_COLUMNS = 10
MAX_SHOWN_CLUSTERS = 24
MAX_LINKS = 600
MAX_CELLS = 400

Flows: TypeAlias = dict[tuple[int, int], NDArray[np.float64]]
"""What `ncut.report.edges.layer_flows` returns."""


class LayerGroup(NamedTuple):
    """Consecutive layers that a picture shows as one; mostly a single one."""

    name: str
    first: int
    last: int


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """The clusters that pictures tell apart: the largest ones by volume, then "others".

    Attributes
    ----------
    clusters : list of int
        Their numbers, ascending.
    place : ndarray of intp, shape (k,)
        Position of each cluster among them; the last position is that of the others.
    """

    clusters: list[int]
    place: NDArray[np.intp]

    @property
    def has_others(self) -> bool:
        """Whether clusters are shown together as "others"."""
        return len(self.clusters) < self.place.size

    @property
    def n_parts(self) -> int:
        """How many parts there are, the others among them."""
        return len(self.clusters) + self.has_others

    def cluster(self, part: int) -> int | None:
        """The cluster of a part; None for the others."""
        return self.clusters[part] if part < len(self.clusters) else None


@dataclass(frozen=True, slots=True, eq=False)
class Flow:
    """The weight between clusters of different layers, laid out in columns.

    Attributes
    ----------
    columns : list of LayerGroup
    nodes : list of tuple of (int, int)
        Column and part (see `Shown`) of each node.
    low, high : ndarray of float64, shape (n_nodes,)
        Upper and lower end, as shares of the height, counted from the top.
    source, target : ndarray of intp, shape (n_links,)
    weight : ndarray of float64, shape (n_links,)
    drawn : float
        Share of the graph's edge weight that the links have.
    """

    columns: list[LayerGroup]
    nodes: list[tuple[int, int]]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    source: NDArray[np.intp]
    target: NDArray[np.intp]
    weight: NDArray[np.float64]
    drawn: float


@dataclass(frozen=True, slots=True, eq=False)
class Matrix:
    """The adjacency matrix with vertices in order of cluster, then of layer, in few cells.

    Attributes
    ----------
    means : ndarray of float64, shape (n_cells, n_cells)
        Mean of the matrix over each cell.
    starts : ndarray of float64, shape (k + 1,)
        Where each cluster begins, and the last one ends, counted in cells.
    cluster, layer : ndarray of int32, shape (n_cells,)
        Those of the vertex in the middle of a row of cells.
    neurons : int
        How many neurons a row of cells has, at most.
    """

    means: NDArray[np.float64]
    starts: NDArray[np.float64]
    cluster: NDArray[np.int32]
    layer: NDArray[np.int32]
    neurons: int


def layer_groups(report: Measurement, most: int) -> list[LayerGroup]:
    """All layers, in groups of neighbours where there are more than `most`."""
    names = [printable(layer.name) for layer in report.layers]
    return [
        LayerGroup(
            names[part[0]] if part.size == 1 else f"{names[part[0]]} … {names[part[-1]]}",
            int(part[0]),
            int(part[-1]) + 1,
        )
        for part in np.array_split(np.arange(len(names)), min(most, len(names)))
    ]


def volumes(report: Measurement) -> NDArray[np.float64]:
    """Sum of the degrees in each cluster, shape (k,)."""
    inside = report.labels >= 0
    found = np.bincount(report.labels[inside], report.degrees[inside], minlength=report.k)
    return np.asarray(found, dtype=np.float64)


def shown_clusters(report: Measurement) -> Shown:
    """All clusters, or the largest where there are many."""
    largest = np.argsort(-volumes(report), kind="stable")[:MAX_SHOWN_CLUSTERS]
    clusters = np.sort(largest)
    place = np.full(report.k, clusters.size, dtype=np.intp)
    place[clusters] = np.arange(clusters.size)
    return Shown(clusters.tolist(), place)


def flow_of(report: Measurement, flows: Flows) -> Flow | None:
    """Lay out the weights between layers; None if all edges lie within a column."""
    shown = shown_clusters(report)
    columns = layer_groups(report, MAX_COLUMNS)
    column_of = np.empty(len(report.layers), dtype=np.intp)
    for number, group in enumerate(columns):
        column_of[group.first : group.last] = number
    n_parts = shown.n_parts
    sums = np.zeros((len(columns), n_parts, len(columns), n_parts))
    for (a, b), flow in flows.items():
        merged = np.zeros((n_parts, n_parts))
        np.add.at(merged, (shown.place[:, None], shown.place[None, :]), flow)
        sums[column_of[a], :, column_of[b], :] += merged
    total = float(sums.sum())
    for number in range(len(columns)):
        sums[number, :, number, :] = 0.0
    size = len(columns) * n_parts
    table = sums.reshape(size, size)
    source, target = np.nonzero(table)
    order = np.sort(np.argsort(-table[source, target], kind="stable")[:MAX_LINKS])
    source, target = source[order], target[order]
    weight = table[source, target]
    if not weight.size:
        return None
    used, ends = np.unique(np.concatenate([source, target]), return_inverse=True)
    source, target = ends[: weight.size], ends[weight.size :]
    outgoing = np.bincount(source, weight, minlength=used.size)
    incoming = np.bincount(target, weight, minlength=used.size)
    low, high = _stacked(used // n_parts, np.maximum(outgoing, incoming))
    nodes = [(int(node // n_parts), int(node % n_parts)) for node in used]
    return Flow(columns, nodes, low, high, source, target, weight, float(weight.sum()) / total)


def _stacked(
    columns: NDArray[np.integer], sizes: NDArray[np.float64], gap: float = 0.012
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ends of nodes that are stacked in columns: one scale for all, each column centred."""
    counts = np.bincount(columns)
    heights = np.bincount(columns, sizes)
    gap = min(gap, 0.5 / counts.max())
    scale = min(
        (1 - gap * (count - 1)) / height
        for count, height in zip(counts, heights, strict=True)
        if count
    )
    low, high = np.empty(sizes.size), np.empty(sizes.size)
    for column in range(counts.size):
        at = np.flatnonzero(columns == column)
        lengths = sizes[at] * scale
        begin = np.concatenate([[0.0], np.cumsum(lengths[:-1] + gap)])[: at.size]
        free = 1 - heights[column] * scale - gap * (counts[column] - 1)
        low[at], high[at] = begin + free / 2, begin + free / 2 + lengths
    return low, high


def matrix_of(report: Measurement, graph: NeuronGraph) -> Matrix:
    """Average the adjacency matrix over cells, in order of the clusters."""
    layer_of = np.repeat(np.arange(len(report.layers)), [layer.size for layer in report.layers])
    connected = np.flatnonzero(report.labels >= 0)
    order = connected[np.lexsort((layer_of[connected], report.labels[connected]))]
    n = order.size
    n_cells = min(n, MAX_CELLS)
    cells = np.arange(n) * n_cells // n
    cell_of = np.full(report.n_vertices, -1, dtype=np.intp)
    cell_of[order] = cells
    counts = np.bincount(cells, minlength=n_cells)
    middle = order[np.cumsum(counts) - (counts + 1) // 2]
    sizes = np.bincount(report.labels[connected], minlength=report.k)
    return Matrix(
        means=grouped_adjacency(graph, cell_of, n_cells) / np.outer(counts, counts),
        starts=np.concatenate([[0], np.cumsum(sizes)]) * n_cells / n,
        cluster=report.labels[middle],
        layer=layer_of[middle].astype(np.int32),
        neurons=int(counts.max()),
    )
