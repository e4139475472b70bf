"""Refinement on a device: never above the start, no single move left, the compiled one's result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from checks import check_same_partition
from places import PLACES, placed_graph
from samples import chain_graph, planted_chain, random_chain, skip_graph
from scipy import sparse

import ncut
from ncut import networks, reference
from ncut.device.refine import refine
from ncut.graphs import NeuronGraph, from_adjacency
from ncut.graphs.validate import bfloat16
from ncut.spectral.clustering import MAX_PASSES
from ncut.spectral.operator import NormalizedAdjacency
from ncut.types import Block, Layer

GRAPHS: dict[str, Callable[[], NeuronGraph]] = {
    "chain": lambda: chain_graph(random_chain(3, (19, 24, 18), 0.5)).without_isolated()[0],
    "sparse": lambda: chain_graph(random_chain(7, (60, 70, 50), 0.1)).without_isolated()[0],
    "float32": lambda: chain_graph(random_chain(3, (19, 24, 18), dtype=np.float32)),
    "skip": lambda: skip_graph(13, (19, 14, 18), 0.4).without_isolated()[0],
    "one layer": lambda: from_adjacency(
        chain_graph(random_chain(3, (19, 24, 18), 0.4)).adjacency
    ).without_isolated()[0],
}
K = 4
SAME_ORDER = ("chain", "sparse", "float32", "one layer")
SIZES = ((0, 20), (20, 40), (60, 20))


def refined(graph: NeuronGraph, labels: np.ndarray, place: str, k: int = K) -> np.ndarray:
    there = placed_graph(graph, place)
    found = there.device.to_host(refine(there, there.device.asarray(labels), k, MAX_PASSES))
    assert found.dtype == np.int32
    return found


def random_labels(graph: NeuronGraph, seed: int, k: int = K) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, k, graph.n_vertices).astype(np.int32)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", GRAPHS)
def test_refinement_lowers_the_n_cut_as_far_as_single_moves_do(name: str, place: str) -> None:
    graph = GRAPHS[name]()
    labels = random_labels(graph, 1)
    found = refined(graph, labels, place)
    least = ncut.normalized_cut(graph, found)
    assert least < ncut.normalized_cut(graph, labels)
    assert set(found) == set(range(K))
    for vertex in range(graph.n_vertices):
        if (found == found[vertex]).sum() < 2:
            continue
        for cluster in range(K):
            moved = found.copy()
            moved[vertex] = cluster
            assert ncut.normalized_cut(graph, moved) > least - 1e-9


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", GRAPHS)
def test_refinement_ends_where_the_compiled_one_does(name: str, place: str) -> None:
    """Where the vertices are looked at in the same order; else as low on average."""
    graph = GRAPHS[name]()
    operator = NormalizedAdjacency(graph, 1)
    ours, theirs = [], []
    for seed in range(5 if name in SAME_ORDER else 20):
        labels = random_labels(graph, seed)
        found = refined(graph, labels, place)
        compiled = operator.refine(labels, K, MAX_PASSES)
        if name in SAME_ORDER:
            np.testing.assert_array_equal(found, compiled)
        ours.append(ncut.normalized_cut(graph, found))
        theirs.append(ncut.normalized_cut(graph, compiled))
    assert np.mean(ours) == pytest.approx(np.mean(theirs), rel=0.02)


@pytest.mark.parametrize("network", ["digits-unpruned", "digits-pruned"])
def test_refinement_of_trained_networks_is_the_compiled_one(network: str) -> None:
    graph = ncut.graph(networks.load(network)).without_isolated()[0]
    operator = NormalizedAdjacency(graph, 1)
    for seed in range(3):
        start = ncut.cluster(graph, 8, seed=seed, n_init=5).labels
        compiled = operator.refine(start, 8, MAX_PASSES)
        np.testing.assert_array_equal(refined(graph, start, "numpy", 8), compiled)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("density", [1.0, 0.1])
def test_layers_with_edges_inside_of_all_types(dtype: str, density: float) -> None:
    """A recurrent layer between two others, each of its vertices seeing the others' moves."""
    rng = np.random.default_rng(4)
    kind = bfloat16() if dtype == "bfloat16" else np.dtype(dtype)
    inner = np.triu(rng.random((40, 40)) * (rng.random((40, 40)) < density), 1)
    weights: list[Any] = [rng.random((20, 40)), inner, rng.random((40, 20))]
    weights = [one.astype(kind) for one in weights]
    if density < 1 and kind.itemsize > 2:
        weights[1] = sparse.csr_array(weights[1])
    layers = tuple(Layer(str(at), start, size) for at, (start, size) in enumerate(SIZES))
    ends = ((0, 1), (1, 1), (1, 2))
    blocks = tuple(Block(*pair, one) for pair, one in zip(ends, weights, strict=True))
    graph = NeuronGraph(layers, blocks)
    start = random_labels(graph, 3)
    found = refined(graph, start, "numpy")
    A = graph.adjacency.toarray().astype(float)
    least = reference.normalized_cut(A, found)
    assert least < reference.normalized_cut(A, start)
    for vertex in range(graph.n_vertices):
        for cluster in range(K):
            moved = found.copy()
            moved[vertex] = cluster
            if len(set(moved)) == K:
                assert reference.normalized_cut(A, moved) > least - 1e-9


def test_planted_groups_are_restored_on_a_device() -> None:
    weights, group = planted_chain(3, n_groups=4, per_group=10, n_layers=4, noise=0.05)
    graph = chain_graph(weights)
    labels = group.astype(np.int32)
    wrong = np.random.default_rng(5).choice(labels.size, 20, replace=False)
    labels[wrong] = (labels[wrong] + 1) % 4
    check_same_partition(refined(graph, labels, "numpy"), group)


@pytest.mark.parametrize("name", GRAPHS)
def test_no_pass_changes_nothing(name: str) -> None:
    graph = GRAPHS[name]()
    there = placed_graph(graph, "numpy")
    labels = random_labels(graph, 1)
    np.testing.assert_array_equal(refine(there, labels, K, 0), labels)
    best = refine(there, labels, K, MAX_PASSES)
    np.testing.assert_array_equal(refine(there, best, K, MAX_PASSES), best)


@pytest.mark.parametrize("place", PLACES)
def test_no_cluster_is_emptied_and_empty_ones_are_no_error(place: str) -> None:
    graph = GRAPHS["chain"]()
    labels = np.zeros(graph.n_vertices, np.int32)
    labels[0] = 1
    found = refined(graph, labels, place, 3)
    assert {0, 1} <= set(found)
    assert ncut.normalized_cut(graph, found) <= ncut.normalized_cut(graph, labels)
