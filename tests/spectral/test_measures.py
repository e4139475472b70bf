"""Modularities and the share of squared weight inside clusters, against other definitions."""

from __future__ import annotations

from typing import Any

import networkx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from samples import (
    Matrices,
    chain_graph,
    planted_chain,
    random_chain,
    skip_graph,
    small_chains,
)
from scipy import linalg, sparse

import ncut
from ncut import reference
from ncut.graphs import NeuronGraph
from ncut.graphs.colouring import two_colours


def random_labels(graph: NeuronGraph, k: int, seed: int) -> NDArray[np.intp]:
    labels = np.random.default_rng(seed).integers(0, k, graph.n_vertices)
    labels[graph.degrees == 0] = -1
    return labels


@given(small_chains(), st.integers(2, 4), st.integers(0, 1000))
def test_newman_as_networkx_has_it(weights: Matrices, k: int, seed: int) -> None:
    graph, _ = chain_graph(weights).without_isolated()
    labels = random_labels(graph, k, seed)
    groups = [set(np.flatnonzero(labels == c).tolist()) for c in range(k)]
    expected = networkx.community.modularity(graph.to_networkx(), groups, weight="weight")
    assert ncut.partition_measures(graph, labels).modularity == pytest.approx(expected, abs=1e-9)


def barber(A: NDArray[np.float64], first: NDArray[np.bool_], labels: NDArray[np.intp]) -> float:
    """Sum over pairs of different colours of (A_ij - k_i d_j / m) / m in one cluster."""
    block = A[np.ix_(first, ~first)]
    m = block.sum()
    expected = np.outer(block.sum(axis=1), block.sum(axis=0)) / m
    same = labels[first][:, None] == labels[~first][None, :]
    return float(((block - expected) * same).sum() / m)


@given(small_chains(), st.integers(2, 4), st.integers(0, 1000))
def test_barber_by_its_definition(weights: Matrices, k: int, seed: int) -> None:
    graph, _ = chain_graph(weights).without_isolated()
    labels = random_labels(graph, k, seed)
    colours = two_colours(graph)
    assert colours is not None
    first = np.repeat([c == 0 for c in colours], [layer.size for layer in graph.layers])
    A = reference.adjacency(graph.n_vertices, graph.placed_blocks())
    found = ncut.partition_measures(graph, labels).bipartite_modularity
    assert found == pytest.approx(barber(A, first, labels), abs=1e-9)


def test_no_barber_where_layers_have_no_two_colours() -> None:
    graph = skip_graph(1, (5, 6, 4))
    assert two_colours(graph) is None
    measures = ncut.partition_measures(graph, np.arange(15) % 3)
    assert measures.bipartite_modularity is None
    assert ncut.cluster(graph, 3).bipartite_modularity is None


@pytest.mark.parametrize("k", [2, 4, 8])
@pytest.mark.parametrize("n_layers", [2, 3])
def test_a_block_diagonal_matrix_scores_one(k: int, n_layers: int) -> None:
    weights, _ = planted_chain(1, k, 6, n_layers, 0.0)
    graph = chain_graph(weights)
    found = ncut.cluster(graph, k)
    assert found.clusterability == 1.0
    assert ncut.partition_measures(graph, found.labels).clusterability_by_block == (1.0,) * (
        n_layers - 1
    )


def test_a_block_diagonal_matrix_as_a_bipartite_adjacency() -> None:
    rng = np.random.default_rng(2)
    W = linalg.block_diag(*[rng.random((5, 7)) + 0.1 for _ in range(4)])
    rows, cols = rng.permutation(20), rng.permutation(28)
    W = W[np.ix_(rows, cols)]
    adjacency = sparse.csr_array(sparse.block_array([[None, W], [W.T, None]]))
    found = ncut.cluster(adjacency, 4)
    assert found.clusterability == 1.0
    assert found.ncut == 0


@given(small_chains(), st.integers(2, 4), st.integers(0, 1000))
def test_the_share_of_squares_by_its_definition(weights: Matrices, k: int, seed: int) -> None:
    graph, _ = chain_graph(weights).without_isolated()
    labels = random_labels(graph, k, seed)
    found = ncut.partition_measures(graph, labels)
    shares = []
    for block in graph.blocks:
        matrix = reference.dense(block.weights)
        rows = labels[graph.layers[block.source].slice]
        cols = labels[graph.layers[block.target].slice]
        inside, total = reference.inner_squares(matrix, rows, cols)
        shares.append(inside / total)
    np.testing.assert_allclose(found.clusterability_by_block, shares, rtol=1e-12)
    assert found.clusterability == pytest.approx(np.mean(shares))
    assert found.ncut == pytest.approx(ncut.normalized_cut(graph, labels), rel=1e-14)


def test_everything_in_one_cluster() -> None:
    graph = chain_graph(random_chain(1, (4, 5, 3)))
    found = ncut.partition_measures(graph, np.zeros(12, dtype=int))
    assert found.ncut == 0
    assert found.modularity == pytest.approx(0, abs=1e-12)
    assert found.bipartite_modularity == pytest.approx(0, abs=1e-12)
    assert found.clusterability == 1.0


def test_names_of_clusters_do_not_matter() -> None:
    graph = chain_graph(random_chain(1, (6, 7, 5)))
    labels = random_labels(graph, 3, 5)
    one = ncut.partition_measures(graph, labels)
    other = ncut.partition_measures(graph, np.array([70, 3, 900])[labels])
    assert one.modularity == pytest.approx(other.modularity)
    assert one.clusterability == pytest.approx(other.clusterability)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1], "shape"),
        ([0.5] * 12, "whole numbers"),
        ([-1] + [0] * 11, "with edges, got 1 negative"),
    ],
)
def test_bad_labels_are_refused(labels: Any, message: str) -> None:
    graph = chain_graph(random_chain(1, (4, 5, 3)))
    with pytest.raises(ncut.InputError, match=f"labels: .*{message}"):
        ncut.partition_measures(graph, labels)
