"""Reports made by hand, so that these tests need no computation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ncut.report import Report
from ncut.types import Comparison, Layer, LeftOut


def make_report(
    sizes: tuple[int, ...] = (6, 4, 3), k: int = 3, n_shuffles: int = 50, **changes: Any
) -> Report:
    """A report over layers of these sizes; the first vertex is isolated.

    `ncut`, `shuffled_ncuts`, `shuffled_mean`, `shuffled_std`, `p_value` and `z_score` go into the
    headline statistic.
    """
    rng = np.random.default_rng(0)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    labels = (np.arange(starts[-1]) % k).astype(np.int32)
    labels[0] = -1
    degrees = rng.random(starts[-1]) + 0.5
    degrees[0] = 0.0
    shuffled = changes.pop("shuffled_ncuts", 2.0 + 0.01 * rng.random(n_shuffles))
    headline: dict[str, Any] = {
        "value": changes.pop("ncut", 1.5),
        "shuffled": shuffled,
        "mean": float(shuffled.mean()) if n_shuffles else None,
        "std": float(shuffled.std()) if n_shuffles else None,
        "p_value": 1 / (n_shuffles + 1) if n_shuffles else None,
        "z_score": -13.25 if n_shuffles else None,
    }
    for field, name in (
        ("shuffled_mean", "mean"),
        ("shuffled_std", "std"),
        ("p_value", "p_value"),
        ("z_score", "z_score"),
    ):
        headline[name] = changes.pop(field, headline[name])
    other = Comparison(
        1.25, shuffled - 0.1, *(headline[n] for n in ("mean", "std", "p_value")), None
    )
    names = ("refined_ncut", "spectral_ncut")
    main = Comparison(**headline)
    refine = changes.get("refine", False)
    fields: dict[str, Any] = {
        "model": "mlp.npz",
        "k": k,
        "labels": labels,
        "eigenvalues": np.linspace(0.0, 0.6, k),
        "statistics": dict(zip(names, (main, other) if refine else (other, main), strict=True)),
        "repeated_ncuts": np.array([1.5, 1.51, 1.49]),
        "shuffled_repeats": shuffled[:4] + 0.001,
        "null": "layer",
        "normalize": "none",
        "preset": "filan2021",
        "sequential": "",
        "seed": 7,
        "n_init": 25,
        "refine": False,
        "solver": "dense",
        "residual": 1.25e-9,
        "layers": tuple(
            Layer(f"fc{number}", int(start), size)
            for number, (start, size) in enumerate(zip(starts, sizes, strict=False))
        ),
        "degrees": degrees,
        "n_edges": 1234,
        "left_out": (LeftOut("fc0.bias", (4,), "biases are not edges"),),
        "warnings": ("one neuron has no edges",),
        "version": "0.0.test",
    }
    return Report(**(fields | changes))


@pytest.fixture
def make() -> Callable[..., Report]:
    return make_report


@pytest.fixture
def report() -> Report:
    return make_report()
