"""Comparison of our mean n-cuts with the published ones, with the noise of few networks.

Both sides are samples of one normal distribution if the reproduction is exact, so the variance is
pooled over both, and the difference of means has Student's t distribution.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.95
"""Level of all intervals."""

DRAWS = 20_000
"""Tables drawn for the order of rows: the mean number of agreeing pairs is accurate to 0.02."""


class Sample(NamedTuple):
    """Number of networks, mean, and sample standard deviation; None: unknown."""

    n: int
    mean: float
    std: float | None


@dataclass(frozen=True)
class MeanDifference:
    """Our mean minus the published one, with its interval at `LEVEL`."""

    value: float
    standard_error: float
    degrees: int

    @property
    def half_width(self) -> float:
        return quantile(self.degrees) * self.standard_error

    @property
    def excludes_zero(self) -> bool:
        return abs(self.value) > self.half_width


def quantile(degrees: int) -> float:
    """Half-width of a two-sided interval at `LEVEL`, in standard errors."""
    return float(stats.t.ppf((1 + LEVEL) / 2, degrees))


def pooled(*samples: Sample) -> tuple[float, int] | None:
    """The standard deviation over networks, and its degrees of freedom; None: unknown.

    Samples of one network or of unknown spread do not contribute.
    """
    known = [(each.n - 1, each.std) for each in samples if each.n > 1 and each.std is not None]
    degrees = sum(n for n, _ in known)
    variance = sum(n * std**2 for n, std in known) / max(1, degrees)
    return (math.sqrt(variance), degrees) if variance > 0 else None


def difference(ours: Sample, published: Sample) -> MeanDifference | None:
    """The difference of two means; None: the spread of networks is unknown on both sides."""
    spread = pooled(ours, published)
    if spread is None:
        return None
    std, degrees = spread
    error = std * math.sqrt(1 / ours.n + 1 / published.n)
    return MeanDifference(ours.mean - published.mean, error, degrees)


def distance(ours: Sample, low: float, high: float) -> MeanDifference | None:
    """Distance of a mean below (negative) or above a range; the range has no error."""
    spread = pooled(ours)
    if spread is None:
        return None
    std, degrees = spread
    value = max(0.0, ours.mean - high) - max(0.0, low - ours.mean)
    return MeanDifference(value, std / math.sqrt(ours.n), degrees)


def agreeing_pairs(first: Sequence[float], second: Sequence[float]) -> int:
    """Pairs of rows in the same order on both sides."""
    pairs = itertools.combinations(zip(first, second, strict=True), 2)
    return sum((a[0] - b[0]) * (a[1] - b[1]) > 0 for a, b in pairs)


def pairs_by_noise(rows: Sequence[tuple[Sample, Sample]]) -> tuple[float, int, int] | None:
    """Agreeing pairs of rows in repetitions of a table that differ only by noise.

    `rows` are our and the published samples. A parametric bootstrap: both sides' means of a row
    are drawn around the published mean, with the pooled standard deviation. The published order
    is itself noisy, so that even an exact reproduction does not agree in all pairs.

    Returns
    -------
    tuple of float, int, int, or None
        The mean, and the range of `LEVEL`. None if a row's spread is unknown.
    """
    spreads = [pooled(*samples) for samples in rows]
    known = [spread[0] for spread in spreads if spread is not None]
    if len(known) < len(rows) or len(rows) < 2:
        return None
    random = np.random.default_rng(0)
    stds, sizes = np.array(known), np.array([[a.n, b.n] for a, b in rows]).T
    means = np.array([published.mean for _, published in rows])
    ours, theirs = (
        means + random.standard_normal((DRAWS, len(rows))) * (stds / np.sqrt(n)) for n in sizes
    )
    i, j = np.triu_indices(len(rows), 1)
    counts = ((ours[:, i] - ours[:, j]) * (theirs[:, i] - theirs[:, j]) > 0).sum(1)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(counts, [tail, 1 - tail])
    return float(counts.mean()), int(low), int(high)
