"""Sums over a graph's edges and its strongest edges, against the dense matrix."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from scipy import sparse

import ncut
from ncut.graphs import NeuronGraph
from ncut.report import edges
from ncut.report.edges import layer_flows, strongest_edges
from ncut.types import Block, Layer

K = 4


def dense_chain() -> NeuronGraph:
    rng = np.random.default_rng(0)
    pairs = itertools.pairwise([9, 7, 5])
    return ncut.graph([rng.normal(size=pair).astype(np.float32) for pair in pairs])


def sparse_matrix() -> NeuronGraph:
    half = sparse.random_array((30, 30), density=0.2, rng=np.random.default_rng(1))
    upper = sparse.triu(half, k=1)
    return ncut.graph(sparse.csr_array(upper + upper.T))


def parallel_blocks() -> NeuronGraph:
    """Blocks between the same layers, dense and sparse, one within a layer, and half precision."""
    rng = np.random.default_rng(2)
    layers = (Layer("a", 0, 6), Layer("b", 6, 5), Layer("c", 11, 4))
    return NeuronGraph(
        layers,
        (
            Block(0, 0, np.triu(rng.random((6, 6)), 1)),
            Block(0, 1, rng.random((6, 5))),
            Block(0, 1, sparse.csr_array(rng.random((6, 5)) * (rng.random((6, 5)) < 0.5))),
            Block(0, 2, rng.permutation(np.arange(1, 25) / 32).reshape(6, 4).astype(np.float16)),
            Block(1, 2, sparse.csr_array(rng.random((5, 4)) * (rng.random((5, 4)) < 0.6))),
            Block(1, 2, sparse.csr_array(rng.random((5, 4)) * (rng.random((5, 4)) < 0.6))),
        ),
    )


GRAPHS = [dense_chain, sparse_matrix, parallel_blocks]


@pytest.fixture(params=[1, 10, 2**20], autouse=True)
def piece(request, monkeypatch) -> None:
    """The same for any number of weights that are looked at together."""
    monkeypatch.setattr(edges, "PIECE", request.param)


@pytest.fixture(params=GRAPHS, ids=lambda make: make.__name__)
def graph(request) -> NeuronGraph:
    make: Callable[[], NeuronGraph] = request.param
    return make()


def labels_of(graph: NeuronGraph) -> np.ndarray:
    labels = np.random.default_rng(3).integers(0, K, graph.n_vertices).astype(np.int32)
    labels[graph.degrees == 0] = -1
    return labels


def test_flows_are_the_sums_over_the_dense_matrix(graph):
    labels = labels_of(graph)
    dense = graph.adjacency.toarray().astype(np.float64)
    flows = layer_flows(graph, labels, K)
    assert set(flows) == {(block.source, block.target) for block in graph.blocks}
    for (source, target), flow in flows.items():
        rows, columns = graph.layers[source].slice, graph.layers[target].slice
        for a in range(K):
            for b in range(K):
                both = dense[rows, columns][np.ix_(labels[rows] == a, labels[columns] == b)]
                if source == target:
                    both = np.triu(dense[rows, rows], 1)[
                        np.ix_(labels[rows] == a, labels[rows] == b)
                    ]
                assert flow[a, b] == pytest.approx(both.sum(), rel=1e-6)
    total = sum(float(flow.sum()) for flow in flows.values())
    assert total == pytest.approx(graph.degrees.sum() / 2)


@pytest.mark.parametrize("count", [1, 5, 10_000])
def test_strongest_edges_are_the_first_of_all_sorted(graph, count):
    labels = labels_of(graph)
    dense = np.triu(graph.adjacency.toarray().astype(np.float64))
    found = strongest_edges(graph, labels, K, count)
    assert len(found) == K
    for cluster, best in enumerate(found):
        touches = (labels[:, None] == cluster) | (labels[None, :] == cluster)
        first, second = np.nonzero((dense > 0) & touches)
        weights = dense[first, second]
        order = np.argsort(-weights)[:count]
        expected = list(zip(first[order], second[order], strict=True))
        assert [(edge.first, edge.second) for edge in best] == expected
        np.testing.assert_allclose([edge.weight for edge in best], weights[order], rtol=1e-6)


def test_an_empty_cluster_has_no_edges(graph):
    assert strongest_edges(graph, labels_of(graph), K + 1, 3)[K] == []
