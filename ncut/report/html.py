"""Reports as one self-contained HTML page: style, script and pictures are embedded."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from ncut.errors import InputError, import_extra
from ncut.report import k_pictures, page_views, pictures, wording
from ncut.report.between import Between, of_report
from ncut.report.colours import cluster_colors
from ncut.report.flow_picture import flow_picture
from ncut.report.maps import flows_of, shown_clusters
from ncut.report.names import names_of
from ncut.report.page_data import page_data
from ncut.report.picture import Picture

if TYPE_CHECKING:
    from ncut.report.profile import Profile
    from ncut.results import Measurement

SCRIPTS = ("save.js", "report.js")


def html_page(
    reports: Sequence[Measurement],
    title: str | None = None,
    profiles: Sequence[Profile | None] | None = None,
) -> str:
    """Render reports on one self-contained page.

    Parameters
    ----------
    reports : sequence of Report
        One or more; two or more are compared in a table at the top.
    title : str, optional
        The page's heading; made from the models' names by default.
    profiles : sequence of (Profile or None), optional
        A profile over k of each report's network, or None.

    Returns
    -------
    str
        An HTML document with light and dark themes that loads no external resources.

    Raises
    ------
    InputError
        If there are no reports, or a profile is of another network.
    MissingExtraError
        If jinja2 is not installed.
    """
    if not reports:
        raise InputError("reports: need at least one report to make a page of")
    profiles = profiles or [None] * len(reports)
    if len(profiles) != len(reports):
        raise InputError(f"profiles: {len(profiles)} for {len(reports)} reports; give one for each")
    for report, profile in zip(reports, profiles, strict=True):
        _check_profile(report, profile)
    return render(
        "report.html.j2",
        SCRIPTS,
        title=wording.printable(title) if title else _title(reports),
        reports=[_view(*pair) for pair in zip(reports, profiles, strict=True)],
        meanings=[(term, page_views.minus(text)) for term, text in wording.meanings(reports)],
        not_meant=wording.NOT_MEANT,
        citation=wording.CITATION,
    )


def check_available() -> None:
    """Raise MissingExtraError if a dependency of `html_page` is not installed."""
    import_extra("jinja2", "plot")


def render(template: str, scripts: Sequence[str], **values: Any) -> str:
    """A page from a template, with one script allowed by its hash and no connections.

    Raises
    ------
    MissingExtraError
        If jinja2 is not installed.
    """
    jinja2 = import_extra("jinja2", "plot")
    folder = files("ncut.report") / "templates"

    def read(name: str) -> str:
        return (folder / name).read_text(encoding="utf-8")

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(read),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = "\n".join(map(read, scripts))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    text: str = environment.get_template(template).render(
        script=markup(script), script_hash=digest, **values
    )
    return text


def _title(reports: Sequence[Measurement]) -> str:
    if len(reports) == 1:
        return f"Clusterability of {wording.name_of(reports[0])}"
    return f"Clusterability of {len(reports)} networks"


def _check_profile(report: Measurement, profile: Profile | None) -> None:
    if profile is None:
        return
    ours, theirs = ([layer.size for layer in one.layers] for one in (report, profile))
    if ours != theirs:
        raise InputError("profile: is of another network, whose layers have other sizes")


def _view(report: Measurement, profile: Profile | None) -> dict[str, Any]:
    """The template's texts for a report, and the script's data."""
    names = names_of(report)
    between = of_report(report)
    flows = None if between is None else between.flows
    data = page_data(report, names, profile)
    data["colors"] = cluster_colors(report.k)
    views = page_views.views(report, names, profile)
    data["tables"]["settings"] = {
        "names": ["what", "value"],
        "rows": views["facts"] + views["made"],
    }
    found = _pictures(report, profile, between)
    return views | {
        "clusters": page_views.clusters(report, names, data["clusters"]),
        "pictures": {
            where: [{"picture": one, "markup": markup(one.markup)} for one in group]
            for where, group in found.items()
        },
        "notes": page_views.notes(report, flows, data),
        "downloads": page_views.downloads(data),
        "statistics_names": [
            (name, wording.statistic_title(name))
            for name in (report.statistics if report.n_shuffles else ())
        ],
        "headline": report.headline,
        "file": data["file"],
        "searchable": data["neurons"] is not None,
        "json": _script_json(data),
    }


def _pictures(
    report: Measurement, profile: Profile | None, between: Between | None
) -> dict[str, list[Picture]]:
    """The pictures of each part of the page."""
    names, shown, colors = names_of(report), shown_clusters(report), cluster_colors(report.k)
    clusters = [pictures.bars_picture(report, names, shown)]
    sure = [pictures.null_picture(report)] if report.n_shuffles else []
    if between is not None:
        if laid_out := flows_of(report, between.flows, names):
            clusters.append(flow_picture(report, laid_out, shown))
        ratio = between.ratio(report.cluster_sizes())
        clusters.append(pictures.ratio_picture(ratio, colors))
    inputs = {0} - ({b for _, b in between.flows} if between is not None else set())
    if shape := pictures.pixel_shape(report.layers, inputs):
        clusters.append(pictures.pixels_picture(report, shape, colors))
    ks = [k_pictures.eigenvalues_picture(report, profile)]
    if profile is not None:
        ks.append(k_pictures.gaps_picture(profile, report.k))
        if profile.n_shuffles:
            ks.append(k_pictures.scores_picture(profile, report.k))
    return {"clusters": clusters, "sure": sure, "k": ks}


def _script_json(data: Any) -> Any:
    """JSON that is safe in a script element: nothing in it can end the element."""
    try:
        text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    except ValueError:  # sums of numbers at the end of the range
        text = json.dumps(_finite(data), allow_nan=False, separators=(",", ":"))
    return markup(re.sub(r"[<>&]", lambda found: f"\\u{ord(found[0]):04x}", text))


def _finite(data: Any) -> Any:
    """The data with null in place of numbers that JSON cannot represent."""
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def markup(text: str) -> Any:
    """Text that a template does not escape."""
    return import_extra("markupsafe", "plot").Markup(text)
