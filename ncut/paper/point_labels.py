"""Labels beside points of a plot, placed to cover as little as possible."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise, product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]

Label = tuple[str, Floats, str]
"""Text, its points (n, 2), and a colour."""

ROOM = (5.0, 9.0, 14.0, 20.0, 28.0, 38.0, 50.0)
"""Candidate distances of a label from its points, in points of type."""

JOINED = 14.0
"""The distance above which a line joins a label with its nearest point."""

SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
"""Candidate sides of the points; the first of equally good ones is taken."""

MARKER, BAR, LINE, TEXT, BORDER = 10.0, 2.0, 1.0, 100.0, 60.0
"""Penalties for covering an object, per sample, and for leaving the axes, per point of type."""

PER_DISTANCE = 0.4


def touching(ax: Axes, points: Floats, distance: float) -> list[NDArray[np.intp]]:
    """Groups of points (n, 2) by single linkage below a distance, in points of type."""
    places = _in_type(ax, points)
    n_groups, groups = connected_components(cdist(places, places) < distance)
    return [np.flatnonzero(groups == group) for group in range(n_groups)]


def place_labels(ax: Axes, labels: Iterable[Label], font_size: float) -> None:
    """Place labels one after the other, once limits and layout of the axes are fixed."""
    taken = _obstacles(ax)
    for text, points, color in labels:
        size = _text_size(ax, text, font_size)
        places = _in_type(ax, points)
        start, room = _best_place(ax, size, places, taken)
        nearest = _nearest(places, start, size)
        line = {"arrowstyle": "-", "color": color, "linewidth": 0.5, "shrinkA": 1, "shrinkB": 2}
        label = ax.annotate(
            text,
            tuple(points[nearest]),
            tuple(start - places[nearest]),
            textcoords="offset points",
            fontsize=font_size,
            color=color,
            arrowprops=line if room >= JOINED else None,
            zorder=4,
        )
        label.set_in_layout(False)
        taken = np.vstack([taken, _weighted(_filled(start - 3, start + size + 3), TEXT)])


def _pixels(ax: Axes) -> float:
    """Pixels in a point of type."""
    return float(ax.get_figure(root=True).dpi) / 72  # type: ignore[union-attr]


def _in_type(ax: Axes, points: Floats) -> Floats:
    """Data coordinates (n, 2) in points of type from the figure's corner."""
    found: Floats = ax.transData.transform(points) / _pixels(ax)
    return found


def _text_size(ax: Axes, text: str, font_size: float) -> Floats:
    probe = ax.text(0, 0, text, fontsize=font_size)
    size: Floats = np.array(probe.get_window_extent().size) / _pixels(ax)
    probe.remove()
    return size


def _obstacles(ax: Axes) -> Floats:
    """Samples of the drawing: rows of x, y (in points of type) and a weight."""
    found = [np.empty((0, 3))]
    for line in ax.lines:
        places = line.get_transform().transform(np.column_stack(line.get_data())) / _pixels(ax)
        if line.get_marker() != "None":
            corners = line.get_markersize() / 2 * np.array(list(product((-1, 0, 1), repeat=2)))
            found.append(_weighted((places[:, None] + corners).reshape(-1, 2), MARKER))
        if line.get_linestyle() != "None":
            found += [_weighted(_sampled(*ends), LINE) for ends in pairwise(places)]
    for bars in ax.collections:
        for segment in bars.get_segments():  # type: ignore[attr-defined]
            found.append(_weighted(_sampled(*_in_type(ax, segment)), BAR))
    return np.concatenate(found)


def _sampled(start: Floats, end: Floats) -> Floats:
    """A point every two points of type."""
    return np.linspace(start, end, 2 + int(np.linalg.norm(end - start) / 2))


def _filled(low: Floats, high: Floats) -> Floats:
    """A grid of points over a box."""
    axes = (np.linspace(low[i], high[i], 2 + int((high[i] - low[i]) / 3)) for i in (0, 1))
    return np.array(list(product(*axes)))


def _weighted(places: Floats, weight: float) -> Floats:
    return np.column_stack([places, np.full(len(places), weight)])


def _nearest(points: Floats, start: Floats, size: Floats) -> int:
    """The point nearest to the middle of a label."""
    return int(np.linalg.norm(points - (start + size / 2), axis=1).argmin())


def _best_place(ax: Axes, size: Floats, points: Floats, taken: Floats) -> tuple[Floats, float]:
    """Lower left corner of a label of this size, and its distance from the points."""
    inner, outer = ax.bbox.get_points() / _pixels(ax)
    low, high = points.min(axis=0) - 2.5, points.max(axis=0) + 2.5
    best: tuple[float, Floats, float] = (np.inf, low, 0.0)
    texts = taken[taken[:, 2] == TEXT, :2]
    for room, (right, up) in product(ROOM, SIDES):
        # At a corner, both distances together make the room.
        gap = room * np.sqrt(0.5) if right and up else room
        choices = {-1: low - gap - size, 0: (low + high - size) / 2, 1: high + gap}
        start = np.array([choices[right][0], choices[up][1]])
        covered = ((taken[:, :2] > start - 1) & (taken[:, :2] < start + size + 1)).all(axis=1)
        outside = np.maximum(inner + 3 - start, 0) + np.maximum(start + size + 3 - outer, 0)
        cost = taken[covered, 2].sum() + BORDER * outside.sum() + PER_DISTANCE * room
        if room >= JOINED and texts.size:
            line = _sampled(points[_nearest(points, start, size)], start + size / 2)
            cost += TEXT * bool((cdist(line, texts) < 2).any())
        if cost < best[0]:
            best = (float(cost), start, room)
    return best[1], best[2]
