"""normalized_cut: definition, invariances, and refusals."""

from __future__ import annotations

import tracemalloc
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import (
    Matrices,
    chain_graph,
    random_chain,
    side_by_side,
    side_by_side_labels,
    skip_graph,
    small_chains,
    with_isolated,
)
from scipy import sparse

from ncut import reference
from ncut.errors import InputError
from ncut.graphs import from_adjacency
from ncut.spectral import normalized_cut

SEEDS = st.integers(1, 10_000)


def random_labels(seed: int, n: int, k: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, k, n)


@given(small_chains(), st.integers(1, 6), SEEDS)
def test_equals_the_definition(weights: Matrices, k: int, seed: int) -> None:
    graph = chain_graph(weights)
    labels = random_labels(seed, graph.n_vertices, k)
    expected = reference.normalized_cut(graph.adjacency.toarray(), labels)
    assert normalized_cut(graph, labels) == pytest.approx(expected, rel=1e-12, abs=1e-13)
    assert normalized_cut(graph.adjacency, labels) == pytest.approx(expected, rel=1e-12, abs=1e-13)
    assert 0 <= normalized_cut(graph, labels) <= k


@given(small_chains(), SEEDS)
def test_two_parts_equal_networkx(weights: Matrices, seed: int) -> None:
    graph, _ = chain_graph(weights).without_isolated()
    labels = random_labels(seed, graph.n_vertices, 2)
    labels[:1], labels[-1:] = 0, 1
    expected = nx.normalized_cut_size(
        graph.to_networkx(), np.flatnonzero(labels == 0), weight="weight"
    )
    assert normalized_cut(graph, labels) == pytest.approx(expected, rel=1e-12)


def test_skip_connections_count() -> None:
    graph = skip_graph(3, (5, 6, 4))
    labels = random_labels(5, 15, 3)
    expected = reference.normalized_cut(graph.adjacency.toarray(), labels)
    assert normalized_cut(graph, labels) == pytest.approx(expected, rel=1e-12)


@given(small_chains(), st.integers(2, 5), SEEDS)
def test_vertices_in_no_cluster_are_outside_of_all(weights: Matrices, k: int, seed: int) -> None:
    graph = chain_graph(weights)
    labels = random_labels(seed, graph.n_vertices, k + 1) - 1
    labels[0] = 0
    expected = reference.normalized_cut(graph.adjacency.toarray(), labels)
    assert normalized_cut(graph, labels) == pytest.approx(expected, rel=1e-12, abs=1e-13)
    assert normalized_cut(graph, np.where(labels < 0, -7, labels)) == normalized_cut(graph, labels)


@given(small_chains(), st.integers(2, 5), SEEDS)
def test_numbers_of_the_clusters_do_not_matter(weights: Matrices, k: int, seed: int) -> None:
    graph = chain_graph(weights)
    labels = random_labels(seed, graph.n_vertices, k)
    renumbered = np.random.default_rng(seed + 1).permutation(3 * k)[labels]
    value = normalized_cut(graph, labels)
    assert normalized_cut(graph, renumbered) == pytest.approx(value, rel=1e-10)


