"""The flow picture of the HTML page: bands of weight between the clusters of layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ncut.report.charts import SIDE, percent, stretched, tag
from ncut.report.maps import Flow, Shown, band_ends
from ncut.report.picture import Picture, few_text, part_colors
from ncut.report.text import shorten

if TYPE_CHECKING:
    from ncut.results import Measurement

MIN_NAMED = 11
"""Height of a node, in pixels, above which its number is shown."""

STRAIGHT = 4
"""Largest number of columns whose names are not slanted."""


def flow_picture(report: Measurement, flows: Sequence[Flow], shown: Shown) -> Picture:
    """The weight between clusters of different layers as bands; block by block with a stream."""
    several = len(flows) > 1
    colors = part_colors(report.k, shown)
    markup = "".join(
        tag("div", flow_chart(flow, shown, colors, height=200 if several else 420), class_="one")
        for flow in flows
    )
    drawn = sum(flow.drawn for flow in flows)
    return Picture(
        "flow",
        "Weight between clusters",
        tag("div", markup, class_="flows several" if several else "flows"),
        "The weight between clusters of different layers; the height of a band is the sum of the "
        "weights. In a clusterable network, bands keep their colour. "
        + (
            "Each part shows the residual stream, on the left, with its readers and writers. "
            if several
            else ""
        )
        + f"{drawn:.0%} of the edge weight is drawn"
        + (
            "; neighbouring layers share a column, without the edges inside it."
            if any(group.last - group.first > 1 for flow in flows for group in flow.columns)
            else "."
        )
        + few_text(shown),
        f"Bands between {sum(len(flow.columns) for flow in flows)} columns; the table of weights "
        "between clusters has their numbers.",
    )


@dataclass(frozen=True)
class _Chart:
    """A flow drawn into a width of 1: columns of nodes, and bands between them.

    `colors`: of each part; `height` in pixels; `unit`: of the bands, for their tips.
    """

    flow: Flow
    shown: Shown
    colors: Sequence[str]
    height: int
    unit: str

    @property
    def half(self) -> float:
        """Half the width of a node."""
        return min(0.012, 0.08 / max(1, len(self.flow.columns) - 1))

    def centre(self, column: int) -> float:
        """The middle of a column."""
        step = 1 / max(1, len(self.flow.columns) - 1)
        return self.half + column * step * (1 - 2 * self.half)

    def cluster(self, node: int) -> int | None:
        """The cluster of a node; None for the other clusters together."""
        return self.shown.cluster(self.flow.nodes[node][1])

    def described(self, node: int) -> str:
        """A node in words."""
        cluster = self.cluster(node)
        name = "others" if cluster is None else f"cluster {cluster}"
        return f"{name} in {self.flow.columns[self.flow.nodes[node][0]].name}"

    def bands(self) -> Iterator[str]:
        """A path for each weight between two nodes."""
        flow, half = self.flow, self.half
        ends = zip(*band_ends(flow), flow.source, flow.target, flow.weight, strict=True)
        for low, high, source, target, weight in ends:
            left = SIDE * (self.centre(flow.nodes[source][0]) + half)
            right = SIDE * (self.centre(flow.nodes[target][0]) - half)
            middle = (left + right) / 2
            (a, b), (c, d) = SIDE * low, SIDE * high
            path = (
                f"M{left:.0f} {a:.1f}C{middle:.0f} {a:.1f} {middle:.0f} {b:.1f} {right:.0f} {b:.1f}"
                f"V{d:.1f}C{middle:.0f} {d:.1f} {middle:.0f} {c:.1f} {left:.0f} {c:.1f}Z"
            )
            tip = f"{self.described(source)} to {self.described(target)}: {weight:.4g} {self.unit}"
            yield tag(
                "path",
                d=path,
                class_="band",
                fill=self.colors[flow.nodes[source][1]],
                data_cluster=self.cluster(source),
                data_other=self.cluster(target),
                data_tip=tip,
            )

    def nodes(self) -> Iterator[str]:
        """A rectangle for each node."""
        flow, half = self.flow, self.half
        for node, weight in enumerate(node_sums(flow)):
            column, part = flow.nodes[node]
            top, bottom = flow.low[node], flow.high[node]
            yield tag(
                "rect",
                x=f"{SIDE * (self.centre(column) - half):.1f}",
                y=f"{SIDE * top:.1f}",
                width=f"{SIDE * 2 * half:.1f}",
                height=f"{max(SIDE * (bottom - top), 1):.1f}",
                fill=self.colors[part],
                data_cluster=self.cluster(node),
                class_="node",
                data_tip=f"{self.described(node)}: {weight:.4g} {self.unit}",
            )

    def node_names(self) -> Iterator[str]:
        """The cluster's number beside each node that is high enough."""
        flow, half = self.flow, self.half
        for node, (column, _) in enumerate(flow.nodes):
            top, bottom = flow.low[node], flow.high[node]
            if (bottom - top) * self.height <= MIN_NAMED:
                continue
            centre = self.centre(column)
            if column == len(flow.columns) - 1:
                side = f"right:{percent(1 - centre + half)}"
            else:
                side = f"left:{percent(centre + half)}"
            cluster = self.cluster(node)
            yield tag(
                "span",
                "…" if cluster is None else str(cluster),
                class_="node-name",
                style=f"{side};top:{percent((top + bottom) / 2)}",
            )

    def column_names(self) -> Iterator[str]:
        """The name above each column."""
        n = len(self.flow.columns)
        for number, group in enumerate(self.flow.columns):
            place = {n - 1: " last", 0: " first"}.get(number, "")
            css = " steep" if n > STRAIGHT else place
            yield tag(
                "span",
                escape(shorten(group.name, 16)),
                class_=f"column{css}",
                style=f"left:{percent(self.centre(number))}",
                title=group.name,
            )


def flow_chart(
    flow: Flow, shown: Shown, colors: Sequence[str], height: int, unit: str = "weight"
) -> str:
    """Bands between nodes stacked in columns, as HTML of the given height in pixels."""
    chart = _Chart(flow, shown, colors, height, unit)
    shapes = "".join([*chart.bands(), *chart.nodes()])
    texts = "".join([*chart.node_names(), *chart.column_names()])
    longest = max(len(shorten(group.name, 16)) for group in flow.columns)
    slanted = round(4.6 * longest) if len(flow.columns) > STRAIGHT else 0
    top = 14 + slanted if slanted else 20
    return tag(
        "div",
        tag("div", stretched(shapes) + texts, class_="area", style=f"height:{height}px"),
        class_="flow",
        style=f"padding-top:{top}px;padding-right:{slanted}px",
    )


def node_sums(flow: Flow) -> NDArray[np.float64]:
    """The weight through each node."""
    n = len(flow.nodes)
    return np.asarray(
        np.maximum(
            np.bincount(flow.source, flow.weight, minlength=n),
            np.bincount(flow.target, flow.weight, minlength=n),
        )
    )
