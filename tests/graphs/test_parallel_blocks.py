"""Graphs with several blocks between two layers and edges within a layer, as streams have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import ncut
from ncut.graphs import NeuronGraph, build_graph
from ncut.types import Block, Layer


def transformer_like(seed: int = 0, sparse: bool = False, width: int = 1) -> NeuronGraph:
    """A stream, hidden layers that read it and write to it, and a recurrent layer."""
    rng = np.random.default_rng(seed)
    n_stream, n_hidden, n_recurrent, n_output = (width * n for n in (12, 20, 9, 5))
    sizes = [
        *(("stream", n_stream), ("hidden", n_hidden)),
        *(("recurrent", n_recurrent), ("output", n_output)),
    ]

    def weights(rows: int, columns: int) -> np.ndarray:
        values = rng.random((rows, columns))
        return values * (rng.random(values.shape) < 0.15) if sparse else values

    return build_graph(
        sizes,
        [
            (0, 1, weights(n_stream, n_hidden), "up"),
            (1, 0, weights(n_hidden, n_stream), "down"),
            (0, 2, weights(n_stream, n_recurrent), "in"),
            (2, 2, np.triu(weights(n_recurrent, n_recurrent), 1), "within"),
            (0, 0, np.triu(weights(n_stream, n_stream), 1), "direct"),
            (0, 3, weights(n_stream, n_output), "out"),
        ],
        name="stream",
    )


def dense_adjacency(graph: NeuronGraph) -> np.ndarray:
    """The adjacency matrix, block by block."""
    total = np.zeros((graph.n_vertices, graph.n_vertices))
    for block in graph.blocks:
        rows, columns = graph.layers[block.source].slice, graph.layers[block.target].slice
        values = block.weights if isinstance(block.weights, np.ndarray) else block.weights.toarray()
        total[rows, columns] += values
        total[columns, rows] += values.T
    return total


@pytest.mark.parametrize("sparse", [False, True])
def test_adjacency_and_degrees_add_up(sparse: bool) -> None:
    graph = transformer_like(sparse=sparse)
    expected = dense_adjacency(graph)
    assert_allclose(graph.adjacency.toarray(), expected, rtol=1e-12)
    assert graph.adjacency.has_canonical_format
    assert_allclose(graph.degrees, expected.sum(axis=0), rtol=1e-12)
    assert_array_equal(np.diag(expected), 0)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("solver", ["auto", "dense", "krylov", "arpack"])
def test_eigenvalues_and_ncut_match_the_sum(solver: str, sparse: bool) -> None:
    graph = transformer_like(seed=1, sparse=sparse, width=10)
    adjacency = dense_adjacency(graph)
    connected = adjacency.sum(axis=0) > 0
    adjacency = adjacency[np.ix_(connected, connected)]
    root = 1 / np.sqrt(adjacency.sum(axis=0))
    expected = np.linalg.eigvalsh(np.eye(len(root)) - root[:, None] * adjacency * root)[:3]
    found = ncut.cluster(graph, 3, solver=solver)
    assert_allclose(found.eigenvalues, expected, atol=1e-4)
    labels = found.labels[connected]
    volumes = [adjacency[labels == c].sum() for c in range(3)]
    cuts = [adjacency[np.ix_(labels == c, labels != c)].sum() for c in range(3)]
    assert found.ncut == pytest.approx(sum(c / v for c, v in zip(cuts, volumes, strict=True)))
    assert found.refined_ncut <= found.spectral_ncut + 1e-12


def test_each_block_is_shuffled_by_itself() -> None:
    graph, _ = transformer_like().without_isolated()
    shuffled = ncut.shuffle(graph, seed=3)
    for before, after in zip(graph.blocks, shuffled.blocks, strict=True):
        assert (before.source, before.target, before.name) == (
            after.source,
            after.target,
            after.name,
        )
        values = [
            np.sort((b.weights if isinstance(b.weights, np.ndarray) else b.weights.data).ravel())
            for b in (before, after)
        ]
        assert_array_equal(*values)
    assert not np.array_equal(graph.adjacency.toarray(), shuffled.adjacency.toarray())


@pytest.mark.parametrize(
    "null", ["layer", "layer-nonzero", "layer-nonzero-kde", "layer-kde", "strength", "tied"]
)
def test_outputs_with_several_readers_are_shuffled_once(null: str) -> None:
    rng = np.random.default_rng(2)
    weights, other = rng.random((6, 7)), rng.random((6, 7))
    layers = tuple(Layer(f"l{n}", 7 * n - (n > 0), 6 if n == 0 else 7) for n in range(4))
    blocks = (
        Block(0, 1, weights, "a", tie="a"),
        Block(0, 2, weights * 2.0, "a", tie="a"),
        Block(0, 3, other, "b"),
    )
    graph = NeuronGraph(layers, blocks, name="readers")
    first, second, third = ncut.shuffle(graph, null, seed=1).blocks
    if null in ("layer", "layer-nonzero", "tied"):
        assert_allclose(second.weights, 2 * first.weights)
        assert not np.array_equal(first.weights, weights)
    alike, apart = (
        np.corrcoef(first.weights.ravel(), b.weights.ravel())[0, 1] for b in (second, third)
    )
    assert alike > 0.99
    assert abs(apart) < 0.6


def test_copies_for_several_readers_do_not_count_as_shared_weights() -> None:
    rng = np.random.default_rng(4)
    weights = rng.random((4, 4))
    layers = tuple(Layer(f"l{n}", 4 * n, 4) for n in range(3))
    blocks = (Block(0, 1, weights, "a", tie="a"), Block(0, 2, weights, "a", tie="a"))
    report = ncut.analyze(NeuronGraph(layers, blocks), k=2, shuffles=3, null="tied")
    assert any("no layer's weights are used twice" in warning for warning in report.warnings)


def test_saved_and_loaded(tmp_path: Path) -> None:
    graph = transformer_like()
    graph.save(tmp_path / "graph.npz")
    again = NeuronGraph.load(tmp_path / "graph.npz")
    assert [(b.source, b.target, b.name) for b in again.blocks] == [
        (b.source, b.target, b.name) for b in graph.blocks
    ]
    assert_array_equal(again.adjacency.toarray(), graph.adjacency.toarray())


def test_to_dot_and_layers_as_networkx() -> None:
    graph = transformer_like()
    dot = graph.to_dot()
    assert dot.startswith('digraph "stream" {')
    assert '0 [label="stream\\n12"];' in dot
    assert '0 -> 1 [label="down"];' in dot
    nx = pytest.importorskip("networkx", reason="pip install networkx")
    layers = graph.to_networkx("layers")
    assert isinstance(layers, nx.MultiDiGraph)
    assert layers.nodes["hidden"]["size"] == 20
    assert layers.number_of_edges("stream", "hidden") == 2
    neurons = graph.to_networkx()
    assert neurons.nodes[12] == {"layer": "hidden", "index": 0}
    assert neurons.number_of_nodes() == graph.n_vertices
    with pytest.raises(ncut.InputError, match="level: must be"):
        graph.to_networkx("modules")  # type: ignore[arg-type]


def test_dot_quotes_what_names_hold() -> None:
    layers = (Layer('a "b"\\', 0, 1), Layer("c", 1, 1))
    graph = NeuronGraph(layers, (Block(0, 1, np.ones((1, 1)), "w"),), name='x"y')
    assert 'digraph "x\\"y" {' in graph.to_dot()
    assert 'label="a \\"b\\"\\\\\\n1"' in graph.to_dot()
