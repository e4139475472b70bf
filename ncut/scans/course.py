"""The course of a number over a training run's checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ncut.errors import InputError, import_extra
from ncut.report.words import printable
from ncut.scans.rows import DONE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

NUMBERS = "float64"


@dataclass(frozen=True, slots=True)
class Course:
    """The finished models of one folder, in order.

    Attributes
    ----------
    name : str
        The folder.
    rows : DataFrame
        Their rows.
    x : list
        Their steps; their positions where one has none, or two have the same.
    by_step : bool
        Whether `x` are steps.
    """

    name: str
    rows: DataFrame
    x: list[int]
    by_step: bool


def courses(frame: DataFrame) -> Iterator[Course]:
    """A course for each folder with several finished models."""
    done = frame[frame["status"] == DONE]
    for name, rows in done.groupby("group", sort=True):
        if len(rows) < 2:
            continue
        steps = rows["step"]
        by_step = bool(steps.notna().all() and steps.is_unique)
        x = [int(step) for step in steps] if by_step else list(range(1, len(rows) + 1))
        yield Course(printable(str(name)), rows, x, by_step)


def draw_course(frame: DataFrame, statistic: str, ax: Axes | None = None) -> Axes:
    """Draw a column over the steps, a line for each folder.

    Raises
    ------
    InputError
        If the column does not exist or has no numbers, or no folder has two finished models.
    """
    columns = [name for name in frame.columns if frame[name].dtype == NUMBERS]
    if statistic not in columns:
        raise InputError(f"statistic: must be one of {', '.join(columns)}, got {statistic!r}")
    found = [*courses(frame)]
    if not found:
        raise InputError("there is no course to draw: no folder has two measured models")
    if ax is None:
        pyplot = import_extra("matplotlib.pyplot", "plot")
        _, ax = pyplot.subplots(figsize=(5.4, 3.2), layout="constrained")
    assert ax is not None  # for the type checker: subplots() is untyped here
    for number, course in enumerate(found):
        rows: Any = course.rows
        color = f"C{number % 10}"
        ax.plot(course.x, rows[statistic], "o-", color=color, label=course.name, markersize=4)
        if statistic == "ncut" and rows["shuffled_mean"].notna().any():
            mean, std = rows["shuffled_mean"], rows["shuffled_std"]
            ax.plot(course.x, mean, "--", color=color, linewidth=1, label="its shuffles")
            ax.fill_between(course.x, mean - std, mean + std, color=color, alpha=0.2, linewidth=0)
    ax.set(xlabel=axis_title(found), ylabel=TITLES.get(statistic, statistic))
    ax.legend(frameon=False, fontsize="small")
    ax.spines[["top", "right"]].set_visible(False)
    return ax


TITLES = {"ncut": "n-cut", "z_score": "Z", "p_value": "p"}


def axis_title(found: list[Course]) -> str:
    """Title of the horizontal axis."""
    return "step" if all(course.by_step for course in found) else "checkpoint"
