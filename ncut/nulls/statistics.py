"""How unusual a network's n-cut is among those of its shuffles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Comparison:
    """A network's n-cut against the n-cuts of its shuffles; all None without shuffles.

    Attributes
    ----------
    mean, std : float or None
        Mean and population standard deviation of the shuffles' n-cuts.
    p_value : float or None
        Left one-sided, (r + 1) / (n + 1), where r of n shuffles have an n-cut as low or lower.
    z_score : float or None
        (n-cut - mean) / std; None if all shuffles have the same n-cut.
    """

    mean: float | None
    std: float | None
    p_value: float | None
    z_score: float | None


def compare(ncut: float, shuffled: NDArray[np.float64]) -> Comparison:
    """Compare one n-cut with those of n shuffles, shape (n,).

    Source: North, Curtis and Sham (2002), A note on the calculation of empirical P values from
    Monte Carlo procedures.
    """
    if not shuffled.size:
        return Comparison(None, None, None, None)
    mean, std = float(shuffled.mean()), float(shuffled.std())
    p_value = (int(np.count_nonzero(shuffled <= ncut)) + 1) / (shuffled.size + 1)
    # Equal numbers have a spread of a few rounding errors, which is no spread.
    spread = std > 1e-12 * max(abs(mean), 1.0)
    return Comparison(mean, std, p_value, (ncut - mean) / std if spread else None)
