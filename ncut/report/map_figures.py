"""The HTML page's pictures of the network as plotly figures: bars, flows, and the matrix."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from ncut.report.colours import FAINT, MUTED, cluster_colors
from ncut.report.maps import Flow, Matrix, Shown, layer_groups
from ncut.report.page_figures import Figure, faded, finished, plotly
from ncut.report.text import shorten

if TYPE_CHECKING:
    from ncut.results import Measurement

MAX_BARS = 60
# Transparent where there is no weight, so that the page's own colour shows.
SCALE = [
    [0.0, "rgba(76,95,176,0)"],
    [0.2, "rgba(86,100,196,.7)"],
    [0.6, "rgba(150,90,190,.95)"],
    [1.0, "rgba(226,72,98,1)"],
]
# Cells of the matrix are coded in whole numbers up to this, by the root of their mean.
FULL = 65535


def bars_figure(report: Measurement, shown: Shown) -> Figure:
    """A bar for each layer, divided into clusters."""
    groups = layer_groups(report, MAX_BARS)
    by_layer = np.zeros((len(report.layers), shown.n_parts), dtype=np.int64)
    np.add.at(by_layer.T, shown.place, report.cluster_sizes().T)
    counts = np.array([by_layer[group.first : group.last].sum(axis=0) for group in groups])
    totals = np.array(
        [sum(layer.size for layer in report.layers[g.first : g.last]) for g in groups]
    )
    parts = [
        (shown.cluster(at), counts[:, at], color) for at, color in enumerate(_colors(report, shown))
    ]
    isolated = totals - counts.sum(axis=1)
    go = plotly()
    figure = go.Figure()
    names = [escape(shorten(group.name, 22)) for group in groups]
    for cluster, found, color in parts:
        label = "other clusters" if cluster is None else f"cluster {cluster}"
        _add_bar(figure, go, label, found, totals, names, color, meta=cluster)
    if isolated.any():
        _add_bar(figure, go, "isolated", isolated, totals, names, FAINT, meta=None)
    figure.update_layout(
        barmode="stack",
        bargap=0.22,
        xaxis={"title": {"text": "% of the layer's neurons", "standoff": 8}, "range": [0, 100]},
        yaxis={
            "tickvals": list(range(len(groups))),
            "ticktext": names,
            "range": [len(groups) - 0.5, -0.5],
            "automargin": True,
            "ticklabelstandoff": 6,
        },
    )
    return finished(figure, 90 + (34 if len(groups) <= 12 else 20) * len(groups))


def _add_bar(
    figure: Any,
    go: Any,
    label: str,
    counts: Any,
    totals: Any,
    names: list[str],
    color: str,
    meta: int | None,
) -> None:
    figure.add_trace(
        go.Bar(
            x=100 * counts / np.maximum(totals, 1),
            y=list(range(len(names))),
            orientation="h",
            name=label,
            meta=meta,
            marker={"color": color},
            customdata=list(zip(names, counts.tolist(), totals.tolist(), strict=True)),
            hovertemplate=f"{label}<br>%{{customdata[0]}}: %{{customdata[1]}} of "
            "%{customdata[2]} neurons<extra></extra>",
        )
    )


def flow_figure(report: Measurement, flow: Flow, shown: Shown) -> Figure:
    """The weight between clusters of different layers as bands."""
    colors = _colors(report, shown)
    last = max(1, len(flow.columns) - 1)
    clusters = [shown.cluster(part) for _, part in flow.nodes]
    names = [
        f"{'others' if cluster is None else f'cluster {cluster}'} in {escape(flow.columns[c].name)}"
        for cluster, (c, _) in zip(clusters, flow.nodes, strict=True)
    ]
    middle = (flow.low + flow.high) / 2
    tall = flow.high - flow.low > 0.025
    go = plotly()
    figure = go.Figure(
        go.Sankey(
            arrangement="fixed",
            node={
                "label": [
                    ("…" if cluster is None else str(cluster)) if is_tall else ""
                    for cluster, is_tall in zip(clusters, tall, strict=True)
                ],
                "color": [colors[part] for _, part in flow.nodes],
                # plotly takes 0 for "not given".
                "x": [float(np.clip(c / last, 0.001, 0.999)) for c, _ in flow.nodes],
                "y": np.clip(middle, 0.001, 0.999),
                "pad": 4,
                "thickness": 12,
                "line": {"width": 0},
                "customdata": names,
                "hovertemplate": "%{customdata}: %{value:.4~g}<extra></extra>",
            },
            link={
                "source": flow.source,
                "target": flow.target,
                "value": flow.weight,
                "color": [faded(colors[flow.nodes[at][1]]) for at in flow.source],
                "hovertemplate": "%{source.customdata} to %{target.customdata}: %{value:.4~g}"
                "<extra></extra>",
            },
        )
    )
    figure.update_traces(meta={"clusters": clusters})
    for number, group in enumerate(flow.columns):
        figure.add_annotation(
            x=number / last,
            y=1.0,
            xref="paper",
            yref="paper",
            yanchor="bottom",
            yshift=6,
            xanchor="left" if number == 0 else "right" if number == last else "center",
            text=escape(shorten(group.name, 14)),
            showarrow=False,
        )
    return finished(figure, 460, margin={"l": 4, "r": 4, "t": 34, "b": 10})


def matrix_figure(report: Measurement, matrix: Matrix) -> Figure:
    """The adjacency matrix in order of the clusters, averaged over cells."""
    largest = float(matrix.means.max(initial=0.0)) or 1.0
    coded = np.round(FULL * np.sqrt(matrix.means / largest)).astype(np.uint16)
    n_cells = len(coded)
    ticks = np.linspace(0, 1, 5)
    go = plotly()
    figure = go.Figure(
        go.Heatmap(
            z=coded,
            zmin=0,
            zmax=FULL,
            colorscale=SCALE,
            hoverinfo="none",
            colorbar={
                "title": {"text": "mean |w|", "side": "bottom"},
                "orientation": "h",
                "thickness": 10,
                "y": -0.1,
                "yanchor": "top",
                "outlinewidth": 0,
                "tickvals": FULL * ticks,
                "ticktext": [f"{largest * tick**2:.2g}" for tick in ticks],
            },
        )
    )
    between = matrix.starts[1:-1] - 0.5
    if between.size <= 60:
        ends = [-0.5, n_cells - 0.5]
        line = {"width": 0.6, "color": MUTED}
        for at in between:
            figure.add_shape(type="line", x0=at, x1=at, y0=ends[0], y1=ends[1], line=line)
            figure.add_shape(type="line", x0=ends[0], x1=ends[1], y0=at, y1=at, line=line)
    middle = (matrix.starts[:-1] + matrix.starts[1:]) / 2 - 0.5
    wide = np.flatnonzero(np.diff(matrix.starts) > 0.04 * n_cells)
    axis = {
        "tickvals": middle[wide],
        "ticktext": [str(cluster) for cluster in wide],
        "ticklen": 0,
        "tickangle": 0,
        "title": {"text": "cluster", "standoff": 8},
        "range": [-0.5, n_cells - 0.5],
        "showgrid": False,
        "zeroline": False,
        "constrain": "domain",
    }
    figure.update_layout(
        xaxis=axis, yaxis=axis | {"range": [n_cells - 0.5, -0.5], "scaleanchor": "x"}
    )
    return finished(figure, None, margin={"l": 42, "r": 10, "t": 30, "b": 60})


def _colors(report: Measurement, shown: Shown) -> list[str]:
    """A colour for each part; grey for the others."""
    colors = cluster_colors(report.k)
    clusters = [shown.cluster(part) for part in range(shown.n_parts)]
    return [MUTED if cluster is None else colors[cluster] for cluster in clusters]