@given(small_chains(), st.integers(2, 5), SEEDS)
def test_order_of_the_neurons_does_not_matter(weights: Matrices, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = chain_graph(weights)
    labels = random_labels(seed, graph.n_vertices, k)
    orders = [rng.permutation(layer.size) for layer in graph.layers]
    moved = chain_graph([w[np.ix_(orders[i], orders[i + 1])] for i, w in enumerate(weights)])
    moved_labels = np.concatenate(
        [labels[layer.slice][order] for layer, order in zip(graph.layers, orders, strict=True)]
    )
    value = normalized_cut(graph, labels)
    assert normalized_cut(moved, moved_labels) == pytest.approx(value, rel=1e-10)


@given(small_chains(), st.integers(2, 5), SEEDS, st.sampled_from([1e-12, 0.3, 1e9]))
def test_the_unit_of_the_weights_does_not_matter(
    weights: Matrices, k: int, seed: int, scale: float
) -> None:
    graph = chain_graph(weights)
    labels = random_labels(seed, graph.n_vertices, k)
    scaled = chain_graph([matrix * scale for matrix in weights])
    assert normalized_cut(scaled, labels) == pytest.approx(normalized_cut(graph, labels), rel=1e-10)


@pytest.mark.parametrize("density", [1.0, 0.2])
def test_disconnected_parts_cut_to_exactly_zero(density: float) -> None:
    chains = [random_chain(seed, (9, 8, 7), density) for seed in (3, 5, 7)]
    graph, labels = chain_graph(side_by_side(*chains)), side_by_side_labels(*chains)
    assert normalized_cut(graph, labels) == 0.0
    assert normalized_cut(graph, np.minimum(labels, 1)) == 0.0
    labels[0] = 1
    assert normalized_cut(graph, labels) > 0


def test_every_vertex_alone_gives_their_number() -> None:
    graph = chain_graph(with_isolated(random_chain(9, (8, 7, 6)), 11))
    n_connected = np.count_nonzero(graph.degrees)
    assert normalized_cut(graph, np.arange(21)) == n_connected


def test_a_cluster_without_edges_adds_nothing() -> None:
    graph = chain_graph(with_isolated(random_chain(9, (8, 7, 6)), 11))
    labels = random_labels(13, 21, 3)
    isolated = np.flatnonzero(graph.degrees == 0)
    value = normalized_cut(graph, labels)
    labels[isolated] = 3
    assert normalized_cut(graph, labels) == value
    labels[isolated] = -1
    assert normalized_cut(graph, labels) == value


@pytest.mark.parametrize("kind", [list, tuple, np.asarray])
def test_labels_of_any_sequence(kind: Any) -> None:
    graph = chain_graph(random_chain(15, (3, 4)))
    labels = [0, 1, 0, 2, 2, 1, 0]
    assert normalized_cut(graph, kind(labels)) == normalized_cut(graph, np.array(labels))


@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", ">i4"])
def test_labels_of_any_whole_type(dtype: Any) -> None:
    graph = chain_graph(random_chain(15, (3, 4)))
    labels = np.array([0, 1, 0, 2, 2, 1, 0])
    assert normalized_cut(graph, labels.astype(dtype)) == normalized_cut(graph, labels)


def test_large_cluster_numbers_cost_no_memory() -> None:
    graph = chain_graph(random_chain(15, (3, 4)))
    labels = np.array([0, 1, 0, 2, 2, 1, 0])
    expected = normalized_cut(graph, labels)
    tracemalloc.start()
    try:
        assert normalized_cut(graph, labels * 500_000) == pytest.approx(expected, rel=1e-14)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 0], r"labels: .* shape \(7,\), got \(3,\)"),
        ([0, 1] * 4, r"labels: .*got \(8,\)"),
        ([[0, 1, 0, 2, 2, 1, 0]], r"labels: .*got \(1, 7\)"),
        (0, r"labels: .*got \(\)"),
        ([0.0, 1.0, 0.0, 2.0, 2.0, 1.0, 0.0], r"labels: must be whole numbers.*float64"),
        ([True] * 7, r"labels: must be whole numbers.*bool"),
        (["a"] * 7, r"labels: must be whole numbers"),
        ([None] * 7, r"labels: must be whole numbers"),
        ([[0], [1, 2]], r"labels: "),
        ([-1] * 7, r"labels: no vertex is in a cluster"),
    ],
)
def test_labels_are_refused_by_name(labels: Any, message: str) -> None:
    graph = chain_graph(random_chain(15, (3, 4)))
    with pytest.raises(InputError, match=message):
        normalized_cut(graph, labels)


def test_an_adjacency_is_checked_first() -> None:
    with pytest.raises(InputError, match="adjacency: not symmetric"):
        normalized_cut(sparse.csr_array(np.triu(np.ones((4, 4)), k=1)), [0, 0, 1, 1])
    graph = from_adjacency(sparse.csr_array(np.ones((4, 4)) - np.eye(4)))
    assert normalized_cut(graph, [0, 0, 1, 1]) == pytest.approx(4 / 6 * 2)
