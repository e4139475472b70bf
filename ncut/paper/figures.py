"""The paper's kinds of figures, for our results; matplotlib is imported on first use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ncut.errors import InputError, import_extra
from ncut.extract import read_graph
from ncut.files import make_folder
from ncut.paper.figure_parts import (
    WORDS,
    first_colors,
    legend_below,
    new_figure,
    rows_with_runs,
    strip,
)
from ncut.paper.measure import graph_options
from ncut.paper.network_figure import draw_network
from ncut.paper.records import Record
from ncut.paper.results import RowResult, TableResult
from ncut.paper.table_figure import draw_table
from ncut.paper.tables import TrainedRow
from ncut.paper.training import network_of
from ncut.report.colours import FAINT
from ncut.report.plots import save_figure

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ncut.report import Report


__all__ = [
    "check_available", "draw_initial", "draw_network", "draw_nulls", "draw_table", "save",
    "save_table",
]  # fmt: skip

DPI = 150


def draw_initial(result: TableResult) -> Figure:
    """The n-cuts of untrained networks: histogram, density, and the published range as a band.

    Raises
    ------
    InputError
        If there are no networks.
    MissingExtraError
        If matplotlib is not installed.
    """
    rows = rows_with_runs(result)
    figure = new_figure(4.7, 0.6 + 2.6 * len(rows), result.title)
    for ax, row in zip(figure.subplots(len(rows), squeeze=False)[:, 0], rows, strict=True):
        published = row.row.published
        if published.low is not None and published.high is not None:
            ax.axvspan(
                published.low, published.high, color=FAINT, alpha=0.5, lw=0, label="published range"
            )
        _draw_distribution(
            ax, np.array([run.ncut for run in row.runs]), first_colors(1)[0], "our networks"
        )
        k = row.row.analysis.k
        ax.set(xlabel=f"n-cut of {len(row.runs)}, k = {k}", ylabel="probability density")
        strip(ax)
    legend_below(figure, _handles(figure), 2)
    return figure


def draw_nulls(panels: Sequence[tuple[str, Mapping[str, Report]]]) -> Figure:
    """Networks against several null models: their shuffles' n-cuts and, in black, their own.

    Parameters
    ----------
    panels : sequence of (title, reports)
        One panel per network, with its reports by the null model's name in the legend, such as
        "layer".

    Raises
    ------
    InputError
        If there are no panels, no reports in one, or a report has no shuffles.
    MissingExtraError
        If matplotlib is not installed.
    """
    if not panels:
        raise InputError("panels: there is no network to draw")
    for title, reports in panels:
        if not reports or not all(report.n_shuffles for report in reports.values()):
            raise InputError(f"panels: {title!r} needs reports, and each of them shuffles")
    names = list(dict.fromkeys(name for _, reports in panels for name in reports))
    colors = dict(zip(names, first_colors(len(names)), strict=True))
    n_columns = min(2, len(panels))
    n_rows = -(-len(panels) // n_columns)
    figure = new_figure(0.6 + 3.3 * n_columns, 0.5 + 2.4 * n_rows)
    for number, (title, reports) in enumerate(panels, start=1):
        ax = figure.add_subplot(n_rows, n_columns, number)
        for name, report in reports.items():
            _draw_distribution(ax, report.shuffled_ncuts, colors[name], name)
        for own in dict.fromkeys(report.ncut for report in reports.values()):
            ax.axvline(own, color="black", linewidth=1.5, label="the network")
        k = next(iter(reports.values())).k
        ax.set(xlabel=f"n-cut, k = {k}", ylabel="probability density")
        ax.set_title(title, fontsize="medium", parse_math=False)
        strip(ax)
    legend_below(figure, _handles(figure), len(names) + 1)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure to a file; its suffix determines the format.

    Raises
    ------
    InputError
        If the format is unknown or the file cannot be written.
    """
    save_figure(figure, path, DPI)


def check_available() -> None:
    """Raise MissingExtraError if matplotlib is not installed."""
    import_extra("matplotlib.figure", "plot")


def save_table(result: TableResult, out: Path) -> Path:
    """Draw a table's figure into `out/figures`; returns the file, a PNG.

    Raises
    ------
    InputError
        If there are no networks, or the file cannot be written.
    MissingExtraError
        If matplotlib is not installed.
    """
    if result.table == "figure 1":
        figure = _network_of(result, out)
    elif result.table == "figure A.6":
        figure = draw_nulls(_reports_of(result, out))
    elif result.table.startswith("figure"):
        figure = draw_initial(result)
    else:
        figure = draw_table(result)
    path = out / "figures" / f"{result.table.replace(' ', '-')}.png"
    make_folder(path.parent)
    save(figure, path)
    return path


def _network_of(result: TableResult, out: Path) -> Figure:
    """The first network of a result."""
    row = result.rows[0]
    assert isinstance(row.row, TrainedRow)
    record = _measured_record(result, row, out)
    report = record.report(row.row.phase, row.row.analysis)
    graph = read_graph(network_of(record, row.row.phase), **graph_options(record.recipe))
    return draw_network(report, graph)


def _reports_of(result: TableResult, out: Path) -> list[tuple[str, dict[str, Report]]]:
    """The reports of each row's first network, by network and null model."""
    panels: dict[str, dict[str, Report]] = {}
    for each in result.rows:
        row = each.row
        assert isinstance(row, TrainedRow)
        words = (row.recipe.data, row.recipe.regularization)
        title = ", ".join(WORDS.get(word, word) for word in words)
        report = _measured_record(result, each, out).report(row.phase, row.analysis)
        panels.setdefault(title, {})[row.analysis.null] = report
    return list(panels.items())


def _measured_record(result: TableResult, each: RowResult, out: Path) -> Record:
    """The files of a row's first network."""
    row = each.row
    assert isinstance(row, TrainedRow)
    record = Record(out, row.recipe, each.runs[0].seed)
    if not record.has_report(row.phase, row.analysis):
        raise InputError(
            f"figures: {result.table} is drawn from a network's weights, which --records lacks; "
            "leave out --records, or add --no-figures"
        )
    return record


def _handles(figure: Figure) -> dict[str, Artist]:
    """Legend entries of all panels, each label once."""
    found = [ax.get_legend_handles_labels() for ax in figure.axes]
    return {
        label: handle
        for handles, labels in found
        for label, handle in zip(labels, handles, strict=True)
    }


def _draw_distribution(ax: Axes, values: NDArray[np.float64], color: str, label: str) -> None:
    """A histogram of area 1 and, unless the values are almost equal, their kernel density."""
    from scipy.stats import gaussian_kde

    middle, spread = float(values.mean()), float(np.ptp(values))
    if spread <= 1e-9 * max(1.0, abs(middle)):
        ends = [middle - 0.005, middle + 0.005]
        ax.hist(values, ends, density=True, color=color, alpha=0.4, label=label)
        return
    n_bins = int(np.clip(np.sqrt(values.size) * 1.5, 5, 40))
    ax.hist(values, n_bins, density=True, color=color, alpha=0.4, label=label)
    density = gaussian_kde(values)
    margin = 3 * float(np.sqrt(density.covariance[0, 0]))
    grid = np.linspace(values.min() - margin, values.max() + margin, 200)
    ax.plot(grid, density(grid), color=color, linewidth=1.5)
