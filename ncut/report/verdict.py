"""Verdict: a network under every statistic, convention and null model, and what follows."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ncut.axes import NORMALIZATIONS, NULL_MODELS, STATISTICS
from ncut.errors import InputError, import_extra
from ncut.report.report import Report
from ncut.report.text import shorten
from ncut.report.words import ncut_text, printable, z_text
from ncut.types import Comparison

if TYPE_CHECKING:
    from pandas import DataFrame

Outcome = Literal["more", "less", "same"]

# The statistics that bound and estimate the n-cut; the conclusion is about these.
NCUTS = ("spectral_ncut", "refined_ncut", "lower_bound")
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
FORMAT = "ncut-verdict"
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


@dataclass(frozen=True, slots=True)
class Cell:
    """One combination of statistic, convention and null model.

    Attributes
    ----------
    statistic, normalize, null : str
        Which one it is.
    value : float
        The network's statistic.
    mean, std : float
        Mean and population standard deviation of the shuffles'.
    z_score : float or None
        (value - mean) / std; negative is more clusterable for the n-cuts, positive for the
        modularities and the clusterability.
    p_value : float
        One-sided, of being as clusterable as the network.
    outcome : {"more", "less", "same"}
        More or less clusterable than the shuffles at the verdict's level, or neither.
    """

    statistic: str
    normalize: str
    null: str
    value: float
    mean: float
    std: float
    z_score: float | None
    p_value: float
    outcome: Outcome


@dataclass(frozen=True, eq=False, repr=False)
class Verdict:
    """Z and p of a network for each statistic, convention of scale and null model.

    Attributes
    ----------
    reports : tuple of Report
        One for each convention and null model.
    rescaled : tuple of Report
        Those of networks that compute the same, with the scales of their neurons drawn at random.
    sigma : float
        Standard deviation of the logarithm of these scales.
    level : float
        p-values at or below it count.
    """

    reports: tuple[Report, ...]
    rescaled: tuple[Report, ...]
    sigma: float
    level: float

    __hash__ = None  # type: ignore[assignment]  # equality looks into arrays

    @property
    def model(self) -> str:
        """The model's name."""
        return self.reports[0].model if self.reports else ""

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """Every combination that was measured, in the order of the reports."""
        return tuple(cell for report in self.reports for cell in cells_of(report, self.level))

    @cached_property
    def conclusion(self) -> str:
        """The verdict in words: clusterable, not, or what it depends on."""
        return _conclusion([cell for cell in self.cells if cell.statistic in NCUTS])

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What to know before relying on the conclusion."""
        ncuts = [cell for cell in self.cells if cell.statistic in NCUTS]
        others = [cell for cell in self.cells if cell.statistic not in NCUTS]
        found = [
            *_sign_warning(ncuts),
            *_disagreement(ncuts, others),
            *_artefact(self.rescaled, self.sigma, self.level),
        ]
        return tuple(dict.fromkeys([*found, *_from_reports(self.reports)]))

    def cell(self, statistic: str, normalize: str = "none", null: str = "layer") -> Cell:
        """The cell of one combination.

        Raises
        ------
        InputError
            If it was not measured.
        """
        for cell in self.cells:
            if (cell.statistic, cell.normalize, cell.null) == (statistic, normalize, null):
                return cell
        raise InputError(
            f"cell: {statistic!r} with normalize={normalize!r} and null={null!r} was not measured"
        )

    def to_frame(self) -> DataFrame:
        """One row per cell.

        Returns
        -------
        pandas.DataFrame
            Columns `statistic`, `normalize`, `null`, `value`, `mean`, `std`, `z_score`,
            `p_value`, `outcome`.

        Raises
        ------
        MissingExtraError
            If pandas is not installed.
        """
        pandas = import_extra("pandas", "plot")
        frame: DataFrame = pandas.DataFrame([_plain(cell) for cell in self.cells])
        return frame

    def to_dict(self) -> dict[str, Any]:
        """Conclusion, warnings, cells and reports as plain lists, strings and numbers."""
        return {
            "format": FORMAT,
            "model": self.model,
            "conclusion": self.conclusion,
            "warnings": list(self.warnings),
            "level": self.level,
            "sigma": self.sigma,
            "cells": [_plain(cell) for cell in self.cells],
            "reports": [report.to_dict() for report in self.reports],
            "rescaled": [report.to_dict() for report in self.rescaled],
        }

    def to_json(self, path: str | Path | None = None, *, indent: int | None = None) -> str:
        """The verdict as JSON, from which `from_json` gives an equal one.

        Raises
        ------
        InputError
            If `path` cannot be written.
        """
        from ncut.report.files import write_text

        text = json.dumps(self.to_dict(), indent=indent, allow_nan=False)
        if path is not None:
            write_text(path, text + "\n")
        return text

    @classmethod
    def from_json(cls, text_or_path: str | Path) -> Verdict:
        """Read a verdict that `to_json` wrote; its reports' graphs are None.

        Raises
        ------
        InputError
            If the file cannot be read, or the text is not a complete verdict.
        """
        from ncut.report.serialize import from_dict, read_json

        data = read_json(text_or_path)
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise InputError(f"verdict: not a verdict of ncut: 'format' must be {FORMAT!r}")
        try:
            return cls(
                reports=tuple(map(from_dict, data["reports"])),
                rescaled=tuple(map(from_dict, data["rescaled"])),
                sigma=float(data["sigma"]),
                level=float(data["level"]),
            )
        except InputError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"verdict: an entry is missing or malformed: {error}") from error

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Verdict):
            return NotImplemented
        return self.to_dict() == other.to_dict()

    def __str__(self) -> str:
        return "\n".join(verdict_lines(self))

    def __repr__(self) -> str:
        return f"Verdict({self.model!r}, {self.conclusion!r})"

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(str(self))}</pre>"


def cells_of(report: Report, level: float) -> list[Cell]:
    """The cells of one convention and null model."""
    return [
        Cell(
            statistic=name,
            normalize=report.normalize,
            null=report.null,
            value=compared.value,
            mean=compared.mean,
            std=compared.std,
            z_score=compared.z_score,
            p_value=compared.p_value,
            outcome=outcome(compared, level, low=STATISTICS[name].low_is_clusterable),
        )
        for name, compared in report.statistics.items()
        if compared.mean is not None and compared.std is not None and compared.p_value is not None
    ]


def outcome(compared: Comparison, level: float, *, low: bool) -> Outcome:
    """Whether a statistic is more or less clusterable than its shuffles, each at `level`."""
    sign = 1 if low else -1
    value, shuffled = sign * compared.value, sign * compared.shuffled
    n = shuffled.size
    if np.count_nonzero(shuffled <= value) + 1 <= level * (n + 1):
        return "more"
    if np.count_nonzero(shuffled >= value) + 1 <= level * (n + 1):
        return "less"
    return "same"


def verdict_lines(verdict: Verdict) -> list[str]:
    """Name, conclusion, warnings, and a table for each null model, at most 80 columns."""
    lines = [shorten(printable(verdict.model) or "unnamed model", WIDTH)]
    lines += textwrap.wrap(verdict.conclusion, WIDTH)
    for text in verdict.warnings:
        lines += textwrap.wrap(f"warning: {printable(text)}", WIDTH, subsequent_indent="  ")
    for null in dict.fromkeys(cell.null for cell in verdict.cells):
        lines += ["", *_table(verdict, null)]
    return [*lines, "", *textwrap.wrap(_legend(verdict), WIDTH)]


def _table(verdict: Verdict, null: str) -> list[str]:
    """Z and p: a row for each statistic, a column for each convention."""
    cells = [cell for cell in verdict.cells if cell.null == null]
    conventions = list(dict.fromkeys(cell.normalize for cell in cells))
    rescaled = [report for report in verdict.rescaled if report.null == null]
    does = f": {NULL_MODELS[null].does}" if null in NULL_MODELS else ""
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


def _range_text(reports: Iterable[Report], name: str) -> str:
    scores = [report.statistics[name].z_score for report in reports]
    known = [score for score in scores if score is not None]
    return f"{_whole(min(known))}..{_whole(max(known))}" if known else "-"


def _whole(z: float) -> str:
    """Z without decimals, in at most five characters."""
    return f"{z:+.0f}" if abs(z) < 999.5 else _short(z)


def _legend(verdict: Verdict) -> str:
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


def _conclusion(cells: Sequence[Cell]) -> str:
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


def _sign_warning(cells: Sequence[Cell]) -> list[str]:
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


def _disagreement(ncuts: Sequence[Cell], others: Sequence[Cell]) -> list[str]:
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


def _artefact(rescaled: Sequence[Report], sigma: float, level: float) -> list[str]:
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


def _from_reports(reports: Sequence[Report]) -> list[str]:
    """What the reports say of conventions and null models, once for all of them."""
    return [
        text.replace(f"normalize={report.normalize!r}", "the convention of scale")
        for report in reports
        for text in report.warnings
        if text.startswith(("normalize=", "the activations", "null=", "no layer's"))
    ]


def _plain(cell: Cell) -> dict[str, Any]:
    return {name: getattr(cell, name) for name in Cell.__slots__}
