"""Volumes and cuts of a partition on a device: products with the clusters' indicators."""

from __future__ import annotations

from typing import Any

from ncut.device.devices import Device, astype
from ncut.device.graph import DeviceGraph


def indicators(device: Device, labels: Any, k: int, dtype: Any) -> Any:
    """1 where a vertex is in a cluster, else 0: shape (*labels.shape, k)."""
    xp = device.xp
    return astype(labels[..., None] == xp.arange(k, dtype=labels.dtype), dtype, xp)


def links(graph: DeviceGraph, labels: Any, k: int) -> Any:
    """The weight between each vertex and each cluster, device float64, shape (n, k).

    Parameters
    ----------
    graph : DeviceGraph
    labels : device array of int32, shape (n,)
        Clusters from 0 to k - 1.
    k : int
    """
    return graph.product(indicators(graph.device, labels, k, graph.device.xp.float64))


def volumes_and_cuts(graph: DeviceGraph, labels: Any, k: int) -> tuple[Any, Any]:
    """The degrees in each cluster, and the weight that leaves it: device float64, shapes (k,).

    Parameters as of `links`; one pass over the blocks, in float64.
    """
    xp = graph.device.xp
    members = indicators(graph.device, labels, k, xp.float64)
    volume = xp.sum(members * graph.degrees[:, None], axis=0)
    inside = xp.sum(members * graph.product(members), axis=0)
    # Rounding may leave a little of nothing.
    return volume, xp.where(volume > inside, volume - inside, xp.zeros_like(volume))
