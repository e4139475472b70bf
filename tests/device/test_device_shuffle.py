"""Shuffles on a device: what they keep, that all orders are equally likely, the CPU's n-cuts."""

from __future__ import annotations

import itertools
import os
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
from ncut.device import shuffle as shuffle_module
from ncut.device.devices import host_device
from ncut.device.graph import DeviceGraph, upload
from ncut.device.shuffle import shuffle_on_device, working_bytes
from ncut.device.weights import DeviceCSR
from ncut.graphs import NeuronGraph, from_adjacency

NULLS = ["layer", "layer-nonzero"]


def on_host(graph: DeviceGraph, block: int = 0) -> np.ndarray:
    """A block's weights as an array, 16 bits as their bits."""
    weights, device = graph.blocks[block].weights, graph.device
    if isinstance(weights, DeviceCSR):
        return device.to_host(weights.matrix(device, weights.data.dtype).toarray())
    return device.to_host(weights)


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
    original = [on_host(before, block).copy() for block in range(len(before.blocks))]
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
        if before.blocks[block].source == before.blocks[block].target:
            assert not np.tril(shuffled).any()
    if isinstance(after.blocks[0].weights, DeviceCSR) and not before.device.is_cuda:
        check_canonical_csr(after.blocks[0].weights.matrix(before.device, np.float64))


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("null", NULLS)
def test_shuffles_are_the_same_on_all_devices(name: str, null: str) -> None:
    # Namespaces without sparse matrices hold sparse blocks as dense ones, shuffled otherwise.
    ours = [
        shuffle_on_device(upload(GRAPHS[name](), device_named(device)), null, 5, 2)
        for device in DEVICES
        if "float" in name and (device != "strict" or "16" not in name)
    ]
    for block in range(2 if ours else 0):
        for other in ours[1:]:
            np.testing.assert_array_equal(on_host(other, block), on_host(ours[0], block))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("null", NULLS)
def test_keys_sorted_range_by_range_give_the_same_shuffle(
    null: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = device_named(device)
    graph = upload(GRAPHS["float64"](), everything)
    expected = shuffle_on_device(graph, null, 1, 0)
    monkeypatch.setattr(shuffle_module, "LEAST_SORTED", 102)
    sorted_at_once = []
    argsort = everything.xp.argsort

    class Spied:
        def __getattr__(self, name: str) -> Any:
            return getattr(everything.xp, name)

        def argsort(self, keys: Any) -> Any:
            sorted_at_once.append(keys.shape[0])
            return argsort(keys)

    pieces = replace(graph, device=replace(everything, xp=Spied(), budget=0))
    if not everything.is_cuda:
        found = shuffle_on_device(pieces, null, 1, 0)
        assert max(sorted_at_once) < 200
        np.testing.assert_array_equal(on_host(replace(found, device=everything)), on_host(expected))
    small = replace(graph, device=replace(everything, budget=0))
    np.testing.assert_array_equal(on_host(shuffle_on_device(small, null, 1, 0)), on_host(expected))


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


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6])
def test_every_arrangement_of_a_sparse_block_is_equally_likely(size: int) -> None:
    """All sets of cells, few or most of them, and all orders of the values in them."""
    shape = (2, 3)
    matrix = np.zeros(6)
    matrix[:size] = np.minimum(np.arange(size), 2) + 1
    graph = chain_graph([matrix.reshape(shape), np.ones((3, 1))])
    weights = DeviceCSR(*[np.array(part) for part in csr_parts(matrix.reshape(shape))], shape)
    there = upload(graph, host_device())
    there = replace(there, blocks=(replace(there.blocks[0], weights=weights), *there.blocks[1:]))
    expected = set(itertools.permutations(matrix))
    found = Counter()
    n_draws = 30 * len(expected)
    for number in range(n_draws):
        found[tuple(on_host(shuffle_on_device(there, "layer", 11, number)).reshape(-1))] += 1
    assert set(found) <= expected
    if len(expected) > 1:
        check_uniform([found[arrangement] for arrangement in expected])


def csr_parts(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    made = sparse.csr_array(matrix)
    return made.indptr, made.indices, made.data


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


def test_a_graph_that_does_not_fit_is_shuffled_as_on_the_cpu() -> None:
    graph = GRAPHS["float32"]()
    there = shuffle_on_device(upload(graph, host_device(budget=0)), "layer", 7, 3)
    assert not there.is_resident
    expected = ncut.shuffle(graph, "layer", 7, 3)
    for block, ours in zip(expected.blocks, there.blocks, strict=True):
        np.testing.assert_array_equal(ours.weights.weights, block.weights)
    np.testing.assert_allclose(there.host_degrees, expected.degrees)


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
        return lower_bound(ncut.graph([on_host(shuffled, at) for at in range(len(there.blocks))]))

    ours = [from_device(number) for number in range(60)]
    theirs = [lower_bound(ncut.shuffle(graph, "layer", 6, number)) for number in range(60)]
    assert stats.ks_2samp(ours, theirs).pvalue > 1e-3


def test_a_shuffles_memory_is_planned_for() -> None:
    dense, csr = np.ones((1000, 2000), np.float32), sparse_graph().blocks[0].weights
    roomy, tight = host_device(), host_device(budget=2**24)
    assert working_bytes(roomy, dense, "layer") == 40 * dense.size
    assert working_bytes(tight, dense, "layer") == 2**22
    assert working_bytes(tight, dense, "layer-nonzero") > 40 * dense.size
    assert working_bytes(tight, csr, "layer") == 112 * csr.nnz
