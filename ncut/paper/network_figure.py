"""A network drawn as its clusters, as in the paper's figure 1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ncut.errors import InputError, import_extra
from ncut.report.colours import MUTED, cluster_colors
from ncut.report.text import shorten
from ncut.report.wording import name_of, ncut_text, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ncut.graphs import NeuronGraph
    from ncut.report import Report

WIDTH, LAYER_HEIGHT = 7.2, 0.85
"""Width of the figure and distance between layers, in inches."""

GAP = 0.012
"""Gap between clusters, as a share of the width for neurons."""

NARROWEST = 0.03
"""Smallest share of the width for a cluster, so that its number fits."""

SWEEPS = 8
"""Passes that move neurons towards their neighbours."""

POINTS_ACROSS = 440
"""Approximate width for neurons, in points of type."""

MAX_NUMBERED = 24
"""Number of clusters above which their numbers would not be legible."""

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]


def draw_network(report: Report, graph: NeuronGraph, max_edges: int = 6000) -> Figure:
    """Layers as rows of dots, first layer on top; each cluster is a band of one colour.

    Edges inside clusters have the cluster's colour, those between clusters are grey, heavier ones
    more opaque. Only the heaviest are drawn: between any two layers equally many, or all where
    there are fewer. Isolated neurons are left out.

    Parameters
    ----------
    report : Report
        Its `labels` are the clusters.
    graph : NeuronGraph
        The graph of the report.
    max_edges : int
        Largest number of edges drawn; at least one between any two connected layers.

    Raises
    ------
    InputError
        If the graph has other layers than the report, all neurons are isolated, or `max_edges` is
        below 1.
    MissingExtraError
        If matplotlib is not installed.
    """
    ours, theirs = (tuple(layer.size for layer in each.layers) for each in (graph, report))
    if ours != theirs:
        raise InputError(f"graph: has layers of sizes {ours}, but the report has {theirs}")
    if max_edges < 1:
        raise InputError(f"max_edges: must be at least 1, got {max_edges}")
    if not (report.labels >= 0).any():
        raise InputError("report: all neurons are isolated, there is nothing to draw")
    figure: Figure = import_extra("matplotlib.figure", "plot").Figure(
        figsize=(WIDTH, 0.9 + LAYER_HEIGHT * max(1, len(graph.layers) - 1)), layout="constrained"
    )
    ax = figure.add_subplot()
    places = _places(report, graph.adjacency)
    ends, weights = _heaviest(graph, max_edges)
    _draw_edges(ax, places, ends, weights, report)
    _draw_neurons(ax, places, report)
    if report.k <= MAX_NUMBERED:
        _number_clusters(ax, places, report)
    name = shorten(name_of(report), 40)
    ax.set_title(
        f"{name}: n-cut {ncut_text(report.ncut)}, {len(ends):,} of {graph.n_edges:,} edges",
        parse_math=False,
        fontsize="medium",
        pad=20,
    )
    return figure


def _layer_of(report: Report) -> Ints:
    """The number of each neuron's layer, shape (n,)."""
    return np.repeat(np.arange(len(report.layers)), [layer.size for layer in report.layers])


def _places(report: Report, adjacency: sparse.csr_array) -> Floats:
    """Positions of neurons, shape (n, 2): x from 0 to 1, y the layer's number; NaN if isolated."""
    labels, layers = report.labels, _layer_of(report)
    left, width = _bands(report, adjacency)
    drawn = np.flatnonzero(labels >= 0)
    x = np.zeros(labels.size)
    x[drawn] = left[labels[drawn]]
    degrees = np.maximum(adjacency.sum(axis=1), np.finfo(float).tiny)
    for _ in range(SWEEPS):
        # Each neuron is pulled to the mean position of its neighbours, but stays in its band.
        pull = (adjacency @ x) / degrees
        order = drawn[np.lexsort((pull[drawn], labels[drawn], layers[drawn]))]
        group = layers[order] * report.k + labels[order]
        _, starts, which, counts = np.unique(
            group, return_index=True, return_inverse=True, return_counts=True
        )
        rank = np.arange(order.size) - starts[which]
        x[order] = left[labels[order]] + (rank + 0.5) / counts[which] * width[labels[order]]
    places = np.column_stack([x, layers.astype(float)])
    places[labels < 0] = np.nan
    return places


def _bands(report: Report, adjacency: sparse.csr_array) -> tuple[Floats, Floats]:
    """Left end and width of each cluster's band, (k,) each; strongly joined ones are adjacent."""
    sizes = report.cluster_sizes()
    shares = (sizes / np.maximum(sizes.sum(axis=1, keepdims=True), 1)).mean(axis=0)
    wide = np.where(shares > 0, np.maximum(shares, NARROWEST), 0)
    gaps = min(GAP, 0.3 / report.k) * (wide > 0)
    width = wide / wide.sum() * (1 - gaps.sum())
    order = _chain(_between(report, adjacency))
    depths = (np.arange(len(sizes)) @ sizes) / np.maximum(sizes.sum(axis=0), 1)
    if (np.arange(report.k) - (report.k - 1) / 2) @ depths[order] < 0:
        order = order[::-1]  # clusters of the first layers on the left
    left = np.empty(report.k)
    left[order] = np.cumsum((width + gaps)[order]) - (width + gaps)[order]
    return left, width


