"""Reports, graphs and progress on the terminal, with rich."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import numpy as np
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from ncut.report import text, wording

if TYPE_CHECKING:
    from ncut.graphs import NeuronGraph
    from ncut.results import Measurement
    from ncut.types import Block, LeftOut, Parameter


PIPE_WIDTH = 160
# Number of rows above which repeats of a block are one row.
MANY = 24
# The number of a block: a part of a dotted name.
NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


EXPLANATION = """\
n-cut  share of a cluster's edge weight that leaves it, summed over the k clusters
Z      distance from the shuffles' mean in their standard deviations
p      share of networks at least as clusterable, this one counted among them"""


class ScanCounts(Protocol):
    """Progress of a scan: models of this run, and their shuffles."""

    models: int
    done: int
    failed: int
    shuffles: int
    shuffles_done: int
    current: str


def print_summary(report: Measurement) -> None:
    """Print `str(report)`, with a little colour on a terminal."""
    _console().print(styled_summary(report))


def print_comparison(reports: Sequence[Measurement]) -> None:
    """Print the tops of several reports, their numbers side by side, and an explanation."""
    console = _console()
    for report in reports:
        console.print(_top(report))
    console.print(_comparison(reports))
    console.print(f"\n{EXPLANATION}\n\nMethod: {wording.CITATION}", style="dim")


def print_graph(graph: NeuronGraph) -> None:
    """Print a graph's size, layers, blocks, and left-out parts."""
    console = _console()
    n_isolated = int(np.count_nonzero(graph.degrees == 0))
    console.print(wording.printable(graph.name) or "unnamed model", style="bold")
    console.print(
        f"{graph.n_vertices:,} vertices, {n_isolated:,} of them isolated; {graph.n_edges:,} edges"
    )
    if graph.placed_share is not None:
        console.print(
            f"{graph.placed_share:.1%} of the numbers in weight matrices and kernels are edges"
        )
    if graph.sums:
        console.print(f"residual sums: {wording.SUMS.get(graph.sums, graph.sums)}")
    others = any(not parameter.placed for parameter in graph.parameters)
    nothing = f"Nothing {'else ' if others else ''}was left out."
    left_out = _left_out(graph.left_out) if graph.left_out else nothing
    parts = [_layers(graph), _blocks(graph), left_out]
    if graph.parameters:
        parts.insert(2, _parameters(graph.parameters))
    for part in parts:
        console.print()
        console.print(part)


def print_cost(seconds: float, peak_bytes: int, what: str) -> None:
    """Print the predicted cost of an analysis."""
    time = f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
    _console().print(f"\n{what}: about {time} and {peak_bytes / 2**20:,.0f} MiB")


@contextmanager
def progress_bar(name: str = "") -> Iterator[Callable[[int, int], None]]:
    """A function (done, total) that moves a bar on standard error, if that is a terminal.

    It shows the activity and its duration from the first second, and then the time left.
    """
    console = _console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[state]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=console, transient=True, disable=not shows_progress(console))
    with bar:
        task = bar.add_task(name or "network", total=None, state="reading and clustering")

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, state=f"{done}/{total} shuffles, left:")

        yield show


QUIET = [False]
"""True if progress is suppressed."""


def shows_progress(console: Console) -> bool:
    """Check whether standard error is a terminal, and progress is wanted."""
    return console.is_terminal and not QUIET[0]


@contextmanager
def work_bar(name: str) -> Iterator[Callable[[float, float], None]]:
    """A function (done, total) for long work in any unit; shows a share and the time left."""
    console = _console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        # An epoch may take minutes, so the speed is averaged over the last half hour.
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    bar = Progress(
        *columns, console=console, disable=not shows_progress(console), speed_estimate_period=1800
    )
    with bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def scan_bars() -> Iterator[Callable[[ScanCounts], None]]:
    """A function of a scan's counts that moves two bars, models and shuffles, on standard error."""
    console = _console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[note]}", markup=False, style="dim"),
    )
    bars = Progress(
        *columns, console=console, disable=not shows_progress(console), speed_estimate_period=600
    )
    with bars:
        models = bars.add_task("models", total=None, note="")
        shuffles = bars.add_task("shuffles", total=None, note="")

        def show(counts: ScanCounts) -> None:
            failed = f"{counts.failed} failed" if counts.failed else ""
            ended = counts.done + counts.failed
            bars.update(models, completed=ended, total=counts.models, note=failed)
            current = text.shorten(wording.printable(counts.current), 40)
            bars.update(
                shuffles, completed=counts.shuffles_done, total=counts.shuffles, note=current
            )

        yield show


