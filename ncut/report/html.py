"""Reports as one HTML page that needs no network: style and pictures are inside."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from ncut.errors import InputError, import_extra
from ncut.report import words
from ncut.report.text import layer_sizes

if TYPE_CHECKING:
    from ncut.report.report import PlotKind, Report

CAPTIONS: dict[PlotKind, str] = {
    "null": "n-cuts of the shuffled networks, and the network's own as a line. The further the "
    "line lies to their left, the more clusterable the network is in comparison.",
    "layers": "How each layer's neurons divide into the clusters. The order of the clusters' "
    "numbers means nothing.",
    "eigenvalues": "The smallest eigenvalues of the normalized Laplacian. As many near 0 as "
    "there are almost separate groups; the n-cut cannot be below their sum.",
}


def html_page(reports: Sequence[Report], title: str | None = None) -> str:
    """Render reports on one self-contained page.

    Parameters
    ----------
    reports : sequence of Report
        One or more; two or more are compared in a table at the top.
    title : str, optional
        The page's heading; made from the models' names by default.

    Returns
    -------
    str
        An HTML document in light and dark colours that loads nothing from elsewhere.

    Raises
    ------
    InputError
        If there are no reports.
    MissingExtraError
        If jinja2 or matplotlib is not installed.
    """
    if not reports:
        raise InputError("reports: need at least one report to make a page of")
    template = _environment().get_template("report.html.j2")
    text: str = template.render(
        title=words.printable(title) if title else _title(reports),
        reports=[_view(report, number) for number, report in enumerate(reports)],
        meanings=[(term, _minus(text)) for term, text in words.meanings(reports)],
        not_meant=words.NOT_MEANT,
        citation=words.CITATION,
    )
    return text


def check_available() -> None:
    """Raise MissingExtraError if what `html_page` needs is not installed."""
    for module in ("jinja2", "matplotlib"):
        import_extra(module, "plot")


def _environment() -> Any:
    jinja2 = import_extra("jinja2", "plot")
    folder = files("ncut.report") / "templates"
    return jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _title(reports: Sequence[Report]) -> str:
    if len(reports) == 1:
        return f"Clusterability of {words.name_of(reports[0])}"
    return f"Clusterability of {len(reports)} networks"


def _view(report: Report, number: int) -> dict[str, Any]:
    """Everything the template shows of a report, as text."""
    kinds: list[PlotKind] = ["null", "layers"] if report.n_shuffles else ["layers"]
    return {
        "name": words.name_of(report),
        "sentence": _minus(words.sentence(report)),
        "cells": [_minus(cell) for cell in _cells(report)],
        "tiles": [tuple(_minus(text) for text in tile) for tile in _tiles(report)],
        "statistics": [tuple(map(_minus, row)) for row in words.statistic_rows(report)],
        "pictures": [_picture(report, number, kind) for kind in kinds],
        "clusters": _clusters(report),
        "eigenvalues": {
            "picture": _picture(report, number, "eigenvalues"),
            "numbers": [f"{value:.6f}" for value in report.eigenvalues],
        },
        "warnings": [words.printable(text) for text in report.warnings],
        "left_out": [
            (words.printable(item.name), _shape(item.shape), words.printable(item.reason))
            for item in report.left_out
        ],
        "facts": [(name, words.printable(value)) for name, value in _facts(report)],
        "made": [(name, words.printable(value)) for name, value in _made(report)],
    }


def _cells(report: Report) -> list[str]:
    """The network's row in the comparison."""
    return [
        words.ncut_text(report.ncut),
        words.spread_text(report),
        words.z_text(report.z_score),
        words.p_text(report.p_value),
    ]


def _tiles(report: Report) -> list[tuple[str, str, str, str]]:
    """Headline numbers: (name, value, its spread, remark)."""
    share = words.share_text(report)
    remark = f"of at most {report.k}; about {share} of edge weight leaves a cluster"
    tiles = [("n-cut", words.ncut_text(report.ncut), "", remark)]
    if not report.n_shuffles:
        return tiles
    mean, _, std = words.spread_text(report).partition(" ± ")
    return [
        *tiles,
        ("Shuffles", mean, std, f"mean and standard deviation of {report.n_shuffles}"),
        ("Z", words.z_text(report.z_score), "", _z_remark(report)),
        ("p", words.p_text(report.p_value), "", words.p_remark(report)),
    ]


def _z_remark(report: Report) -> str:
    if report.z_score is None:
        return "the shuffles do not differ from each other"
    side = "below" if report.z_score < 0 else "above"
    return f"standard deviations {side} the shuffles' mean"


def _picture(report: Report, number: int, kind: PlotKind) -> tuple[Any, str]:
    """The picture as SVG that the template does not escape, and its caption."""
    from ncut.report.plots import new_figure
    from ncut.report.svg import inline_svg

    markup = import_extra("markupsafe", "plot").Markup
    caption = CAPTIONS[kind]
    return markup(inline_svg(new_figure(report, kind), f"p{number}-{kind}", caption)), caption


def _clusters(report: Report) -> dict[str, Any]:
    """Cluster sizes per layer, with each cell's share of the layer for its shading."""
    from ncut.report.plots import cluster_colors

    rows = [
        {
            "name": words.printable(layer.name),
            "size": layer.size,
            "cells": [(int(count), f"{count / max(layer.size, 1):.3f}") for count in counts],
            "isolated": layer.size - int(counts.sum()),
        }
        for layer, counts in zip(report.layers, report.cluster_sizes(), strict=True)
    ]
    return {
        "colors": cluster_colors(report.k),
        "rows": rows,
        "totals": [int(total) for total in report.cluster_sizes().sum(axis=0)],
        "isolated": report.n_isolated,
    }


def _facts(report: Report) -> list[tuple[str, str]]:
    """The graph in numbers."""
    return [
        ("vertices in the graph", f"{report.n_vertices - report.n_isolated:,}"),
        ("isolated vertices, left out", f"{report.n_isolated:,}"),
        ("edges", f"{report.n_edges:,}"),
        (f"{len(report.layers)} layers", layer_sizes(report)),
    ]


def _made(report: Report) -> list[tuple[str, str]]:
    """What it takes to get the same numbers again."""
    return [
        ("seed", str(report.seed)),
        ("k", str(report.k)),
        ("shuffles", str(report.n_shuffles)),
        ("null model", report.null),
        ("scale of weights", report.normalize),
        ("preset", report.preset),
        ("k-means restarts", str(report.n_init)),
        ("refined", "yes" if report.refine else "no"),
        ("solver", report.solver),
        ("residual", f"{report.residual:.1e}"),
        *([("residual sums", report.sums)] if report.sums else []),
        ("ncut", report.version),
    ]


def _shape(shape: tuple[int, ...]) -> str:
    return " × ".join(str(n) for n in shape)


def _minus(text: str) -> str:
    """The text with true minus signs, and no line break within "p = 0.020"."""
    text = text.replace(" = ", "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}")
    return re.sub(r"(?<![\w.)])-(?=\d)|(?<= )-(?= )|\A-\Z", "\N{MINUS SIGN}", text)
