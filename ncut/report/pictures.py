"""Pictures of the HTML page: shuffled networks, layers, weights between clusters, inputs."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ncut.report.charts import SIDE, Plane, around, stretched, tag
from ncut.report.colours import FAINT
from ncut.report.maps import Shown, layer_groups
from ncut.report.names import Names
from ncut.report.picture import Picture, few_text, part_colors
from ncut.report.wording import ncut_text, p_text, statistic_title, z_text

if TYPE_CHECKING:
    from ncut.results import Measurement
    from ncut.types import Comparison, Layer

MAX_BARS = 60
MAX_RATIOS = 40
# Strength of a cell's colour from which its number is white.
DARK = 0.6
# A layer of inputs with this many neurons, one or three squares, is drawn as an image.
MIN_PIXELS = 49


def null_picture(report: Measurement) -> Picture:
    """The shuffled networks, and this network as a line, for each statistic."""
    charts = "".join(
        tag(
            "div",
            _null_chart(name, compared),
            class_="one-of",
            data_statistic=name,
            hidden=None if name == report.headline else "",
        )
        for name, compared in report.statistics.items()
    )
    main = report.statistics[report.headline]
    side = "left" if main.mean is not None and main.value < main.mean else "right"
    return Picture(
        "shuffles",
        "Shuffled networks",
        charts,
        "Histogram of the shuffled networks, with this network as a line. For an n-cut or its "
        "bound, further left is more clusterable; for a modularity or a share, further right.",
        f"The network's n-cut {ncut_text(report.ncut)} lies {side} of the shuffles' mean "
        f"{ncut_text(main.mean or 0.0)}; p = {p_text(report.p_value)}.",
    )


def _null_chart(name: str, compared: Comparison) -> str:
    n_bins = int(np.clip(np.sqrt(compared.shuffled.size) * 1.5, 5, 40))
    counts, ends = np.histogram(compared.shuffled, bins=n_bins)
    title = statistic_title(name)
    plane = Plane(
        around([*ends[[0, -1]], compared.value]),
        (0.0, 1.3 * max(int(counts.max()), 1)),
        f"{title}   (Z = {_minus(z_text(compared.z_score))}, p = {p_text(compared.p_value)})",
        "shuffled networks",
    )
    for low, high, count in zip(ends[:-1], ends[1:], counts, strict=True):
        if count:
            plane.bar(
                low, high, 0, count, class_="muted", data_tip=f"{low:.4g} to {high:.4g}: {count}"
            )
    plane.vertical(compared.value, class_="accent")
    plane.note(compared.value, f"this network {_minus(ncut_text(compared.value))}", css="accent")
    return plane.markup()


def bars_picture(report: Measurement, names: Names, shown: Shown) -> Picture:
    """A bar for each layer, divided into clusters."""
    groups = layer_groups(names.short, MAX_BARS)
    sizes = report.cluster_sizes()
    colors = part_colors(report.k, shown)
    rows = []
    for group in groups:
        counts = np.zeros(shown.n_parts, dtype=np.int64)
        np.add.at(counts, shown.place, sizes[group.first : group.last].sum(axis=0))
        total = sum(layer.size for layer in report.layers[group.first : group.last])
        parts = [
            _part(int(count), shown.cluster(at), colors[at], group.name, total)
            for at, count in enumerate(counts)
            if count
        ]
        if isolated := total - int(counts.sum()):
            parts.append(
                tag(
                    "i",
                    style=f"flex:{isolated};background:{FAINT}",
                    data_tip=f"isolated, {group.name}: {isolated} of {total} neurons",
                )
            )
        full = " … ".join(dict.fromkeys([names.full[group.first], names.full[group.last - 1]]))
        rows.append(
            tag(
                "div",
                tag("span", escape(group.name), class_="name", title=full)
                + tag("span", "".join(parts), class_="bar")
                + tag("span", f"{total:,}", class_="count"),
                class_="row",
            )
        )
    few = few_text(shown)
    return Picture(
        "layers",
        "Clusters in each layer",
        tag("div", "".join(rows), class_="bars"),
        "The division of each layer's neurons into clusters. Cluster numbers are arbitrary."
        + (" Neighbouring layers are shown together." if len(groups) < len(report.layers) else "")
        + few,
        f"{len(report.layers)} layers divided into {report.k} clusters; the table below has the "
        "counts.",
    )


def _part(count: int, cluster: int | None, color: str, group: str, total: int) -> str:
    what = "other clusters" if cluster is None else f"cluster {cluster}"
    return tag(
        "i",
        style=f"flex:{count};background:{color}",
        data_cluster=cluster,
        data_tip=f"{what}, {group}: {count:,} of {total:,} neurons",
    )


def ratio_picture(ratio: NDArray[np.float64], colors: Sequence[str]) -> Picture:
    """The weight between each pair of clusters, as a multiple of chance."""
    k = len(ratio)
    if k <= MAX_RATIOS:
        head = tag("tr", tag("td") + "".join(_head(c, colors[c], "col") for c in range(k)))
        rows = "".join(
            tag("tr", _head(a, colors[a], "row") + "".join(_ratio(ratio, a, b) for b in range(k)))
            for a in range(k)
        )
        markup = tag(
            "table",
            tag("thead", head) + tag("tbody", rows),
            class_="ratio",
            aria_label="Weight between clusters as a multiple of chance",
        )
    else:
        cell = SIDE / k
        markup = tag(
            "div",
            stretched(
                "".join(
                    tag(
                        "rect",
                        x=f"{b * cell:.2f}",
                        y=f"{a * cell:.2f}",
                        width=f"{cell:.2f}",
                        height=f"{cell:.2f}",
                        class_=_side(ratio[a, b]),
                        style=f"opacity:{_depth(ratio[a, b]):.2f}",
                        data_cluster=a,
                        data_tip=_ratio_tip(ratio, a, b),
                    )
                    for a in range(k)
                    for b in range(k)
                    if not np.isnan(ratio[a, b])
                )
            ),
            class_="square",
        )
    own = np.diag(ratio)
    known = own[~np.isnan(own)]
    inside = f"{np.median(known):.2f}" if known.size else "unknown"
    return Picture(
        "clusters",
        "What exceeds chance",
        markup,
        "The weight between each pair of clusters, divided by its expectation for the same weights "
        "in random positions: red is more than chance, blue less, blank where no edges are "
        "possible. Clusters that are modules have a red diagonal.",
        f"The weight inside a cluster is {inside} times chance (median of {k} clusters).",
    )


def _head(cluster: int, color: str, scope: str) -> str:
    return tag("th", tag("i", style=f"background:{color}") + str(cluster), scope=scope)


def _side(value: float) -> str:
    return "more" if value >= 1 else "less"


def _depth(value: float) -> float:
    """Strength of a colour: full at four times or a quarter of chance."""
    if value <= 0:
        return 1.0
    return float(min(1.0, abs(np.log2(value)) / 2))


def _ratio_tip(ratio: NDArray[np.float64], a: int, b: int) -> str:
    return f"cluster {a} × cluster {b}: {ratio[a, b]:.2f} times chance"


def _ratio(ratio: NDArray[np.float64], a: int, b: int) -> str:
    value = ratio[a, b]
    if np.isnan(value):
        return tag("td", "", class_="none")
    text = f"{value:.1f}" if value < 9.95 else f"{value:.0f}"
    return tag(
        "td",
        tag("span", text),
        class_=_side(value) + (" deep" if _depth(value) > DARK else ""),
        style=f"--depth:{100 * _depth(value):.0f}%",
        data_cluster=a,
        data_other=b if b != a else None,
        data_tip=_ratio_tip(ratio, a, b),
    )


def pixel_shape(layers: Sequence[Layer], inputs: set[int]) -> tuple[int, int, int, int] | None:
    """Layer, channels, height and width of an input that is probably an image; else None.

    It is a first layer without writers whose size is a square number or three times one.
    """
    if not layers or 0 not in inputs or layers[0].name.startswith(("rows of", "stream of")):
        return None
    size = layers[0].size
    for channels in (1, 3):
        side = round((size / channels) ** 0.5)
        if channels * side * side == size and size // channels >= MIN_PIXELS:
            return 0, channels, side, side
    return None


def pixels_picture(
    report: Measurement, shape: tuple[int, int, int, int], colors: Sequence[str]
) -> Picture:
    """The inputs' clusters as an image; channels side by side."""
    layer, channels, height, width = shape
    labels = report.labels[report.layers[layer].slice].reshape(channels, height, width)
    images = []
    for channel in labels:
        paths = []
        for cluster in np.unique(channel):
            rows, columns = np.nonzero(channel == cluster)
            cells = "".join(f"M{x} {y}h1v1h-1z" for x, y in zip(columns, rows, strict=True))
            known = int(cluster) if cluster >= 0 else None
            tip = "not connected" if known is None else f"cluster {known}"
            paths.append(
                tag(
                    "path",
                    d=cells,
                    fill=FAINT if known is None else colors[known],
                    data_cluster=known,
                    data_tip=f"{tip}: {rows.size} of {height * width} pixels",
                    shape_rendering="crispEdges",
                )
            )
        images.append(
            tag(
                "svg",
                "".join(paths),
                viewBox=f"0 0 {width} {height}",
                class_="pixels",
                aria_hidden="true",
            )
        )
    return Picture(
        "pixels",
        "Inputs as an image",
        tag("div", "".join(images), class_="images"),
        f"The {report.layers[layer].size} inputs, in order, as "
        + (f"{channels} channels of " if channels > 1 else "")
        + f"{height} × {width} pixels, coloured by cluster; light grey: not connected.",
        f"The inputs lie in {np.unique(labels[labels >= 0]).size} clusters.",
    )


def _minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")
