"""Shuffles on a device: invariants, uniform orders, and n-cuts equal to the CPU's."""

from __future__ import annotations

import itertools
import os
import tracemalloc
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from checks import check_canonical_csr, check_same_multiset, check_uniform
from ml_dtypes import bfloat16
from places import DEVICES, device_named
from samples import chain_graph, random_chain
from scipy import sparse, stats

import ncut
from ncut import networks
from ncut.device.devices import host_device
from ncut.device.graph import DeviceGraph, upload
from ncut.device.network import DeviceNetwork
from ncut.device.shuffle import shuffle_on_device, working_bytes
from ncut.graphs import NeuronGraph, from_adjacency

NULLS = ["layer", "layer-nonzero"]


def on_host(graph: DeviceGraph, block: int = 0) -> np.ndarray:
    """A block's weights as an array, 16 bits as their bits; the same on both sides."""
    weights = graph.host.blocks[block].weights
    if not isinstance(weights, np.ndarray):
        assert graph.weights[block] is None
        return weights.toarray()
    there = graph.device.to_host(graph.weights[block])
    if there.dtype == np.uint16:
        weights = weights.view(np.uint16)
    np.testing.assert_array_equal(weights, there)
    return np.asarray(weights)


def sparse_graph(dtype: Any = np.float32) -> NeuronGraph:
    return chain_graph(random_chain(7, (60, 70, 50), 0.1, dtype)).without_isolated()[0]


def one_layer(density: float, n: int = 40) -> NeuronGraph:
    adjacency = np.triu(random_chain(5, (n, n), density)[0], k=1)
    return from_adjacency(sparse.csr_array(adjacency + adjacency.T)).without_isolated()[0]


