"""Pictures of a report's graph: the matrix in order of the clusters, the flow between layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ncut.errors import InputError, import_extra
from ncut.report.colours import MUTED, cluster_colors
from ncut.report.edges import layer_flows
from ncut.report.maps import Flow, flow_of, matrix_of, shown_clusters
from ncut.report.text import shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ncut.results import Measurement


def draw_matrix(report: Measurement, ax: Axes) -> None:
    """The weights with neurons in order of their cluster, averaged over cells."""
    assert report.graph is not None
    matrix = matrix_of(report, report.graph)
    norm = import_extra("matplotlib.colors", "plot").PowerNorm(0.5, vmin=0)
    n_cells = len(matrix.means)
    image = ax.imshow(
        matrix.means,
        cmap="BuPu",
        norm=norm,
        extent=(0, n_cells, n_cells, 0),
        interpolation="none",
    )
    for at in matrix.starts[1:-1]:
        ax.axhline(at, color=MUTED, linewidth=0.4)
        ax.axvline(at, color=MUTED, linewidth=0.4)
    wide = np.flatnonzero(np.diff(matrix.starts) > 0.03 * n_cells)
    middle = (matrix.starts[:-1] + matrix.starts[1:])[wide] / 2
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_ticks(middle, [str(cluster) for cluster in wide])
    ax.tick_params(length=0)
    ax.set(xlabel="cluster", ylabel="cluster", xlim=(0, n_cells), ylim=(n_cells, 0))
    ax.set_title("weights in order of the clusters")
    ax.figure.colorbar(image, ax=ax, label="mean |w|", shrink=0.8)


def draw_flow(report: Measurement, ax: Axes) -> None:
    """The weight between clusters of different layers as bands, their colour the first's."""
    assert report.graph is not None
    flow = flow_of(report, layer_flows(report.graph, report.labels, report.k))
    if flow is None:
        raise InputError("kind: 'flow' needs edges between layers, and this graph has none")
    shown, colors = shown_clusters(report), cluster_colors(report.k)
    parts = [shown.cluster(part) for _, part in flow.nodes]
    painted = [MUTED if cluster is None else colors[cluster] for cluster in parts]
    columns = np.array([column for column, _ in flow.nodes])
    half = 0.035
    ax.bar(columns, flow.high - flow.low, 2 * half, flow.low, color=painted)
    for low, high, source, target in zip(*_band_ends(flow), flow.source, flow.target, strict=True):
        left, right = columns[source] + half, columns[target] - half
        bend = (1 - np.cos(np.linspace(0, np.pi, 40))) / 2
        x = np.linspace(left, right, 40)
        upper = low[0] + (low[1] - low[0]) * bend
        lower = high[0] + (high[1] - high[0]) * bend
        ax.fill_between(x, upper, lower, color=painted[source], alpha=0.35, linewidth=0)
    for column, cluster, low, high in zip(columns, parts, flow.low, flow.high, strict=True):
        if high - low > 0.03:
            text = "…" if cluster is None else str(cluster)
            ax.text(column + 2 * half, (low + high) / 2, text, va="center", fontsize="x-small")
    ax.set_xticks(
        range(len(flow.columns)),
        [shorten(column.name, 14) for column in flow.columns],
        parse_math=False,
    )
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.set(yticks=[], xlim=(-0.1, len(flow.columns) - 0.8), ylim=(1.01, -0.01))
    ax.spines[:].set_visible(False)


def _band_ends(flow: Flow) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
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
