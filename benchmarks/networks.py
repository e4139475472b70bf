"""The measured networks: trained ones if a folder of them is given, else random ones.

NCUT_TEST_MODELS names a folder with fashion-none-0-unpruned.npz and -pruned.npz (arrays w0 to w4,
(fan_in, fan_out), of a 784-256-256-256-256-10 MLP). Without it, random weights of the same shapes
stand in, and the case's name says so.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import ncut
from ncut.selftest.cases import (
    MLP,
    SEED,
    Matrix,
    chain,
    random_layer,
    random_layers,
    resnet50,
    vgg16,
)

__all__ = ["chain", "mlp", "random_chain", "random_positive", "resnet50", "vgg16"]


def mlp(pruned: bool) -> tuple[str, ncut.NeuronGraph]:
    """The MLP of the paper, dense or with a tenth of its weights."""
    state = "pruned" if pruned else "unpruned"
    folder = os.environ.get("NCUT_TEST_MODELS")
    if folder:
        return f"mlp-{state}", ncut.graph(Path(folder, f"fashion-none-0-{state}.npz"))
    weights = random_layers(MLP)
    if pruned:
        weights = [np.where(abs(w) > np.quantile(abs(w), 0.9), w, 0) for w in weights]
    return f"mlp-{state}-random", ncut.graph(weights)


def random_chain(n_edges: int, n_layers: int = 9) -> Iterator[Matrix]:
    """Weight matrices of equal size with about `n_edges` weights together, one at a time."""
    rng = np.random.default_rng(SEED)
    width = round((n_edges / (n_layers - 1)) ** 0.5)
    for _ in range(n_layers - 1):
        yield random_layer(rng, width, width)


def random_positive(sizes: tuple[int, ...]) -> Iterator[Matrix]:
    """A small chain for warming up."""
    yield from map(abs, random_layers(sizes))
