"""The share of squared weight inside clusters, on a device."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncut.device.cut import indicators
from ncut.device.devices import concat
from ncut.device.graph import DeviceGraph


def inner_shares(graph: DeviceGraph, labels: Any, k: int) -> tuple[float, ...]:
    """For each block the share of its squared weight inside clusters; sums in float64.

    Parameters
    ----------
    graph : DeviceGraph
    labels : device array of int32, shape (n,)
    k : int
        Above all labels.
    """
    members = indicators(graph.device, labels, k, graph.device.xp.float64)
    sums = (_packed_sums if graph.packed is not None else _sums)(graph, members)
    return tuple(float(inside / total) if total else 0.0 for inside, total in sums)


def _sums(graph: DeviceGraph, members: Any) -> NDArray[np.float64]:
    """For each block its squared weight inside clusters, and all of it; shape (blocks, 2)."""
    device, xp = graph.device, graph.device.xp
    sums = []
    for block in graph.blocks:
        source, target = graph.layers[block.source], graph.layers[block.target]
        columns = members[target.slice, :]
        inside = total = xp.zeros((), dtype=xp.float64)
        for tile in graph.tiles(block, xp.float64, whole=False):
            rows = members[source.start + tile.start : source.start + tile.stop, :]
            if hasattr(tile.forward, "indptr"):
                squares = tile.forward.power(2)
                total = total + xp.sum(squares.data)
            else:
                squares = tile.forward * tile.forward
                total = total + xp.sum(squares)
            inside = inside + xp.sum((squares @ columns) * rows)
        sums += [inside, total]
    return device.to_host(xp.stack(sums)).reshape(-1, 2)


def _packed_sums(graph: DeviceGraph, members: Any) -> NDArray[np.float64]:
    """The same from the graph's one matrix: some operations for each layer along its columns."""
    device, xp, packed = graph.device, graph.device.xp, graph.packed
    assert packed is not None
    matrix = packed.matrix(xp.float64)
    parts = graph.grouped(members)
    there, here = parts if graph.is_bipartite else [concat(parts, xp)] * 2
    by_layer = []
    for layer in packed.column_layers:
        columns = packed.columns(layer)
        part = matrix[:, columns] * matrix[:, columns]
        by_layer += [xp.sum((part @ here[columns, :]) * there, axis=1), xp.sum(part, axis=1)]
    by_row = device.to_host(xp.stack(by_layer))
    at = {layer: 2 * number for number, layer in enumerate(packed.column_layers)}
    sums = np.empty((len(graph.blocks), 2))
    for number, block in enumerate(graph.blocks):
        rows, column = packed.rows(block.source), at.get(block.target)
        if rows is None or column is None:
            rows, column = packed.rows(block.target), at[block.source]
        sums[number] = by_row[column : column + 2, rows].sum(axis=1)
    return sums
