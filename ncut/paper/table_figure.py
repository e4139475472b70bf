"""The figure of a table: networks as points, n-cut over the mean n-cut of their shuffles."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ncut.errors import import_extra
from ncut.paper.figure_parts import (
    WORDS,
    first_colors,
    legend_below,
    new_figure,
    rows_with_runs,
    strip,
)
from ncut.paper.point_labels import Label, place_labels, touching
from ncut.paper.records import INITIAL, UNPRUNED
from ncut.paper.results import RowResult, TableResult
from ncut.report.colours import MUTED

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ncut.paper.tables import Published


MARKERS = ("o", "s", "^", "D", "v", "P")

MARKER_SIZE, CROSS_SIZE, LABEL_SIZE = 5.0, 8.0, 7.5

NEAR = 0.3
"""Rows closer to the diagonal than this share of the largest distance are drawn again,"""

CROWDED = 0.35
"""enlarged in a separate panel, if they fill less than this share of the panel."""

MARGIN = 0.09
"""Margin around a panel's content, as a share of its width and height."""

TOUCHING = 14.0
"""Distance, in points of type, below which points of a row share a label."""

Box = tuple[float, float, float, float]
"""Left, right, lower and upper end."""


def draw_table(result: TableResult) -> Figure:
    """A table's networks as points: n-cut over the mean n-cut of its shuffles.

    A panel for unpruned networks (hollow points) and one for pruned ones (filled). Below the
    dashed diagonal networks are more clusterable than their shuffles; bars are standard deviations
    of the shuffles, crosses the published means. Labels are one-sided p-values: one per row if all
    its networks have the same, else one for touching points. If rows far from the diagonal leave
    little room for the others, these are enlarged in an additional panel. Networks without shuffles
    are shown by n-cut alone.

    Raises
    ------
    InputError
        If there are no networks.
    MissingExtraError
        If matplotlib is not installed.
    """
    rows = rows_with_runs(result)
    style = _Style([row.row.published for row in rows])
    panels = [
        (phase, shuffled, chosen)
        for phase, shuffled in product(dict.fromkeys(row.row.phase for row in rows), (True, False))
        if (chosen := [r for r in rows if r.row.phase == phase and _is_shuffled(r) == shuffled])
    ]
    details = [_crowded(chosen) if shuffled else [] for _, shuffled, chosen in panels]
    height = 6.4 if any(details) else 4.1
    figure = new_figure(max(5.2, 0.4 + 3.4 * len(panels)), height, result.title)
    grid = figure.add_gridspec(2 if any(details) else 1, len(panels))
    labelled = []
    for column, ((phase, shuffled, chosen), detail) in enumerate(zip(panels, details, strict=True)):
        ax = figure.add_subplot(grid[0 if detail else slice(None), column])
        ax.set_title(phase, fontsize="medium")
        if not shuffled:
            _draw_strip(ax, chosen, style)
            continue
        _draw_points(ax, chosen, style, _limits(chosen))
        labelled.append((ax, [row for row in chosen if row not in detail]))
        if detail:
            _draw_frame(ax, _limits(detail))
            larger = figure.add_subplot(grid[1, column])
            larger.set_title(f"{phase}, enlarged", fontsize="medium")
            _draw_points(larger, chosen, style, _limits(detail))
            labelled.append((larger, detail))
    legend_below(figure, _table_legend(rows, style), 3 if len(panels) > 1 else 2)
    # Label positions depend on the final layout.
    figure.draw_without_rendering()
    for ax, shown in labelled:
        place_labels(ax, (label for row in shown for label in _labels(ax, row, style)), LABEL_SIZE)
    return figure


