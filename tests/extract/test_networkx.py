"""Graphs of networkx: read as their adjacency matrices are, and what `to_networkx` wrote."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from itertools import pairwise
from typing import Any

import networkx as nx
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import ncut
from ncut.axes import NULL_MODELS


def chain(*sizes: int, density: float = 1.0, seed: int = 0) -> ncut.NeuronGraph:
    rng = np.random.default_rng(seed)
    shapes = pairwise(sizes)
    weights = [rng.normal(size=shape) * (rng.random(shape) < density) for shape in shapes]
    return ncut.graph([weight.astype(np.float32) for weight in weights], name="a chain")


def test_edges_weights_and_the_order_of_the_nodes() -> None:
    made = nx.Graph(name="letters")
    made.add_nodes_from("cab")
    made.add_edge("a", "b", weight=2.5)
    made.add_edge("b", "c")
    graph = ncut.graph(made)
    assert_array_equal(graph.adjacency.toarray(), [[0, 0, 1], [0, 0, 2.5], [1, 2.5, 0]])
    assert (graph.name, [layer.size for layer in graph.layers]) == ("letters", [3])
    assert ncut.graph(made, name="others").name == "others"
    assert ncut.graph(nx.path_graph(3)).name == "graph"


def test_the_same_as_the_sparse_matrix() -> None:
    made = nx.karate_club_graph()
    ours = ncut.analyze(made, k=3, shuffles=5)
    matrix = ncut.analyze(nx.to_scipy_sparse_array(made), k=3, shuffles=5)
    assert_array_equal(ours.labels, matrix.labels)
    assert_array_equal(ours.shuffled_ncuts, matrix.shuffled_ncuts)


@pytest.mark.parametrize("refine", [False, True])
def test_two_clusters_have_the_cut_that_networkx_says(refine: bool) -> None:
    made = nx.les_miserables_graph()
    report = ncut.analyze(made, k=2, shuffles=0, refine=refine)
    names = np.array(made.nodes)
    first = set(names[report.labels == 0])
    assert report.ncut == pytest.approx(nx.normalized_cut_size(made, first, weight="weight"))
    assert report.lower_bound <= report.ncut < 1


def test_parallel_edges_add_up_and_self_loops_are_left_out() -> None:
    made = nx.MultiGraph([(0, 1), (1, 0, {"weight": 3}), (1, 2), (2, 2)])
    graph = ncut.graph(made)
    assert_array_equal(graph.adjacency.toarray(), [[0, 4, 0], [4, 0, 1], [0, 1, 0]])
    assert [(part.shape, part.reason) for part in graph.left_out] == [((1,), "self-loops")]


@pytest.mark.parametrize("density", [1.0, 0.1])
def test_there_and_back(density: float) -> None:
    graph = chain(14, 20, 9, 5, density=density)
    again = ncut.graph(graph.to_networkx())
    assert again.name == "a chain"
    assert_array_equal(again.adjacency.toarray(), graph.adjacency.toarray())
    places = [[(one.name, one.start, one.size) for one in g.layers] for g in (again, graph)]
    assert places[0] == places[1]
    assert [block.name for block in again.blocks] == ["input - w0", "w0 - w1", "w1 - w2"]
    for ours, theirs in zip(again.blocks, graph.blocks, strict=True):
        assert (ours.source, ours.target) == (theirs.source, theirs.target)
        assert type(ours.weights) is type(theirs.weights)


@pytest.mark.parametrize("null", [null for null in NULL_MODELS if null != "init"])
def test_shuffles_are_the_same_there_and_back(null: str) -> None:
    graph = chain(14, 20, 9, density=0.6)
    again = ncut.graph(graph.to_networkx())
    ours, theirs = (ncut.shuffle(g, null, seed=3).adjacency.toarray() for g in (again, graph))
    # Only where new weights are made do they depend on the precision of the old.
    exact = null in ("layer", "layer-nonzero", "tied")
    assert_allclose(ours, theirs, rtol=0, atol=0 if exact else 1e-6)


def test_layers_that_are_not_neighbours_and_edges_inside_a_layer() -> None:
    made = nx.Graph()
    for number, layer in enumerate(["a", "a", "b", "b", 7, 7]):
        made.add_node(number, layer=layer)
    made.add_weighted_edges_from([(0, 1, 1.0), (1, 4, 2.0), (2, 5, 3.0), (4, 5, 4.0)])
    graph = ncut.graph(made)
    assert [(one.name, one.size) for one in graph.layers] == [("a", 2), ("b", 2), ("7", 2)]
    assert [(b.source, b.target) for b in graph.blocks] == [(0, 0), (0, 2), (1, 2), (2, 2)]
    assert_array_equal(graph.adjacency.toarray(), nx.to_numpy_array(made))


def test_one_layer_there_and_back() -> None:
    graph = ncut.graph(nx.to_scipy_sparse_array(nx.florentine_families_graph()))
    again = ncut.graph(graph.to_networkx())
    assert [layer.name for layer in again.layers] == ["vertices"]
    assert_array_equal(again.adjacency.toarray(), graph.adjacency.toarray())
    ours, theirs = (ncut.shuffle(g, seed=2).adjacency.toarray() for g in (again, graph))
    assert_array_equal(ours, theirs)


def layered(*layers: str | None) -> nx.Graph:
    made = nx.path_graph(len(layers))
    for number, layer in enumerate(layers):
        if layer is not None:
            made.nodes[number]["layer"] = layer
    return made


def weighted(weight: Any) -> nx.Graph:
    made = nx.path_graph(4)
    made[1][2]["weight"] = weight
    return made


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (nx.DiGraph([(0, 1)]), r"^model: a directed networkx graph.*to_undirected\(\)"),
        (chain(3, 4, 2).to_networkx("layers"), "^model: a directed networkx graph"),
        (nx.Graph(), "^model: a networkx graph without edges"),
        (nx.empty_graph(4), "^model: a networkx graph without edges"),
        (nx.Graph([(0, 0), (1, 1)]), "^model: no edges outside the diagonal"),
        (weighted(-1), "^model: 2 negative edge weights"),
        (weighted(np.nan), "^model: 2 NaN"),
        (weighted(np.inf), "^model: 0 NaN and 2 infinite"),
        (weighted("3"), "^model: the edges' attribute 'weight' must be .*'3' between 1 and 2"),
        (weighted(None), "^model: .* must be real numbers, got None between 1 and 2"),
        (weighted(1j), "^model: .* must be real numbers, got 1j"),
        (weighted([1.0]), r"^model: .* must be real numbers, got \[1.0\]"),
        (
            weighted(Fraction(1, 2)),
            "^model: the edges' attribute 'weight' must be real numbers; for",
        ),
        (weighted(10**400), "^model: .* must be real numbers; for another"),
        (layered("a", None, "b"), "^model: 2 of 3 nodes of the networkx graph have an attribute"),
        (layered("a", "b", "a"), "^model: the nodes with attribute 'layer' 'a' do not follow"),
    ],
)
def test_unreadable_models_are_refused(made: nx.Graph, message: str) -> None:
    with pytest.raises(ncut.InputError, match=message):
        ncut.graph(made)


def test_options_of_models_are_refused() -> None:
    with pytest.raises(ncut.InputError, match="norm: has no effect on a graph"):
        ncut.graph(nx.path_graph(4), norm="l2")


def test_networkx_is_not_imported_for_other_models() -> None:
    code = (
        "import sys, ncut; ncut.graph([[[1.0, 2.0]], [[3.0], [4.0]]]); "
        "assert 'networkx' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
