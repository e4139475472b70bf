"""The summary at the top of every report: a few questions, each answered in a line.

Terminal, notebook, HTML page and JSON use these lines, and show them in this order.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ncut.report.wording import (
    UNUSUAL,
    ncut_text,
    null_text,
    p_text,
    printable,
    spread,
    z_text,
)
from ncut.results import REPRODUCIBLE

if TYPE_CHECKING:
    from ncut.results import Measurement as Report
    from ncut.types import Comparison

STAGE = 0.8
"""A cluster consists of whole layers if this share of it lies in layers of which it has this
share."""

Answer = Literal["yes", "no", "not tested", ""]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a report's summary.

    Attributes
    ----------
    key : str
        "effect", "alignment", "residual", "measured", "reproducible", "stages" or "function".
    title : str
        The question.
    answer : {"yes", "no", "not tested", ""}
        The answer in a word; empty if the line is a number.
    text : str
        The text after title and answer.
    p_value : float or None
        p-value of the test behind the answer.
    numbers : dict of str to float
        The numbers in the text, with all digits.
    """

    key: str
    title: str
    answer: Answer
    text: str
    p_value: float | None
    numbers: dict[str, float]


def findings(report: Report) -> tuple[Finding, ...]:
    """The lines of a report's summary, in display order."""
    return (
        _effect(report),
        _tested(
            report,
            "alignment",
            "Modules through layers",
            "neighbouring layers' clusters line up better than in {} re-pairings of their neurons",
        ),
        _tested(
            report,
            "residual",
            "Beyond neuron strength",
            "more clusterable than {} networks with neurons of the same scales",
        ),
        _measured(report),
        _reproducible(report),
        _stages(report),
        Finding(
            "function",
            "Clusters do different things",
            "not tested",
            "report.ablate(evaluate) silences them one by one",
            None,
            {},
        ),
    )


def findings_to_list(report: Report) -> list[dict[str, Any]]:
    """The lines as plain data."""
    return [
        asdict(one)
        | {
            "p_value": None if one.p_value is None else float(one.p_value),
            "numbers": {name: float(number) for name, number in one.numbers.items()},
        }
        for one in findings(report)
    ]


def _effect(report: Report) -> Finding:
    numbers = {"refined_ncut": report.refined_ncut}
    parts = []
    if report.cut_share is not None and report.chance_share is not None:
        numbers |= {"cut_share": report.cut_share, "chance_share": report.chance_share}
        parts.append(
            f"the best partition found cuts {report.cut_share:.0%} of edge weight (chance "
            f"{report.chance_share:.0%})"
        )
    bracket = f"n-cut {ncut_text(report.refined_ncut)}"
    if "lower_bound" in report.statistics:
        numbers["lower_bound"] = report.lower_bound
        bracket += f", none lies below {ncut_text(report.lower_bound)}"
    parts.append(bracket)
    compared = report.statistics["refined_ncut"]
    gap = _gap(compared)
    if gap is not None and compared.mean is not None:
        numbers["gap"] = gap
        side = "below" if gap < 0 else "above"
        parts.append(f"{abs(gap):.1%} {side} shuffles ({ncut_text(compared.mean)})")
    return Finding("effect", "Size of the effect", "", "; ".join(parts), None, numbers)


def comparison_of(report: Report, name: str) -> Comparison | None:
    """The lower bound compared with a null model: a test's, or the report's own."""
    if report.null == name and report.n_shuffles:
        return report.statistics.get("lower_bound")
    return report.tests.get(name)


def _gap(compared: Comparison) -> float | None:
    """Distance of a network's statistic from its shuffles' mean, as a share of that mean."""
    if not compared.mean:
        return None
    with np.errstate(all="ignore"):
        gap = float(np.float64(compared.value) / compared.mean - 1)
    return gap if math.isfinite(gap) else None


