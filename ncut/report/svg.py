"""matplotlib figures as SVG that belongs into an HTML page: no fixed size, ids kept apart."""

from __future__ import annotations

import io
import re
from html import escape
from typing import TYPE_CHECKING

from ncut.errors import import_extra

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Drawn in this colour, then replaced by the page's text colour, be it light or dark.
INK = "#010203"


def inline_svg(figure: Figure, prefix: str, label: str) -> str:
    """The figure as an `<svg>` element.

    Parameters
    ----------
    figure : Figure
        Its text and axes are recoloured in place.
    prefix : str
        Put before every id, so that several pictures fit on one page.
    label : str
        What the picture shows, for screen readers.
    """
    matplotlib = import_extra("matplotlib", "plot")
    _recolour(figure)
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix}):
        no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=no_metadata)
    svg = buffer.getvalue()
    view_box = re.search(r'viewBox="([^"]*)"', svg)
    assert view_box, "matplotlib writes a viewBox"
    inner = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    inner = inner[inner.index(">", inner.index("<svg")) + 1 :].strip()
    inner = re.sub(r"<[^>]*>", lambda tag: _for_page(tag[0], prefix), inner)
    return (
        f'<svg viewBox="{view_box[1]}" role="img" aria-label="{escape(label)}" '
        f'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">{inner}'
    )


def _for_page(tag: str, prefix: str) -> str:
    """A tag with its ids prefixed, and with the page's font and text colour."""
    tag = re.sub(r'(?<=\bid=")|(?<=href="#)|(?<=url\(#)', f"{prefix}-", tag)
    tag = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", tag)
    return tag.replace(f": {INK}", ": currentColor")


def _recolour(figure: Figure) -> None:
    """Draw axes, ticks and plain text in the ink colour; leave coloured text alone."""
    for ax in figure.axes:
        ax.tick_params(color=INK, labelcolor=INK)
        for spine in ax.spines.values():
            spine.set_edgecolor(INK)
        legend = ax.get_legend()
        for text in (
            ax.title,
            ax.xaxis.label,
            ax.yaxis.label,
            *(legend.get_texts() if legend else ()),
        ):
            text.set_color(INK)
