"""Train a small JAX network on scikit-learn's digits with ncut's eigenvalue penalty.

The eigenvalues and their gradient are computed by NumPy on the host; `jax.custom_vjp` passes the
gradient to JAX, also inside `jax.jit`. Needs `pip install jax scikit-learn`:

    python examples/jax_penalty.py [--steps 500]
"""

from __future__ import annotations

import argparse
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

import ncut

EIGENVALUES = (2, 3, 4)
WIDTHS = (64, 64, 64, 10)
RATE = 0.1


def on_host(weights: Any) -> Any:
    """The mean of the eigenvalues, and its gradient for each matrix (fan_in, fan_out)."""
    values, gradient = ncut.eigenvalues_and_gradient(weights, EIGENVALUES)
    return values.mean().astype(gradient[0].dtype), tuple(gradient)


def both(weights: Any) -> Any:
    shapes = tuple(jax.ShapeDtypeStruct(w.shape, w.dtype) for w in weights)
    value = jax.ShapeDtypeStruct((), weights[0].dtype)
    return jax.pure_callback(on_host, (value, shapes), weights)


@jax.custom_vjp
def penalty(weights: Any) -> Any:
    """The mean of the eigenvalues of a chain of matrices, a tuple."""
    return both(weights)[0]


def backward(gradient: Any, slope: Any) -> Any:
    return (tuple(slope * own for own in gradient),)


penalty.defvjp(both, backward)


def outputs(parameters: Any, x: Any) -> Any:
    weights, biases = parameters
    for number, (w, b) in enumerate(zip(weights, biases, strict=True)):
        x = x @ w + b
        x = jax.nn.relu(x) if number < len(weights) - 1 else x
    return x


def loss(parameters: Any, x: Any, y: Any, weight: float) -> Any:
    logits = jax.nn.log_softmax(outputs(parameters, x))
    return -logits[jnp.arange(len(y)), y].mean() + weight * penalty(parameters[0])


@jax.jit
def step(parameters: Any, x: Any, y: Any, weight: float) -> Any:
    slopes = jax.grad(loss)(parameters, x, y, weight)
    return jax.tree.map(lambda value, slope: value - RATE * slope, parameters, slopes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=500)
    steps = parser.parse_args().steps
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    for weight in (0.0, 0.5):
        rng = np.random.default_rng(0)
        shapes = list(itertools.pairwise(WIDTHS))
        parameters = (
            tuple(
                jnp.asarray(rng.normal(0, (2 / a) ** 0.5, (a, b)), jnp.float32) for a, b in shapes
            ),
            tuple(jnp.zeros(b) for _, b in shapes),
        )
        for _ in range(steps):
            rows = rng.integers(0, len(labels), 64)
            parameters = step(parameters, images[rows], labels[rows], weight)
        report = ncut.analyze([np.asarray(w) for w in parameters[0]], k=4, shuffles=20)
        print(f"weight {weight}: {report!r}")


if __name__ == "__main__":
    main()
