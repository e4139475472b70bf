"""Volumes and cuts of a partition on a device: products with the clusters' indicators."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ncut.device.cuda import add_links, usable
from ncut.device.devices import Device, astype
from ncut.device.graph import DeviceGraph
from ncut.device.weights import DeviceCSR


def indicators(device: Device, labels: Any, k: int, dtype: Any) -> Any:
    """1 where a vertex is in a cluster, else 0: shape (*labels.shape, k)."""
    xp = device.xp
    return astype(labels[..., None] == xp.arange(k, dtype=labels.dtype), dtype, xp)


def links(graph: DeviceGraph, labels: Any, k: int) -> Any:
    """The weight between each vertex and each cluster, device float64, shape (n, k).

    One pass over the blocks, sums in float64. Rows of sparse blocks are added up by a CUDA kernel
    where there is one: the indicators would take more room than the block.

    Parameters
    ----------
    graph : DeviceGraph
    labels : device array of int32, shape (n,)
        Clusters from 0 to k - 1.
    k : int
    """
    device, xp = graph.device, graph.device.xp
    members = indicators(device, labels, k, xp.float64)
    if graph.packed is not None or not usable(device):
        return graph.product(members)
    sparse = [block for block in graph.blocks if isinstance(block.weights, DeviceCSR)]
    dense = [block for block in graph.blocks if not isinstance(block.weights, DeviceCSR)]
    out = replace(graph, blocks=tuple(dense)).product(members)
    for block in sparse:
        source, target = (graph.layers[at].slice for at in (block.source, block.target))
        stored = block.weights.data.dtype
        forward, backward = block.weights.both_ways(device, stored)
        add_links(device, forward, labels[target], out[source, :])
        add_links(device, backward, labels[source], out[target, :])
    return out


def volumes_and_cuts(graph: DeviceGraph, labels: Any, k: int) -> tuple[Any, Any]:
    """The degrees in each cluster, and the weight that leaves it: device float64, shapes (k,).

    Parameters as of `links`. Clusters without edges between them have cuts of exactly zero.
    """
    xp = graph.device.xp
    members = indicators(graph.device, labels, k, xp.float64)
    linked = links(graph, labels, k)
    volume = xp.sum(members * graph.degrees[:, None], axis=0)
    return volume, xp.sum((1.0 - members) * linked, axis=0)
