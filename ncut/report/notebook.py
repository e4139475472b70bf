"""A report as a small HTML table for notebooks; needs no optional dependency."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from ncut.report.text import headline
from ncut.report.words import name_of, printable, sentence

if TYPE_CHECKING:
    from ncut.results import Measurement


def notebook_table(report: Measurement) -> str:
    """The headline numbers as an HTML fragment, everything escaped."""
    rows = "".join(_row(name, value) for name, value in headline(report))
    warnings = "".join(
        f"<p style='margin:.3em 0'>⚠ {escape(printable(text))}</p>" for text in report.warnings
    )
    return (
        "<div style='font-size:.95em;max-width:46em'>"
        f"<p style='margin:.2em 0'><strong>{escape(name_of(report))}</strong><br>"
        f"{escape(sentence(report))}</p>"
        f"<table style='border-collapse:collapse'><tbody>{rows}</tbody></table>{warnings}</div>"
    )


def _row(name: str, value: str) -> str:
    style = "text-align:left;padding:.15em 1em .15em 0;vertical-align:top"
    return (
        f"<tr><th style='{style};font-weight:500;opacity:.7'>{escape(name)}</th>"
        f"<td style='{style};font-variant-numeric:tabular-nums'>{escape(value)}</td></tr>"
    )
