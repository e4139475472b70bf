"""Parts of the paper's figures: colours, frames, legends, and names of settings."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ncut.errors import InputError, import_extra
from ncut.paper.results import RowResult, TableResult
from ncut.report.colours import CLUSTER_COLORS, cluster_colors

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


COLORS = tuple(CLUSTER_COLORS[i] for i in (0, 10, 7, 1, 2, 11))
"""The clusters' colours that differ most, also for colour-blind readers."""

WORDS = {
    "none": "no regularization", "l1": "L1", "l2": "L2", "dropout+l2": "dropout + L2",
    "clusterable-init": "clusterable initialization", "mnist": "MNIST", "fashion": "Fashion-MNIST",
    "lines": "LINES", "lines-mnist": "LINES and MNIST", "lines-mnist-sep": "LINES, MNIST separate",
}  # fmt: skip


def rows_with_runs(result: TableResult) -> list[RowResult]:
    """The rows that have networks; raise InputError if there are none."""
    rows = [row for row in result.rows if row.runs]
    if not rows:
        raise InputError(f"result: {result.title.partition(':')[0]} has no networks yet")
    return rows


def new_figure(width: float, height: float, title: str = "") -> Figure:
    """A figure that pyplot does not know of, its size in inches."""
    figure: Figure = import_extra("matplotlib.figure", "plot").Figure(
        figsize=(width, height), layout="constrained"
    )
    if title:
        figure.suptitle(textwrap.fill(title, int(10 * width)), fontsize="large")
    return figure


def first_colors(n: int) -> Sequence[str]:
    """n colours, as different as possible if they are few."""
    return COLORS[:n] if n <= len(COLORS) else cluster_colors(n)


def strip(ax: Axes) -> None:
    """Remove the frame's right and upper lines."""
    ax.spines[["top", "right"]].set_visible(False)


def legend_below(figure: Figure, handles: Mapping[str, Artist], n_columns: int) -> None:
    """Put a legend below the panels of a figure."""
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center",
        ncols=n_columns,
        frameon=False,
        fontsize="small",
    )
