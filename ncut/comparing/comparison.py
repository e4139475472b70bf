"""A comparison of models, and its views."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any

from ncut.comparing.page import html_page
from ncut.comparing.pairs import Pair
from ncut.comparing.text import summary
from ncut.errors import InputError
from ncut.report import Report


@dataclass(frozen=True, eq=False, repr=False)
class ModelComparison:
    """A comparison of models. `print` shows a summary, `to_html` writes a page.

    Attributes
    ----------
    reports : tuple of Report
        Two or more.
    """

    reports: tuple[Report, ...]

    def __post_init__(self) -> None:
        if len(self.reports) < 2:
            raise InputError(f"reports: need two or more to compare, got {len(self.reports)}")

    @cached_property
    def pairs(self) -> list[Pair]:
        """Each report with its predecessor."""
        return [Pair(a, b) for a, b in pairwise(self.reports)]

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, strings and numbers, ready for JSON."""
        return {
            "format": "ncut-comparison",
            "format_version": 1,
            "models": [
                {
                    "model": report.model,
                    "ncut": report.ncut,
                    "shuffled_mean": report.shuffled_mean,
                    "shuffled_std": report.shuffled_std,
                    "z_score": report.z_score,
                    "p_value": report.p_value,
                }
                for report in self.reports
            ],
            "pairs": [pair.to_dict() for pair in self.pairs],
        }

    def to_json(self, path: str | Path | None = None, *, indent: int | None = None) -> str:
        """The comparison as JSON, also written to `path` if given.

        Raises
        ------
        InputError
            If `path` cannot be written.
        """
        from ncut.files import write_json

        return write_json(self.to_dict(), path, indent, "comparison")

    def to_html(self, path: str | Path | None = None, *, title: str | None = None) -> str:
        """The comparison as a self-contained HTML page.

        Raises
        ------
        InputError
            If `path` cannot be written.
        MissingExtraError
            If jinja2 is not installed.
        """
        from ncut.files import write_text

        page = html_page(self.reports, self.pairs, title)
        if path is not None:
            write_text(path, page)
        return page

    def __str__(self) -> str:
        return summary(self.reports, self.pairs)

    def __repr__(self) -> str:
        return f"ModelComparison({', '.join(repr(report.model) for report in self.reports)})"

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"
