"""Blocks on a device and products with them, against the dense matrix and the CPU's numbers."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from ml_dtypes import bfloat16
from places import NAMESPACES, PLACES, device_for, device_named, placed_graph
from samples import chain_graph, random_chain, side_by_side, skip_graph, with_isolated

from ncut import kernels, reference
from ncut.device import packed
from ncut.device.components import components
from ncut.device.devices import astype
from ncut.device.graph import upload
from ncut.device.measures import inner_shares
from ncut.device.operator import DeviceOperator
from ncut.device.weights import DeviceCSR, HostBlock, Tile
from ncut.graphs import NeuronGraph, build_graph, from_adjacency
from ncut.graphs.colouring import two_colours
from ncut.spectral.measures import partition_measures


def parallel() -> NeuronGraph:
    """Two blocks between the same two layers."""
    a, b = random_chain(19, (9, 14))[0], random_chain(21, (9, 14))[0]
    return build_graph([("a", 9), ("b", 14)], [(0, 1, a, "x"), (0, 1, b, "y")])


GRAPHS: dict[str, Callable[[], NeuronGraph]] = {
    "chain": lambda: chain_graph(random_chain(3, (9, 14, 8))),
    "long chain": lambda: chain_graph(random_chain(5, (5, 9, 4, 7, 6))),
    "sparse": lambda: chain_graph(random_chain(7, (60, 70, 50), 0.1)).without_isolated()[0],
    "dense and sparse": lambda: chain_graph(
        [random_chain(9, (60, 70))[0], random_chain(11, (70, 50), 0.1)[0]]
    ).without_isolated()[0],
    "float32": lambda: chain_graph(random_chain(3, (9, 14, 8), dtype=np.float32)),
    "float16": lambda: chain_graph(random_chain(3, (9, 14, 8), dtype=np.float16)),
    "bfloat16": lambda: chain_graph(random_chain(3, (9, 14, 8), dtype=bfloat16)),
    "skip": lambda: skip_graph(13, (9, 14, 8)),
    "one layer": lambda: from_adjacency(chain_graph(random_chain(3, (9, 14, 8))).adjacency),
    "parallel": parallel,
}


def normalized(graph: NeuronGraph) -> np.ndarray:
    """M in the graph's numbering."""
    A = graph.adjacency.toarray().astype(float)
    return np.eye(graph.n_vertices) - reference.symmetric_laplacian(A)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", GRAPHS)
def test_products_on_a_device(name: str, place: str) -> None:
    graph = GRAPHS[name]()
    there = placed_graph(graph, place)
    operator = DeviceOperator(there)
    device, xp = there.device, there.device.xp
    np.testing.assert_allclose(there.host_degrees, graph.degrees, rtol=1e-12)
    M = normalized(graph)
    x = np.random.default_rng(17).normal(size=(graph.n_vertices, 5))
    for dtype, tolerance in ((xp.float32, 4e-5), (xp.float64, 1e-12)):
        on_device = astype(device.asarray(x), dtype, xp)
        product = operator.apply(on_device)
        assert product.dtype == dtype
        np.testing.assert_allclose(device.to_host(product), M @ x, atol=tolerance)
    colours = two_colours(graph)
    assert operator.bipartite == (colours is not None)
    if colours is not None:
        # Half of M M x, the part that goes from the smaller side and back.
        small = operator.small_side(device.asarray(x))
        assert small.shape[0] == graph.n_vertices - operator.n_first
        zero = xp.zeros((operator.n_first, x.shape[1]), dtype=xp.float64)
        padded = device.to_host(operator.joined(zero, small))
        expected = M @ (M @ padded)
        found = device.to_host(operator.joined(zero, operator.apply_gram(small)))
        np.testing.assert_allclose(found, expected, atol=1e-12)
        large = operator.to_large(small)
        back = device.to_host(operator.joined(large, xp.zeros_like(small)))
        np.testing.assert_allclose(back, M @ padded, atol=1e-12)


@pytest.mark.parametrize("name", GRAPHS)
def test_what_fits_is_on_the_device_and_the_rest_on_the_host(name: str) -> None:
    graph = GRAPHS[name]()
    everything = placed_graph(graph, "numpy")
    assert everything.is_resident
    nothing = placed_graph(graph, "numpy, streamed")
    assert nothing.resident_bytes == 0
    assert all(isinstance(block.weights, HostBlock) for block in nothing.blocks)
    half = placed_graph(graph, "numpy, half streamed")
    assert half.resident_bytes <= 3 * everything.resident_bytes / 4
    if len(graph.blocks) > 1:
        assert half.resident_bytes > 0


def tile_bytes(tile: Tile) -> int:
    if hasattr(tile.forward, "indptr"):
        one = tile.forward
        return 2 * int(one.data.nbytes + one.indices.nbytes + one.indptr.nbytes)
    return int(tile.forward.nbytes)


@pytest.mark.parametrize("density", [1.0, 0.2])
def test_pieces_of_streamed_blocks_stay_within_the_budget(density: float) -> None:
    graph = chain_graph(random_chain(3, (300, 40, 200), density, np.float32))
    device = device_for(graph, "numpy, streamed")
    there = upload(graph, device)
    for block in there.blocks:
        tiles = list(there.tiles(block, np.dtype(np.float64)))
        assert len(tiles) > 1
        assert all(tile_bytes(tile) <= device.tile_bytes for tile in tiles)
        assert [tile.start for tile in tiles[1:]] == [tile.stop for tile in tiles[:-1]]
        assert tiles[-1].stop == block.weights.shape[0]


