"""Analyses that tests of several files use."""

from __future__ import annotations

from typing import Any

import pytest
from samples import (
    Matrices,
    random_chain,
    with_isolated,
)

import ncut


def sample() -> Matrices:
    return with_isolated(random_chain(3, (20, 25, 15), 0.5), 5, n_per_layer=1)


def run(model: Any = None, **options: Any) -> ncut.Report:
    """A report without those tests that take 19 more networks."""
    settings: dict[str, Any] = {
        "k": 4, "shuffles": 6, "n_init": 3, "seed": 7, "threads": 2, "tests": [],
    }  # fmt: skip
    return ncut.analyze(sample() if model is None else model, **(settings | options))


def interrupted(at: int, model: Any = None, **options: Any) -> ncut.Report:
    def stop(done: int, total: int) -> None:
        if done >= at:
            raise KeyboardInterrupt

    with pytest.raises(ncut.Interrupted) as caught:
        run(model, threads=1, progress=stop, **options)
    return caught.value.finished
