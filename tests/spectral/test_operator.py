"""The normalized adjacency as an operator, against the dense matrix."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from ml_dtypes import bfloat16
from samples import Matrices, chain_graph, random_chain, skip_graph, small_chains

from ncut import reference
from ncut.graphs import NeuronGraph, build_graph, from_adjacency
from ncut.spectral.operator import NormalizedAdjacency

GRAPHS = {
    "chain": lambda: chain_graph(random_chain(3, (9, 14, 8))),
    "long chain": lambda: chain_graph(random_chain(5, (5, 9, 4, 7, 6))),
    "sparse": lambda: chain_graph(random_chain(7, (60, 70, 50), 0.1)).without_isolated()[0],
    "dense and sparse": lambda: chain_graph(
        [random_chain(9, (60, 70))[0], random_chain(11, (70, 50), 0.1)[0]]
    ).without_isolated()[0],
    "float32": lambda: chain_graph(random_chain(3, (9, 14, 8), dtype=np.float32)),
    "float16": lambda: chain_graph(random_chain(3, (9, 14, 8), dtype=np.float16)),
    "bfloat16": lambda: chain_graph(random_chain(3, (9, 14, 8), dtype=bfloat16)),
    "bfloat16 and float32": lambda: chain_graph(
        [random_chain(3, (9, 14), dtype=bfloat16)[0], random_chain(5, (14, 8), dtype=np.float32)[0]]
    ),
    "float16 and bfloat16": lambda: chain_graph(
        [random_chain(3, (9, 14), dtype=bfloat16)[0], random_chain(5, (14, 8), dtype=np.float16)[0]]
    ),
    "skip": lambda: skip_graph(13, (9, 14, 8)),
    "one layer": lambda: from_adjacency(chain_graph(random_chain(3, (9, 14, 8))).adjacency),
}


def dense(graph: NeuronGraph, operator: NormalizedAdjacency) -> np.ndarray:
    """M in the operator's numbering."""
    M = np.eye(graph.n_vertices) - reference.symmetric_laplacian(
        graph.adjacency.toarray().astype(float)
    )
    placed = np.empty_like(M)
    placed[np.ix_(operator.place, operator.place)] = M
    return placed


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-6), (np.float64, 1e-14)])
def test_products(name: str, dtype: Any, tolerance: float) -> None:
    graph = GRAPHS[name]()
    operator = NormalizedAdjacency(graph, 2)
    M = dense(graph, operator)
    x = np.random.default_rng(17).normal(size=(graph.n_vertices, 16)).astype(dtype)
    np.testing.assert_allclose(operator.apply(x), M @ x.astype(float), atol=40 * tolerance)
    if operator.bipartite:
        C = M[: operator.n_first, operator.n_first :]
        small = np.ascontiguousarray(x[operator.n_first :])
        expected = C.T @ (C @ small.astype(float))
        np.testing.assert_allclose(operator.apply_gram(small), expected, atol=40 * tolerance)


@pytest.mark.parametrize("dtype", [np.float16, bfloat16])
def test_blocks_of_16_bits_are_read_where_they_are(dtype: Any) -> None:
    narrow = random_chain(3, (9, 14), dtype=dtype)
    graph = chain_graph([*narrow, *random_chain(5, (14, 8), dtype=np.float32)])
    operator = NormalizedAdjacency(graph, 1)
    for (weights, *_), block in zip(operator._dense, graph.blocks, strict=True):
        assert weights is block.weights


@given(small_chains())
def test_any_small_chain(weights: Matrices) -> None:
    graph, _ = chain_graph(weights).without_isolated()
    operator = NormalizedAdjacency(graph, 1)
    M = dense(graph, operator)
    x = np.random.default_rng(17).normal(size=(graph.n_vertices, 16))
    np.testing.assert_allclose(operator.apply(x), M @ x, atol=1e-12)
    np.testing.assert_allclose(
        operator.matrix().toarray(), M[np.ix_(operator.place, operator.place)], atol=1e-14
    )
    np.testing.assert_allclose(operator.root_degrees**2, operator.degrees)
    np.testing.assert_allclose(
        operator.degrees[operator.place] / operator.degrees.max(),
        graph.degrees / graph.degrees.max(),
    )
    assert 0.5 <= operator.degrees.max() < 1


@pytest.mark.parametrize("name", GRAPHS)
def test_two_colours_are_found_where_they_exist(name: str) -> None:
    graph = GRAPHS[name]()
    operator = NormalizedAdjacency(graph, 1)
    assert operator.bipartite == (name not in ("skip", "one layer"))
    np.testing.assert_array_equal(np.sort(operator.place), np.arange(graph.n_vertices))
    if operator.bipartite:
        M = dense(graph, operator)
        assert not M[: operator.n_first, : operator.n_first].any()
        assert not M[operator.n_first :, operator.n_first :].any()
        assert 2 * operator.n_first >= graph.n_vertices


def test_a_skip_over_two_layers_keeps_two_colours() -> None:
    layers = [("a", 5), ("b", 6), ("c", 4), ("d", 7)]
    first, second, third = random_chain(19, (5, 6, 4, 7))
    (skip,) = random_chain(21, (5, 7))
    graph = build_graph(
        layers, [(0, 1, first, "x"), (1, 2, second, "y"), (2, 3, third, "z"), (0, 3, skip, "s")]
    )
    assert NormalizedAdjacency(graph, 1).bipartite


@pytest.mark.parametrize("name", [*(n for n in GRAPHS if n not in ("skip", "one layer")), "twice"])
def test_the_corner_is_that_of_the_whole_matrix(name: str) -> None:
    if name == "twice":
        first, second = random_chain(3, (9, 14), dtype=np.float32) * 2
        blocks = [(0, 1, first, "a"), (1, 0, second.T[:, ::-1], "b")]
        graph = build_graph([("x", 9), ("y", 14)], blocks)
    else:
        graph = GRAPHS[name]()
    operator = NormalizedAdjacency(graph, 1)
    M = np.empty((graph.n_vertices,) * 2)
    M[np.ix_(operator.place, operator.place)] = operator.matrix().toarray()
    first_n = operator.n_first
    np.testing.assert_array_equal(operator.corner(), M[:first_n, first_n:])


def test_the_corner_takes_little_more_memory_than_it_has() -> None:
    operator = NormalizedAdjacency(chain_graph(random_chain(3, (3000, 40), dtype=np.float32)), 1)
    tracemalloc.start()
    try:
        corner = operator.corner()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * corner.nbytes
