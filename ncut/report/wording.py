"""The numbers of a report in words, shared by text, terminal and HTML."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ncut.axes import NORMALIZATIONS, NULL_MODELS, STATISTICS
from ncut.errors import printable as printable

if TYPE_CHECKING:
    from ncut.results import Measurement, ProfileData
    from ncut.types import Comparison

SUMS = {
    "readers": "readers: the inputs of each layer that reads a sum are vertices",
    "stream": "stream: each channel of a residual sum is one vertex",
}
"""Meaning of the two conventions of residual sums."""

CITATION = (
    "Filan, Casper, Hod, Wild, Critch, Russell (2021), "
    "Clusterability in Neural Networks, arXiv:2103.03386"
)

# A p-value at or below this counts as unusual in `sentence`.
UNUSUAL = 0.05

# Smallest number of shuffles that can show that a network is not unusual.
FEW = 5

# A standard deviation below this is rounding error.
NO_SPREAD = 1e-12

NOT_MEANT = (
    "A low n-cut means that the weights fall into groups. It does not mean that the groups do "
    "different things; that takes a separate test.",
    "The n-cut is a property of the weights, not of the function that the network computes. "
    "Multiplying a ReLU neuron's incoming weights by a factor and dividing its outgoing weights by "
    "it changes the n-cut but not the function.",
    "n-cuts of networks of different shapes, or with different k, are not comparable. Z and p "
    "compare a network only with its own shuffles.",
    "Z counts standard deviations of the shuffles. If the shuffles hardly differ from each other, "
    "a small gap gives a large Z: look at the gap between the n-cuts too.",
    "p cannot be smaller than 1 / (shuffles + 1), so a small p-value needs many shuffles.",
)


def sentence(report: Measurement) -> str:
    """The outcome in one sentence: more, less, or not distinguishably clusterable.

    "More" and "less" are used if the one-sided p-value in that direction, (r + 1) / (n_shuffles +
    1), is at most 0.05; with shuffles="auto", "more" uses the p-value of the stopping rule.
    """
    n = report.n_shuffles
    if not n:
        return f"n-cut {ncut_text(report.ncut)} of at most {report.k}, not compared with shuffles."
    as_low = int(np.count_nonzero(report.shuffled_ncuts <= report.ncut))
    as_high = int(np.count_nonzero(report.shuffled_ncuts >= report.ncut))
    numbers = _p_and_z(report)
    more = as_low + 1 <= UNUSUAL * (n + 1)
    if report.sequential and report.p_value is not None:
        # With shuffles="auto", only the rule's p-value is valid.
        more = report.p_value <= UNUSUAL
    if more:
        return f"More clusterable than {_share(n - as_low, n)} shuffled networks{numbers}."
    if as_high + 1 <= UNUSUAL * (n + 1):
        return f"Less clusterable than {_share(n - as_high, n)} shuffled networks{numbers}."
    if UNUSUAL * (n + 1) >= 1:
        are = "is" if as_low == 1 else "are"
        return (
            f"Not distinguishable from its shuffles: {as_low} of {n} {are} at least as "
            f"clusterable{numbers}."
        )
    if n >= FEW and as_low >= n / 2:
        return (
            f"Not more clusterable than its shuffles: {as_low} of {n} are at least as "
            f"clusterable{numbers}."
        )
    networks = "network is" if n == 1 else "networks are"
    return f"{n} shuffled {networks} too few to say how unusual its n-cut is{numbers}."


def one_line(report: Measurement) -> str:
    """Name and headline numbers on one line."""
    parts = [repr(report.model), f"k={report.k}", f"ncut={ncut_text(report.ncut)}"]
    if report.n_shuffles:
        parts += [f"z={z_text(report.z_score)}", f"p={p_text(report.p_value)}"]
    return ", ".join(parts)


def meanings(reports: Sequence[Measurement]) -> list[tuple[str, str]]:
    """Explanations of the headline numbers, (term, explanation), for these reports."""
    k = _here(report.k for report in reports)
    rows = [
        (
            "n-cut",
            "The normalized cut of the partition into k clusters that spectral clustering "
            f"finds, between 0 and k (here {k}); low means clusterable. n-cut / k is the mean over "
            "clusters, large and small alike, of the share of a cluster's weight that leaves it.",
        )
    ]
    shuffled = [report for report in reports if report.n_shuffles]
    if not shuffled:
        return rows
    smallest = _here(report.n_shuffles + 1 for report in shuffled)
    kinds = dict.fromkeys(report.null for report in shuffled)
    return [
        *rows,
        (
            "Shuffles",
            "Mean and standard deviation of the n-cuts of shuffled networks, found in the "
            f"same way: {'; or '.join(null_text(null) for null in kinds)}."
            + "".join(
                f" {null} keeps {NULL_MODELS[null].keeps}." for null in kinds if null in NULL_MODELS
            ),
        ),
        (
            "Z",
            "(n-cut - mean of the shuffles) / their standard deviation. Negative: more "
            "clusterable than networks with the same weights in random positions.",
        ),
        (
            "p",
            "(r + 1) / (n + 1), where r of the n shuffles have an n-cut at or below the "
            f"network's. The smallest possible value is 1 / {smallest} here.",
        ),
    ]


def null_text(null: str) -> str:
    """A null model's treatment of the weights."""
    return NULL_MODELS[null].does if null in NULL_MODELS else f"null model {printable(null)}"


