"""The HTML page's pictures of numbers as plotly figures, in colours for light and dark pages."""

from __future__ import annotations

import json
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from ncut.axes import STATISTICS
from ncut.errors import import_extra
from ncut.report.colours import ACCENT, MUTED
from ncut.report.words import ncut_text, p_text, printable, z_text

if TYPE_CHECKING:
    from ncut.results import Measurement, ProfileData
    from ncut.types import Comparison

Figure = dict[str, Any]

# The style sheet's: plotly makes room for text by it.
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'


def null_figure(name: str, compared: Comparison) -> Figure:
    """Histogram of the shuffles' statistic, the network's own as a line."""
    title = _title(name)
    n_bins = int(np.clip(np.sqrt(compared.shuffled.size) * 1.5, 5, 40))
    counts, ends = np.histogram(compared.shuffled, bins=n_bins)
    reach = [*ends[[0, -1]], compared.value]
    low, high = min(reach), max(reach)
    pad = 0.06 * (high - low) or 0.5
    is_left = compared.value <= (low + high) / 2
    go = plotly()
    figure = go.Figure(
        go.Bar(
            x=(ends[:-1] + ends[1:]) / 2,
            y=counts,
            width=np.diff(ends),
            customdata=np.stack([ends[:-1], ends[1:]], axis=1),
            marker={"color": MUTED},
            hovertemplate="%{customdata[0]:.4g} to %{customdata[1]:.4g}: %{y}<extra></extra>",
        )
    )
    figure.add_vline(x=compared.value, line={"color": ACCENT, "width": 2})
    figure.add_annotation(
        x=compared.value,
        y=1,
        yref="paper",
        text=f"this network<br>{_minus(ncut_text(compared.value))}",
        showarrow=False,
        xanchor="left" if is_left else "right",
        yanchor="top",
        xshift=6 if is_left else -6,
        align="left" if is_left else "right",
        font={"color": ACCENT},
    )
    z = _minus(z_text(compared.z_score))
    figure.update_layout(
        xaxis={
            "title": {"text": f"{title}   (Z = {z}, p = {p_text(compared.p_value)})", "standoff": 8}
        },
        yaxis={"title": "shuffled networks", "range": [0, 1.3 * max(counts.max(), 1)]},
        bargap=0,
    )
    figure.update_xaxes(range=[low - pad, high + pad])
    return finished(figure, 300)


def eigenvalues_figure(report: Measurement, profile: ProfileData | None) -> Figure:
    """The smallest eigenvalues of the normalized Laplacian; with a profile also those beyond k."""
    values = report.eigenvalues if profile is None else profile.eigenvalues
    numbers = np.arange(1, values.size + 1)
    first = numbers <= report.k
    go = plotly()
    figure = go.Figure(
        go.Scatter(
            x=numbers,
            y=values,
            mode="lines+markers",
            line={"color": MUTED, "width": 1},
            marker={"color": [ACCENT if one else MUTED for one in first], "size": 8},
            hovertemplate="eigenvalue %{x}: %{y:.5f}<extra></extra>",
        )
    )
    if values.size > report.k:
        low, high = float(values[report.k - 1]), float(values[report.k])
        figure.add_shape(
            type="rect",
            layer="below",
            x0=0.5,
            x1=values.size + 0.5,
            y0=low,
            y1=high,
            line={"width": 0},
            fillcolor=faded(ACCENT),
        )
        figure.add_annotation(
            x=0,
            xref="paper",
            y=1,
            yref="paper",
            xanchor="left",
            yanchor="bottom",
            text=f"gap behind k = {report.k}: {high - low:.4f}",
            showarrow=False,
        )
    figure.update_layout(
        xaxis={"title": {"text": "number", "standoff": 8}, "range": [0.5, values.size + 0.5]},
        yaxis={"title": "eigenvalue", "rangemode": "tozero"},
    )
    return finished(figure, 320)


