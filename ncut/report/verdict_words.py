"""A verdict in words: the conclusion, warnings, and the tables of Z and p."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from ncut.axes import NORMALIZATIONS, NULL_MODELS, STATISTICS
from ncut.report.cells import Cell, Outcome, outcome
from ncut.report.text import shorten
from ncut.report.words import ncut_text, printable, z_text

if TYPE_CHECKING:
    from ncut.results import Measurement

AXES = {
    "normalize": ("the convention for the scale of weights", "scale"),
    "null": ("the null model", "null model"),
    "statistic": ("the statistic", "statistic"),
}
# An axis is named in the conclusion if its values' shares of "more" differ by this much.
MATTERS = 0.25
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
# Beyond this a Z says more of how little the shuffles differ than of the network.
ENOUGH_Z = 100.0


class Judged(Protocol):
    """The parts of a `Verdict` that its text is made of."""

    @property
    def model(self) -> str: ...
    @property
    def cells(self) -> Sequence[Cell]: ...
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
    for text in verdict.warnings:
        lines += textwrap.wrap(f"warning: {printable(text)}", WIDTH, subsequent_indent="  ")
    for null in dict.fromkeys(cell.null for cell in verdict.cells):
        lines += ["", *_table(verdict, null)]
    return [*lines, "", *textwrap.wrap(_legend(verdict), WIDTH)]


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


def conclusion(cells: Sequence[Cell]) -> str:
    if not cells:
        return "Nothing was measured."
    n = len(cells)
    kinds = {cell.outcome for cell in cells}
    where = f"all {n} combinations of n-cut, convention and null model" if n > 1 else "the one"
    if kinds == {"more"}:
        return f"Clusterable: more so than its shuffles in {where}."
    if kinds == {"less"}:
        return f"Not clusterable: less so than its shuffles in {where}."
    n_more = sum(cell.outcome == "more" for cell in cells)
    if not n_more:
        return (
            f"Not clusterable: in none of {n} combinations of n-cut, convention and null model "
            "more so than its shuffles."
        )
    axes = _shares(cells)
    named = [title for title, spread, _ in axes if spread >= MATTERS] or [axes[0][0]]
    shares = "; ".join(f"{text}" for _, _, text in axes)
    return (
        f"Depends on {' and '.join(named)}: more clusterable than its shuffles in {n_more} of {n} "
        f"combinations ({shares})."
    )


def _shares(cells: Sequence[Cell]) -> list[tuple[str, float, str]]:
    """For each axis its title, how far the shares of "more" of its values differ, and these.

    The axis on which most depends comes first.
    """
    found = []
    for axis, (title, short) in AXES.items():
        by_value: dict[str, list[bool]] = {}
        for cell in cells:
            by_value.setdefault(getattr(cell, axis), []).append(cell.outcome == "more")
        shares = [sum(flags) / len(flags) for flags in by_value.values()]
        texts = ", ".join(
            f"{STATISTICS[name].title if axis == 'statistic' else name} {sum(flags)}/{len(flags)}"
            for name, flags in by_value.items()
        )
        found.append((title, max(shares) - min(shares), f"by {short} {texts}"))
    return sorted(found, key=lambda item: -item[1])


def _mixed(kinds: set[Outcome]) -> str:
    if len(kinds) == 1:
        return OUTCOMES[next(iter(kinds))]
    return "some " + ", some ".join(OUTCOMES[kind] for kind in OUTCOMES if kind in kinds)


def sign_warning(cells: Sequence[Cell]) -> list[str]:
    """The loud one: more clusterable here, less clusterable there."""
    more = [cell for cell in cells if cell.outcome == "more"]
    less = [cell for cell in cells if cell.outcome == "less"]
    if not more or not less:
        return []
    return [
        f"THE SIGN DIFFERS: {_example(more)}, but {_example(less)}. No single one of these "
        "numbers says whether the network is clusterable; say which was used, and why"
    ]


def _example(cells: Sequence[Cell]) -> str:
    """A cell that is far from its shuffles, in words."""
    cell = max(cells, key=lambda one: min(abs(one.z_score or 0.0), ENOUGH_Z))
    return (
        f"{OUTCOMES[cell.outcome]} than its shuffles by the {STATISTICS[cell.statistic].title} "
        f"with scale {cell.normalize} and null model {cell.null} (Z = {z_text(cell.z_score)})"
    )


def disagreement(ncuts: Sequence[Cell], others: Sequence[Cell]) -> list[str]:
    """Other measures of the same partition that point the other way under the same conditions."""
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
    """How far scales that the function does not determine move the n-cut and its Z."""
    scores = [report.z_score for report in rescaled if report.z_score is not None]
    if not scores:
        return []
    kinds = {outcome(report.statistics[report.headline], level, low=True) for report in rescaled}
    ncuts = [report.ncut for report in rescaled]
    return [
        f"random rescalings that leave a ReLU network's function as it is (factors e^±{sigma:g}) "
        f"put the n-cut between {ncut_text(min(ncuts))} and {ncut_text(max(ncuts))} and its Z "
        f"between {z_text(min(scores))} and {z_text(max(scores))} ({_mixed(kinds)}): "
        "that much of them is an artefact of scale"
    ]


def from_reports(reports: Sequence[Measurement]) -> list[str]:
    """What the reports say of conventions and null models, once for all of them."""
    return [
        text.replace(f"normalize={report.normalize!r}", "the convention of scale")
        for report in reports
        for text in report.warnings
        if text.startswith(("normalize=", "the activations", "null=", "no layer's"))
    ]
