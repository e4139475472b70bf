"""A report as HTML for notebooks: the content of `print`, with a picture; needs no extra."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from ncut.report.colours import FAINT, cluster_colors
from ncut.report.names import layer_names
from ncut.report.text import headline
from ncut.report.top import findings
from ncut.report.wording import name_of, printable, sentence, statistic_rows

if TYPE_CHECKING:
    from ncut.results import Measurement

MAX_LAYERS = 12


def notebook_table(report: Measurement) -> str:
    """The findings, headline numbers, statistics and clusters as HTML, everything escaped."""
    top = "".join(
        _row(one.title, f"{one.answer}: {one.text}" if one.answer else one.text)
        for one in findings(report)
    )
    rows = top + "".join(_row(name, value) for name, value in headline(report))
    warnings = "".join(
        f"<p style='margin:.3em 0'>⚠ {escape(printable(text))}</p>" for text in report.warnings
    )
    return (
        "<div style='font-size:.95em;max-width:46em'>"
        f"<p style='margin:.2em 0'><strong>{escape(name_of(report))}</strong><br>"
        f"{escape(sentence(report))}</p>"
        f"<table style='border-collapse:collapse'><tbody>{rows}</tbody></table>"
        f"{_statistics(report)}{_clusters(report)}{warnings}</div>"
    )


def _statistics(report: Measurement) -> str:
    """The other statistics, as `print` shows them."""
    rows = [("also", "network", "shuffles", "Z", "p"), *statistic_rows(report)]
    n_shown = 5 if report.n_shuffles else 2
    style = "text-align:right;padding:.1em .8em;font-variant-numeric:tabular-nums"
    lines = "".join(
        "<tr>"
        + "".join(f"<td style='{style}'>{escape(cell)}</td>" for cell in row[:n_shown])
        + "</tr>"
        for row in rows
    )
    return f"<table style='border-collapse:collapse;margin:.5em 0'><tbody>{lines}</tbody></table>"


def _clusters(report: Measurement) -> str:
    """A bar for each layer, divided into clusters, with the counts."""
    colors = cluster_colors(report.k)
    sizes = report.cluster_sizes().tolist()
    names = layer_names(report.layers).short
    shown = slice(None) if len(names) <= MAX_LAYERS else slice(MAX_LAYERS - 1)
    rows = ""
    for name, layer, counts in zip(names[shown], report.layers[shown], sizes[shown], strict=True):
        parts = [*zip(counts, colors, strict=True), (layer.size - sum(counts), FAINT)]
        bar = "".join(
            f"<span style='flex:{count};background:{color};color:#fff;font-size:.75em;"
            f"overflow:hidden;text-align:center' title='{count}'>{count}</span>"
            for count, color in parts
            if count
        )
        rows += (
            f"<div style='display:flex;gap:.6em;margin:2px 0'><span style='width:9em;"
            f"overflow-wrap:anywhere'>{escape(name)}</span><span style='display:flex;flex:1'>"
            f"{bar}</span></div>"
        )
    hidden = len(names) - len(names[shown])
    more = f"<div>… and {hidden} more layers</div>" if hidden else ""
    return f"<div role='img' aria-label='clusters in each layer'>{rows}{more}</div>"


def _row(name: str, value: str) -> str:
    style = "text-align:left;padding:.15em 1em .15em 0;vertical-align:top"
    return (
        f"<tr><th style='{style};font-weight:500;opacity:.7'>{escape(name)}</th>"
        f"<td style='{style};font-variant-numeric:tabular-nums'>{escape(value)}</td></tr>"
    )
