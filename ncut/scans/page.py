"""A scan as one self-contained HTML page: statistics over training, and every model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from ncut.report.charts import Plane, around, percent, tag
from ncut.report.html import markup, render
from ncut.report.wording import CITATION, printable, z_text
from ncut.scans.course import Course, courses
from ncut.scans.rows import DONE
from ncut.scans.wording import NAMES, common_folder, failures, rows

if TYPE_CHECKING:
    from pandas import DataFrame


COLORS = ("#4c5fb0", "#d1495b", "#1f8a4c", "#cc8a1d", "#44aa99", "#aa4499", "#8d5a3b", "#6699cc")
SHOWN_SETTINGS = ("k", "n_shuffles", "sequential", "null", "normalize", "refine", "seed", "scope")
MAX_MODELS = 80


def html_page(
    name: str, settings: Mapping[str, Any], frame: DataFrame, title: str | None = None
) -> str:
    """Render the page of a scan from the folder's name, settings and rows.

    Raises
    ------
    MissingExtraError
        If jinja2 or pandas is not installed.
    """
    return render(
        "scan.html.j2",
        ("save.js", "scan.js"),
        title=printable(title or name),
        n_done=int((frame["status"] == DONE).sum()),
        failed=failures(frame),
        settings=[
            (setting, printable(str(settings[setting])))
            for setting in SHOWN_SETTINGS
            if settings.get(setting) is not None
        ],
        figures=[(figure, markup(chart), why) for figure, chart, why in _figures(frame)],
        names=NAMES,
        folder=common_folder(frame),
        rows=rows(frame),
        citation=CITATION,
    )


def _figures(frame: DataFrame) -> list[tuple[str, str, str]]:
    """Name, chart and caption of each picture."""
    found = [*courses(frame)]
    figures = []
    if found:
        figures.append(
            (
                "The n-cut over training",
                _course(found, "ncut", "n-cut"),
                "Each checkpoint's n-cut, and as a band its shuffles' mean plus and minus one "
                "standard deviation. The further below its shuffles, the more clusterable.",
            )
        )
        if any(one.rows["z_score"].notna().any() for one in found):
            figures.append(
                (
                    "Z over training",
                    _course(found, "z_score", "Z"),
                    "The distance of the n-cut from the mean of its shuffles, in their standard "
                    "deviations; negative where the network is more clusterable than its shuffles.",
                )
            )
    if every := _every_model(frame):
        figures.append(every)
    return figures


def _course(found: Sequence[Course], column: str, title: str) -> str:
    steps = [float(step) for one in found for step in one.x]
    values = [float(value) for one in found for value in one.rows[column].dropna()]
    with_band = column == "ncut"
    if with_band:
        for one in found:
            mean, std = one.rows["shuffled_mean"], one.rows["shuffled_std"]
            values += [*(mean - std).dropna(), *(mean + std).dropna()]
    plane = Plane(
        around(steps), around([*values, *([] if with_band else [0.0])]), "step", title, height=320
    )
    if not with_band:
        plane.horizontal(0, class_="muted thin")
    for number, one in enumerate(found):
        style = f"--hue:{COLORS[number % len(COLORS)]}"
        table = one.rows
        if with_band and table["shuffled_mean"].notna().all():
            mean, std = table["shuffled_mean"], table["shuffled_std"]
            plane.area(
                one.x,
                (mean - std).tolist(),
                (mean + std).tolist(),
                style=f"fill:{COLORS[number % len(COLORS)]};opacity:.2",
            )
            plane.line(one.x, mean, class_="dashed", style=style)
        known = table[column].notna()
        points = [
            (x, float(y), path)
            for x, y, path, there in zip(one.x, table[column], table["path"], known, strict=True)
            if there
        ]
        if points:
            xs, ys, paths = zip(*points, strict=True)
            plane.line(xs, ys, style=style)
            plane.dots(
                xs,
                ys,
                [f"{printable(path)}: {y:.3f}" for y, path in zip(ys, paths, strict=True)],
                style=style,
            )
        plane.legend.append((one.name, "", style))
    return plane.markup()


def _every_model(frame: DataFrame) -> tuple[str, str, str] | None:
    """A row for each model: its n-cut as a dot on its shuffles' mean, one deviation wide."""
    done = frame[frame["status"] == DONE]
    if done.empty:
        return None
    shown = done.sort_values("z_score", na_position="last", kind="stable").head(MAX_MODELS)
    numbers: list[float] = [*shown["ncut"]]
    numbers += [*(shown["shuffled_mean"] - shown["shuffled_std"]).dropna()]
    numbers += [*(shown["shuffled_mean"] + shown["shuffled_std"]).dropna()]
    low, high = around(numbers)
    folder = common_folder(frame)
    lines = "".join(_model_row(row, folder, low, high) for row in shown.to_dict("records"))
    return (
        "All models",
        tag("div", lines, class_="models"),
        "Each model's n-cut as a dot, its shuffles' mean plus and minus one standard deviation as "
        "a bar, and Z; most clusterable first."
        + (
            f" The first {MAX_MODELS} of {len(done)}; the table has all."
            if len(done) > MAX_MODELS
            else ""
        ),
    )


def _model_row(row: dict[Any, Any], folder: str, low: float, high: float) -> str:
    path = printable(str(row["path"]))
    mean, std, z = row["shuffled_mean"], row["shuffled_std"], row["z_score"]

    def at(value: float) -> float:
        return (value - low) / (high - low)

    known = mean == mean and std == std
    bar = (
        tag(
            "i",
            class_="range",
            style=f"left:{percent(at(mean - std))};"
            f"width:{percent(max(at(mean + std) - at(mean - std), 0.002))}",
            data_tip=f"shuffles: {mean:.3f} ± {std:.3f}",
        )
        if known
        else ""
    )
    dot = tag(
        "i",
        class_="point",
        style=f"left:{percent(at(row['ncut']))}",
        data_tip=f"{path}: n-cut {row['ncut']:.3f}",
    )
    return tag(
        "div",
        tag("span", escape(path.removeprefix(folder)), class_="name", title=path)
        + tag("span", bar + dot, class_="track")
        + tag("span", z_text(None if z != z else float(z)), class_="count"),
        class_="row",
    )
