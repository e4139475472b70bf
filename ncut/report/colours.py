"""The colours of all pictures."""

from __future__ import annotations

import colorsys

ACCENT = "#d1495b"
MUTED = "#7d8ca3"
FAINT = "#c9cfd8"

# Paul Tol's muted scheme (2021), with three further distinct colours.
CLUSTER_COLORS = (
    "#4c5fb0", "#88ccee", "#44aa99", "#1f8a4c", "#a3a33f", "#ddcc77",
    "#cc6677", "#9e3060", "#aa4499", "#6699cc", "#ee8866", "#8d5a3b",
)  # fmt: skip


def cluster_colors(k: int) -> list[str]:
    """A colour for each cluster: from a fixed list if it is long enough, else from the wheel."""
    if k <= len(CLUSTER_COLORS):
        return list(CLUSTER_COLORS[:k])
    wheel = [colorsys.hsv_to_rgb(i / k, 0.55, 0.55 if i % 2 else 0.8) for i in range(k)]
    return ["#" + "".join(f"{round(255 * part):02x}" for part in color) for color in wheel]
