"""The flow of weight between clusters, laid out in columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ncut.report.between import Flows
from ncut.report.names import Names

if TYPE_CHECKING:
    from ncut.results import Measurement

# Limits that keep a picture of a large network readable and small.
MAX_COLUMNS = 10
MAX_SHOWN_CLUSTERS = 24
MAX_LINKS = 600
MAX_PARTS = 12
# Share of the weight at a residual stream from which the flow is drawn around the stream.
STREAM_SHARE = 0.5


class LayerGroup(NamedTuple):
    """Consecutive layers that a picture shows as one; usually a single layer."""

    name: str
    first: int
    last: int


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """The clusters with separate colours in pictures: the largest by volume, then "others".

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
        """Check whether clusters are shown together as "others"."""
        return len(self.clusters) < self.place.size

    @property
    def n_parts(self) -> int:
        """Number of parts, including the others."""
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
        The links' share of the graph's edge weight.
    """

    columns: list[LayerGroup]
    nodes: list[tuple[int, int]]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    source: NDArray[np.intp]
    target: NDArray[np.intp]
    weight: NDArray[np.float64]
    drawn: float


def layer_groups(names: Sequence[str], most: int) -> list[LayerGroup]:
    """All layers, in groups of neighbours if there are more than `most`."""
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
    """All clusters, or the largest if there are many."""
    largest = np.argsort(-volumes(report), kind="stable")[:MAX_SHOWN_CLUSTERS]
    clusters = np.sort(largest)
    place = np.full(report.k, clusters.size, dtype=np.intp)
    place[clusters] = np.arange(clusters.size)
    return Shown(clusters.tolist(), place)


def flows_of(report: Measurement, flows: Flows, names: Names) -> list[Flow]:
    """Lay out the weights between layers; nothing if all edges lie within a column.

    One flow through all layers; if most of the weight is at a residual stream, one flow from the
    stream to each block.
    """
    shown = shown_clusters(report)
    between = sum(float(flow.sum()) for (a, b), flow in flows.items() if a != b)
    at_stream = sum(
        float(flow.sum()) for (a, b), flow in flows.items() if names.stream[a] != names.stream[b]
    )
    total = sum(float(flow.sum()) for flow in flows.values())
    if not any(names.stream) or at_stream < STREAM_SHARE * between:
        groups = layer_groups(names.short, MAX_COLUMNS)
        column_of = np.repeat(np.arange(len(groups)), [g.last - g.first for g in groups])
        found = [flow_of(flows, shown, groups, column_of, total)]
    else:
        found = _around_stream(flows, shown, names, total)
    return [flow for flow in found if flow is not None]


def _around_stream(flows: Flows, shown: Shown, names: Names, total: float) -> list[Flow | None]:
    blocks = [(name, at) for name, at in names.blocks if not names.stream[at[0]]]
    parts = np.array_split(np.arange(len(blocks)), min(MAX_PARTS, len(blocks)))
    found = []
    for part in parts:
        layers = [at for number in part for at in blocks[number][1]]
        first, last = blocks[part[0]][0], blocks[part[-1]][0]
        name = first if part.size == 1 else f"{first} … {last}"
        column_of = np.full(len(names.full), -1)
        column_of[np.array(names.stream)] = 0
        column_of[layers] = 1
        groups = [
            LayerGroup("stream", 0, 1),
            LayerGroup(name, min(layers), min(layers) + len(layers)),
        ]
        found.append(flow_of(flows, shown, groups, column_of, total))
    return found


def flow_of(
    flows: Flows,
    shown: Shown,
    columns: list[LayerGroup],
    column_of: NDArray[np.integer],
    total: float,
) -> Flow | None:
    """Lay out the weights between columns of layers; None if there are none.

    `column_of` has the column of each layer, -1 for layers that are not drawn; `total` is the
    weight of all edges.
    """
    n_parts = shown.n_parts
    sums = np.zeros((len(columns), n_parts, len(columns), n_parts))
    for (a, b), flow in flows.items():
        if column_of[a] == column_of[b] or min(column_of[a], column_of[b]) < 0:
            continue
        merged = np.zeros((n_parts, n_parts))
        np.add.at(merged, (shown.place[:, None], shown.place[None, :]), flow)
        if column_of[a] > column_of[b]:
            sums[column_of[b], :, column_of[a], :] += merged.T
        else:
            sums[column_of[a], :, column_of[b], :] += merged
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


def band_ends(flow: Flow) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Upper and lower end of each band at its source and at its target, (n_links, 2) each."""
    low = np.empty((flow.weight.size, 2))
    high = np.empty_like(low)
    through = np.maximum(
        *(np.bincount(end, flow.weight, flow.low.size) for end in (flow.source, flow.target))
    )
    scale = float(np.max((flow.high - flow.low) / through))
    for side, (end, other) in enumerate(((flow.source, flow.target), (flow.target, flow.source))):
        taken = flow.low.copy()
        for at in np.lexsort((flow.low[other], end)):
            low[at, side] = taken[end[at]]
            taken[end[at]] += scale * flow.weight[at]
            high[at, side] = taken[end[at]]
    return low, high


def _stacked(
    columns: NDArray[np.integer], sizes: NDArray[np.float64], gap: float = 0.012
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ends of nodes stacked in columns, with one scale for all and each column centred."""
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
