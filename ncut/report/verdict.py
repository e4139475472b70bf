"""Verdict: a few tests with a conclusion, and every statistic, convention and null model."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ncut.axes import STATISTICS
from ncut.errors import InputError, import_extra
from ncut.report import verdict_wording as wording
from ncut.report.cells import NCUTS, Cell, cells_of
from ncut.report.report import Report
from ncut.report.tests import Test, conclusion, tests_of

if TYPE_CHECKING:
    from pandas import DataFrame

FORMAT = "ncut-verdict"


@dataclass(frozen=True, eq=False, repr=False)
class Verdict:
    """Z and p of a network for each statistic, convention of scale and null model.

    Attributes
    ----------
    reports : tuple of Report
        One report for each convention and null model.
    rescaled : tuple of Report
        Reports of networks with the same function and randomly rescaled neurons.
    sigma : float
        Standard deviation of the logarithm of these scales.
    level : float
        Significance level: p-values at or below it are significant.
    tested : tuple of Report
        Reports for the tests of the conclusion: under null="alignment" and "residual", and under
        "layer" as in the paper.
    """

    reports: tuple[Report, ...]
    rescaled: tuple[Report, ...]
    sigma: float
    level: float
    tested: tuple[Report, ...] = ()

    __hash__ = None  # type: ignore[assignment]  # equality looks into arrays

    @property
    def model(self) -> str:
        """The model's name."""
        measured = (*self.reports, *self.tested)
        return measured[0].model if measured else ""

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """Every measured combination, in the order of the reports."""
        return tuple(cell for report in self.reports for cell in cells_of(report, self.level))

    @cached_property
    def conclusion(self) -> str:
        """The verdict in a sentence; it rests on `tests` alone."""
        return conclusion(self.tests)

    @cached_property
    def tests(self) -> tuple[Test, ...]:
        """The tests of the conclusion: alignment, residual, and the paper's, Holm-corrected."""
        return tests_of(self.tested, self.level)

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """Caveats to the conclusion."""
        ncuts = [cell for cell in self.cells if cell.statistic in NCUTS]
        others = [cell for cell in self.cells if cell.statistic not in NCUTS]
        found = [
            *wording.disagreement(ncuts, others),
            *wording.artefact(self.rescaled, self.sigma, self.level),
        ]
        return tuple(dict.fromkeys([*found, *wording.from_reports((*self.tested, *self.reports))]))

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
            "tests": [asdict(test) for test in self.tests],
            "warnings": list(self.warnings),
            "level": self.level,
            "sigma": self.sigma,
            "cells": [_plain(cell) for cell in self.cells],
            "reports": [report.to_dict() for report in self.reports],
            "rescaled": [report.to_dict() for report in self.rescaled],
            "tested": [report.to_dict() for report in self.tested],
        }

    def to_json(self, path: str | Path | None = None, *, indent: int | None = None) -> str:
        """The verdict as JSON, from which `from_json` restores an equal verdict.

        Raises
        ------
        InputError
            If `path` cannot be written.
        """
        from ncut.files import write_json

        return write_json(self.to_dict(), path, indent, "verdict")

    @classmethod
    def from_json(cls, text_or_path: str | Path) -> Verdict:
        """Read a verdict that `to_json` wrote; its reports' graphs are None.

        Raises
        ------
        InputError
            If the file cannot be read, or the text is not a complete verdict.
        """
        from ncut.report.serialize import json_of

        with json_of(text_or_path) as data:
            return cls._from_dict(data)

    @classmethod
    def _from_dict(cls, data: Any) -> Verdict:
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise InputError(f"verdict: not a verdict of ncut: 'format' must be {FORMAT!r}")
        try:
            verdict = cls(
                reports=tuple(Report._from_dict(one) for one in data["reports"]),
                rescaled=tuple(Report._from_dict(one) for one in data["rescaled"]),
                sigma=float(data["sigma"]),
                level=float(data["level"]),
                tested=tuple(Report._from_dict(one) for one in data.get("tested", ())),
            )
        except InputError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"verdict: an entry is missing or malformed: {error}") from error
        for report in (*verdict.reports, *verdict.rescaled, *verdict.tested):
            if not report.statistics.keys() <= STATISTICS.keys():
                raise InputError(f"verdict: unknown statistics: {', '.join(report.statistics)}")
        return verdict

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Verdict):
            return NotImplemented
        return self._compared() == other._compared()

    def _compared(self) -> tuple[Any, ...]:
        return self.reports, self.rescaled, self.tested, self.sigma, self.level

    def __str__(self) -> str:
        return "\n".join(wording.verdict_lines(self))

    def __repr__(self) -> str:
        return f"Verdict({self.model!r}, {self.conclusion!r})"

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(str(self))}</pre>"


def _plain(cell: Cell) -> dict[str, Any]:
    return {name: getattr(cell, name) for name in Cell.__slots__}
