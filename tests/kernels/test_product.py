"""Products of the adjacency with vectors, and moves between clusters, against dense NumPy."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_dtypes import bfloat16
from samples import Placed, as_csr, chain_graph, placed_blocks, random_chain, skip_graph

from ncut import kernels, reference
from ncut.graphs import NeuronGraph

pytestmark = pytest.mark.usefixtures("each_instruction_set")


def parts(placed: Placed) -> tuple[list[tuple[np.ndarray, int, int]], Any]:
    """The blocks as `multiply` takes them: dense ones of one type, the others as one CSR."""
    n_vertices, blocks = placed
    dense = [
        (block.weights.astype(np.float64), row, col)
        for row, col, block in blocks
        if isinstance(block.weights, np.ndarray)
    ]
    upper = np.zeros((n_vertices, n_vertices))
    for row, col, block in blocks:
        if not isinstance(block.weights, np.ndarray):
            n_rows, n_cols = block.weights.shape
            upper[row : row + n_rows, col : col + n_cols] = block.weights.toarray()
    matrix = as_csr(upper + upper.T)
    return dense, (matrix.indptr, matrix.indices, matrix.data)


def product(
    placed: Placed, x: np.ndarray, scale: np.ndarray, rows: slice, threads: int = 1
) -> np.ndarray:
    y = np.full(x.shape, 7, x.dtype)
    kernels.multiply(*parts(placed), x, scale, rows, y, threads)
    return y


@given(placed_blocks(), st.sampled_from([16, 32]), st.integers(1, 10_000), st.data())
def test_product_equals_numpys(placed: Placed, width: int, seed: int, data: st.DataObject) -> None:
    n = placed[0]
    rng = np.random.default_rng(seed)
    x, scale = rng.normal(size=(n, width)), rng.random(n)
    first = data.draw(st.integers(0, n))
    rows = slice(first, data.draw(st.integers(first, n)))
    expected = np.full((n, width), 7.0)
    expected[rows] = (scale[:, None] * (reference.adjacency(*placed) @ x))[rows]
    np.testing.assert_allclose(product(placed, x, scale, rows), expected, rtol=1e-11, atol=1e-9)


def large(dtype: Any, density: float = 1.0) -> Placed:
    """More vertices than a panel of the kernel, in numbers that leave remainders."""
    (weights,) = random_chain(3, (301, 523), density)
    graph = chain_graph([weights.astype(dtype)])
    return graph.n_vertices, graph.placed_blocks()


@pytest.mark.parametrize("of_vectors", [np.float32, np.float64])
@pytest.mark.parametrize("density", [1.0, 0.1])
@pytest.mark.parametrize("of_weights", [np.float16, bfloat16, np.float32, np.float64])
def test_all_pairs_of_types(of_weights: Any, density: float, of_vectors: Any) -> None:
    n, blocks = large(of_weights, density)
    (row, col, block) = blocks[0]
    empty = np.empty(0, np.int32)
    wide = np.float64 if of_weights == np.float64 else np.float32
    if isinstance(block.weights, np.ndarray):
        arguments: Any = ([(block.weights, row, col)], (empty, empty, np.empty(0, wide)))
    else:
        arguments = ([], kernels.assemble_csr(n, blocks))
    rng = np.random.default_rng(5)
    x = rng.normal(size=(n, 32)).astype(of_vectors)
    scale = rng.random(n).astype(of_vectors)
    y = np.empty_like(x)
    kernels.multiply(*arguments, x, scale, slice(0, n), y, 2)
    expected = scale[:, None].astype(float) * (reference.adjacency(n, blocks) @ x.astype(float))
    tolerance = 1e-4 if of_vectors == np.float32 else 1e-12
    np.testing.assert_allclose(y, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("density", [1.0, 0.1])
def test_threads_change_nothing(density: float) -> None:
    placed = large(np.float32, density)
    rng = np.random.default_rng(7)
    x, scale = rng.normal(size=(placed[0], 16)), rng.random(placed[0])
    one = product(placed, x, scale, slice(0, placed[0]))
    for threads in (2, 3, 8):
        np.testing.assert_array_equal(product(placed, x, scale, slice(0, placed[0]), threads), one)


@given(placed_blocks())
def test_components_match_the_adjacency(placed: Placed) -> None:
    ours = kernels.components(*placed)
    expected = reference.components(reference.adjacency(*placed))
    np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("seed", range(1, 9))
def test_components_of_sparse_graphs(seed: int) -> None:
    # Long paths: the sets are joined in every order.
    rng = np.random.default_rng(seed)
    order = rng.permutation(200)
    weights = np.zeros((100, 100))
    for a, b in itertools.pairwise(order):
        if a < 100 <= b and rng.random() < 0.9:
            weights[a, b - 100] = 1
        elif b < 100 <= a and rng.random() < 0.9:
            weights[b, a - 100] = 1
    graph = chain_graph([weights])
    ours = kernels.components(graph.n_vertices, graph.placed_blocks())
    np.testing.assert_array_equal(ours, reference.components(graph.adjacency.toarray()))


def refined(graph: NeuronGraph, labels: np.ndarray, k: int, max_passes: int = 100) -> Any:
    """(labels, links, moves) after `kernels.refine`."""
    placed = (graph.n_vertices, graph.placed_blocks())
    A = graph.adjacency.toarray().astype(float)
    links = np.zeros((len(A), -(-k // 16) * 16))
    links[:, :k] = A @ np.eye(k)[labels]
    labels = labels.astype(np.int32)
    moves = kernels.refine(*parts(placed), A.sum(axis=1), k, max_passes, links, labels)
    return labels, links, moves


GRAPHS = {
    "chain": lambda: chain_graph(random_chain(9, (20, 30, 10))),
    "sparse": lambda: chain_graph(random_chain(11, (40, 50, 30), 0.1)).without_isolated()[0],
    "skip": lambda: skip_graph(13, (15, 20, 10), 0.5),
}


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("k", [2, 5, 17])
def test_refinement_lowers_the_cut_to_a_local_minimum(name: str, k: int) -> None:
    graph = GRAPHS[name]()
    A = graph.adjacency.toarray().astype(float)
    start = np.random.default_rng(k).permutation(np.arange(len(A)) % k)
    labels, links, moves = refined(graph, start, k)
    value = reference.normalized_cut(A, labels)
    assert moves > 0
    assert value < reference.normalized_cut(A, start)
    assert set(labels) == set(range(k))
    np.testing.assert_allclose(links[:, :k], A @ np.eye(k)[labels], atol=1e-9)
    for vertex in range(0, len(A), 3):
        for cluster in range(k):
            moved = labels.copy()
            moved[vertex] = cluster
            if len(set(moved)) == k:
                assert reference.normalized_cut(A, moved) >= value - 1e-9
    again, _, no_moves = refined(graph, labels, k)
    assert no_moves == 0
    np.testing.assert_array_equal(again, labels)


def test_no_passes_mean_no_moves() -> None:
    graph = GRAPHS["chain"]()
    start = np.arange(graph.n_vertices) % 3
    labels, _, moves = refined(graph, start, 3, max_passes=0)
    assert moves == 0
    np.testing.assert_array_equal(labels, start)


def test_each_move_lowers_the_cut() -> None:
    graph = GRAPHS["chain"]()
    A = graph.adjacency.toarray()
    labels = np.arange(graph.n_vertices) % 3
    values = [reference.normalized_cut(A, labels)]
    for _ in range(6):
        labels, _, _ = refined(graph, labels, 3, max_passes=1)
        values.append(reference.normalized_cut(A, labels))
    assert values == sorted(values, reverse=True)
    assert values[1] < values[0]


def test_a_cluster_of_one_is_not_emptied() -> None:
    graph = chain_graph([np.ones((4, 4))])
    start = np.array([0, 1, 1, 1, 1, 1, 1, 1])
    labels, _, _ = refined(graph, start, 2)
    assert set(labels) == {0, 1}
