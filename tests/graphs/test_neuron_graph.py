"""NeuronGraph: Laplacians, degrees, removal of isolated vertices, networkx."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from checks import check_adjacency, check_canonical_csr
from hypothesis import given
from samples import Matrices, as_csr, chain_graph, random_chain, small_chains, with_isolated
from scipy import sparse
from scipy.sparse import csgraph

from ncut import reference
from ncut.errors import InputError
from ncut.graphs import NeuronGraph, build_graph, from_adjacency
from ncut.types import Block

CHAINS = {
    "dense": random_chain(3, [7, 5, 6]),
    "sparse": random_chain(5, [40, 50, 30], 0.1),
    "isolated": with_isolated(random_chain(7, [9, 8, 7]), 9),
}
KINDS: dict[str, dict[str, Any]] = {
    "unnormalized": {},
    "sym": {"normed": True},
}


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("kind", KINDS)
def test_laplacian_equals_scipys(chain: str, kind: Any) -> None:
    graph = chain_graph(CHAINS[chain])
    ours = graph.laplacian(kind)
    assert ours.dtype == np.float64
    expected = csgraph.laplacian(graph.adjacency, **KINDS[kind])
    np.testing.assert_allclose(ours.toarray(), expected.toarray(), atol=1e-14)


@pytest.mark.parametrize("chain", CHAINS)
def test_random_walk_laplacian_is_identity_minus_transition_matrix(chain: str) -> None:
    graph = chain_graph(CHAINS[chain])
    A, degrees = graph.adjacency.toarray(), graph.degrees
    expected = np.zeros_like(A)
    for v in np.flatnonzero(degrees):
        expected[v] = -A[v] / degrees[v]
        expected[v, v] += 1
    np.testing.assert_allclose(graph.laplacian("norm").toarray(), expected, atol=1e-14)


@given(small_chains())
def test_laplacians_map_their_known_vectors_to_zero(weights: Matrices) -> None:
    graph = chain_graph(weights)
    ones, roots = np.ones(graph.n_vertices), np.sqrt(graph.degrees)
    scale = graph.degrees.max()
    np.testing.assert_allclose(graph.laplacian("unnormalized") @ ones, 0, atol=1e-13 * scale)
    np.testing.assert_allclose(graph.laplacian("norm") @ ones, 0, atol=1e-13)
    np.testing.assert_allclose(graph.laplacian("sym") @ roots, 0, atol=1e-13 * np.sqrt(scale))


def test_laplacian_of_float32_weights_is_exact_to_double_precision() -> None:
    weights = [matrix.astype(np.float32) for matrix in CHAINS["dense"]]
    graph = chain_graph(weights)
    expected = reference.symmetric_laplacian(graph.adjacency.toarray().astype(float))
    np.testing.assert_allclose(graph.laplacian("sym").toarray(), expected, atol=1e-15)


@pytest.mark.parametrize("kind", ["random", "", None, 1, ["sym"]])
def test_laplacian_refuses_other_kinds(kind: Any) -> None:
    with pytest.raises(InputError, match="kind: must be"):
        chain_graph(CHAINS["dense"]).laplacian(kind)


@given(small_chains())
def test_without_isolated_is_the_graph_on_the_connected_vertices(weights: Matrices) -> None:
    graph = chain_graph(weights)
    rest, kept = graph.without_isolated()
    np.testing.assert_array_equal(kept, np.flatnonzero(graph.degrees > 0))
    check_adjacency(rest.adjacency)
    np.testing.assert_array_equal(
        rest.adjacency.toarray(), graph.adjacency.toarray()[np.ix_(kept, kept)]
    )
    np.testing.assert_allclose(rest.degrees, graph.degrees[kept], rtol=1e-14)
    assert (rest.degrees > 0).all()
    assert rest.n_edges == graph.n_edges
    assert [layer.name for layer in rest.layers] == [layer.name for layer in graph.layers]
    for layer, old in zip(rest.layers, graph.layers, strict=True):
        inside = kept[layer.slice]
        assert ((inside >= old.start) & (inside < old.start + old.size)).all()
    for block in rest.blocks:
        assert block.weights.shape == (
            rest.layers[block.source].size,
            rest.layers[block.target].size,
        )


def test_without_isolated_returns_a_connected_graph_itself() -> None:
    graph = chain_graph(CHAINS["dense"])
    rest, kept = graph.without_isolated()
    assert rest is graph
    np.testing.assert_array_equal(kept, np.arange(18))


def test_a_layer_can_vanish() -> None:
    graph = build_graph(
        [("a", 3), ("b", 2), ("c", 4)], [(0, 2, random_chain(11, [3, 4])[0], "skip")]
    )
    rest, kept = graph.without_isolated()
    assert [layer.size for layer in rest.layers] == [3, 0, 4]
    np.testing.assert_array_equal(kept, [0, 1, 2, 5, 6, 7, 8])
    check_adjacency(rest.adjacency)


def test_without_isolated_keeps_facts_about_the_model() -> None:
    matrix = np.diag([1.0, 1.0], k=1) + np.diag([1.0, 1.0], k=-1) + np.eye(3)
    matrix = np.pad(matrix, (0, 2))
    rest, _ = from_adjacency(sparse.csr_array(matrix), name="small").without_isolated()
    assert rest.name == "small"
    assert [item.name for item in rest.left_out] == ["diagonal"]
    assert rest.n_vertices == 3


@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_sparse_blocks_keep_their_index_type(index: Any) -> None:
    graph = chain_graph(CHAINS["sparse"])
    blocks = tuple(
        Block(b.source, b.target, as_csr(b.weights.toarray(), index)) for b in graph.blocks
    )
    rest, _ = NeuronGraph(graph.layers, blocks).without_isolated()
    assert rest.n_vertices < graph.n_vertices
    for block in rest.blocks:
        check_canonical_csr(block.weights)
        assert block.weights.indices.dtype == index
    np.testing.assert_allclose(rest.degrees, graph.without_isolated()[0].degrees)
    check_adjacency(rest.adjacency)


def test_to_networkx() -> None:
    graph = chain_graph(CHAINS["isolated"])
    converted = graph.to_networkx()
    assert converted.number_of_nodes() == graph.n_vertices
    assert converted.number_of_edges() == graph.n_edges
    for u, v, weight in converted.edges(data="weight"):
        assert weight == graph.adjacency[u, v]
    layers = [converted.nodes[v]["layer"] for v in range(graph.n_vertices)]
    assert layers == ["layer0"] * 9 + ["layer1"] * 8 + ["layer2"] * 7


def test_repr_names_model_and_sizes() -> None:
    text = repr(chain_graph(CHAINS["dense"], name="mlp"))
    assert "mlp" in text
    assert "18 vertices" in text
    assert "65 edges" in text
    assert "7-5-6" in text


@pytest.mark.parametrize("kind", ["sym", "norm"])
def test_laplacian_of_degrees_whose_inverse_is_no_number(kind: Any) -> None:
    weak = 3e-310
    chain = np.diag([1.0, weak], 1)
    ours = from_adjacency(chain + chain.T).laplacian(kind).toarray()
    forth, back = (weak**0.5, weak**0.5) if kind == "sym" else (weak, 1.0)
    expected = [[1, -1, 0], [-1, 1, -forth], [0, -back, 1]]
    np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-300)
