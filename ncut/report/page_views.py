"""A report as the texts of its HTML page; the template only arranges them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from ncut.report import words
from ncut.report.colours import cluster_colors
from ncut.report.map_figures import MAX_BARS
from ncut.report.page_data import MAX_FLOW_ROWS, MAX_NEURONS
from ncut.report.text import layer_sizes

if TYPE_CHECKING:
    from ncut.report.maps import Flow, Matrix, Shown
    from ncut.report.profile import Profile
    from ncut.results import Measurement


def views(report: Measurement, profile: Profile | None) -> dict[str, Any]:
    """What the page says of a report besides its clusters."""
    return {
        "name": words.name_of(report),
        "sentence": minus(words.sentence(report)),
        "cells": [minus(cell) for cell in _cells(report)],
        "tiles": [tuple(minus(text) for text in tile) for tile in _tiles(report)],
        "statistics": [tuple(map(minus, row)) for row in words.statistic_rows(report)],
        "eigenvalues": [f"{value:.6f}" for value in report.eigenvalues],
        "warnings": [words.printable(text) for text in report.warnings],
        "left_out": [
            (words.printable(item.name), _shape(item.shape), words.printable(item.reason))
            for item in report.left_out
        ],
        "facts": [(name, words.printable(value)) for name, value in _facts(report)],
        "made": [(name, words.printable(value)) for name, value in _made(report)],
        "profile": None if profile is None else _profile(profile),
    }


def clusters(report: Measurement, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Sizes per layer, with each cell's share of the layer for its shading, and a summary."""
    sizes = report.cluster_sizes()
    total = sum(row["volume"] for row in rows) or 1.0
    return {
        "colors": cluster_colors(report.k),
        "rows": [
            {
                "name": words.printable(layer.name),
                "size": layer.size,
                "cells": [(int(count), f"{count / max(layer.size, 1):.3f}") for count in counts],
                "isolated": layer.size - int(counts.sum()),
            }
            for layer, counts in zip(report.layers, sizes, strict=True)
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


def captions(
    report: Measurement,
    profile: Profile | None,
    shown: Shown,
    flow: Flow | None,
    matrix: Matrix | None,
) -> dict[str, str]:
    """The caption of each picture that the page has."""
    few = (
        f" The {len(shown.clusters)} largest clusters are told apart, the others are grey."
        if shown.has_others
        else ""
    )
    found = {
        "bars": "How each layer's neurons divide into the clusters. The order of the clusters' "
        "numbers means nothing."
        + (" Neighbouring layers are shown together." if len(report.layers) > MAX_BARS else "")
        + few,
        "eigenvalues": "The smallest eigenvalues of the normalized Laplacian: as many near 0 as "
        "there are almost separate groups; the n-cut cannot be below the sum of the first k.",
    }
    if report.n_shuffles:
        found["null"] = (
            "The shuffled networks, and this network as a line. For an n-cut or its bound, the "
            "further the line lies to their left, the more clusterable the network is in "
            "comparison; for a modularity or a share, the further to their right."
        )
    if flow is not None:
        grouped = len(flow.columns) < len(report.layers)
        found["flow"] = (
            "The weight between clusters of different layers: a band's height is the sum of the "
            f"weights. In a clusterable network bands keep their colour. {flow.drawn:.0%} of the "
            "edge weight is drawn"
            + (
                "; neighbouring layers are one column, without the edges inside."
                if grouped
                else "."
            )
            + few
        )
    if matrix is not None:
        found["matrix"] = (
            "Every weight of the graph, with neurons in order of their cluster, and of their layer "
            "inside it: squares on the diagonal are clusters."
            + (
                f" A cell is the mean over {matrix.neurons} × {matrix.neurons} neurons."
                if matrix.neurons > 1
                else ""
            )
            + " The colours go by the root of the mean."
        )
    if profile is not None:
        found["gaps"] = (
            "The gap between the eigenvalues k and k + 1, beside the shuffles' gaps. A gap that is "
            "larger than theirs speaks for k clusters."
        )
        if profile.n_shuffles:
            found["scores"] = (
                f"Z against {profile.n_shuffles} shuffles for each number of clusters. The n-cut "
                "itself grows with k for every graph, so it cannot choose k."
            )
    return {name: minus(text) for name, text in found.items()}


def notes(report: Measurement, flow: Flow | None, data: dict[str, Any]) -> list[str]:
    """Notes on parts left out of the page, and why."""
    found = []
    if report.graph is None:
        found.append(
            "This report was read from a file, which does not hold the graph: the flow between "
            "layers, the weight matrix, the strongest edges and the share of weight inside each "
            "cluster are left out. They are there when the model itself is analysed."
        )
    elif flow is None:
        found.append("All edges lie within one layer, so there is no flow between layers.")
    if data["neurons"] is None:
        found.append(
            f"The table of neurons is left out: there are more than {MAX_NEURONS:,} of them. "
            "In Python, report.to_frame() has it."
        )
    if report.graph is not None and "flow" not in data["tables"]:
        found.append(
            f"The table of weights between clusters is left out: it has over {MAX_FLOW_ROWS:,} "
            "rows."
        )
    return found


def downloads(data: dict[str, Any]) -> list[tuple[str, str]]:
    """Tables that the page does not show: (name, what it has)."""
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
    """The text with true minus signs, and no line break within "p = 0.020"."""
    text = text.replace(" = ", "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}")
    return re.sub(r"(?<![\w.)])-(?=\d)|(?<= )-(?= )|\A-\Z", "\N{MINUS SIGN}", text)


def _cells(report: Measurement) -> list[str]:
    """The network's row in the comparison."""
    return [
        words.ncut_text(report.ncut),
        words.spread_text(report),
        words.z_text(report.z_score),
        words.p_text(report.p_value),
    ]


def _tiles(report: Measurement) -> list[tuple[str, str, str, str]]:
    """Headline numbers: (name, value, its spread, remark)."""
    share = words.share_text(report)
    remark = f"of at most {report.k}; about {share} of edge weight leaves a cluster"
    tiles = [("n-cut", words.ncut_text(report.ncut), "", remark)]
    if not report.n_shuffles:
        return tiles
    mean, _, std = words.spread_text(report).partition(" ± ")
    return [
        *tiles,
        ("Shuffles", mean, std, f"mean and standard deviation of {report.n_shuffles}"),
        ("Z", words.z_text(report.z_score), "", _z_remark(report)),
        ("p", words.p_text(report.p_value), "", words.p_remark(report)),
    ]


def _z_remark(report: Measurement) -> str:
    if report.z_score is None:
        return "the shuffles do not differ from each other"
    side = "below" if report.z_score < 0 else "above"
    return f"standard deviations {side} the shuffles' mean"


def _profile(profile: Profile) -> dict[str, Any]:
    """The suggestion, and a row for each k."""
    has = f"k = {profile.suggested_k} suggested" if profile.suggested_k else "No k suggested"
    stability = np.minimum(profile.stability_seeds, profile.stability_starts)
    return {
        "sentence": minus(f"{has}: {profile.reason}."),
        "rows": [
            (
                str(k),
                words.ncut_text(row["lower_bound"].value),
                words.ncut_text(row["refined_ncut"].value),
                minus(words.z_text(row["refined_ncut"].z_score)),
                minus(words.p_text(row["refined_ncut"].p_value)),
                f"{gap.value:.4f}",
                minus(words.z_text(gap.z_score)),
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
    """What it takes to get the same numbers again."""
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