def test_sparse_blocks_stay_sparse_where_there_are_sparse_matrices() -> None:
    graph = chain_graph(random_chain(7, (60, 70, 50), 0.1))
    kinds = {type(block.weights) for block in placed_graph(graph, "numpy").blocks}
    assert kinds == {DeviceCSR}
    densified = placed_graph(graph, "strict").blocks[0].weights
    assert not isinstance(densified, DeviceCSR)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("density", [1.0, 0.1])
def test_isolated_vertices_are_dropped_as_on_the_host(place: str, density: float) -> None:
    graph = chain_graph(with_isolated(random_chain(23, (60, 70, 50), density), 25))
    expected, kept = graph.without_isolated()
    found, numbers = placed_graph(graph, place).without_isolated()
    np.testing.assert_array_equal(numbers, kept)
    assert kept.size < graph.n_vertices
    assert found.layers == expected.layers
    np.testing.assert_allclose(found.host_degrees, expected.degrees, rtol=1e-12)
    device = found.device
    x = np.random.default_rng(27).normal(size=(kept.size, 3))
    product = device.to_host(found.product(device.asarray(x)))
    np.testing.assert_allclose(product, expected.adjacency @ x, atol=1e-10)
    again, _ = found.without_isolated()
    assert again is found


@pytest.mark.parametrize("place", PLACES)
def test_components_on_a_device(place: str) -> None:
    for graph in (
        chain_graph(random_chain(3, (9, 14, 8))),
        chain_graph(random_chain(29, (60, 70, 50), 0.02)).without_isolated()[0],
        from_adjacency(
            chain_graph(random_chain(31, (60, 70, 50), 0.02)).adjacency
        ).without_isolated()[0],
        chain_graph(side_by_side(*[random_chain(s, (3, 2, 2)) for s in range(70)])),
    ):
        expected = kernels.components(graph.n_vertices, graph.placed_blocks())
        found = components(placed_graph(graph, place))
        pairs = set(zip(expected.tolist(), found.tolist(), strict=True))
        assert len(pairs) == expected.max() + 1 == found.max() + 1


def test_a_tiny_weight_joins_components_too() -> None:
    one = random_chain(3, (4, 5))[0]
    weights = side_by_side([one], [one])[0]
    weights[0, 5] = 1e-60
    graph = chain_graph([weights])
    assert components(placed_graph(graph, "numpy")).max() == 0


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", GRAPHS)
def test_inner_shares_are_the_measures_ones(name: str, place: str) -> None:
    graph = GRAPHS[name]()
    labels = np.random.default_rng(33).integers(0, 3, graph.n_vertices).astype(np.int32)
    labels[:3] = [0, 1, 2]
    there = placed_graph(graph, place)
    found = inner_shares(there, there.device.asarray(labels), 3)
    np.testing.assert_allclose(
        found, partition_measures(graph, labels).clusterability_by_block, rtol=1e-12
    )


@pytest.mark.parametrize("name", NAMESPACES)
def test_scales_beyond_single_precision_stay_finite(name: str) -> None:
    weights: Any = random_chain(3, (9, 14, 8))
    weights[0][0, :] = 1e-80
    graph = chain_graph(weights)
    operator = DeviceOperator(placed_graph(graph, name))
    xp = operator.device.xp
    x = xp.ones((graph.n_vertices - operator.n_first, 2), dtype=xp.float32)
    assert np.isfinite(operator.device.to_host(operator.to_large(x))[1:]).all()


def test_a_replaced_graph_counts_its_own_degrees() -> None:
    graph = chain_graph(random_chain(3, (9, 14, 8)))
    there = placed_graph(graph, "numpy")
    first = there.host_degrees
    doubled = [replace(block, weights=2 * block.weights) for block in there.blocks]
    np.testing.assert_allclose(replace(there, blocks=tuple(doubled)).host_degrees, 2 * first)


def test_what_is_packed() -> None:
    chain, skip = GRAPHS["long chain"](), GRAPHS["skip"]()
    device = device_named("numpy")
    there = upload(chain, device)
    assert there.packed is not None
    assert there.packed.matrix(np.float64).shape == tuple(there.group_sizes)
    there = upload(skip, device)
    assert not there.is_bipartite
    assert there.packed is not None
    assert there.packed.matrix(np.float64).shape == (skip.n_vertices, skip.n_vertices)
    # Two blocks between the same layers would become one.
    assert upload(parallel(), device).packed is None


def test_a_graph_is_packed_where_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    there = upload(GRAPHS["long chain"](), device_named("numpy"))
    needed = packed.PER_CELL * math.prod(there.group_sizes)
    for room, fits in ((2 * needed, True), (2 * needed - 2, False)):
        budget = there.resident_bytes + room
        small = replace(there, device=replace(there.device, budget=budget))
        assert packed.fits(small) == fits
    monkeypatch.setattr(packed, "BYTES_PER_BLOCK", needed / len(there.blocks) - 1)
    assert not packed.fits(there)


def test_a_packed_graph_is_freed_when_nobody_has_it() -> None:
    """Memory of a device must not wait for Python to look for cycles."""
    there = upload(GRAPHS["long chain"](), device_named("numpy"))
    matrix = weakref.ref(there.packed)
    gc.disable()
    try:
        del there
        assert matrix() is None
    finally:
        gc.enable()
