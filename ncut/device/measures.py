"""The share of squared weight inside clusters, on a device."""

from __future__ import annotations

from typing import Any

from ncut.device.devices import astype
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
    device, xp = graph.device, graph.device.xp
    members = astype(labels[:, None] == xp.arange(k, dtype=labels.dtype)[None, :], xp.float64, xp)
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
        sums.append((inside, total))
    shares = []
    for inside, total in sums:
        within, whole = float(device.to_host(inside)), float(device.to_host(total))
        shares.append(within / whole if whole else 0.0)
    return tuple(shares)
