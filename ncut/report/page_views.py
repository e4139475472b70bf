"""The texts of a report's HTML page, which the template only arranges."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from ncut.axes import STATISTICS
from ncut.report import wording
from ncut.report.cells import outcome
from ncut.report.colours import cluster_colors
from ncut.report.page_data import MAX_FLOW_ROWS, MAX_NEURONS
from ncut.report.text import layer_sizes
from ncut.report.top import findings

if TYPE_CHECKING:
    from ncut.report.between import Flows
    from ncut.report.names import Names
    from ncut.report.profile import Profile
    from ncut.results import Measurement


def views(report: Measurement, names: Names, profile: Profile | None) -> dict[str, Any]:
    """The page's statements about a report, except its clusters."""
    return {
        "name": wording.name_of(report),
        "sentence": minus(wording.sentence(report)),
        "top": [(one.key, one.title, one.answer, minus(one.text)) for one in findings(report)],
        "cells": [minus(cell) for cell in _cells(report)],
        "question": "Do the neurons form groups, more than the same weights in random positions?",
        "tiles": [tuple(minus(text) for text in tile) for tile in _tiles(report)],
        "statistics": statistics(report),
        "eigenvalues": [f"{value:.6f}" for value in report.eigenvalues],
        "warnings": [wording.printable(text) for text in report.warnings],
        "left_out": [
            (wording.printable(item.name), _shape(item.shape), wording.printable(item.reason))
            for item in report.left_out
        ],
        "facts": [(name, wording.printable(value)) for name, value in _facts(report)],
        "made": [(name, wording.printable(value)) for name, value in _made(report)],
        "command": wording.printable(command(report)),
        "profile": None if profile is None else _profile(profile),
    }


