"""Comparison of a network's statistics with those of its shuffles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ncut.axes import STATISTICS
from ncut.results import repeat_std
from ncut.types import Clustering, Comparison

PValue = Callable[[NDArray[np.bool_]], float]


def p_value(as_clusterable: NDArray[np.bool_]) -> float:
    """(r + 1) / (n + 1) for r of n shuffles at least as clusterable as the network.

    Source: North, Curtis and Sham (2002), A note on the calculation of empirical P values from
    Monte Carlo procedures.
    """
    return (int(np.count_nonzero(as_clusterable)) + 1) / (as_clusterable.size + 1)


def compare(
    value: float, shuffled: NDArray[np.float64], *, low: bool = True, p: PValue = p_value
) -> Comparison:
    """Compare a statistic with those of n shuffles, shape (n,).

    `low`: whether small values mean clusterable. `p` computes the p-value from a mask of the
    shuffles that are at least as clusterable.
    """
    if not shuffled.size:
        return Comparison(value, shuffled, None, None, None, None)
    mean, std = float(shuffled.mean()), float(shuffled.std())
    # The spread of equal numbers is a few rounding errors and counts as zero.
    spread = std > 1e-12 * max(abs(mean), 1.0)
    return Comparison(
        value=value,
        shuffled=shuffled,
        mean=mean,
        std=std,
        p_value=p(as_clusterable(value, shuffled, low=low)),
        z_score=(value - mean) / std if spread else None,
    )


def as_clusterable(
    value: float, shuffled: NDArray[np.float64], *, low: bool = True
) -> NDArray[np.bool_]:
    """Shuffles at least as clusterable as the network; equality is up to rounding."""
    rounding = max(1e-10 * abs(value), 1e-14)  # a modularity of 0 is a difference of equal numbers
    found: NDArray[np.bool_] = shuffled <= value + rounding if low else shuffled >= value - rounding
    return found


def statistics_of(clustering: Clustering) -> dict[str, float]:
    """Every statistic of a clustering, by its name."""
    values = {name: getattr(clustering, name) for name in STATISTICS}
    return {name: float(value) for name, value in values.items() if value is not None}


def compare_all(
    network: Mapping[str, float], shuffles: Sequence[Mapping[str, float]], p: PValue = p_value
) -> dict[str, Comparison]:
    """Every statistic of the network, by its name, compared with the shuffles."""
    return {
        name: compare(
            value,
            np.array([one[name] for one in shuffles], dtype=np.float64),
            low=STATISTICS[name].low_is_clusterable,
            p=p,
        )
        for name, value in network.items()
    }


def noise_note(compared: Comparison, again: NDArray[np.float64]) -> str | None:
    """A warning if k-means, not the shuffling, causes most of the shuffles' variance.

    `again`: the n-cuts of the first shuffles with k-means repeated, shape (m,).
    """
    noise = repeat_std(compared.shuffled, again)
    if noise is None or not compared.std or noise**2 <= compared.std**2 / 2:
        return None
    return (
        f"k-means noise makes most of the spread of the shuffles' n-cuts: repeating k-means on the "
        f"same shuffle moves them by ± {noise:.3f}, out of ± {compared.std:.3f} in total; Z "
        "understates the difference, see the refined n-cut and the lower bound"
    )
