"""p-values of many networks, adjusted for multiplicity."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ncut.arguments import suggests_names
from ncut.errors import InputError


class HasPValue(Protocol):
    """An object with a p-value: a report, a comparison of one statistic."""

    @property
    def p_value(self) -> float | None:
        """The p-value; None without shuffles."""
        ...


@suggests_names()
def adjusted_p_values(p_values: Sequence[float | HasPValue]) -> NDArray[np.float64]:
    """Benjamini and Hochberg's adjusted p-values.

    Networks whose adjusted p-value is at most q have an expected share of false discoveries of
    at most q, if the p-values are independent or positively dependent. p-values from the stopping
    rule "betting" are no smaller than 0.9 of its level, which leaves little room for an adjustment;
    use a fixed number of shuffles or "besag-clifford" instead.

    Parameters
    ----------
    p_values : sequence of float, or of objects with a `p_value` such as reports, length n
        One p-value for each network.

    Returns
    -------
    ndarray of float64, shape (n,)
        In the order of `p_values`.

    Raises
    ------
    InputError
        If a p-value is missing or not between 0 and 1; the message names its position.

    Source: Benjamini and Hochberg (1995), Controlling the false discovery rate.
    """
    from scipy.stats import false_discovery_control

    if not isinstance(p_values, Iterable):
        raise InputError(f"p_values: must be a sequence, one for each network, got {p_values!r}")
    checked = np.array([_checked(i, p) for i, p in enumerate(p_values)], dtype=np.float64)
    if not checked.size:
        return checked
    adjusted: NDArray[np.float64] = false_discovery_control(checked, method="bh")
    return adjusted


def _checked(position: int, item: object) -> float:
    value: Any = getattr(item, "p_value", item)
    if value is None:
        raise InputError(f"p_values[{position}]: has no p-value; measure it with shuffles")
    number = isinstance(value, float | int | np.floating) and not isinstance(value, bool)
    if not number or not 0 <= value <= 1:
        raise InputError(f"p_values[{position}]: must lie between 0 and 1, got {value!r}")
    return float(value)
