"""The penalty of examples/jax_penalty.py: its gradient, and its effect on a network."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ncut

pytest.importorskip("sklearn", reason="pip install scikit-learn")


@pytest.fixture(scope="module")
def jax() -> Any:
    """The package, with `jax.test_util`; its import takes a second."""
    jax = pytest.importorskip("jax", reason="pip install jax")
    importlib.import_module("jax.test_util")
    return jax


@pytest.fixture(scope="module")
def example(jax: Any) -> Any:
    path = Path(__file__).parents[2] / "examples" / "jax_penalty.py"
    spec = importlib.util.spec_from_file_location("jax_penalty", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def weights(dtype: Any) -> tuple[Any, ...]:
    rng = np.random.default_rng(0)
    return tuple(rng.normal(size=shape).astype(dtype) for shape in ((7, 9), (9, 8), (8, 5)))


@pytest.mark.parametrize("compiled", [False, True])
def test_the_gradient_is_that_of_finite_differences(jax: Any, example: Any, compiled: bool) -> None:
    with jax.enable_x64(True):
        made = tuple(map(jax.numpy.asarray, weights(np.float64)))

        def loss(weights: Any) -> Any:
            return 3 * example.penalty(tuple(2 * w for w in weights)) ** 2

        loss = jax.jit(loss) if compiled else loss
        jax.test_util.check_grads(loss, (made,), order=1, modes=["rev"], rtol=1e-6, atol=1e-8)
        values, _ = ncut.eigenvalues_and_gradient(list(map(np.asarray, made)), (2, 3, 4))
        assert float(example.penalty(made)) == pytest.approx(values.mean(), rel=1e-12)


def test_training_lowers_the_eigenvalues(jax: Any, example: Any) -> None:
    biases = tuple(np.zeros(n, dtype=np.float32) for n in (9, 8, 5))
    parameters = tuple(map(jax.numpy.asarray, weights(np.float32))), biases
    x, y = np.eye(7, dtype=np.float32), np.arange(7) % 5
    before = float(example.penalty(parameters[0]))
    for _ in range(20):
        parameters = example.step(parameters, x, y, 20.0)
    assert float(example.penalty(parameters[0])) < 0.9 * before
