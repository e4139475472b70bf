"""A picture of the HTML page, and the colours that pictures share."""

from __future__ import annotations

from dataclasses import dataclass

from ncut.report.colours import MUTED, cluster_colors
from ncut.report.maps import Shown


@dataclass(frozen=True)
class Picture:
    """A picture of the page.

    Attributes
    ----------
    name : str
        Its part of the file name, after the model's name.
    title : str
    markup : str
        HTML, escaped.
    caption : str
    finding : str
        The content in words, for screen readers.
    """

    name: str
    title: str
    markup: str
    caption: str
    finding: str


def part_colors(k: int, shown: Shown) -> list[str]:
    """A colour for each part; grey for the others."""
    colors = cluster_colors(k)
    parts = [shown.cluster(part) for part in range(shown.n_parts)]
    return [MUTED if cluster is None else colors[cluster] for cluster in parts]


def few_text(shown: Shown) -> str:
    """The remark if not all clusters have their own colour."""
    if not shown.has_others:
        return ""
    return f" Only the {len(shown.clusters)} largest clusters are coloured; the others are grey."