def scores_figure(profile: ProfileData, k: int) -> Figure:
    """Z of the n-cut, of its bound and of the gap for each number of clusters."""
    lines = {
        name: ([row[name] for row in profile.statistics], color)
        for name, color in (("refined_ncut", ACCENT), ("lower_bound", "#4c5fb0"))
        if name in profile.statistics[0]
    }
    lines["gap behind k"] = (list(profile.gaps), MUTED)
    go = plotly()
    figure = go.Figure()
    for name, (compared, color) in lines.items():
        figure.add_trace(
            go.Scatter(
                x=list(profile.ks),
                y=[one.z_score for one in compared],
                mode="lines+markers",
                name=_title(name),
                line={"color": color},
                hovertemplate="k = %{x}: Z = %{y:.2f}",
            )
        )
    figure.add_hline(y=0, line={"color": MUTED, "width": 1})
    _mark_k(figure, profile, k)
    figure.update_layout(
        xaxis={"title": {"text": "number of clusters k", "standoff": 8}},
        yaxis={"title": "Z"},
        showlegend=True,
    )
    return finished(figure, 340)


def gaps_figure(profile: ProfileData, k: int) -> Figure:
    """The gap in the eigenvalues behind each k, beside the shuffles' gaps."""
    go = plotly()
    figure = go.Figure()
    ks = list(profile.ks)
    if profile.n_shuffles:
        figure.add_trace(
            go.Scatter(
                x=ks,
                y=[gap.mean for gap in profile.gaps],
                error_y={"array": [gap.std for gap in profile.gaps], "color": MUTED, "width": 3},
                mode="markers",
                marker={"color": MUTED, "symbol": "line-ew-open", "size": 10},
                name="shuffles, ± one std",
                hovertemplate="k = %{x}: %{y:.4f}",
            )
        )
    figure.add_trace(
        go.Scatter(
            x=ks,
            y=[gap.value for gap in profile.gaps],
            mode="markers",
            marker={"color": ACCENT, "size": 8},
            name="this network",
            hovertemplate="k = %{x}: %{y:.4f}",
        )
    )
    _mark_k(figure, profile, k)
    figure.update_layout(
        xaxis={"title": {"text": "number of clusters k", "standoff": 8}},
        yaxis={"title": "gap behind k", "rangemode": "tozero"},
        showlegend=True,
    )
    return finished(figure, 340)


def _mark_k(figure: Any, profile: ProfileData, k: int) -> None:
    marks = {k: "this report"}
    if profile.suggested_k:
        marks[profile.suggested_k] = "suggested"
    for at, text in marks.items():
        if profile.ks[0] <= at <= profile.ks[-1]:
            figure.add_vline(x=at, line={"color": MUTED, "width": 1, "dash": "dot"})
            figure.add_annotation(
                x=at, y=1, yref="paper", yanchor="bottom", text=text, showarrow=False
            )


def finished(figure: Any, height: int | None, margin: dict[str, int] | None = None) -> Figure:
    """The figure as plain data; text and lines get their colours from the page's style sheet.

    So does a figure without a height.
    """
    figure.update_layout(
        template="none",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        height=height,
        margin=margin or {"l": 56, "r": 14, "t": 24, "b": 48},
        legend={"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"},
        hoverlabel={"align": "left"},
        dragmode=False,
        font={"size": 12, "family": FONT},
    )
    if figure.layout.showlegend is None:
        figure.update_layout(showlegend=False)
    data: Figure = json.loads(figure.to_json())
    data["layout"].pop("template", None)
    return data


def faded(color: str) -> str:
    """The colour, to be seen through."""
    red, green, blue = (int(color[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},.4)"


def _title(name: str) -> str:
    return STATISTICS[name].title if name in STATISTICS else escape(printable(name))


def _minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")


def plotly() -> Any:
    """plotly's figures and traces."""
    return import_extra("plotly.graph_objects", "plot")
