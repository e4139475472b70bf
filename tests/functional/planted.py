"""Networks whose parts are known to do one thing each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from samples import planted_chain

from ncut.extract import read_graph
from ncut.types import Layer

N_GROUPS, PER_GROUP = 4, 6

Weights = list[NDArray[np.floating]]


def planted(seed: int = 0) -> tuple[Weights, tuple[Layer, ...], NDArray[np.intp]]:
    """Four chains side by side that do not meet, their layers and labels: 24-24-24-24."""
    weights, labels = planted_chain(seed, N_GROUPS, PER_GROUP, 4, 0.0)
    return weights, read_graph(weights).layers, labels


def forward(weights: Sequence[Any], x: NDArray[np.floating]) -> NDArray[np.floating]:
    """The output of a ReLU network with these weights."""
    for weight in weights[:-1]:
        x = np.maximum(x @ weight, 0)
    return x @ weights[-1]


def examples(n: int, seed: int = 0) -> NDArray[np.floating]:
    """Inputs of the planted network, in each group the same signal with little noise."""
    rng = np.random.default_rng(seed)
    signal = np.repeat(rng.normal(size=(n, N_GROUPS)), PER_GROUP, axis=1)
    return np.maximum(signal + 0.1 * rng.normal(size=signal.shape), 0.0)


def activations(weights: Sequence[Any], x: NDArray[np.floating]) -> Weights:
    """The input that each layer passes to the next, and the last layer's output."""
    values = [x]
    for at, weight in enumerate(weights):
        last = at == len(weights) - 1
        values.append(values[-1] @ weight if last else np.maximum(values[-1] @ weight, 0))
    return values