def _between(report: Report, adjacency: sparse.csr_array) -> Floats:
    """The edge weight between each two clusters, shape (k, k)."""
    members = np.flatnonzero(report.labels >= 0)
    one_hot = sparse.csr_array(
        (np.ones(members.size), (members, report.labels[members])),
        shape=(report.labels.size, report.k),
    )
    found: Floats = (one_hot.T @ adjacency @ one_hot).toarray()
    return found


def _chain(between: Floats) -> Ints:
    """An order of clusters: by the second eigenvector of the clusters' normalized Laplacian."""
    root = np.sqrt(np.maximum(between.sum(axis=1), np.finfo(float).tiny))
    if len(between) < 3:
        return np.arange(len(between))
    _, vectors = np.linalg.eigh(np.eye(len(between)) - between / np.outer(root, root))
    return np.argsort(vectors[:, 1] / root, kind="stable")


def _heaviest(graph: NeuronGraph, max_edges: int) -> tuple[Ints, Floats]:
    """Ends (edges, 2) of the heaviest edges between any two layers, lightest first, and weights.

    The weights are relative to the heaviest between the same two layers.
    """
    edges = sparse.triu(graph.adjacency, k=1).tocoo()
    layer_of = np.repeat(np.arange(len(graph.layers)), [layer.size for layer in graph.layers])
    pair_of = layer_of[edges.row] * len(graph.layers) + layer_of[edges.col]
    order = np.lexsort((-edges.data, pair_of))
    _, starts, pairs, counts = np.unique(
        pair_of[order], return_index=True, return_inverse=True, return_counts=True
    )
    relative = edges.data[order] / edges.data[order][starts][pairs]
    kept = np.arange(order.size) - starts[pairs] < _quota(counts, max_edges)
    lightest_first = np.argsort(relative[kept], kind="stable")
    chosen = order[kept][lightest_first]
    return np.column_stack([edges.row[chosen], edges.col[chosen]]), relative[kept][lightest_first]


def _quota(counts: Ints, total: int) -> int:
    """The largest cap, at least 1, under which the counts sum to at most `total`."""
    left = total
    for number, count in enumerate(ascending := sorted(counts.tolist())):
        share = left // (len(ascending) - number)
        if count > share:
            return max(1, share)
        left -= count
    return total


def _draw_edges(ax: Axes, places: Floats, ends: Ints, weights: Floats, report: Report) -> None:
    """Draw edges between clusters first, so that edges inside clusters lie above them."""
    to_rgba = import_extra("matplotlib.colors", "plot").to_rgba_array
    of_cluster = to_rgba(cluster_colors(report.k))
    labels = report.labels[ends]
    inside = labels[:, 0] == labels[:, 1]
    between = to_rgba([MUTED] * int((~inside).sum()))
    _draw_lines(ax, places[ends[~inside]], between, 0.3 * weights[~inside], "between clusters")
    own = of_cluster[labels[inside, 0]]
    _draw_lines(ax, places[ends[inside]], own, 0.8 * weights[inside], "inside clusters")


def _draw_lines(ax: Axes, segments: Floats, colors: Floats, opacity: Floats, label: str) -> None:
    """Straight lines (n, 2, 2), in vector formats as one picture."""
    lines = import_extra("matplotlib.collections", "plot").LineCollection
    colors = colors.copy().reshape(-1, 4)
    colors[:, 3] = opacity
    ax.add_collection(lines(segments, colors=colors, linewidths=0.5, rasterized=True, label=label))


def _draw_neurons(ax: Axes, places: Floats, report: Report) -> None:
    colors = np.array(cluster_colors(report.k))
    layers, is_drawn = _layer_of(report), report.labels >= 0
    names = []
    for number, layer in enumerate(report.layers):
        shown = np.flatnonzero((layers == number) & is_drawn)
        diameter = np.clip(0.8 * POINTS_ACROSS / max(1, shown.size), 1.2, 7)
        x, y = places[shown].T
        ax.scatter(x, y, diameter**2, colors[report.labels[shown]], linewidths=0, zorder=3)
        count = f"{layer.size}" if shown.size == layer.size else f"{shown.size} of {layer.size}"
        names.append(f"{shorten(printable(layer.name), 18)}\n({count})")
    ax.set_yticks(range(len(names)), names, fontsize="small", parse_math=False)
    ax.set_xticks([])
    ax.tick_params(length=0)
    ax.set(xlim=(-0.01, 1.01), ylim=(len(names) - 0.85, -0.15))
    ax.set_xlabel("neurons and edges by cluster; grey: edges between clusters", fontsize="small")
    ax.spines[:].set_visible(False)


def _number_clusters(ax: Axes, places: Floats, report: Report) -> None:
    """A cluster's number above its band."""
    colors = cluster_colors(report.k)
    for cluster in np.unique(report.labels[report.labels >= 0]):
        x = places[report.labels == cluster, 0]
        ax.annotate(
            str(cluster),
            ((x.min() + x.max()) / 2, 1),
            (0, 4),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="center",
            color=colors[cluster],
            fontsize="small",
            fontweight="bold",
        )
