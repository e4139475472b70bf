"""Connected components of a graph on a device, by spreading from vertices along the blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncut.device.devices import astype
from ncut.device.graph import DeviceGraph, dtype_name

MOST_STARTS = 64
"""Vertices to spread from at a time, once there is known to be more than one component."""


def components(graph: DeviceGraph) -> NDArray[np.int64]:
    """Number of the connected component of each vertex, shape (n,), from 0 up.

    For a graph without isolated vertices. One component takes a few passes over the blocks: each
    spreads what is reached through all blocks in order and back, so that paths along the layers
    need one pass however long they are.
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
    wide = any(dtype_name(_type_of(block.weights)) == "float64" for block in graph.blocks)
    dtype = xp.float64 if wide else xp.float32
    start = np.zeros((graph.n_vertices, starts.size), dtype=np.float64 if wide else np.float32)
    start[starts, np.arange(starts.size)] = 1.0
    reached = device.asarray(start)
    count = int(starts.size)
    while True:
        for block in (*graph.blocks, *reversed(graph.blocks)):
            source, target = graph.layers[block.source], graph.layers[block.target]
            # Both ways through a piece before the next one: what it reaches goes on from there.
            for tile in graph.tiles(block, dtype):
                rows = slice(source.start + tile.start, source.start + tile.stop)
                there = tile.forward @ reached[target.slice, :]
                reached[rows, :] = _ones(reached[rows, :] + there, dtype, xp)
                back = tile.backward @ reached[rows, :]
                reached[target.slice, :] = _ones(reached[target.slice, :] + back, dtype, xp)
        total = int(device.to_host(xp.sum(reached, dtype=xp.float64)))
        if total in (count, reached.shape[0] * reached.shape[1]):
            return np.asarray(device.to_host(reached) > 0)
        count = total


def _ones(x: Any, dtype: Any, xp: Any) -> Any:
    """1 where x is positive, else 0."""
    return astype(x > 0, dtype, xp)


def _type_of(weights: Any) -> Any:
    if hasattr(weights, "data") and hasattr(weights, "indptr"):
        return weights.data.dtype
    inner = getattr(weights, "weights", weights)  # a HostBlock's
    return inner.dtype
