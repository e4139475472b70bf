"""Argument checks shared by the training code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from ncut.errors import InputError

Schedule: TypeAlias = float | Callable[[int], float]
"""A number, or a function of the training step, counted from 0."""


def scheduled(name: str, given: Any, step: int, most: float = np.inf) -> float:
    """The value of a schedule in a step, or an error with the argument's name."""
    value = given(step) if callable(given) else given
    item = value.item() if getattr(value, "ndim", None) == 0 else value
    number = isinstance(item, int | float) and not isinstance(item, bool)
    if not number or not 0 <= item <= most or not np.isfinite(item):
        limit = f"from 0 to {most:g}" if np.isfinite(most) else "of at least 0"
        where = f" in step {step}" if callable(given) else ""
        raise InputError(f"{name}: must be a number {limit}, got {value!r}{where}")
    return float(item)


def whole(name: str, value: Any, least: int, most: int | None = None) -> int:
    """A whole number, or an error with the argument's name."""
    is_whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not is_whole or value < least or (most is not None and value > most):
        limit = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise InputError(f"{name}: must be a whole number {limit}, got {value!r}")
    return int(value)
