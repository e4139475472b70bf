"""The tests behind a verdict's conclusion, each with a hypothesis, corrected for multiplicity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ncut.report.report import Report

STATISTICS = {"alignment": "lower_bound", "residual": "lower_bound", "paper": "spectral_ncut"}
"""The statistic of each test. The bound involves no k-means; the paper's number is the n-cut."""

HYPOTHESES = {
    "alignment": "the neurons of neighbouring layers are paired at random, whatever their scale",
    "residual": "weights are exchangeable but for the scales of neurons, whatever these are",
    "paper": "each layer's weights are exchangeable, so that no neuron has a scale of its own",
}
"""The hypothesis that each test may reject."""


@dataclass(frozen=True, slots=True)
class Test:
    """A test of a verdict.

    Attributes
    ----------
    name : {"alignment", "residual", "paper"}
    hypothesis : str
        The hypothesis that it may reject.
    statistic : str
        The compared statistic, by its name in `ncut.axes.STATISTICS`.
    n_shuffles : int
    p_value, corrected : float
        (r + 1) / (n + 1), and the same after Holm's correction for the number of tests.
    gap : float
        Distance of the network's value from the shuffles' mean, as a share of that mean; negative
        is more clusterable.
    agreeing : int
        Number of n-cut, refined n-cut and lower bound that lie below their shuffles' mean.
    rejects : bool
        Whether the corrected p-value is at or below the verdict's level.
    """

    __test__ = False

    name: str
    hypothesis: str
    statistic: str
    n_shuffles: int
    p_value: float
    corrected: float
    gap: float
    agreeing: int
    rejects: bool


def tests_of(reports: Sequence[Report], level: float) -> tuple[Test, ...]:
    """The tests in reports: alignment and residual on residuals, and the paper's test."""
    found: dict[str, Report] = {}
    for report in reports:
        name = report.null if report.null in STATISTICS else "paper"
        if report.n_shuffles and (name != "paper" or is_papers(report)):
            found.setdefault(name, report)
    names = [name for name in STATISTICS if name in found]
    p = {name: _p(found[name], name) for name in names}
    corrected = holm(list(p.values()))
    return tuple(
        Test(
            name=name,
            hypothesis=HYPOTHESES[name],
            statistic=STATISTICS[name],
            n_shuffles=found[name].n_shuffles,
            p_value=p[name],
            corrected=adjusted,
            gap=_gap(found[name], STATISTICS[name]),
            agreeing=sum(
                _gap(found[name], one) < 0
                for one in ("spectral_ncut", "refined_ncut", "lower_bound")
                if one in found[name].statistics
            ),
            rejects=adjusted <= level + 1e-12,
        )
        for name, adjusted in zip(names, corrected, strict=True)
    )


def is_papers(report: Report) -> bool:
    """Check whether a report has the paper's settings."""
    return report.null == "layer" and report.normalize == "none"


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number, which bounds the family-wise error rate by the level.

    Source: Holm (1979), A simple sequentially rejective multiple test procedure.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, at in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[at]))
        corrected[at] = largest
    return corrected


def conclusion(tests: Sequence[Test]) -> str:
    """The conclusion in one sentence."""
    if not tests:
        return "Nothing was tested."
    rejects = {test.name: test.rejects for test in tests}
    aligned, residual = rejects.get("alignment"), rejects.get("residual")
    if aligned and residual:
        return (
            "Clusterable, whatever the scale of neurons: clusters run through the layers, and "
            "there is more to them than the strength of neurons."
        )
    if aligned:
        more = "no structure beyond the strength of neurons was found" if residual is False else ""
        return "Clusters run through the layers, whatever the scale of neurons" + (
            f"; inside the layers, {more}." if more else "."
        )
    if residual:
        through = "; no evidence that clusters run through the layers" if aligned is False else ""
        return f"Clusterable beyond the strength of neurons, whatever their scale{through}."
    if rejects.get("paper"):
        if aligned is None and residual is None:
            return (
                "More clusterable than shuffled networks as the paper measures it, which the "
                "scales of neurons alone can bring about."
            )
        return (
            "More clusterable than shuffled networks as the paper measures it, but no more than "
            "the scales of neurons can bring about."
        )
    return "Not distinguishable from networks without clusters."


def _p(report: Report, name: str) -> float:
    p = report.statistics[STATISTICS[name]].p_value
    assert p is not None  # it has shuffles
    return p


def _gap(report: Report, statistic: str) -> float:
    compared = report.statistics[statistic]
    return (compared.value - compared.mean) / compared.mean if compared.mean else 0.0
