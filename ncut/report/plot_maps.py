"""Pictures of a report's graph: the weight between clusters, and its flow between layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ncut.errors import InputError, import_extra
from ncut.report.between import of_report
from ncut.report.colours import MUTED, cluster_colors
from ncut.report.maps import MAX_COLUMNS, band_ends, flow_of, layer_groups, shown_clusters
from ncut.report.names import names_of
from ncut.report.text import shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ncut.report.between import Between
    from ncut.results import Measurement

# Number of clusters above which numbers in the cells would overlap.
MAX_NUMBERS = 14


def draw_matrix(report: Measurement, ax: Axes) -> None:
    """The weight between each pair of clusters, as a multiple of chance."""
    ratio = between(report).ratio(report.cluster_sizes())
    norm = import_extra("matplotlib.colors", "plot").LogNorm(0.25, 4)
    bounded = np.where(np.isnan(ratio), np.nan, np.clip(ratio, 0.25, 4))
    image = ax.imshow(bounded, cmap="RdBu_r", norm=norm, interpolation="none")
    if report.k <= MAX_NUMBERS:
        for (a, b), value in np.ndenumerate(ratio):
            if not np.isnan(value):
                ax.text(b, a, f"{value:.1f}", ha="center", va="center", fontsize="x-small")
    ax.tick_params(length=0)
    ax.set(xlabel="cluster", ylabel="cluster")
    ax.set_title("weight between clusters")
    bar = ax.figure.colorbar(image, ax=ax, label="times chance", shrink=0.8)
    bar.set_ticks([0.25, 0.5, 1, 2, 4], labels=["¼", "½", "1", "2", "4"])


def draw_flow(report: Measurement, ax: Axes) -> None:
    """The weight between clusters of different layers as bands in the first cluster's colour."""
    names = names_of(report)
    groups = layer_groups(names.short, MAX_COLUMNS)
    columns_of = np.repeat(np.arange(len(groups)), [one.last - one.first for one in groups])
    flows = between(report).flows
    total = sum(float(one.sum()) for one in flows.values())
    flow = flow_of(flows, shown_clusters(report), groups, columns_of, total)
    if flow is None:
        raise InputError("kind: 'flow' needs edges between layers, and this graph has none")
    shown, colors = shown_clusters(report), cluster_colors(report.k)
    parts = [shown.cluster(part) for _, part in flow.nodes]
    painted = [MUTED if cluster is None else colors[cluster] for cluster in parts]
    columns = np.array([column for column, _ in flow.nodes])
    half = 0.035
    ax.bar(columns, flow.high - flow.low, 2 * half, flow.low, color=painted)
    for low, high, source, target in zip(*band_ends(flow), flow.source, flow.target, strict=True):
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


def between(report: Measurement) -> Between:
    """The report's data about its graph's edges.

    Raises
    ------
    InputError
        If it has no such data.
    """
    found = of_report(report)
    if found is None:
        raise InputError(
            "kind: 'matrix' and 'flow' need the weight between clusters, and this report was read "
            "from a file without it; analyse the model"
        )
    return found