def clusters(report: Measurement, names: Names, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Sizes per layer, with each cell's share of the layer for its shading, and a summary."""
    sizes = report.cluster_sizes()
    total = sum(row["volume"] for row in rows) or 1.0
    return {
        "colors": cluster_colors(report.k),
        "rows": [
            {
                "name": short,
                "full": full,
                "size": layer.size,
                "cells": [(int(count), f"{count / max(layer.size, 1):.3f}") for count in counts],
                "isolated": layer.size - int(counts.sum()),
            }
            for layer, short, full, counts in zip(
                report.layers, names.short, names.full, sizes, strict=True
            )
        ],
        "totals": [row["neurons"] for row in rows],
        "isolated": report.n_isolated,
        "has_inside": all("inside" in row for row in rows),
        "summary": [
            (
                f"{row['neurons']:,}",
                f"{row['volume'] / total:.1%}",
                "–" if row.get("inside") is None else f"{row['inside']:.1%}",
                f"{row['cut']:.3f}" if "cut" in row else "–",
            )
            for row in rows
        ],
        "ncut": f"{sum(row['cut'] for row in rows):.3f}" if all("cut" in r for r in rows) else "",
    }


def statistics(report: Measurement) -> list[tuple[str, str, str, str, str, str]]:
    """A row for each statistic: title, value, shuffles, Z, p, and the outcome."""
    says = {
        "more": "▲ more clusterable",
        "less": "▼ less clusterable",
        "same": "· neither",
        "": "–",
    }
    found = []
    for name, compared in report.statistics.items():
        found.append(
            (
                wording.statistic_title(name),
                wording.ncut_text(compared.value),
                minus(wording.spread(compared)),
                minus(wording.z_text(compared.z_score)),
                minus(wording.p_text(compared.p_value)),
                says[
                    outcome(compared, wording.UNUSUAL, low=STATISTICS[name].low_is_clusterable)
                    if compared.shuffled.size and name in STATISTICS
                    else ""
                ],
            )
        )
    return found


def command(report: Measurement) -> str:
    """The command that reproduces the measurement."""
    name = report.model if re.fullmatch(r"[\w./:+-]+", report.model) else "MODEL"
    parts = ["ncut analyze", name, f"--k {report.k}"]
    parts.append("--shuffles auto" if report.sequential else f"--shuffles {report.n_shuffles}")
    parts += [f"--null {report.null}", f"--normalize {report.normalize}", f"--seed {report.seed}"]
    parts += [f"--preset {report.preset}", f"--n-init {report.n_init}"]
    if report.refine:
        parts.append("--refine")
    return " ".join(parts)


def notes(report: Measurement, flows: Flows | None, data: dict[str, Any]) -> list[str]:
    """Notes on parts that the page leaves out, with reasons."""
    found = []
    if flows is None:
        found.append(
            "This report was read from a file without the weight between clusters, so the flow "
            "between layers, the table of weight beyond chance and the strongest edges are left "
            "out. To get them, analyse the model itself."
        )
    elif all(a == b for a, b in flows):
        found.append("All edges lie within one layer, so there is no flow between layers.")
    if data["neurons"] is None:
        found.append(
            f"The lists of neurons are left out, since there are more than {MAX_NEURONS:,} "
            "neurons. In Python, report.clusters and report.to_frame() have them."
        )
    if flows is not None and "flow" not in data["tables"]:
        found.append(
            f"The table of weights between clusters is left out, since it has over "
            f"{MAX_FLOW_ROWS:,} rows."
        )
    return found


def downloads(data: dict[str, Any]) -> list[tuple[str, str]]:
    """Tables that the page does not show: (name, content)."""
    found = {
        "neurons": "neurons",
        "edges": "strongest edges",
        "flow": "weight between clusters",
        "shuffles": "shuffles",
    }
    there = {name for name, table in data["tables"].items() if table["rows"]}
    if data["neurons"] is not None:
        there.add("neurons")
    return [(name, what) for name, what in found.items() if name in there]


def minus(text: str) -> str:
    """The text with true minus signs, and no line break within "p = 0.020" and "Z < -7.1"."""
    text = re.sub(" ([=<>]) ", "\N{NO-BREAK SPACE}\\1\N{NO-BREAK SPACE}", text)
    return re.sub(r"(?<![\w.)])-(?=\d)|(?<= )-(?= )|\A-\Z", "\N{MINUS SIGN}", text)


def _cells(report: Measurement) -> list[str]:
    """The network's row in the comparison."""
    return [
        wording.ncut_text(report.ncut),
        wording.spread_text(report),
        wording.z_text(report.z_score),
        wording.p_text(report.p_value),
    ]


def _tiles(report: Measurement) -> list[tuple[str, str, str]]:
    """The two numbers of the answer: (name, value, remark)."""
    effect = findings(report)[0].numbers
    if "gap" not in effect:
        return [
            (
                "n-cut",
                wording.ncut_text(report.ncut),
                f"of at most {report.k}; not compared with shuffles",
            )
        ]
    side = "below" if effect["gap"] < 0 else "above"
    compared = report.statistics["refined_ncut"]
    cut = ""
    if "cut_share" in effect:
        cut = (
            f"; the best partition found cuts {effect['cut_share']:.0%} of the edge weight, "
            f"chance {effect['chance_share']:.0%}"
        )
    return [
        (
            "Size of the effect",
            f"{abs(effect['gap']):.1%}",
            f"the refined n-cut, {wording.ncut_text(compared.value)}, is {side} the shuffles', "
            f"{wording.spread(compared)}{cut}",
        ),
        (
            "How unusual",
            f"p = {wording.p_text(report.p_value)}",
            f"{wording.p_remark(report)}; {wording.z_equation(report)}",
        ),
    ]


def _profile(profile: Profile) -> dict[str, Any]:
    """The suggestion, and a row for each k."""
    has = f"k = {profile.suggested_k} suggested" if profile.suggested_k else "No k suggested"
    stability = np.minimum(profile.stability_seeds, profile.stability_starts)
    return {
        "sentence": minus(f"{has}: {profile.reason}."),
        "rows": [
            (
                str(k),
                wording.ncut_text(row["lower_bound"].value),
                wording.ncut_text(row["refined_ncut"].value),
                minus(wording.z_text(row["refined_ncut"].z_score)),
                minus(wording.p_text(row["refined_ncut"].p_value)),
                f"{gap.value:.4f}",
                minus(wording.z_text(gap.z_score)),
                f"{same:.2f}",
            )
            for k, row, gap, same in zip(
                profile.ks, profile.statistics, profile.gaps, stability, strict=True
            )
        ],
    }


def _facts(report: Measurement) -> list[tuple[str, str]]:
    """The graph in numbers."""
    return [
        ("vertices in the graph", f"{report.n_vertices - report.n_isolated:,}"),
        ("isolated vertices, left out", f"{report.n_isolated:,}"),
        ("edges", f"{report.n_edges:,}"),
        (f"{len(report.layers)} layers", layer_sizes(report)),
    ]


def _made(report: Measurement) -> list[tuple[str, str]]:
    """The facts needed to reproduce the numbers."""
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