def _tested(report: Report, key: str, title: str, claim: str) -> Finding:
    compared = comparison_of(report, key)
    if compared is None or compared.p_value is None or compared.mean is None:
        why = report.untested.get(key, f"ncut.verdict(model), or null={key!r}, tests it")
        return Finding(key, title, "not tested", printable(why), None, {})
    n, p = compared.shuffled.size, compared.p_value
    numbers = {"value": compared.value, "mean": compared.mean, "p_value": p}
    if UNUSUAL * (n + 1) < 1:
        return Finding(key, title, "not tested", f"{n} shuffles are too few", p, numbers)
    if p <= UNUSUAL:
        beaten = int(np.count_nonzero(compared.shuffled > compared.value))
        which = f"all {n}" if beaten == n else f"{beaten} of {n}"
        gap = _gap(compared)
        size = f"bound {gap:+.1%}, " if gap is not None else ""
        if gap is not None:
            numbers["gap"] = gap
        text = f"{claim.format(which)}, whatever the scale of neurons ({size}p = {p_text(p)})"
        return Finding(key, title, "yes", text, p, numbers)
    text = f"not distinguishable from {n} of them, whatever the scale of neurons"
    if key == "alignment":
        text = f"as good as {n} re-pairings of neighbouring layers' neurons"
    return Finding(key, title, "no", f"{text} (p = {p_text(p)})", p, numbers)


def _measured(report: Report) -> Finding:
    papers = (report.null, report.normalize, report.refine) == ("layer", "none", False)
    title = "As the paper measures it" if papers else "Against its shuffles"
    compared = report.statistics[report.headline]
    text = f"n-cut {ncut_text(report.ncut)} with k = {report.k}"
    numbers = {"ncut": report.ncut}
    if report.n_shuffles:
        n = report.n_shuffles
        text += f", {n} shuffles {spread(compared)}, Z {z_text(report.z_score, n)}"
        text += f", p = {p_text(report.p_value)}"
        if not papers:
            text += f" ({null_text(report.null)})"
        elif report.normalize == "none":
            text += " (depends on the scale of neurons)"
        if compared.z_score is not None:
            numbers["z_score"] = compared.z_score
    return Finding("measured", title, "", text, report.p_value, numbers)


def _reproducible(report: Report) -> Finding:
    title, same = f"Same partition again at k = {report.k}", report.agreement
    numbers = {f"k={k}": value for k, value in same.items()}
    if report.k not in same:
        return Finding("reproducible", title, "not tested", "k-means was not repeated", None, {})
    own = f"adjusted Rand index between repeats of k-means {same[report.k]:.2f}"
    if same[report.k] >= REPRODUCIBLE:
        return Finding("reproducible", title, "yes", own, None, numbers)
    others = [k for k, value in same.items() if value >= REPRODUCIBLE]
    text = f"{own}; no smaller k tried has {REPRODUCIBLE:g}"
    if others:
        text = f"{own}; at k = {max(others)} it is {same[max(others)]:.2f}"
    elif len(same) == 1:
        text = own
    return Finding("reproducible", title, "no", text, None, numbers)


def _stages(report: Report) -> Finding:
    sizes = report.cluster_sizes().astype(np.float64)
    share = explained_by_depth(sizes)
    n_stages = whole_layers(sizes)
    used = int(np.count_nonzero(sizes.sum(axis=0)))
    text = f"{share:.0%} of the partition is explained by depth"
    if n_stages:
        text += f"; {n_stages} of {used} clusters are whole layers"
    many = 2 * n_stages > used
    if many:
        text += ": successive stages, not parallel modules"
    return Finding(
        "stages",
        "Clusters are whole layers",
        "yes" if many else "no",
        text,
        None,
        {"explained_by_depth": share, "whole_layers": float(n_stages)},
    )


def explained_by_depth(sizes: Any) -> float:
    """Share of the partition's entropy that a neuron's layer explains.

    sizes, shape (n_layers, k): neurons of each layer in each cluster.
    """
    total = sizes.sum()
    joint = sizes / total if total else sizes
    layers, clusters = joint.sum(axis=1), joint.sum(axis=0)

    def entropy(p: Any) -> float:
        return float(-(p[p > 0] * np.log(p[p > 0])).sum())

    whole = entropy(clusters)
    return max(0.0, (whole + entropy(layers) - entropy(joint)) / whole) if whole > 0 else 0.0


def whole_layers(sizes: Any) -> int:
    """Number of clusters that mostly consist of whole layers."""
    of_layer = sizes / np.maximum(sizes.sum(axis=1, keepdims=True), 1)
    inside = np.where(of_layer >= STAGE, sizes, 0).sum(axis=0)
    clusters = sizes.sum(axis=0)
    return int(np.count_nonzero((clusters > 0) & (inside >= STAGE * clusters)))
