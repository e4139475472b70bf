"""The numbers of a report in words: one wording, used by text, terminal and HTML."""

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
    "stream": "stream: the channels of a residual sum are vertices once",
}
"""Meaning of the two conventions of residual sums."""

CITATION = (
    "Filan, Casper, Hod, Wild, Critch, Russell (2021), "
    "Clusterability in Neural Networks, arXiv:2103.03386"
)

# A p-value at or below this counts as unusual in `sentence`.
UNUSUAL = 0.05

# As many shuffles at least can show that a network is not unusual.
FEW = 5

# A standard deviation below this is rounding error.
NO_SPREAD = 1e-12

NOT_MEANT = (
    "A low n-cut says that the weights fall into groups. It does not say that the groups do "
    "different things: that takes a test of its own.",
    "It is a property of the weights, not of the function that the network computes. Making a "
    "ReLU neuron's incoming weights larger and its outgoing weights smaller by the same factor "
    "changes the n-cut and leaves the function as it is.",
    "n-cuts of networks of different shapes, or with different k, do not compare. Z and p "
    "compare a network with its own shuffles only.",
    "Z counts standard deviations of the shuffles. Where these hardly differ from each other, a "
    "small gap gives a large Z: look at the gap between the n-cuts too.",
    "p cannot be smaller than 1 / (shuffles + 1), so a small p-value needs many shuffles.",
)


def sentence(report: Measurement) -> str:
    """The outcome in one sentence: more, less, or not distinguishably clusterable.

    "More" and "less" are said where the one-sided p-value in that direction,
    (r + 1) / (n_shuffles + 1), is at most 0.05; with shuffles="auto" "more" goes by the p-value
    of the stopping rule.
    """
    n = report.n_shuffles
    if not n:
        return f"n-cut {ncut_text(report.ncut)} of at most {report.k}, not compared with shuffles."
    as_low = int(np.count_nonzero(report.shuffled_ncuts <= report.ncut))
    as_high = int(np.count_nonzero(report.shuffled_ncuts >= report.ncut))
    numbers = _p_and_z(report)
    more = as_low + 1 <= UNUSUAL * (n + 1)
    if report.sequential and report.p_value is not None:
        # Where the number of shuffles was left open, only the rule's own p-value is valid.
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
    """What each headline number means: (term, explanation), for reports like these."""
    k = _here(report.k for report in reports)
    rows = [
        (
            "n-cut",
            "The normalized cut of the partition into k clusters that spectral clustering "
            f"finds, between 0 and k (here {k}): low means clusterable. n-cut / k is the share "
            "of its weight that leaves a cluster, averaged over clusters large and small alike.",
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
            "clusterable than networks with the same weights in random places.",
        ),
        (
            "p",
            "(r + 1) / (n + 1), where r of the n shuffles have an n-cut at or below the "
            f"network's. The smallest possible value is 1 / {smallest} here.",
        ),
    ]


def null_text(null: str) -> str:
    """What a null model does to the weights."""
    return NULL_MODELS[null].does if null in NULL_MODELS else f"null model {printable(null)}"


def convention_text(report: Measurement) -> str:
    """What was done to the scale of the weights."""
    return NORMALIZATIONS.get(report.normalize, printable(report.normalize))


def statistic_rows(report: Measurement) -> list[tuple[str, str, str, str, str]]:
    """Title, value, spread of the shuffles, Z and p of each statistic but the headline."""
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
    """A Z-score with a sign, or a dash; capped at what a number of shuffles can tell.

    Of n + 1 numbers none lies farther than the root of n standard deviations from their mean.

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
    """Z of the n-cut as "Z = -1.23", or "Z < -4.4" where the shuffles cannot tell more."""
    text = z_text(report.z_score, report.n_shuffles)
    return f"Z {text}" if text.startswith(("<", ">")) else f"Z = {text}"


def p_text(value: float | None) -> str:
    """A p-value with three decimals, more where it is small, or a dash."""
    if value is None:
        return "-"
    return f"{value:.3f}" if value >= 0.01 else f"{value:.2g}"


def p_remark(report: Measurement) -> str:
    """What bounds the p-value: its resolution, or the rule that ended the shuffles."""
    if report.sequential:
        return printable(report.sequential)
    return f"smallest possible 1/{report.n_shuffles + 1}"


def share_text(share: float | None) -> str:
    """A share of the edge weight, or a dash."""
    return "-" if share is None else f"{share:.0%}"


def name_of(report: Measurement | ProfileData) -> str:
    """The model's name, safe to show."""
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
