"""The cells of a verdict: one statistic under one convention of scale and one null model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ncut.axes import STATISTICS
from ncut.results import Measurement
from ncut.types import Comparison

Outcome = Literal["more", "less", "same"]

# The statistics that bound and estimate the n-cut; the conclusion is about these.
NCUTS = ("spectral_ncut", "refined_ncut", "lower_bound")


@dataclass(frozen=True, slots=True)
class Cell:
    """One combination of statistic, convention and null model.

    Attributes
    ----------
    statistic, normalize, null : str
        The combination.
    value : float
        The network's statistic.
    mean, std : float
        Mean and population standard deviation of the shuffles' values.
    z_score : float or None
        (value - mean) / std; negative is more clusterable for the n-cuts, positive for the
        modularities and the clusterability.
    p_value : float
        One-sided, for shuffles at least as clusterable as the network.
    outcome : {"more", "less", "same"}
        More or less clusterable than the shuffles at the verdict's level, or neither.
    """

    statistic: str
    normalize: str
    null: str
    value: float
    mean: float
    std: float
    z_score: float | None
    p_value: float
    outcome: Outcome


def cells_of(report: Measurement, level: float) -> list[Cell]:
    """The cells of one convention and null model."""
    return [
        Cell(
            statistic=name,
            normalize=report.normalize,
            null=report.null,
            value=compared.value,
            mean=compared.mean,
            std=compared.std,
            z_score=compared.z_score,
            p_value=compared.p_value,
            outcome=outcome(compared, level, low=STATISTICS[name].low_is_clusterable),
        )
        for name, compared in report.statistics.items()
        if compared.mean is not None and compared.std is not None and compared.p_value is not None
    ]


def outcome(compared: Comparison, level: float, *, low: bool) -> Outcome:
    """Check whether a statistic is more or less clusterable than its shuffles, each at `level`."""
    sign = 1 if low else -1
    value, shuffled = sign * compared.value, sign * compared.shuffled
    n = shuffled.size
    if np.count_nonzero(shuffled <= value) + 1 <= level * (n + 1):
        return "more"
    if np.count_nonzero(shuffled >= value) + 1 <= level * (n + 1):
        return "less"
    return "same"
