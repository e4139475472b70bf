"""A verdict in words: the conclusion, warnings, and the tables of Z and p."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ncut.axes import NORMALIZATIONS, NULL_MODELS, STATISTICS
from ncut.report.cells import Cell, Outcome, outcome
from ncut.report.text import shorten
from ncut.report.wording import ncut_text, p_text, printable, z_text

if TYPE_CHECKING:
    from ncut.results import Measurement

OUTCOMES: dict[Outcome, str] = {
    "more": "more clusterable",
    "less": "less clusterable",
    "same": "not distinguishable",
}
MARKS: dict[Outcome, str] = {
    "more": "\N{UPWARDS ARROW}",
    "less": "\N{DOWNWARDS ARROW}",
    "same": " ",
}
WIDTH = 80
TITLE_WIDTH = 15
CELL_WIDTH = 13


class Judged(Protocol):
    """The parts of a `Verdict` that appear in its text."""

    @property
    def model(self) -> str: ...
    @property
    def cells(self) -> Sequence[Cell]: ...
    @property
    def tests(self) -> Sequence[Any]: ...
    @property
    def conclusion(self) -> str: ...
    @property
    def warnings(self) -> Sequence[str]: ...
    @property
    def reports(self) -> Sequence[Measurement]: ...
    @property
    def rescaled(self) -> Sequence[Measurement]: ...
    @property
    def level(self) -> float: ...


def verdict_lines(verdict: Judged) -> list[str]:
    """Name, conclusion, warnings, and a table for each null model, at most 80 columns."""
    lines = [shorten(printable(verdict.model) or "unnamed model", WIDTH)]
    lines += textwrap.wrap(verdict.conclusion, WIDTH)
    lines += _test_lines(verdict)
    for text in verdict.warnings:
        lines += textwrap.wrap(f"warning: {printable(text)}", WIDTH, subsequent_indent="  ")
    for null in dict.fromkeys(cell.null for cell in verdict.cells):
        lines += ["", *_table(verdict, null)]
    return [*lines, "", *textwrap.wrap(_legend(verdict), WIDTH)]


def _test_lines(verdict: Judged) -> list[str]:
    """A line for each test: rejection, corrected p, size of the effect, agreement."""
    lines = []
    for test in verdict.tests:
        outcome = "rejected" if test.rejects else "not rejected"
        lines += textwrap.wrap(
            f"{test.name}: {outcome} that {test.hypothesis} ({STATISTICS[test.statistic].title} "
            f"{test.gap:+.1%} beside {test.n_shuffles} shuffles, p = {p_text(test.corrected)} "
            f"corrected; {test.agreeing} of 3 measures of the n-cut lie below theirs)",
            WIDTH,
            initial_indent="  ",
            subsequent_indent="    ",
        )
    return lines


def _table(verdict: Judged, null: str) -> list[str]:
    """Z and p: a row for each statistic, a column for each convention."""
    cells = [cell for cell in verdict.cells if cell.null == null]
    conventions = list(dict.fromkeys(cell.normalize for cell in cells))
    rescaled = [report for report in verdict.rescaled if report.null == null]
    model = NULL_MODELS.get(null)
    does = f": {model.does}. {model.question}" if model else ""
    head = conventions + ["random"] * bool(rescaled)
    lines = textwrap.wrap(f"null model {null}{does}", WIDTH)
    lines.append(_row("", head))
    for name in dict.fromkeys(cell.statistic for cell in cells):
        row = {cell.normalize: cell for cell in cells if cell.statistic == name}
        texts = [_cell_text(row[at]) if at in row else "-" for at in conventions]
        texts += [_range_text(rescaled, name)] if rescaled else []
        lines.append(_row(STATISTICS[name].title, texts))
    return lines


def _row(title: str, texts: Iterable[str]) -> str:
    cells = "".join(f"{text:>{CELL_WIDTH}}" for text in texts)
    return f"{title:<{TITLE_WIDTH}}{cells}".rstrip()


def _cell_text(cell: Cell) -> str:
    p = "<.01" if cell.p_value < 0.005 else f"{cell.p_value:.2f}".removeprefix("0")
    return f"{_short(cell.z_score)} {p}{MARKS[cell.outcome]}"


def _short(z: float | None) -> str:
    """Z in at most five characters."""
    if z is None:
        return "-"
    if abs(z) >= 999.5:
        return "<-999" if z < 0 else ">999"
    return f"{z:+.{max(0, 3 - len(f'{abs(z):.0f}'))}f}"


def _range_text(reports: Iterable[Measurement], name: str) -> str:
    scores = [report.statistics[name].z_score for report in reports]
    known = [score for score in scores if score is not None]
    return f"{_whole(min(known))}..{_whole(max(known))}" if known else "-"


def _whole(z: float) -> str:
    """Z without decimals, in at most five characters."""
    return f"{z:+.0f}" if abs(z) < 999.5 else _short(z)


def _legend(verdict: Judged) -> str:
    counts = sorted({report.n_shuffles for report in verdict.reports})
    ks = sorted({report.k for report in verdict.reports})
    conventions = dict.fromkeys(report.normalize for report in verdict.reports)
    meanings = "; ".join(f"{name}: {NORMALIZATIONS.get(name, name)}" for name in conventions)
    text = (
        f"Z and p against {' or '.join(map(str, counts))} shuffles a cell, "
        f"k = {' or '.join(map(str, ks))}. {MARKS['more']} more, {MARKS['less']} less clusterable "
        f"than the shuffles at p <= {verdict.level:g}, not corrected for the number of cells; for "
        f"an n-cut that is a negative Z, for Q and w² a positive one. Scales: {meanings}."
    )
    if verdict.rescaled:
        text += (
            f" random: the range of Z over {len(verdict.rescaled)} networks that compute the same "
            "as this one, with random scales."
        )
    return text


def _mixed(kinds: set[Outcome]) -> str:
    if len(kinds) == 1:
        return OUTCOMES[next(iter(kinds))]
    return "some " + ", some ".join(OUTCOMES[kind] for kind in OUTCOMES if kind in kinds)


def disagreement(ncuts: Sequence[Cell], others: Sequence[Cell]) -> list[str]:
    """Other measures of the same partition that disagree under the same conditions."""
    headline = {(c.normalize, c.null): c.outcome for c in ncuts if c.statistic == "spectral_ncut"}
    opposite = {"more": "less", "less": "more"}
    against: dict[str, int] = {}
    for cell in others:
        if cell.outcome == opposite.get(headline.get((cell.normalize, cell.null), "same")):
            title = STATISTICS[cell.statistic].title
            against[title] = against.get(title, 0) + 1
    return [
        f"{title} says the opposite of the n-cut in {count} of {len(headline)} combinations of "
        "convention and null model"
        for title, count in against.items()
    ]


def artefact(rescaled: Sequence[Measurement], sigma: float, level: float) -> list[str]:
    """The effect of scales that the function does not determine on the n-cut and its Z."""
    scores = [report.z_score for report in rescaled if report.z_score is not None]
    if not scores:
        return []
    kinds = {outcome(report.statistics[report.headline], level, low=True) for report in rescaled}
    ncuts = [report.ncut for report in rescaled]
    return [
        f"random rescalings that do not change a ReLU network's function (factors e^±{sigma:g}) "
        f"put the n-cut between {ncut_text(min(ncuts))} and {ncut_text(max(ncuts))} and its Z "
        f"between {z_text(min(scores))} and {z_text(max(scores))} ({_mixed(kinds)}): shuffles of "
        "the unscaled weights also test the scales of neurons; the tests on residuals do not"
    ]


def from_reports(reports: Sequence[Measurement]) -> list[str]:
    """The reports' notes on conventions and null models, without repetition."""
    return [
        text.replace(f"normalize={report.normalize!r}", "the convention of scale")
        for report in reports
        for text in report.warnings
        if text.startswith(("normalize=", "the activations", "null=", "no layer's"))
    ]