def convention_text(report: Measurement) -> str:
    """The treatment of the weights' scale."""
    return NORMALIZATIONS.get(report.normalize, printable(report.normalize))


def statistic_rows(report: Measurement) -> list[tuple[str, str, str, str, str]]:
    """Title, value, spread of the shuffles, Z and p of each statistic except the headline."""
    return [
        (
            STATISTICS[name].title if name in STATISTICS else printable(name),
            ncut_text(compared.value),
            spread(compared),
            z_text(compared.z_score),
            p_text(compared.p_value),
        )
        for name, compared in report.statistics.items()
        if name != report.headline
    ]


def statistic_title(name: str) -> str:
    """A statistic's display name."""
    return STATISTICS[name].title if name in STATISTICS else printable(name)


def ncut_text(value: float) -> str:
    """An n-cut with three decimals."""
    return f"{value:.3f}"


def spread_text(report: Measurement) -> str:
    """Mean and standard deviation of the shuffles, or a dash."""
    return spread(report.statistics[report.headline])


def spread(compared: Comparison) -> str:
    """Mean and standard deviation of the shuffles of a statistic, or a dash."""
    if compared.mean is None or compared.std is None:
        return "-"
    std = compared.std
    digits = f"{std:.1e}" if NO_SPREAD < std < 0.001 else f"{std:.3f}"
    return f"{ncut_text(compared.mean)} ± {digits}"


def z_text(value: float | None, n_shuffles: int | None = None) -> str:
    """A Z-score with a sign, or a dash; capped by the number of shuffles.

    No element of n + 1 numbers lies more than the root of n standard deviations from their mean.

    Source: Samuelson (1968), How deviant can you be?
    """
    if value is None:
        return "-"
    if n_shuffles and abs(value) > math.sqrt(n_shuffles):
        most = math.sqrt(n_shuffles)
        return f"{'<' if value < 0 else '>'} {math.copysign(most, value):+.1f}"
    if abs(value) >= 10_000:
        return f"{value:+.0e}"
    return f"{value:+.1f}" if abs(value) >= 10 else f"{value:+.2f}"


def z_equation(report: Measurement) -> str:
    """Z of the n-cut as "Z = -1.23", or "Z < -4.4" where the shuffles resolve no more."""
    text = z_text(report.z_score, report.n_shuffles)
    return f"Z {text}" if text.startswith(("<", ">")) else f"Z = {text}"


def p_text(value: float | None) -> str:
    """A p-value with three decimals, more if it is small, or a dash."""
    if value is None:
        return "-"
    return f"{value:.3f}" if value >= 0.01 else f"{value:.2g}"


def p_remark(report: Measurement) -> str:
    """The limit of the p-value: its resolution, or the stopping rule."""
    if report.sequential:
        return printable(report.sequential)
    return f"smallest possible 1/{report.n_shuffles + 1}"


def share_text(share: float | None) -> str:
    """A share of the edge weight, or a dash."""
    return "-" if share is None else f"{share:.0%}"


def name_of(report: Measurement | ProfileData) -> str:
    """The model's name, safe for display."""
    return printable(report.model) or "unnamed model"


def _p_and_z(report: Measurement) -> str:
    parts = []
    if report.p_value is not None:
        parts.append(f"p = {p_text(report.p_value)}")
    if report.z_score is not None:
        parts.append(z_equation(report))
    return f" ({', '.join(parts)})" if parts else ""


def _share(count: int, n: int) -> str:
    return f"all {n}" if count == n else f"{count} of {n}"


def _here(values: Iterable[int]) -> str:
    return " or ".join(str(value) for value in sorted(set(values)))
