"""The HTML page's pictures: what each shows, its caption, and its finding in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ncut.axes import STATISTICS
from ncut.report.charts import SIDE, Plane, around, percent, stretched, tag
from ncut.report.colours import FAINT, MUTED, cluster_colors
from ncut.report.maps import Flow, Shown, band_ends, layer_groups
from ncut.report.names import Names
from ncut.report.text import shorten
from ncut.report.wording import ncut_text, p_text, printable, z_text

if TYPE_CHECKING:
    from ncut.report.profile import Profile
    from ncut.results import Measurement
    from ncut.types import Comparison, Layer

MAX_BARS = 60
MAX_RATIOS = 40
# Strength of a cell's colour from which its number is white.
DARK = 0.6
# A layer of inputs with this many neurons, one or three squares, is drawn as an image.
MIN_PIXELS = 49


@dataclass(frozen=True)
class Picture:
    """A picture of the page.

    Attributes
    ----------
    name : str
        Its part of the file name, after the model's name.
    title : str
    markup : str
        HTML, escaped.
    caption : str
    finding : str
        The content in words, for screen readers.
    """

    name: str
    title: str
    markup: str
    caption: str
    finding: str


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
    title = _statistic(name)
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


def flow_chart(
    flow: Flow, shown: Shown, colors: Sequence[str], height: int, unit: str = "weight"
) -> str:
    """Bands between nodes stacked in columns."""
    n_columns = len(flow.columns)
    step = 1 / max(1, n_columns - 1)
    half = min(0.012, 0.08 * step)
    across = [half + column * step * (1 - 2 * half) for column, _ in flow.nodes]
    clusters = [shown.cluster(part) for _, part in flow.nodes]
    what = [
        f"{'others' if cluster is None else f'cluster {cluster}'} in {flow.columns[column].name}"
        for cluster, (column, _) in zip(clusters, flow.nodes, strict=True)
    ]
    shapes = []
    for low, high, source, target, weight in zip(
        *band_ends(flow), flow.source, flow.target, flow.weight, strict=True
    ):
        left, right = SIDE * (across[source] + half), SIDE * (across[target] - half)
        middle = (left + right) / 2
        (a, b), (c, d) = SIDE * low, SIDE * high
        path = (
            f"M{left:.0f} {a:.1f}C{middle:.0f} {a:.1f} {middle:.0f} {b:.1f} {right:.0f} {b:.1f}"
            f"V{d:.1f}C{middle:.0f} {d:.1f} {middle:.0f} {c:.1f} {left:.0f} {c:.1f}Z"
        )
        shapes.append(
            tag(
                "path",
                d=path,
                class_="band",
                fill=colors[flow.nodes[source][1]],
                data_cluster=clusters[source],
                data_other=clusters[target],
                data_tip=f"{what[source]} to {what[target]}: {weight:.4g} {unit}",
            )
        )
    texts = []
    through = node_sums(flow)
    for at, (column, part) in enumerate(flow.nodes):
        top, bottom = flow.low[at], flow.high[at]
        shapes.append(
            tag(
                "rect",
                x=f"{SIDE * (across[at] - half):.1f}",
                y=f"{SIDE * top:.1f}",
                width=f"{SIDE * 2 * half:.1f}",
                height=f"{max(SIDE * (bottom - top), 1):.1f}",
                fill=colors[part],
                data_cluster=clusters[at],
                class_="node",
                data_tip=f"{what[at]}: {through[at]:.4g} {unit}",
            )
        )
        if (bottom - top) * height > 11:
            last = column == n_columns - 1
            place = (
                f"right:{percent(1 - across[at] + half)}"
                if last
                else f"left:{percent(across[at] + half)}"
            )
            label = "…" if clusters[at] is None else str(clusters[at])
            texts.append(
                tag(
                    "span",
                    label,
                    class_="node-name",
                    style=f"{place};top:{percent((top + bottom) / 2)}",
                )
            )
    longest = max(len(shorten(group.name, 16)) for group in flow.columns)
    steep = n_columns > 4
    for number, group in enumerate(flow.columns):
        across_share = half + number * step * (1 - 2 * half)
        css = (
            "steep"
            if steep
            else "first"
            if number == 0
            else "last"
            if number == n_columns - 1
            else ""
        )
        texts.append(
            tag(
                "span",
                escape(shorten(group.name, 16)),
                class_=f"column {css}".strip(),
                style=f"left:{percent(across_share)}",
                title=group.name,
            )
        )
    room = 14 + round(4.6 * longest) if steep else 20
    return tag(
        "div",
        tag(
            "div",
            stretched("".join(shapes)) + "".join(texts),
            class_="area",
            style=f"height:{height}px",
        ),
        class_="flow",
        style=f"padding-top:{room}px;padding-right:{round(4.6 * longest) if steep else 0}px",
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


def eigenvalues_picture(report: Measurement, profile: Profile | None) -> Picture:
    """The smallest eigenvalues of the normalized Laplacian; with a profile also those beyond k."""
    values = report.eigenvalues if profile is None else profile.eigenvalues
    numbers = np.arange(1, values.size + 1)
    plane = Plane(
        (0.5, values.size + 0.5),
        (
            min(0.0, float(values.min(initial=0.0))),
            max(1e-12, 1.08 * float(values.max(initial=1e-9))),
        ),
        "number",
        "eigenvalue",
        whole=True,
    )
    finding = f"{report.k} eigenvalues up to {values[min(report.k, values.size) - 1]:.3f}."
    if values.size > report.k:
        low, high = float(values[report.k - 1]), float(values[report.k])
        plane.bar(*plane.x, low, high, class_="accent faint")
        gap = f"gap after k = {report.k}: {high - low:.4f}"
        plane.note(plane.x[0], gap, left=False)
        finding = f"{gap[0].upper()}{gap[1:]}."
    plane.line(numbers, values, class_="muted thin")
    for first, css in ((True, "accent"), (False, "muted")):
        at = (numbers <= report.k) == first
        plane.dots(
            numbers[at],
            values[at],
            [f"eigenvalue {n}: {v:.5f}" for n, v in zip(numbers[at], values[at], strict=True)],
            class_=css,
        )
    return Picture(
        "eigenvalues",
        "Eigenvalues",
        plane.markup(),
        "The smallest eigenvalues of the normalized Laplacian. There is one near 0 for each almost "
        "separate group; the n-cut cannot be below the sum of the first k.",
        finding,
    )


def scores_picture(profile: Profile, k: int) -> Picture:
    """Distance of the n-cut, its bound and the gap to the clusterable side, for each k."""
    lines: dict[str, tuple[list[Comparison], str, int]] = {
        _statistic(name): ([row[name] for row in profile.statistics], css, -1)
        for name, css in (("refined_ncut", "accent"), ("lower_bound", "shade"))
        if name in profile.statistics[0]
    }
    lines["gap after k"] = (list(profile.gaps), "muted", 1)
    scores = {
        name: [
            (x, sign * one.z_score)
            for x, one in zip(profile.ks, compared, strict=True)
            if one.z_score is not None
        ]
        for name, (compared, _, sign) in lines.items()
    }
    plane = _over_k(
        profile, k, [z for line in scores.values() for _, z in line] + [0.0], "standard deviations"
    )
    plane.horizontal(0, class_="muted thin")
    for name, points in scores.items():
        css = lines[name][1]
        if points:
            plane.line(*zip(*points, strict=True), class_=css)
        plane.dots(
            [x for x, _ in points],
            [z for _, z in points],
            [f"{name}, k = {x}: {z:+.2f}" for x, z in points],
            class_=css,
        )
        plane.legend.append((name, css, ""))
    return Picture(
        "scores",
        "Each number of clusters",
        plane.markup(),
        f"Standard deviations from the mean of {profile.n_shuffles} shuffles; up is more "
        "clusterable for every line. The n-cut itself grows with k for every graph, so it cannot "
        "choose k.",
        f"Scores for k = {profile.ks[0]} to {profile.ks[-1]}.",
    )


def gaps_picture(profile: Profile, k: int) -> Picture:
    """The gap in the eigenvalues after each k, with the shuffles' gaps."""
    ends = [0.0, *(gap.value for gap in profile.gaps)]
    ends += [
        gap.mean + gap.std for gap in profile.gaps if gap.mean is not None and gap.std is not None
    ]
    plane = _over_k(profile, k, ends, "gap after k")
    for x, gap in zip(profile.ks, profile.gaps, strict=True):
        if gap.mean is not None and gap.std is not None:
            plane.line((x, x), (gap.mean - gap.std, gap.mean + gap.std), class_="muted thick")
            plane.dots(
                (x,),
                (gap.mean,),
                (f"shuffles, k = {x}: {gap.mean:.4f} ± {gap.std:.4f}",),
                class_="muted",
            )
    plane.dots(
        profile.ks,
        [gap.value for gap in profile.gaps],
        [f"k = {x}: {gap.value:.4f}" for x, gap in zip(profile.ks, profile.gaps, strict=True)],
        class_="accent",
    )
    plane.legend = [("this network", "accent", "")]
    if profile.n_shuffles:
        plane.legend.append(("shuffles, ± one std", "muted", ""))
    largest = max(range(len(profile.ks)), key=lambda at: profile.gaps[at].value)
    return Picture(
        "gaps",
        "Gaps in the eigenvalues",
        plane.markup(),
        "The gap between eigenvalues k and k + 1, with the shuffles' gaps. A gap above the "
        "shuffles' gaps supports this k.",
        f"The largest gap is after k = {profile.ks[largest]}.",
    )


def _over_k(profile: Profile, k: int, values: Sequence[float], title: str) -> Plane:
    plane = Plane(
        (profile.ks[0] - 0.5, profile.ks[-1] + 0.5),
        around(values),
        "number of clusters k",
        title,
        whole=True,
    )
    marks = {k: "this report"}
    if profile.suggested_k:
        marks[profile.suggested_k] = "suggested"
    for at, text in marks.items():
        if profile.ks[0] <= at <= profile.ks[-1]:
            plane.vertical(at, class_="muted dashed")
            plane.note(at, text)
    return plane


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


def part_colors(k: int, shown: Shown) -> list[str]:
    """A colour for each part; grey for the others."""
    colors = cluster_colors(k)
    parts = [shown.cluster(part) for part in range(shown.n_parts)]
    return [MUTED if cluster is None else colors[cluster] for cluster in parts]


def few_text(shown: Shown) -> str:
    """The remark if not all clusters have their own colour."""
    if not shown.has_others:
        return ""
    return f" Only the {len(shown.clusters)} largest clusters are coloured; the others are grey."


def _statistic(name: str) -> str:
    return STATISTICS[name].title if name in STATISTICS else printable(name)


def _minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")