class _Style:
    """Names, colours and markers of a table's settings; pruning is not one of them."""

    def __init__(self, rows: Sequence[Published]) -> None:
        settings = list(dict.fromkeys(map(self._setting, rows)))
        kept = [0, 1, 2, 3]
        # A name has only the parts that distinguish settings; of several such parts, the data.
        for part in (0, 2, 3, 1):
            fewer = [other for other in kept if other != part]
            if len({tuple(each[i] for i in fewer) for each in settings}) == len(settings):
                kept = fewer
        self._names = {
            each: ", ".join(WORDS.get(each[i], each[i]) for i in kept or range(4) if each[i])
            for each in settings
        }
        markers = (MARKERS[i % len(MARKERS)] for i in range(len(settings)))
        looks = zip(first_colors(len(settings)), markers, strict=True)
        self._looks = dict(zip(settings, looks, strict=True))

    @staticmethod
    def _setting(row: Published) -> tuple[str, str, str, str]:
        return row.network, row.dataset, row.variant, row.regularization

    def name(self, row: RowResult) -> str:
        return self._names[self._setting(row.row.published)]

    def color(self, row: RowResult) -> str:
        return self._looks[self._setting(row.row.published)][0]

    def points(self, row: RowResult) -> dict[str, Any]:
        """The marker of a row's points: hollow if its networks are not pruned."""
        color, marker = self._looks[self._setting(row.row.published)]
        face = "white" if row.row.phase in (INITIAL, UNPRUNED) else color
        return {
            "color": color, "marker": marker, "markersize": MARKER_SIZE, "linestyle": "none",
            "markerfacecolor": face, "markeredgewidth": 1.1, "zorder": 3,
        }  # fmt: skip

    def cross(self, row: RowResult) -> dict[str, Any]:
        """The marker of the published mean."""
        return {
            "color": self.color(row), "marker": "x", "markersize": CROSS_SIZE,
            "linestyle": "none", "alpha": 0.6, "zorder": 2,
        }  # fmt: skip


def _is_shuffled(row: RowResult) -> bool:
    return all(run.shuffled_mean is not None for run in row.runs)


def _xy(row: RowResult) -> NDArray[np.float64]:
    """Mean of the shuffles' n-cuts and own n-cut of each network, shape (networks, 2)."""
    return np.array([(run.shuffled_mean, run.ncut) for run in row.runs], dtype=float)


def _draw_points(ax: Axes, rows: Sequence[RowResult], style: _Style, limits: Box) -> None:
    """Networks, published means and the diagonal."""
    for row in rows:
        x, y = _xy(row).T
        bars = np.array([run.shuffled_std for run in row.runs], dtype=float)
        ax.errorbar(x, y, xerr=bars, elinewidth=1.0, **style.points(row))
        there = row.published
        if there.ncut is not None and there.shuffled_mean is not None:
            ax.plot(there.shuffled_mean, there.ncut, **style.cross(row))
        elif there.ncut is not None:
            # Published without shuffles: a dash at the left edge.
            at_side = ax.get_yaxis_transform()
            height = [there.ncut] * 2
            ax.plot([0, 0.05], height, color=style.color(row), alpha=0.6, lw=2, transform=at_side)
    left, right, low, high = limits
    ends = (min(left, low), max(right, high))
    ax.plot(ends, ends, "--", color=MUTED, linewidth=1, zorder=1)
    ax.set(xlim=(left, right), ylim=(low, high))
    ax.locator_params(nbins=6)
    ax.set(xlabel="mean n-cut of its shuffles", ylabel=f"n-cut, k = {rows[0].row.analysis.k}")
    strip(ax)


def _draw_frame(ax: Axes, limits: Box) -> None:
    """Frame the region that a panel below enlarges."""
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    dx, dy = 0.02 * (right - left), 0.02 * (top - bottom)
    x = np.array([limits[0] - dx, limits[1] + dx])[[0, 1, 1, 0, 0]]
    y = np.array([limits[2] - dy, limits[3] + dy])[[0, 0, 1, 1, 0]]
    ax.plot(x, y, color=MUTED, linewidth=0.8, clip_on=False, zorder=1)


