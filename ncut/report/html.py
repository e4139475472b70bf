"""Reports as one HTML page that needs no network: style, script and pictures are inside."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from ncut.axes import STATISTICS
from ncut.errors import InputError, import_extra
from ncut.report import page_views, words
from ncut.report.colours import cluster_colors

if TYPE_CHECKING:
    from ncut.report.maps import Flow, Matrix, Shown
    from ncut.report.profile import Profile
    from ncut.results import Measurement


def html_page(
    reports: Sequence[Measurement],
    title: str | None = None,
    profiles: Sequence[Profile | None] | None = None,
) -> str:
    """Render reports on one self-contained page.

    Parameters
    ----------
    reports : sequence of Measurement
        One or more; two or more are compared in a table at the top.
    title : str, optional
        The page's heading; made from the models' names by default.
    profiles : sequence of (Profile or None), optional
        A profile of each report's network over k, where there is one.

    Returns
    -------
    str
        An HTML document in light and dark colours that loads nothing from elsewhere; plotly's
        script, which is in it, makes about 5 MB of it.

    Raises
    ------
    InputError
        If there are no reports, or a profile is of another network.
    MissingExtraError
        If jinja2 or plotly is not installed.
    """
    if not reports:
        raise InputError("reports: need at least one report to make a page of")
    profiles = profiles or [None] * len(reports)
    if len(profiles) != len(reports):
        raise InputError(f"profiles: {len(profiles)} for {len(reports)} reports; give one for each")
    for report, profile in zip(reports, profiles, strict=True):
        _check_profile(report, profile)
    template = _environment().get_template("report.html.j2")
    text: str = template.render(
        title=words.printable(title) if title else _title(reports),
        reports=[_view(*pair) for pair in zip(reports, profiles, strict=True)],
        meanings=[(term, page_views.minus(text)) for term, text in words.meanings(reports)],
        not_meant=words.NOT_MEANT,
        citation=words.CITATION,
        plotly_js=_markup(import_extra("plotly.offline", "plot").get_plotlyjs()),
    )
    return text


def check_available() -> None:
    """Raise MissingExtraError if what `html_page` needs is not installed."""
    for module in ("jinja2", "plotly"):
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


def _title(reports: Sequence[Measurement]) -> str:
    if len(reports) == 1:
        return f"Clusterability of {words.name_of(reports[0])}"
    return f"Clusterability of {len(reports)} networks"


def _check_profile(report: Measurement, profile: Profile | None) -> None:
    if profile is None:
        return
    ours, theirs = ([layer.size for layer in one.layers] for one in (report, profile))
    if ours != theirs:
        raise InputError("profile: is of another network, whose layers have other sizes")


def _view(report: Measurement, profile: Profile | None) -> dict[str, Any]:
    """Everything that the template shows of a report, as text, and the script's data."""
    from ncut.report.edges import layer_flows
    from ncut.report.maps import flow_of, matrix_of, shown_clusters
    from ncut.report.page_data import page_data

    graph, shown = report.graph, shown_clusters(report)
    flows = layer_flows(graph, report.labels, report.k) if graph is not None else None
    flow = flow_of(report, flows) if flows is not None else None
    matrix = matrix_of(report, graph) if graph is not None else None
    data = page_data(report, profile, flows, matrix)
    data["colors"] = cluster_colors(report.k)
    data["figures"] = _figures(report, profile, shown, flow, matrix)
    views = page_views.views(report, profile)
    data["tables"]["settings"] = {
        "names": ["what", "value"],
        "rows": views["facts"] + views["made"],
    }
    return views | {
        "clusters": page_views.clusters(report, data["clusters"]),
        "pictures": page_views.captions(report, profile, shown, flow, matrix),
        "notes": page_views.notes(report, flow, data),
        "downloads": page_views.downloads(data),
        "statistics_names": [
            (name, STATISTICS[name].title if name in STATISTICS else words.printable(name))
            for name in data["figures"].get("null", ())
        ],
        "headline": report.headline,
        "n_columns": len(flow.columns) if flow else 0,
        "json": _script_json(data),
    }


def _figures(
    report: Measurement,
    profile: Profile | None,
    shown: Shown,
    flow: Flow | None,
    matrix: Matrix | None,
) -> dict[str, Any]:
    from ncut.report import map_figures, page_figures

    figures: dict[str, Any] = {
        "bars": map_figures.bars_figure(report, shown),
        "eigenvalues": page_figures.eigenvalues_figure(report, profile),
    }
    if report.n_shuffles:
        figures["null"] = {
            name: page_figures.null_figure(name, compared)
            for name, compared in report.statistics.items()
        }
    if flow is not None:
        figures["flow"] = map_figures.flow_figure(report, flow, shown)
    if matrix is not None:
        figures["matrix"] = map_figures.matrix_figure(report, matrix)
    if profile is not None:
        figures["gaps"] = page_figures.gaps_figure(profile, report.k)
        if profile.n_shuffles:
            figures["scores"] = page_figures.scores_figure(profile, report.k)
    return figures


def _script_json(data: Any) -> Any:
    """JSON that may stand in a script element: nothing in it can end the element."""
    try:
        text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    except ValueError:  # sums of numbers at the end of the range
        text = json.dumps(_finite(data), allow_nan=False, separators=(",", ":"))
    return _markup(re.sub(r"[<>&]", lambda found: f"\\u{ord(found[0]):04x}", text))


def _finite(data: Any) -> Any:
    """The data with null in place of numbers that JSON cannot carry."""
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def _markup(text: str) -> Any:
    return import_extra("markupsafe", "plot").Markup(text)
