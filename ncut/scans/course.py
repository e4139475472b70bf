"""A statistic over a training run's checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ncut.arguments import check_choice
from ncut.errors import InputError, import_extra
from ncut.report.wording import printable
from ncut.scans.rows import DONE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

NUMBERS = "float64"


@dataclass(frozen=True, slots=True)
class Course:
    """The checkpoints of one training run: the finished models of a folder, ordered by step.

    Attributes
    ----------
    name : str
        The folder.
    rows : DataFrame
        Their rows.
    x : list
        Their steps, each larger than the one before.
    """

    name: str
    rows: DataFrame
    x: list[int]


def courses(frame: DataFrame) -> Iterator[Course]:
    """A course for each folder with several finished models, all with distinct steps."""
    done = frame[frame["status"] == DONE]
    for name, rows in done.groupby("group", sort=True):
        steps = rows["step"]
        if len(rows) < 2 or not steps.notna().all() or not steps.is_unique:
            continue
        rows = rows.sort_values("step")
        yield Course(printable(str(name)), rows, [int(step) for step in rows["step"]])


def draw_course(frame: DataFrame, statistic: str, ax: Axes | None = None) -> Axes:
    """Draw a column over the steps: a line per training run, points for models without steps.

    Raises
    ------
    InputError
        If the column does not exist or has no numbers, or no model is finished.
    """
    columns = [name for name in frame.columns if frame[name].dtype == NUMBERS]
    check_choice("statistic", statistic, columns)
    found = [*courses(frame)]
    done = frame[frame["status"] == DONE]
    if done.empty:
        raise InputError("scan: has no measured model to draw")
    if ax is None:
        pyplot = import_extra("matplotlib.pyplot", "plot")
        _, ax = pyplot.subplots(figsize=(5.4, 3.2), layout="constrained")
    assert ax is not None  # for the type checker: subplots() is untyped here
    if not found:
        names = [printable(Path(str(path)).name) for path in done["path"]]
        ax.plot(done[statistic], range(len(done)), "o", color="C1")
        ax.set_yticks(range(len(done)), names, parse_math=False)
        ax.set(xlabel=TITLES.get(statistic, statistic))
        ax.invert_yaxis()
        ax.spines[["top", "right"]].set_visible(False)
        return ax
    for number, course in enumerate(found):
        rows: Any = course.rows
        color = f"C{number % 10}"
        ax.plot(course.x, rows[statistic], "o-", color=color, label=course.name, markersize=4)
        if statistic == "ncut" and rows["shuffled_mean"].notna().any():
            mean, std = rows["shuffled_mean"], rows["shuffled_std"]
            ax.plot(course.x, mean, "--", color=color, linewidth=1, label="its shuffles")
            ax.fill_between(course.x, mean - std, mean + std, color=color, alpha=0.2, linewidth=0)
    ax.set(xlabel="step", ylabel=TITLES.get(statistic, statistic))
    ax.legend(frameon=False, fontsize="small")
    ax.spines[["top", "right"]].set_visible(False)
    return ax


TITLES = {"ncut": "n-cut", "z_score": "Z", "p_value": "p"}
