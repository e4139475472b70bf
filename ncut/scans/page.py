"""A scan as one HTML page that needs no network: the course over training, and every model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ncut.errors import import_extra
from ncut.report.page_figures import FONT
from ncut.report.words import CITATION, printable
from ncut.scans.course import axis_title, courses
from ncut.scans.rows import DONE
from ncut.scans.words import NAMES, failures, rows

if TYPE_CHECKING:
    from pandas import DataFrame


COLORS = ("#4c5fb0", "#d1495b", "#1f8a4c", "#cc8a1d", "#44aa99", "#aa4499", "#8d5a3b", "#6699cc")
SHOWN_SETTINGS = ("k", "n_shuffles", "sequential", "null", "normalize", "refine", "seed", "scope")


def html_page(name: str, settings: Mapping[str, Any], frame: DataFrame) -> str:
    """Render the page of a scan's folder of this name, from its settings and its rows.

    Raises
    ------
    MissingExtraError
        If jinja2, plotly or pandas is not installed.
    """
    jinja2 = import_extra("jinja2", "plot")
    plotly_js = import_extra("plotly.offline", "plot").get_plotlyjs()
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ncut", "report/templates"), autoescape=True, trim_blocks=True
    )
    markup = import_extra("markupsafe", "plot").Markup
    text: str = environment.get_template("scan.html.j2").render(
        title=printable(name),
        n_done=int((frame["status"] == DONE).sum()),
        failed=failures(frame),
        settings=[
            (setting, printable(str(settings[setting])))
            for setting in SHOWN_SETTINGS
            if settings.get(setting) is not None
        ],
        figures=[(title, markup(_div(figure)), why) for title, figure, why in _figures(frame)],
        plotly_js=markup(plotly_js),
        names=NAMES,
        rows=rows(frame),
        citation=CITATION,
    )
    return text


def _figures(frame: DataFrame) -> list[tuple[str, Any, str]]:
    """Name, plotly figure and caption of each picture."""
    objects = import_extra("plotly.graph_objects", "plot")
    found = [*courses(frame)]
    figures = []
    if found:
        title = axis_title(found)
        course = objects.Figure()
        scores = objects.Figure()
        for number, one in enumerate(found):
            color, table = COLORS[number % len(COLORS)], one.rows
            paths = [printable(path) for path in table["path"]]
            if table["shuffled_mean"].notna().any():
                mean, std = table["shuffled_mean"], table["shuffled_std"]
                course.add_scatter(
                    x=[*one.x, *one.x[::-1]],
                    y=[*(mean + std), *(mean - std)[::-1]],
                    fill="toself", mode="none", fillcolor=color, opacity=0.2,
                    hoverinfo="skip", showlegend=False, legendgroup=one.name,
                )  # fmt: skip
                course.add_scatter(
                    x=one.x, y=mean.tolist(), mode="lines", name=f"{one.name}: shuffles",
                    line={"color": color, "dash": "dash", "width": 1}, legendgroup=one.name,
                )  # fmt: skip
            line = {
                "x": one.x, "mode": "lines+markers", "name": one.name, "legendgroup": one.name,
                "line": {"color": color}, "text": paths,
                "hovertemplate": "%{text}<br>%{y:.3f}<extra></extra>",
            }  # fmt: skip
            course.add_scatter(y=table["ncut"].tolist(), **line)
            if table["z_score"].notna().any():
                scores.add_scatter(y=table["z_score"].tolist(), **line)
        figures.append(
            (
                "The course of the n-cut",
                _styled(course, title, "n-cut"),
                "Each checkpoint's n-cut, and the mean of its shuffles with one standard deviation "
                "either way. The further below its shuffles, the more clusterable.",
            )
        )
        if scores.data:
            scores.add_hline(y=0, line_width=1, line_color="#888888")
            figures.append(
                (
                    "The course of Z",
                    _styled(scores, title, "Z"),
                    "The distance of the n-cut from the mean of its shuffles, in their standard "
                    "deviations: negative where the network is more clusterable than they are.",
                )
            )
    every = _every_model(frame, objects)
    if every is not None:
        figures.append(every)
    return figures


def _every_model(frame: DataFrame, objects: Any) -> tuple[str, Any, str] | None:
    done = frame[(frame["status"] == DONE) & frame["z_score"].notna()]
    if len(done) < 2:
        return None
    figure = objects.Figure()
    for number, (name, table) in enumerate(done.groupby("group")):
        figure.add_scatter(
            x=table["ncut"].tolist(), y=table["z_score"].tolist(), mode="markers",
            name=printable(str(name)), text=[printable(path) for path in table["path"]],
            marker={"color": COLORS[number % len(COLORS)], "size": 9, "opacity": 0.8},
            hovertemplate="%{text}<br>n-cut %{x:.3f}, Z %{y:.2f}<extra></extra>",
        )  # fmt: skip
    figure.add_hline(y=0, line_width=1, line_color="#888888")
    return (
        "All models",
        _styled(figure, "n-cut", "Z"),
        "Low n-cuts and negative Z: clusterable, by itself and beside shuffled networks. Hover for "
        "the model's name.",
    )


def _styled(figure: Any, x: str, y: str) -> Any:
    """Axes without colours of their own: the page's style sheet has them, light and dark."""
    figure.update_layout(
        template="none", paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 60, "r": 12, "t": 12, "b": 48}, height=380,
        legend={"orientation": "h", "y": -0.25}, xaxis_title=x, yaxis_title=y,
        showlegend=len(figure.data) > 1, hoverlabel={"align": "left"}, font={"family": FONT},
    )  # fmt: skip
    return figure


def _div(figure: Any) -> str:
    text: str = figure.to_html(
        full_html=False, include_plotlyjs=False, config={"displaylogo": False, "responsive": True}
    )
    return text
