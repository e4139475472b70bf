"""Graphs and weights that tests measure: chains of layers, random, sparse, disconnected."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from ml_dtypes import bfloat16
from numpy.typing import NDArray
from scipy import linalg, sparse

from ncut.graphs import NeuronGraph, build_graph
from ncut.spectral.embedding import Embedding, embed
from ncut.spectral.operator import NormalizedAdjacency
from ncut.threads import single_threaded_blas
from ncut.types import Block

MODEL_NAMES = ("fashion-none-0-init", "fashion-none-0-unpruned", "fashion-none-0-pruned")

Matrices = list[NDArray[np.floating]]
Placed = tuple[int, list[tuple[int, int, Block]]]


def chain_graph(weights: Sequence[NDArray[np.floating]], name: str = "chain") -> NeuronGraph:
    """The graph of a chain of layers with (fan_in, fan_out) matrices of non-negative weights."""
    sizes = [weights[0].shape[0], *(matrix.shape[1] for matrix in weights)]
    return build_graph(
        [(f"layer{i}", size) for i, size in enumerate(sizes)],
        [(i, i + 1, matrix, f"w{i}") for i, matrix in enumerate(weights)],
        name=name,
    )


def random_chain(
    seed: int, sizes: Sequence[int], density: float = 1.0, dtype: Any = np.float64
) -> Matrices:
    """Non-negative weight matrices between layers of these sizes; a share of `density` is not 0."""
    rng = np.random.default_rng(seed)
    return [
        ((0.05 + rng.random(shape)) * (rng.random(shape) < density)).astype(dtype)
        for shape in itertools.pairwise(sizes)
    ]


def with_isolated(weights: Matrices, seed: int, n_per_layer: int = 2) -> Matrices:
    """The same chain with all edges of some neurons of each layer cut."""
    rng = np.random.default_rng(seed)
    cut = [matrix.copy() for matrix in weights]
    for layer in range(len(cut) + 1):
        size = cut[layer].shape[0] if layer < len(cut) else cut[-1].shape[1]
        chosen = rng.choice(size, size=n_per_layer, replace=False)
        if layer < len(cut):
            cut[layer][chosen, :] = 0
        if layer > 0:
            cut[layer - 1][:, chosen] = 0
    return cut


def side_by_side(*chains: Matrices) -> Matrices:
    """Several chains side by side in one, with no edges between them."""
    return [linalg.block_diag(*matrices) for matrices in zip(*chains, strict=True)]


def side_by_side_labels(*chains: Matrices) -> NDArray[np.intp]:
    """The chain of `side_by_side` that each vertex belongs to."""
    sizes = [[c[0].shape[0], *(matrix.shape[1] for matrix in c)] for c in chains]
    return np.concatenate(
        [np.repeat(np.arange(len(chains)), counts) for counts in zip(*sizes, strict=True)]
    )


def embedding_of(graph: NeuronGraph, k: int, solver: str, threads: int = 2) -> Embedding:
    """The spectral embedding of a graph without isolated vertices."""
    with single_threaded_blas():
        operator = NormalizedAdjacency(graph, threads)
        return embed(operator, k, solver=solver, seed=3, graph_number=0)


def skip_graph(seed: int, sizes: tuple[int, int, int], density: float = 1.0) -> NeuronGraph:
    """Three layers, each connected to both others: no two colours will do."""
    ab, bc = random_chain(seed, sizes, density)
    (ac,) = random_chain(seed + 1, (sizes[0], sizes[2]), density)
    layers = [("a", sizes[0]), ("b", sizes[1]), ("c", sizes[2])]
    return build_graph(layers, [(0, 1, ab, "ab"), (1, 2, bc, "bc"), (0, 2, ac, "skip")])


def planted_chain(
    seed: int, n_groups: int, per_group: int, n_layers: int, noise: float
) -> tuple[Matrices, NDArray[np.intp]]:
    """A chain with strong weights inside groups and `noise` times as strong ones elsewhere."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(n_groups), per_group)
    same = group[:, None] == group[None, :]
    weights = [
        (0.5 + rng.random(same.shape)) * np.where(same, 1.0, noise) for _ in range(n_layers - 1)
    ]
    return weights, np.tile(group, n_layers)


def model_weights(folder: Path, name: str) -> Matrices:
    """|w| of each layer of a stored network."""
    with np.load(folder / f"{name}.npz") as arrays:
        return [np.abs(arrays[f"w{i}"]) for i in range(5)]


def as_csr(weights: NDArray[np.floating], index: Any = np.int32) -> sparse.csr_array:
    """The matrix in CSR form with indices of this type."""
    matrix = sparse.csr_array(weights)
    matrix.indptr = matrix.indptr.astype(index)
    matrix.indices = matrix.indices.astype(index)
    return matrix


def matrices(n_rows: int, n_cols: int, dtype: Any) -> st.SearchStrategy[NDArray[np.floating]]:
    """Non-negative matrices with many zeros."""
    width = np.dtype(dtype).itemsize * 8
    positive = st.floats(0.0009765625, 1000, width=width)
    return hnp.arrays(dtype, (n_rows, n_cols), elements=st.just(0.0) | positive)


@st.composite
def stored_blocks(draw: st.DrawFn, n_rows: int, n_cols: int, triangle: bool = False) -> Any:
    """Weights as a block holds them: dense of 16, 32 or 64 bits, or CSR of 32 or 64."""
    weights = draw(matrices(n_rows, n_cols, draw(st.sampled_from([np.float32, np.float64]))))
    if triangle:
        weights = np.triu(weights, k=1)
    form = draw(st.sampled_from(["dense", np.float16, bfloat16, np.int32, np.int64]))
    if isinstance(form, str):
        return weights
    if np.dtype(form).kind == "i":
        return as_csr(weights, form)
    return weights.astype(form)


@st.composite
def placed_blocks(draw: st.DrawFn) -> Placed:
    """A number of vertices, and blocks between random pairs of layers of odd sizes, sorted."""
    sizes = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    pairs = [(i, j) for i in range(len(sizes)) for j in range(i, len(sizes))]
    chosen = sorted(draw(st.sets(st.sampled_from(pairs), min_size=1)))
    starts = np.concatenate([[0], np.cumsum(sizes)]).tolist()
    blocks = [
        (starts[i], starts[j], Block(i, j, draw(stored_blocks(sizes[i], sizes[j], i == j))))
        for i, j in chosen
    ]
    return starts[-1], blocks


@st.composite
def small_chains(draw: st.DrawFn) -> Matrices:
    """Two or three small weight matrices, dense or sparse, some with isolated neurons."""
    sizes = draw(st.lists(st.integers(2, 9), min_size=3, max_size=4))
    seed = draw(st.integers(1, 10_000))
    density = draw(st.sampled_from([1.0, 0.5, 0.2]))
    weights = random_chain(seed, sizes, density)
    if draw(st.booleans()):
        weights = with_isolated(weights, seed, n_per_layer=1)
    for matrix in weights:
        if not matrix.any():
            matrix[0, 0] = 1.0
    return weights