def _draw_strip(ax: Axes, rows: Sequence[RowResult], style: _Style) -> None:
    """Rows side by side, with their n-cuts on the vertical axis."""
    for position, row in enumerate(rows):
        ax.plot([position] * len(row.runs), [run.ncut for run in row.runs], **style.points(row))
        if row.published.ncut is not None:
            ax.plot(position, row.published.ncut, **style.cross(row))
    names = [textwrap.fill(style.name(row), 16) for row in rows]
    ax.set_xticks(range(len(rows)), names, fontsize="small", parse_math=False)
    ax.set(xlim=(-0.6, len(rows) - 0.4), ylabel=f"n-cut, k = {rows[0].row.analysis.k}")
    strip(ax)


def _limits(rows: Sequence[RowResult]) -> Box:
    """A box around points, bars, published means and some of the diagonal, with a margin."""
    points = np.concatenate([_xy(row) for row in rows])
    bars = np.array([run.shuffled_std for row in rows for run in row.runs], dtype=float)
    published = np.array(
        [(row.published.shuffled_mean, row.published.ncut) for row in rows], dtype=float
    )
    x = np.concatenate([points[:, 0] - bars, points[:, 0] + bars, published[:, 0]])
    middle = (np.nanmin(x) + np.nanmax(x)) / 2
    y = np.concatenate([points[:, 1], published[:, 1], [middle]])
    ends = [(float(np.nanmin(values)), float(np.nanmax(values))) for values in (x, y)]
    (left, right), (low, high) = ends
    dx, dy = (max(MARGIN * (high - low), 1e-3) for low, high in ends)
    return left - dx, right + dx, low - dy, high + dy


def _crowded(rows: Sequence[RowResult]) -> list[RowResult]:
    """Rows to enlarge, since others are far from the diagonal; often none."""
    centres = [_xy(row).mean(axis=0) for row in rows]
    distances = [abs(x - y) for x, y in centres]
    near = [row for row, far in zip(rows, distances, strict=True) if far < NEAR * max(distances)]
    if len(near) < 2:
        return []
    whole, part = _limits(rows), _limits(near)
    width, height = ((part[i + 1] - part[i]) / (whole[i + 1] - whole[i]) for i in (0, 2))
    if min(width, height) >= CROWDED:
        return []
    left, right, low, high = part
    return [
        row
        for row, (x, y) in zip(rows, centres, strict=True)
        if row in near or (left < x < right and low < y < high)
    ]


def _labels(ax: Axes, row: RowResult, style: _Style) -> list[Label]:
    """The p-values of a row, each with its points."""
    colors = import_extra("matplotlib.colors", "plot")
    color = colors.to_hex(0.62 * np.array(colors.to_rgb(style.color(row))))
    points = _xy(row)
    p_values = [float("nan") if run.p_value is None else run.p_value for run in row.runs]
    if len(set(p_values)) == 1 and len(p_values) > 1:
        return [(f"all {_p_text(p_values)}", points, color)]
    return [
        (_p_text([p_values[i] for i in group]), points[group], color)
        for group in touching(ax, points, TOUCHING)
    ]


def _p_text(p_values: Sequence[float]) -> str:
    """The p-value of points, or the smallest and the largest."""
    ends = dict.fromkeys(f"{p:.2g}" for p in (min(p_values), max(p_values)))
    return f"p = {'–'.join(ends)}"


def _table_legend(rows: Sequence[RowResult], style: _Style) -> dict[str, Artist]:
    line = import_extra("matplotlib.lines", "plot").Line2D
    shuffled = [row for row in rows if _is_shuffled(row)]
    found: dict[str, Artist] = {}
    for row in shuffled:
        look = style.points(row) | {"markerfacecolor": style.color(row)}
        found.setdefault(style.name(row), line([], [], **look))
    known = [row for row in rows if row.published.ncut is not None]
    alone = [row for row in known if row in shuffled and row.published.shuffled_mean is None]
    if len(known) > len(alone):
        found["published mean"] = line([], [], **style.cross(known[0]) | {"color": MUTED})
    if alone:
        found["published without shuffles"] = line([], [], color=MUTED, linewidth=2)
    if shuffled:
        found["standard deviation of its shuffles"] = line([], [], color=MUTED, linewidth=1)
        found["as its shuffles (below: more clusterable)"] = line(
            [], [], color=MUTED, linestyle="--", linewidth=1
        )
    return found
