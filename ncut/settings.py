"""The arguments of an analysis, checked and with the preset's where there is none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ncut.device.devices import check_device_name
from ncut.errors import InputError
from ncut.graphs.normalize import check_normalization
from ncut.nulls import check_null, normalization_of
from ncut.nulls.sequential import check_sequential
from ncut.presets import find_preset
from ncut.randomness import MAX_GRAPHS, check_seed
from ncut.spectral.embedding import check_solver
from ncut.threads import n_threads

SCALE_FREE = ("alignment", "residual")
"""Null models on residuals, which a report may have as tests beside its own null model."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The checked arguments of an analysis."""

    k: int
    n_shuffles: int
    sequential: str | None
    level: float
    null: str
    normalize: str
    preset: str
    refine: bool
    seed: int
    n_init: int | Literal["auto"]
    solver: str
    threads: int
    device: str = "cpu"
    tests: tuple[str, ...] | None = None


def check_settings(
    *,
    k: int | None = None,
    shuffles: int | Literal["auto"] | None = None,
    null: str | None = None,
    normalize: str | None = None,
    preset: str = "filan2021",
    refine: bool = False,
    seed: int = 0,
    n_init: int | Literal["auto"] | None = None,
    solver: str = "auto",
    threads: int | None = None,
    max_shuffles: int = 1000,
    level: float = 0.05,
    sequential: str = "betting",
    device: str = "cpu",
    tests: Sequence[str] | None = None,
) -> Settings:
    """The settings of an analysis: the arguments checked, the preset's where there is none."""
    chosen = find_preset(preset)
    if shuffles is None:
        shuffles = chosen.shuffles
    null = check_null(chosen.null if null is None else null)
    if normalize is not None:
        check_normalization(normalize)
    if shuffles == "auto":
        check_sequential(sequential, level, max_shuffles)
    return Settings(
        k=chosen.k if k is None else k,
        n_shuffles=max_shuffles if shuffles == "auto" else _check_shuffles(shuffles),
        sequential=sequential if shuffles == "auto" else None,
        level=level,
        null=null,
        normalize=normalization_of(null, normalize, chosen.normalize),
        preset=preset,
        refine=bool(refine),
        seed=check_seed(seed),
        n_init=chosen.n_init if n_init is None else n_init,
        solver=check_solver(solver),
        threads=n_threads(threads),
        device=check_device_name(device),
        tests=None if tests is None else _check_tests(tests),
    )


def _check_tests(tests: object) -> tuple[str, ...]:
    names = [tests] if isinstance(tests, str) else tests
    if not isinstance(names, Iterable):
        raise InputError(f"tests: must be names of null models, got {tests!r}")
    chosen = tuple(dict.fromkeys(map(check_null, names)))
    for name in chosen:
        if name not in SCALE_FREE:
            raise InputError(f"tests: must be some of {', '.join(SCALE_FREE)}, got {name!r}")
    return chosen


def needed_options(null: str) -> dict[str, Any]:
    """Options of `ncut.graph` that a null model needs."""
    return {"initial": True} if null == "init" else {}


def _check_shuffles(shuffles: object) -> int:
    whole = isinstance(shuffles, int | np.integer) and not isinstance(shuffles, bool)
    if not whole or not 0 <= shuffles < MAX_GRAPHS - 1:  # type: ignore[operator]
        raise InputError(
            f"shuffles: must be a whole number of at least 0, or 'auto', got {shuffles!r}"
        )
    return int(shuffles)  # type: ignore[call-overload, no-any-return]
