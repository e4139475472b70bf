"""Connected components of a graph on a device, by spreading from vertices along the blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncut.device.devices import astype
from ncut.device.graph import DeviceGraph

MOST_STARTS = 64
"""Vertices to spread from at a time, once there is known to be more than one component."""


ROUNDS = 8
"""How often to go along all edges at once before the host looks at what is reached."""


def components(graph: DeviceGraph) -> NDArray[np.int64]:
    """Number of the connected component of each vertex, shape (n,), from 0 up.

    For a graph without isolated vertices. One component takes a few passes over the blocks: each
    spreads what is reached through all blocks in order and back, so that paths along the layers
    need one pass however long they are. In a graph that is one matrix a pass is some products
    with it, each of which goes on by one layer.
    """
    n = graph.n_vertices
    found = np.full(n, -1, dtype=np.int64)
    n_found, n_starts = 0, 1
    while (left := np.flatnonzero(found < 0)).size:
        at = np.linspace(0, left.size - 1, min(n_starts, left.size)).astype(np.intp)
        reached = _reached(graph, left[np.unique(at)])
        for column in reached.T:
            members = column & (found < 0)  # two starts in one component reach the same
            if members.any():
                found[members] = n_found
                n_found += 1
        n_starts = MOST_STARTS
    return np.unique(found, return_inverse=True)[1].astype(np.int64, copy=False)


def _reached(graph: DeviceGraph, starts: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Which vertices each start reaches, shape (n, number of starts)."""
    device, xp = graph.device, graph.device.xp
    # Weights beyond single precision would vanish in it.
    wide = graph.has_float64
    start = np.zeros((graph.n_vertices, starts.size), dtype=np.float64 if wide else np.float32)
    start[starts, np.arange(starts.size)] = 1.0
    reached = device.asarray(start)
    spread = _at_once if graph.packed is not None else _along
    count = int(starts.size)
    while True:
        reached = spread(graph, reached)
        total = int(device.to_host(xp.sum(reached, dtype=xp.float64)))
        if total in (count, reached.shape[0] * reached.shape[1]):
            return np.asarray(device.to_host(reached) > 0)
        count = total


def _along(graph: DeviceGraph, reached: Any) -> Any:
    """What is reached through the blocks one after the other, and back."""
    xp, dtype = graph.device.xp, reached.dtype
    for block in (*graph.blocks, *reversed(graph.blocks)):
        source, target = graph.layers[block.source], graph.layers[block.target]
        # Both ways through a piece before the next one: what it reaches goes on from there.
        for tile in graph.tiles(block, dtype):
            rows = slice(source.start + tile.start, source.start + tile.stop)
            there = tile.forward @ reached[target.slice, :]
            reached[rows, :] = _ones(reached[rows, :] + there, dtype, xp)
            back = tile.backward @ reached[rows, :]
            reached[target.slice, :] = _ones(reached[target.slice, :] + back, dtype, xp)
    return reached


def _at_once(graph: DeviceGraph, reached: Any) -> Any:
    """What is reached through all blocks at once, some times."""
    xp, dtype = graph.device.xp, reached.dtype
    assert graph.packed is not None
    parts = graph.grouped(reached)
    for _ in range(ROUNDS):
        products = graph.packed.multiply(parts)
        parts = [_ones(a + b, dtype, xp) for a, b in zip(parts, products, strict=True)]
    return graph.joined(parts)


def _ones(x: Any, dtype: Any, xp: Any) -> Any:
    """1 where x is positive, else 0."""
    return astype(x > 0, dtype, xp)
