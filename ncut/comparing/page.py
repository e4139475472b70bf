"""A comparison as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ncut.comparing.text import clear, excess_text, moved_sentence, sentence
from ncut.report import wording
from ncut.report.colours import cluster_colors
from ncut.report.flow_picture import flow_chart
from ncut.report.html import markup, render
from ncut.report.maps import Flow, LayerGroup, Shown, flow_of
from ncut.report.page_data import file_name
from ncut.report.page_views import minus

if TYPE_CHECKING:
    from ncut.comparing.pairs import Pair
    from ncut.report import Report

MAX_MOVED = 500


def html_page(reports: Sequence[Report], pairs: Sequence[Pair], title: str | None = None) -> str:
    """Render the page; raises MissingExtraError if jinja2 is not installed."""
    names = [wording.name_of(report) for report in reports]
    return render(
        "compare.html.j2",
        ("save.js", "scan.js"),
        title=wording.printable(title)
        if title
        else " and ".join([", ".join(names[:-1]), names[-1]]),
        file=file_name("-".join(names)),
        networks=[
            (
                name,
                wording.ncut_text(report.ncut),
                minus(wording.spread_text(report)),
                minus(wording.z_text(report.z_score)),
                minus(wording.p_text(report.p_value)),
            )
            for name, report in zip(names, reports, strict=True)
        ],
        flow=_flow(pairs, names),
        pairs=[
            {
                "name": f"{wording.name_of(pair.a)} → {wording.name_of(pair.b)}",
                "sentence": minus(sentence(pair)),
                "moved_sentence": moved_sentence(pair),
                "rows": [
                    (
                        wording.statistic_title(one.statistic),
                        minus(f"{one.change:+.3f}"),
                        minus(excess_text(one)),
                        clear(one),
                    )
                    for one in pair.differences
                ],
                "moved": [
                    (wording.printable(one.layer), one.index, one.before, one.after)
                    for one in pair.moved[:MAX_MOVED]
                ],
                "n_moved": len(pair.moved),
            }
            for pair in pairs
        ],
        citation=wording.CITATION,
    )


def _flow(pairs: Sequence[Pair], names: list[str]) -> object:
    """The flow of neurons through the partitions; None if they have no layer in common."""
    flows = {(at, at + 1): pair.flow.astype(np.float64) for at, pair in enumerate(pairs)}
    k = pairs[0].a.k
    shown = Shown(list(range(k)), np.arange(k))
    columns = [LayerGroup(name, at, at + 1) for at, name in enumerate(names)]
    total = sum(float(flow.sum()) for flow in flows.values())
    found: Flow | None = flow_of(flows, shown, columns, np.arange(len(names)), total or 1.0)
    if found is None:
        return None
    return markup(flow_chart(found, shown, cluster_colors(k), 420, unit="neurons"))