GRAPHS = {
    "float32": lambda: chain_graph(random_chain(3, (30, 40, 20), dtype=np.float32)),
    "float64": lambda: chain_graph(random_chain(3, (30, 40, 20), 0.6)),
    "float16": lambda: chain_graph(random_chain(3, (30, 40, 20), dtype=np.float16)),
    "bfloat16": lambda: chain_graph(random_chain(3, (30, 40, 20), dtype=bfloat16)),
    "sparse": sparse_graph,
    "one layer": lambda: one_layer(0.1),
    "one dense layer": lambda: one_layer(0.9),
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("null", NULLS)
@pytest.mark.parametrize("name", GRAPHS)
def test_a_device_shuffle_keeps_the_weights(name: str, null: str, device: str) -> None:
    before = upload(GRAPHS[name](), device_named(device))
    original = [on_host(before, block).copy() for block in range(len(before.weights))]
    after, again = (shuffle_on_device(before, null, 3, number) for number in (0, 0))
    other = shuffle_on_device(before, null, 3, 1)
    for block, weights in enumerate(original):
        shuffled = on_host(after, block)
        assert shuffled.shape == weights.shape
        check_same_multiset(shuffled, weights)
        assert (shuffled != weights).mean() > 0.01
        same_places = ((shuffled != 0) == (weights != 0)).all()
        assert same_places == (null == "layer-nonzero" or (weights != 0).all())
        np.testing.assert_array_equal(on_host(before, block), weights)
        np.testing.assert_array_equal(on_host(again, block), shuffled)
        assert (on_host(other, block) != shuffled).any()
        if before.host.blocks[block].source == before.host.blocks[block].target:
            assert not np.tril(shuffled).any()
        if before.weights[block] is None:
            check_canonical_csr(after.host.blocks[block].weights)


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("null", NULLS)
def test_shuffles_are_the_same_on_all_devices(name: str, null: str) -> None:
    ours = [
        shuffle_on_device(upload(GRAPHS[name](), device_named(device)), null, 5, 2).host
        for device in DEVICES
    ]
    for other in ours[1:]:
        for one, two in zip(ours[0].blocks, other.blocks, strict=True):
            dense = (
                b.weights if isinstance(b.weights, np.ndarray) else b.weights.toarray()
                for b in (one, two)
            )
            np.testing.assert_array_equal(*dense)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("null", NULLS)
def test_every_order_is_equally_likely(device: str, null: str) -> None:
    weights = np.array(
        [[1.0, 2.0], [3.0, 4.0]] if null == "layer" else [[1.0, 0, 2.0], [0, 3.0, 4.0]]
    )
    graph = upload(ncut.graph([weights, np.ones((len(weights[0]), 1))]), device_named(device))
    orders = Counter()
    for number in range(720):
        shuffled = on_host(shuffle_on_device(graph, null, 1, number))
        assert null == "layer" or ((shuffled == 0) == (weights == 0)).all()
        orders[tuple(shuffled[shuffled != 0])] += 1
    counts = [orders[order] for order in itertools.permutations([1.0, 2.0, 3.0, 4.0])]
    assert sum(counts) == 720
    check_uniform(counts)


@pytest.mark.parametrize("density", [0.05, 0.7])
def test_edges_within_a_layer_land_above_the_diagonal(density: float) -> None:
    graph = one_layer(density, 12)
    there, n = upload(graph, host_device()), graph.n_vertices
    counts = np.zeros((n, n), int)
    for number in range(800):
        counts += on_host(shuffle_on_device(there, "layer", 13, number)) != 0
    assert not np.tril(counts).any()
    above = counts[np.triu_indices(n, k=1)]
    # Each shuffle picks without replacement: less spread than independent draws have.
    mean = above.mean()
    spread = np.sqrt(mean * (1 - mean / 800))
    assert abs(above - mean).max() < 5 * spread


def test_copies_of_a_block_within_a_layer_are_shuffled_alike() -> None:
    weights = random_chain(3, (12, 14))[0]
    graph = chain_graph([weights, weights.T.copy(), weights])
    first, second, third = graph.blocks
    tied = replace(
        graph,
        blocks=(
            replace(first, name="one", tie="shared"),
            replace(second, name="two"),
            replace(third, name="one", tie="shared"),
        ),
    )
    shuffled = shuffle_on_device(upload(tied, host_device()), "layer", 1, 0)
    np.testing.assert_array_equal(on_host(shuffled, 0), on_host(shuffled, 2))
    apart = shuffle_on_device(upload(graph, host_device()), "layer", 1, 0)
    assert (on_host(apart, 0) != on_host(apart, 2)).any()


@pytest.mark.parametrize("null", [*NULLS, "layer-kde"])
@pytest.mark.parametrize("budget", [2**40, 0])
def test_null_models_without_device_code_are_shuffled_on_the_cpu(null: str, budget: int) -> None:
    graph = GRAPHS["float32"]()
    network = DeviceNetwork(
        graph, host_device(budget=budget), null=null, normalize="none", threads=3
    )
    expected = ncut.shuffle(graph, null, 7, 3)
    here = null in NULLS and budget > 0
    with network.shuffled(7, 3) as found:
        for block, ours in zip(expected.blocks, found.host.blocks, strict=True):
            assert np.array_equal(ours.weights, block.weights) != here
        assert all((one is None) == (budget == 0) for one in found.weights)
    assert network.at_once == (3 if budget else 1)
    assert network.at_once * network.inside == 3


def test_shuffles_that_isolate_vertices_have_none_of_them() -> None:
    weights = [np.zeros((12, 14), np.float32), np.zeros((14, 9), np.float32)]
    for matrix in weights:
        np.fill_diagonal(matrix, 1.0)
        matrix[:, 0] = 1.0
        matrix[0, :] = 1.0
    graph = ncut.graph(weights).without_isolated()[0]
    dense = replace(
        graph,
        blocks=tuple(
            replace(
                b, weights=b.weights if isinstance(b.weights, np.ndarray) else b.weights.toarray()
            )
            for b in graph.blocks
        ),
    )
    network = DeviceNetwork(dense, host_device(), null="layer", normalize="none", threads=1)
    smaller = 0
    for number in range(20):
        with network.shuffled(1, number) as found:
            assert (found.host.degrees > 0).all()
            smaller += found.n_vertices < graph.n_vertices
            for block, there in zip(found.host.blocks, found.weights, strict=True):
                np.testing.assert_array_equal(there, block.weights)
    assert smaller > 0


@pytest.mark.parametrize("null", NULLS)
def test_device_shuffles_have_the_lower_bounds_of_the_cpus(null: str) -> None:
    sizes = (24, 30, 16)
    rng = np.random.default_rng(3)
    weights = [
        matrix * rng.exponential(size=matrix.shape) for matrix in random_chain(3, sizes, 0.4)
    ]
    graph = chain_graph(weights).without_isolated()[0]
    there = upload(graph, host_device())

    def lower_bound(shuffled: NeuronGraph) -> float:
        return float(ncut.cluster(shuffled, 3, n_init=1).lower_bound)

    def from_device(number: int) -> float:
        shuffled = shuffle_on_device(there, null, 5, number)
        return lower_bound(chain_graph([on_host(shuffled, block) for block in range(2)]))

    n = 200 if os.environ.get("NCUT_TEST_CUDA") == "1" else 80
    ours = [from_device(number) for number in range(n)]
    theirs = [lower_bound(ncut.shuffle(graph, null, 6, number)) for number in range(n)]
    assert stats.ks_2samp(ours, theirs).pvalue > 1e-3
    assert stats.ks_2samp(ours, [lower_bound(graph)] * n).pvalue < 1e-3


@pytest.mark.slow
def test_shuffles_of_a_trained_network_have_the_cpus_lower_bounds() -> None:
    graph = ncut.graph(networks.load("digits-pruned")).without_isolated()[0]
    there = upload(graph, host_device())

    def lower_bound(shuffled: Any) -> float:
        return float(ncut.cluster(shuffled, 12, n_init=1).lower_bound)

    def from_device(number: int) -> float:
        shuffled = shuffle_on_device(there, "layer", 5, number)
        return lower_bound(ncut.graph([on_host(shuffled, at) for at in range(len(there.weights))]))

    ours = [from_device(number) for number in range(60)]
    theirs = [lower_bound(ncut.shuffle(graph, "layer", 6, number)) for number in range(60)]
    assert stats.ks_2samp(ours, theirs).pvalue > 1e-3


def test_a_shuffles_memory_is_planned_for() -> None:
    """Peak memory of drawing and sorting, by tracing NumPy's allocations."""
    graph = chain_graph(random_chain(3, (400, 500, 300), dtype=np.float32))
    there = upload(graph, host_device())
    copies = sum(block.weights.nbytes for block in graph.blocks)
    tracemalloc.start()
    try:
        for null in NULLS:
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            shuffle_on_device(there, null, 1, 0)
            _, peak = tracemalloc.get_traced_memory()
            assert 0.3 * working_bytes(graph) < peak - before - copies <= working_bytes(graph)
    finally:
        tracemalloc.stop()
