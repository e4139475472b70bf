"""Random networks of well-known shapes, for timing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ncut.graphs import NeuronGraph, build_graph

Matrix = NDArray[np.float32]
SEED = 20210304
MLP = (784, 256, 256, 256, 256, 10)
"""Neurons of each layer of the fully connected networks of the paper, section 3."""


def random_layer(rng: np.random.Generator, n_in: int, n_out: int) -> Matrix:
    """Weights whose rows and columns differ in strength, as in trained networks."""
    rows = np.exp(0.5 * rng.standard_normal((n_in, 1), dtype=np.float32))
    columns = np.exp(0.5 * rng.standard_normal((1, n_out), dtype=np.float32))
    weights = rng.standard_normal((n_in, n_out), dtype=np.float32)
    weights *= rows
    weights *= columns
    return weights


def random_layers(widths: Sequence[int]) -> list[Matrix]:
    """Weights of a fully connected network with the given layer sizes."""
    rng = np.random.default_rng(SEED)
    return [random_layer(rng, a, b) for a, b in pairwise(widths)]


def convolution(rng: np.random.Generator, n_in: int, n_out: int, size: int) -> Matrix:
    """L1 norms of the kernel slices of a random convolution, (n_in, n_out)."""
    norms = np.zeros((n_in, n_out), dtype=np.float32)
    for _ in range(size * size):
        norms += abs(random_layer(rng, n_in, n_out))
    return norms / np.float32(np.sqrt(size * size * n_in))


def chain(weights: Iterable[Matrix]) -> NeuronGraph:
    """A graph of a chain whose non-negative weights are made one block at a time, stored once."""
    blocks = [(i, i + 1, matrix, f"w{i}") for i, matrix in enumerate(weights)]
    sizes = [blocks[0][2].shape[0], *(matrix.shape[1] for _, _, matrix, _ in blocks)]
    return build_graph([(f"layer{i}", n) for i, n in enumerate(sizes)], blocks, name="chain")


def mlp() -> NeuronGraph:
    """A fully connected network: 1,818 vertices, 400 thousand edges."""
    return chain(map(abs, random_layers(MLP)))


def vgg16() -> NeuronGraph:
    """The convolutions of VGG-16, a chain: 4,224 vertices, 1.6 million edges."""
    rng = np.random.default_rng(SEED)
    widths = [64, 64, 128, 128, 256, 256, 256, *[512] * 6]
    layers = [(f"conv{i}", width) for i, width in enumerate(widths)]
    blocks = [
        (i, i + 1, convolution(rng, a, b, 3), f"conv{i + 1}")
        for i, (a, b) in enumerate(pairwise(widths))
    ]
    return build_graph(layers, blocks, name="vgg16")


def resnet50() -> NeuronGraph:
    """ResNet-50 by the paper's convention: 24,576 vertices, 30.7 million edges.

    Vertices are the input channels of every convolution and of the classifier, the image's left
    out; a residual sum connects each convolution that writes to it to everyone who reads it.
    """
    rng = np.random.default_rng(SEED)
    layers: list[tuple[str, int]] = []
    blocks: list[tuple[int, int, Matrix, str]] = []
    # Writers to the residual stream so far: (vertices that the writer reads, its weights, name).
    stream: list[tuple[int, Matrix, str]] = []

    def reader(name: str, size: int, writers: list[tuple[int, Matrix, str]]) -> int:
        layers.append((name, size))
        for source, weights, label in writers:
            blocks.append((source, len(layers) - 1, weights, label))
        return len(layers) - 1

    def write(source: int, n_out: int, size: int, name: str) -> tuple[int, Matrix, str]:
        return source, convolution(rng, layers[source][1], n_out, size), name

    channels = 64
    for stage, (width, n_blocks) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)]):
        for number in range(n_blocks):
            name = f"layer{stage + 1}.{number}"
            first = reader(f"{name}.conv1", channels, stream)
            if number == 0:
                shortcut = reader(f"{name}.downsample", channels, stream)
                stream = [write(shortcut, 4 * width, 1, f"{name}.downsample")]
            second = reader(f"{name}.conv2", width, [write(first, width, 1, f"{name}.conv1")])
            third = reader(f"{name}.conv3", width, [write(second, width, 3, f"{name}.conv2")])
            stream = [*stream, write(third, 4 * width, 1, f"{name}.conv3")]
            channels = 4 * width
    reader("fc", channels, stream)
    return build_graph(layers, blocks, name="resnet50")
