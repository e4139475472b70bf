"""Pictures of a report; matplotlib is imported when one is drawn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ncut.arguments import check_choice
from ncut.axes import STATISTICS
from ncut.errors import InputError, import_extra
from ncut.files import write_file
from ncut.report import plot_maps
from ncut.report.between import of_report
from ncut.report.colours import ACCENT, FAINT, MUTED, cluster_colors
from ncut.report.text import shorten
from ncut.report.wording import name_of, ncut_text, p_text, printable, z_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ncut.results import Measurement, PlotKind, ProfileData

AXES_SIZE = (5.4, 3.2)

# Number of clusters above which a legend would be larger than the picture.
MAX_LEGEND = 24


def plot(report: Measurement, kind: PlotKind | None = None, ax: Axes | None = None) -> Axes:
    """Draw one picture into `ax`, or into a new pyplot figure."""
    if kind is None:
        kind = "null" if report.n_shuffles else "layers"
    painters = {
        "null": draw_null,
        "layers": draw_layers,
        "eigenvalues": draw_eigenvalues,
        "matrix": plot_maps.draw_matrix,
        "flow": plot_maps.draw_flow,
    }
    if kind == "all":
        if ax is not None:
            raise InputError("ax: must be left out with kind 'all', which makes a new figure")
        return _plot_all(report)
    check_choice("kind", kind, [*painters, "all"])
    if kind == "null" and not report.n_shuffles:
        raise InputError("kind: 'null' needs shuffles, and this report has none")
    if ax is None:
        pyplot = import_extra("matplotlib.pyplot", "plot")
        _, ax = pyplot.subplots(figsize=figure_size(report, kind), layout="constrained")
    assert ax is not None  # for the type checker: subplots() is untyped here
    painters[kind](report, ax)
    return ax


def _plot_all(report: Measurement) -> Axes:
    """Every available picture of the report, in one pyplot figure."""
    kinds: list[PlotKind] = ["null"] if report.n_shuffles else []
    kinds += ["layers", "eigenvalues"]
    between = of_report(report)
    if between is not None:
        kinds.append("matrix")
        if any(a != b for a, b in between.flows):
            kinds.append("flow")
    pyplot = import_extra("matplotlib.pyplot", "plot")
    n_rows = (len(kinds) + 1) // 2
    height = max(4.2, figure_size(report, "layers")[1])
    figure, axes = pyplot.subplots(
        n_rows, 2, figsize=(12, height * n_rows), layout="constrained", squeeze=False
    )
    for kind, ax in zip(kinds, axes.flat, strict=False):
        plot(report, kind, ax)
    for ax in axes.flat[len(kinds) :]:
        figure.delaxes(ax)
    first: Axes = axes.flat[0]
    return first


def new_figure(report: Measurement, kind: PlotKind) -> Figure:
    """One picture in a separate figure, unknown to pyplot."""
    figure_class = import_extra("matplotlib.figure", "plot").Figure
    figure: Figure = figure_class(figsize=figure_size(report, kind), layout="constrained")
    plot(report, kind, figure.add_subplot())
    return figure


def save_picture(report: Measurement, path: Path) -> None:
    """Write the default picture to a file; its suffix determines the format."""
    kind: PlotKind = "null" if report.n_shuffles else "layers"
    save_figure(new_figure(report, kind), path)


def save_axes(draw: Callable[[Axes], object], path: Path) -> None:
    """Write a picture of one pair of axes to a file; its suffix determines the format."""
    figure = import_extra("matplotlib.figure", "plot").Figure(
        figsize=AXES_SIZE, layout="constrained"
    )
    draw(figure.add_subplot())
    save_figure(figure, path)


def save_figure(figure: Figure, path: Path, dpi: int = 200) -> None:
    """Write a figure to a file, in the format of its suffix; raise InputError if that fails."""
    check_format(path)
    kind = path.suffix.lower().lstrip(".")
    write_file(path, lambda part: figure.savefig(part, dpi=dpi, format=kind))


def check_format(path: Path) -> None:
    """Raise InputError if matplotlib cannot write files with this suffix."""
    backends = import_extra("matplotlib.backend_bases", "plot")
    endings = sorted(backends.FigureCanvasBase.get_supported_filetypes())
    if path.suffix.lower().lstrip(".") not in endings:
        raise InputError(f"{path}: the name must end in one of .{', .'.join(endings)}")


def figure_size(report: Measurement, kind: PlotKind) -> tuple[float, float]:
    """Width and height in inches, higher for many layers."""
    if kind == "layers":
        return 4.7, 1.7 + 0.26 * max(3, len(report.layers))
    if kind == "matrix":
        return 5.4, 4.7
    if kind == "flow":
        return 6.4, 4.2
    return 4.7, 2.9


def draw_null(report: Measurement, ax: Axes) -> None:
    """Histogram of the shuffled networks' n-cuts, with the network's n-cut as a vertical line."""
    n_bins = int(np.clip(np.sqrt(report.n_shuffles) * 1.5, 5, 40))
    ax.hist(report.shuffled_ncuts, bins=n_bins, color=MUTED, label="shuffled networks")
    ax.axvline(report.ncut, color=ACCENT, linewidth=2, label="this network")
    low, high = ax.get_ylim()
    ax.set_ylim(low, high * 1.18)
    is_left = report.ncut <= np.median(report.shuffled_ncuts)
    ax.annotate(
        f"{shorten(name_of(report), 28)}\n{ncut_text(report.ncut)}",
        xy=(report.ncut, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(5 if is_left else -5, -4),
        textcoords="offset points",
        ha="left" if is_left else "right",
        va="top",
        color=ACCENT,
        parse_math=False,
    )
    ax.yaxis.set_major_locator(import_extra("matplotlib.ticker", "plot").MaxNLocator(integer=True))
    ax.set(xlabel=f"n-cut, k = {report.k}", ylabel="shuffled networks")
    z = z_text(report.z_score).replace("-", "\N{MINUS SIGN}")
    ax.set_title(f"p = {p_text(report.p_value)}, Z = {z}")
    _strip(ax)


def draw_layers(report: Measurement, ax: Axes) -> None:
    """A bar per layer, divided into clusters; isolated vertices come last, in grey."""
    sizes = report.cluster_sizes()
    totals = np.array([layer.size for layer in report.layers])
    isolated = totals - sizes.sum(axis=1)
    parts = [(str(c), sizes[:, c], color) for c, color in enumerate(cluster_colors(report.k))]
    if isolated.any():
        parts.append(("isolated", isolated, FAINT))
    rows = np.arange(len(report.layers))
    left = np.zeros(len(report.layers))
    for label, counts, color in parts:
        width = 100 * counts / np.maximum(totals, 1)
        ax.barh(rows, width, left=left, color=color, label=label, height=0.78)
        left += width
    ax.set_yticks(
        rows,
        [f"{shorten(printable(layer.name), 22)} ({layer.size})" for layer in report.layers],
        parse_math=False,
    )
    ax.set(xlabel="% of the layer's neurons", xlim=(0, 100), ylim=(len(rows) - 0.4, -0.6))
    ax.set_title("clusters in each layer")
    if len(parts) <= MAX_LEGEND:
        _legend_below(ax, figure_size(report, "layers")[1])
    _strip(ax)


def draw_eigenvalues(report: Measurement, ax: Axes) -> None:
    """The k smallest eigenvalues of the normalized Laplacian in ascending order."""
    numbers = np.arange(1, report.k + 1)
    ax.plot(
        numbers,
        report.eigenvalues,
        "o-",
        color=MUTED,
        markerfacecolor=ACCENT,
        markeredgecolor=ACCENT,
        clip_on=False,
    )
    ax.xaxis.set_major_locator(import_extra("matplotlib.ticker", "plot").MaxNLocator(integer=True))
    ax.set(xlabel="number", ylabel="eigenvalue")
    ax.set_title(f"{report.k} smallest eigenvalues")
    ax.set_ylim(bottom=min(0.0, float(report.eigenvalues.min(initial=0.0))))
    ax.grid(axis="y", alpha=0.25)
    _strip(ax)


def draw_profile(profile: ProfileData, statistic: str, ax: Axes | None = None) -> Axes:
    """Z of a statistic and of the gap in the eigenvalues for each k."""
    if ax is None:
        pyplot = import_extra("matplotlib.pyplot", "plot")
        _, ax = pyplot.subplots(figsize=AXES_SIZE, layout="constrained")
    assert ax is not None  # for the type checker: subplots() is untyped here
    lines = {
        STATISTICS[statistic].title: ([row[statistic] for row in profile.statistics], ACCENT),
        "gap after k": (list(profile.gaps), MUTED),
    }
    for label, (compared, color) in lines.items():
        scores = [np.nan if one.z_score is None else one.z_score for one in compared]
        ax.plot(profile.ks, scores, "o-", color=color, label=label)
    ax.axhline(0, color=FAINT, linewidth=1)
    if profile.suggested_k:
        ax.axvline(profile.suggested_k, color=FAINT, linestyle="--", label="suggested k")
    ax.xaxis.set_major_locator(import_extra("matplotlib.ticker", "plot").MaxNLocator(integer=True))
    ax.set(xlabel="number of clusters k", ylabel="Z")
    ax.set_title(shorten(name_of(profile), 40), parse_math=False)
    ax.legend(frameon=False, fontsize="small")
    _strip(ax)
    return ax


def _legend_below(ax: Axes, height: float, n_columns: int = 7) -> None:
    """Put the legend under the axis label, row by row, in a figure of `height` inches."""
    handles, labels = ax.get_legend_handles_labels()
    # A legend is filled column by column.
    order = [i for start in range(n_columns) for i in range(start, len(labels), n_columns)]
    ax.legend(
        [handles[i] for i in order],
        [labels[i] for i in order],
        loc="upper center",
        bbox_to_anchor=(0.5, -0.12 - 0.6 / height),
        ncols=n_columns,
        frameon=False,
        fontsize="small",
        handlelength=1,
        handleheight=1,
        columnspacing=1.2,
    )


def _strip(ax: Axes) -> None:
    """Remove the frame's right and upper lines."""
    ax.spines[["top", "right"]].set_visible(False)
