"""Weights on a device and products with them, against the dense matrix and the CPU's numbers."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from ml_dtypes import bfloat16
from places import NAMESPACES, PLACES, device_for, device_named, operator_on, placed_graph
from samples import chain_graph, random_chain, side_by_side, skip_graph

from ncut import reference
from ncut.device import operator as operator_module
from ncut.device.devices import astype, dtype_name
from ncut.device.graph import bytes_on, downloaded, upload
from ncut.device.operator import DeviceOperator
from ncut.graphs import NeuronGraph, build_graph, from_adjacency
from ncut.graphs.colouring import two_colours
from ncut.spectral.operator import NormalizedAdjacency
from ncut.types import Block, Layer


def parallel() -> NeuronGraph:
    """Two blocks between the same two layers."""
    a, b = random_chain(19, (9, 14))[0], random_chain(21, (9, 14))[0]
    return build_graph([("a", 9), ("b", 14)], [(0, 1, a, "x"), (0, 1, b, "y")])


def recurrent() -> NeuronGraph:
    """A dense layer with edges inside it between two others."""
    first, inner, last = (
        random_chain(4, (9, 14)),
        random_chain(6, (14, 14)),
        random_chain(8, (14, 8)),
    )
    layers = tuple(Layer(str(at), *ends) for at, ends in enumerate(((0, 9), (9, 14), (23, 8))))
    weights = (first[0], np.triu(inner[0], 1), last[0])
    ends = ((0, 1), (1, 1), (1, 2))
    blocks = (Block(*pair, one) for pair, one in zip(ends, weights, strict=True))
    return NeuronGraph(layers, tuple(blocks))


GRAPHS: dict[str, Callable[[], NeuronGraph]] = {
    "chain": lambda: chain_graph(random_chain(3, (9, 14, 8))),
    "long chain": lambda: chain_graph(random_chain(5, (5, 9, 4, 7, 6))),
    "sparse": lambda: chain_graph(random_chain(7, (60, 70, 50), 0.1)).without_isolated()[0],
    "dense and sparse": lambda: chain_graph(
        [random_chain(9, (60, 70))[0], random_chain(11, (70, 50), 0.1)[0]]
    ).without_isolated()[0],
    "dense, sparse and dense": lambda: chain_graph(
        [
            random_chain(9, (60, 70))[0],
            random_chain(11, (70, 50), 0.1)[0],
            random_chain(13, (50, 40), dtype=np.float32)[0],
        ]
    ),
    "float32": lambda: chain_graph(random_chain(3, (9, 14, 8), dtype=np.float32)),
    "float16": lambda: chain_graph(random_chain(3, (9, 14, 8), dtype=np.float16)),
    "bfloat16": lambda: chain_graph(random_chain(3, (9, 14, 8), dtype=bfloat16)),
    "skip": lambda: skip_graph(13, (9, 14, 8)),
    "sparse skip": lambda: skip_graph(13, (60, 70, 50), 0.1).without_isolated()[0],
    "one layer": lambda: from_adjacency(chain_graph(random_chain(3, (9, 14, 8))).adjacency),
    "recurrent": recurrent,
    "parallel": parallel,
}


def normalized(operator: NormalizedAdjacency) -> np.ndarray:
    """M in the operator's numbering."""
    A = operator.graph.adjacency.toarray().astype(float)
    own = np.eye(len(A)) - reference.symmetric_laplacian(A)
    placed = np.empty_like(own)
    placed[np.ix_(operator.place, operator.place)] = own
    return placed


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", GRAPHS)
def test_products_on_a_device(name: str, place: str) -> None:
    operator = operator_on(GRAPHS[name](), place)
    device, xp = operator.device, operator.device.xp
    M, first = normalized(operator), operator.n_first
    assert operator.bipartite == (two_colours(operator.graph) is not None)
    x = np.random.default_rng(17).normal(size=(operator.n_vertices, 5))
    for dtype, tolerance in ((xp.float32, 4e-5), (xp.float64, 1e-12)):
        on_device = astype(device.asarray(x), dtype, xp)
        product = operator.apply(on_device)
        assert product.dtype == dtype
        np.testing.assert_allclose(device.to_host(product), M @ x, atol=tolerance)
        if operator.bipartite:
            C = M[:first, first:]
            product = operator.apply_gram(on_device[first:, :])
            assert product.dtype == dtype
            np.testing.assert_allclose(
                device.to_host(product), C.T @ (C @ x[first:]), atol=tolerance
            )


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", GRAPHS)
def test_products_of_arrays_of_the_host_are_the_hosts(name: str, place: str) -> None:
    operator = operator_on(GRAPHS[name](), place)
    ours = NormalizedAdjacency(operator.graph, 1)
    n, first = operator.n_vertices, operator.n_first
    x = np.random.default_rng(19).normal(size=(n, 16))
    for rows in (slice(0, n), slice(0, first), slice(first, n)):
        if rows.stop == rows.start:
            continue
        for power in (1, 2):
            found, expected = np.zeros_like(x), np.zeros_like(x)
            operator.multiply(x, found, rows, power)
            ours.multiply(x, expected, rows, power)
            np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", GRAPHS)