def print_rows(names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table of text."""
    table = _table(*names)
    for row in rows:
        table.add_row(*_cells(row))
    _console().print(table)


def _console(stderr: bool = False) -> Console:
    """A console without additions of rich; wide in a pipe, so that nothing is cut."""
    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    return console


def styled_summary(report: Measurement) -> Text:
    """`str(report)` with a little colour."""
    styled = _top(report).append("\n")
    for line in text.headline_lines(report):
        head, value = line[: text.NAME_WIDTH], line[text.NAME_WIDTH :]
        styled.append(head, style="dim").append(value + "\n", style=_emphasis(head))
    for number, line in enumerate(text.statistic_lines(report)):
        styled.append(
            ("\n" if number == 0 else "") + line + "\n", style="dim" if not number else ""
        )
    header, *rows = text.cluster_lines(report)
    styled.append("\n" + header, style="dim").append("\n" + "\n".join(rows))
    if report.warnings:
        styled.append("\n\n" + "\n".join(text.warning_lines(report)), style="yellow")
    return styled


def _top(report: Measurement) -> Text:
    """Name, outcome and the questions of a report's top."""
    name, *outcome = text.title_lines(report)
    styled = Text().append(name, style="bold").append("\n" + "\n".join(outcome) + "\n\n")
    for line in text.top_lines(report):
        head, colon, rest = line.partition(": ")
        is_first = colon and not line.startswith(" ")
        styled.append(head + colon if is_first else "", style="bold")
        styled.append((rest if is_first else line) + "\n")
    return styled


def _comparison(reports: Sequence[Measurement]) -> Table:
    """The headline numbers of several reports side by side."""
    table = _table("", *(wording.name_of(report) for report in reports), right_from=1)
    cells = {
        "n-cut": [wording.ncut_text(report.ncut) for report in reports],
        "edge weight cut": [wording.share_text(report.cut_share) for report in reports],
        "shuffles": [wording.spread_text(report) for report in reports],
        "Z": [wording.z_text(report.z_score, report.n_shuffles) for report in reports],
        "p": [wording.p_text(report.p_value) for report in reports],
        "vertices": [f"{report.n_vertices - report.n_isolated:,}" for report in reports],
        "isolated": [f"{report.n_isolated:,}" for report in reports],
        "edges": [f"{report.n_edges:,}" for report in reports],
        "layers": [text.shorten(text.layer_sizes(report), 30) for report in reports],
    }
    for name, values in cells.items():
        table.add_row(Text(name, style="dim"), *(Text(v, style=_emphasis(name)) for v in values))
    return table


def _layers(graph: NeuronGraph) -> Table:
    table = _table("layer", "vertices", "isolated", right_from=1)
    rows = []
    for layer in graph.layers:
        isolated = int(np.count_nonzero(graph.degrees[layer.slice] == 0))
        rows.append([layer.name, f"{layer.size:,}", f"{isolated:,}"])
    for row in folded(rows):
        table.add_row(*_cells(row))
    return table


def folded(rows: list[list[str]], most: int = MANY) -> list[list[str]]:
    """A table with one row for all repeats of a block, if it has more than `most` rows.

    Rows are repeats if they differ only in the block's number, like `layer.0.query` and
    `layer.1.query`; they become the row `layer.{0..1}.query`.
    """
    if len(rows) <= most:
        return rows
    groups: dict[tuple[str, ...], list[int]] = {}
    for row in rows:
        found = NUMBER.search(" ".join(row))
        first = int(found[0]) if found else 0
        pattern = tuple(
            NUMBER.sub(lambda number, first=first: f"\0{int(number[0]) - first}\0", cell)  # type: ignore[misc]
            for cell in row
        )
        groups.setdefault(pattern, []).append(first)
    made = []
    for cells, firsts in groups.items():

        def numbers(shift: str, firsts: list[int] = firsts) -> str:
            ends = sorted({one + int(shift) for one in (min(firsts), max(firsts))})
            return str(ends[0]) if len(ends) == 1 else f"{{{ends[0]}..{ends[1]}}}"

        made.append(
            [
                "".join(
                    numbers(part) if at % 2 else part for at, part in enumerate(cell.split("\0"))
                )
                for cell in cells
            ]
        )
    return made


def _blocks(graph: NeuronGraph) -> Table:
    table = _table("from", "to", "shape", "non-zero", "kept as", "parameter")
    found = []
    for block in graph.blocks:
        n_edges, kept_as = _storage(block)
        rows, columns = block.weights.shape
        found.append(
            [
                graph.layers[block.source].name,
                graph.layers[block.target].name,
                f"{rows} x {columns}",
                f"{n_edges / max(1, rows * columns):.1%}",
                kept_as,
                block.name,
            ]
        )
    for row in folded(found):
        table.add_row(*_cells(row))
    return table


def _storage(block: Block) -> tuple[int, str]:
    """Number of non-zero weights, and their storage format."""
    if isinstance(block.weights, np.ndarray):
        return int(np.count_nonzero(block.weights)), "dense"
    return int(np.count_nonzero(block.weights.data)), "CSR"


def _parameters(parameters: Sequence[Parameter]) -> Table:
    """Roles of the model's parameters: a row per matrix, one row for all vectors of a role."""
    table = _table("parameter", "shape", "", "role in the graph")
    vectors: dict[tuple[bool, str], list[Parameter]] = {}
    matrices = []
    for parameter in parameters:
        state = "placed" if parameter.placed else "left out"
        if len(parameter.shape) > 1:
            shape = " x ".join(map(str, parameter.shape))
            matrices.append([parameter.name, shape, state, parameter.role])
        else:
            vectors.setdefault((parameter.placed, parameter.role), []).append(parameter)
    for row in folded(matrices):
        table.add_row(*_cells(row))
    for (placed, role), found in vectors.items():
        n_numbers = sum(math.prod(parameter.shape) for parameter in found)
        name = found[0].name if len(found) == 1 else f"{len(found)} vectors"
        state = "placed" if placed else "left out"
        table.add_row(*_cells([name, f"{n_numbers:,}", state, role]))
    return table


def _left_out(items: Iterable[LeftOut]) -> Table:
    table = _table("left out", "shape", "why")
    for item in items:
        table.add_row(*_cells([item.name, " x ".join(map(str, item.shape)), item.reason]))
    return table


def _table(*names: str, right_from: int | None = None) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for number, name in enumerate(names):
        is_right = right_from is not None and number >= right_from
        table.add_column(Text(name), justify="right" if is_right else "left", overflow="fold")
    return table


def _cells(values: Iterable[str]) -> list[Text]:
    """Cells of literal text: no markup, no control characters."""
    return [Text(wording.printable(value)) for value in values]


def _emphasis(name: str) -> str:
    return "bold" if name.strip() in ("n-cut", "Z", "p") else ""
