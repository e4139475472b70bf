"""A report as plain text: at most 80 columns, about 40 lines."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ncut.report.top import findings
from ncut.report.wording import (
    SUMS,
    convention_text,
    name_of,
    ncut_text,
    p_remark,
    p_text,
    printable,
    sentence,
    spread_text,
    statistic_rows,
    z_text,
)

if TYPE_CHECKING:
    from ncut.results import Measurement

WIDTH = 80
NAME_WIDTH = 14
MAX_LAYERS = 6
MAX_WARNINGS = 3


def summary(report: Measurement) -> str:
    """Name and outcome, headline numbers, other statistics, clusters per layer, warnings."""
    blocks = (
        title_lines(report),
        top_lines(report),
        headline_lines(report),
        statistic_lines(report),
        cluster_lines(report),
        warning_lines(report),
    )
    return "\n\n".join("\n".join(lines) for lines in blocks if lines)


def title_lines(report: Measurement) -> list[str]:
    """The model's name, and the outcome in one sentence."""
    return [shorten(name_of(report), WIDTH), *textwrap.wrap(sentence(report), WIDTH)]


def top_lines(report: Measurement) -> list[str]:
    """The questions of the report's summary, each with its answer."""
    lines = []
    for finding in findings(report):
        answer = f"{finding.answer}: " if finding.answer else ""
        lines += textwrap.wrap(
            f"{finding.title}: {answer}{finding.text}",
            WIDTH,
            subsequent_indent=" " * 4,
        )
    return lines


def headline_lines(report: Measurement) -> list[str]:
    """The headline numbers in two columns."""
    return [f"{name:<{NAME_WIDTH}}{value}" for name, value in headline(report)]


def headline(report: Measurement) -> list[tuple[str, str]]:
    """The numbers to read first, as (name, value)."""
    rows = [
        (
            "n-cut",
            f"{ncut_text(report.ncut)} with k = {report.k}",
        )
    ]
    if report.n_shuffles:
        rows += [
            (
                "shuffles",
                f"{spread_text(report)} (n = {report.n_shuffles}, null model "
                f"{shorten(printable(report.null), 20)})",
            ),
            ("Z", z_text(report.z_score)),
            ("p", f"{p_text(report.p_value)} ({p_remark(report)})"),
        ]
    if report.kmeans_std is not None and report.shuffled_kmeans_std is not None:
        noise = f"± {report.kmeans_std:.3f} here, ± {report.shuffled_kmeans_std:.3f} in shuffles"
        rows.append(("k-means", f"{noise}: its noise in repeats"))
    if report.normalize != "none":
        rows.append(("scale", shorten(convention_text(report), WIDTH - NAME_WIDTH)))
    if report.sums:
        rows.append(("sums", SUMS.get(report.sums, report.sums)))
    isolated = f", {report.n_isolated:,} isolated" if report.n_isolated else ""
    sizes = layer_sizes(report)
    return [
        *rows,
        ("vertices", f"{report.n_vertices - report.n_isolated:,} in the graph{isolated}"),
        ("edges", f"{report.n_edges:,}"),
        ("layers", shorten(sizes, WIDTH - NAME_WIDTH)),
    ]


def statistic_lines(report: Measurement) -> list[str]:
    """The statistics besides the headline, each compared with the same shuffles."""
    rows = statistic_rows(report)
    if not report.n_shuffles:
        return [f"{title:<{NAME_WIDTH + 2}}{value:>8}" for title, value, *_ in rows]
    header = ("also", "network", "shuffles", "Z", "p")
    return [
        f"{title:<{NAME_WIDTH + 2}}{value:>8}{spread:>20}{z:>9}{p:>9}"
        for title, value, spread, z, p in [header, *rows]
    ]


def layer_sizes(report: Measurement) -> str:
    """The layers' sizes in order, such as 784-256-10."""
    return "-".join(str(layer.size) for layer in report.layers)


def cluster_lines(report: Measurement) -> list[str]:
    """Neurons of each layer in each cluster, truncated to the width and to a few layers."""
    sizes = report.cluster_sizes()
    column = max(4, len(str(sizes.max(initial=0))) + 1)
    n_shown = min(report.k, (WIDTH - NAME_WIDTH - 2) // column)
    more = " …" if n_shown < report.k else ""
    rows: list[tuple[str, Sequence[int]]] = [("cluster", range(n_shown))]
    shown = slice(None) if len(report.layers) <= MAX_LAYERS else slice(MAX_LAYERS - 1)
    rows += [
        (printable(layer.name), row[:n_shown].tolist())
        for layer, row in zip(report.layers[shown], sizes[shown], strict=True)
    ]
    lines = [
        f"{shorten(name, NAME_WIDTH - 1):<{NAME_WIDTH}}"
        + "".join(f"{number:>{column}}" for number in numbers)
        + more
        for name, numbers in rows
    ]
    n_hidden = len(report.layers) + 1 - len(rows)
    return [*lines, f"… and {n_hidden} more layers"] if n_hidden else lines


def warning_lines(report: Measurement) -> list[str]:
    """The first warnings, wrapped."""
    lines = []
    for text in report.warnings[:MAX_WARNINGS]:
        lines += textwrap.wrap(
            f"warning: {printable(text)}",
            WIDTH,
            subsequent_indent="  ",
            max_lines=2,
            placeholder=" …",
        )
    n_hidden = len(report.warnings) - MAX_WARNINGS
    if n_hidden > 0:
        lines.append(f"… and {n_hidden} more in report.warnings")
    return lines


def shorten(text: str, width: int) -> str:
    """The text, without its middle if it is longer than `width`."""
    if len(text) <= width:
        return text
    head = (width - 1) // 2
    return f"{text[:head]}…{text[len(text) - (width - 1 - head) :]}"