def test_blocks_that_fit_are_on_the_device(name: str) -> None:
    graph = GRAPHS[name]()
    dense = [block for block in graph.blocks if isinstance(block.weights, np.ndarray)]
    everything = placed_graph(graph, "numpy")
    assert sum(one is not None for one in everything.weights) == len(dense)
    assert all(part.on_device for part in operator_on(graph, "numpy")._parts)
    nothing = placed_graph(graph, "numpy, streamed")
    assert nothing.resident_bytes == 0
    assert not any(part.on_device for part in operator_on(graph, "numpy, streamed")._parts)
    half = placed_graph(graph, "numpy, half streamed")
    assert half.resident_bytes <= 3 * everything.resident_bytes / 4
    if len(dense) > 1:
        assert half.resident_bytes > 0


@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16", "chain"])
@pytest.mark.parametrize("namespace", NAMESPACES)
def test_weights_round_trip(name: str, namespace: str) -> None:
    graph = GRAPHS[name]()
    there = placed_graph(graph, namespace)
    for block, on_device in zip(graph.blocks, there.weights, strict=True):
        back = downloaded(there.device, on_device, block.weights.dtype)
        assert back.dtype == block.weights.dtype
        np.testing.assert_array_equal(back, block.weights)


@pytest.mark.parametrize("density", [1.0, 0.2])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pieces_of_streamed_blocks_stay_within_the_budget(density: float, dtype: Any) -> None:
    graph = chain_graph(random_chain(3, (300, 40, 200), density, np.float32))
    operator = operator_on(graph, "numpy, streamed")
    device = device_for(graph, "numpy, streamed")
    for part in operator._parts:
        tiles = list(part.tiles(device, np.dtype(dtype)))
        assert len(tiles) > 1
        for _, _, tile in tiles:
            used = tile.data.nbytes + tile.indices.nbytes if density < 1 else tile.nbytes
            assert used <= device.tile_bytes
            assert tile.dtype == dtype
        assert [start for start, *_ in tiles[1:]] == [stop for _, stop, _ in tiles[:-1]]
        assert tiles[-1][1] == part.weights.shape[0]


def test_a_rows_tile_has_a_row_at_least() -> None:
    graph = chain_graph(random_chain(3, (30, 400, 20), 0.5, np.float32))
    device = replace(device_named("numpy"), budget=0)
    operator = DeviceOperator(upload(graph, device), 1)
    x = np.random.default_rng(17).normal(size=(operator.n_vertices, 5))
    np.testing.assert_allclose(operator.apply(x), normalized(operator) @ x, atol=1e-12)


@pytest.mark.parametrize("name", NAMESPACES)
def test_scales_beyond_single_precision_stay_finite(name: str) -> None:
    weights: Any = random_chain(3, (9, 14, 8))
    weights[0][0, :] = 1e-80
    operator = operator_on(chain_graph(weights), name)
    xp = operator.device.xp
    x = xp.ones((operator.n_vertices - operator.n_first, 2), dtype=xp.float32)
    assert np.isfinite(operator.device.to_host(operator.apply_gram(x))).all()


@pytest.mark.parametrize("name", ["long chain", "skip", "recurrent", "dense, sparse and dense"])
def test_packed_files_have_the_documented_layout(name: str) -> None:
    operator = operator_on(GRAPHS[name](), "numpy")
    (part,) = operator._parts
    first = operator.n_first
    M = normalized(operator) * np.sqrt(np.outer(operator.degrees, operator.degrees))
    M = np.ldexp(M, operator._exponent)
    expected = M[:first, first:] if operator.bipartite else M
    np.testing.assert_allclose(part.weights, expected, rtol=1e-6)


def test_a_graph_is_packed_where_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = GRAPHS["long chain"]()
    device = device_named("numpy")
    packed = DeviceOperator(upload(graph, device), 1)
    needed = packed._parts[0].weights.nbytes
    aside = sum(bytes_on(device, block.weights) for block in graph.blocks)
    aside += 4 * operator_module.VECTORS * graph.n_vertices
    for room, n_parts in ((2 * needed, 1), (2 * needed - 8, len(graph.blocks))):
        small = replace(device, budget=-(-8 * (aside + room) // 7))
        assert len(DeviceOperator(upload(graph, small), 1)._parts) == n_parts
    monkeypatch.setattr(operator_module, "BYTES_PER_PART", needed // len(graph.blocks) - 1)
    assert len(DeviceOperator(upload(graph, device), 1)._parts) == len(graph.blocks)


def test_float64_weights_are_packed_as_they_are() -> None:
    (part,) = operator_on(GRAPHS["long chain"](), "numpy")._parts
    assert dtype_name(part.weights.dtype) == "float64"
    wide = operator_on(chain_graph(random_chain(5, (5, 9, 4, 7), dtype=np.float32)), "numpy")
    assert dtype_name(wide._parts[0].weights.dtype) == "float32"


def test_an_operator_is_freed_with_its_last_reference() -> None:
    """Memory of a device must not wait for Python to look for cycles."""
    operator = operator_on(chain_graph(side_by_side(*[random_chain(1, (5, 4, 3, 6))])), "numpy")
    matrix = weakref.ref(operator._parts[0].weights)
    gc.disable()
    try:
        del operator
        assert matrix() is None
    finally:
        gc.enable()
