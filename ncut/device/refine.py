"""Lowering the normalized cut by moving single vertices, some layers at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncut import kernels
from ncut.device import cut
from ncut.device.devices import Device, astype, concat
from ncut.device.graph import DeviceBlock, DeviceGraph
from ncut.device.weights import DeviceCSR, HostBlock, widened
from ncut.spectral.operator import split_blocks
from ncut.types import Block


def refine(graph: DeviceGraph, labels: Any, k: int, max_passes: int) -> Any:
    """Labels with a normalized cut as low or lower, device int32, shape (n,).

    Vertices of layers that no block joins see nothing of each other's moves but the clusters'
    totals. So the host makes all moves of such layers, one after the other as on the CPU, from
    nothing but these vertices' links to the clusters; a product with the moves then updates all
    links on the device. Layers of a chain need two such steps for a pass over all vertices.
    Where a block joins a layer to itself, the host has a copy of it.

    Finds the CPU's partition where it has the same start and looks at the vertices in the same
    order, that is, where two colours suffice for the layers.

    Parameters
    ----------
    graph : DeviceGraph
        Without isolated vertices.
    labels : device array of int32, shape (n,)
        Clusters from 0 to k - 1.
    k : int
    max_passes : int
        How often to look at all vertices, at most.
    """
    device = graph.device
    links = cut.links(graph, labels, k)
    on_host = device.to_host(labels)
    totals = _totals(graph.host_degrees, device.to_host(links), on_host, k)
    groups = [_Group(graph, starts, on_host, links) for starts in graph.groups]
    unchanged = 0
    for _ in range(max_passes):
        for group in groups:
            unchanged = 0 if group.improve(groups, totals) else unchanged + 1
            if unchanged >= len(groups):
                return _joined(groups)
    return _joined(groups)


def _totals(
    degrees: NDArray[np.float64], links: NDArray[np.float64], labels: NDArray[np.int32], k: int
) -> NDArray[np.float64]:
    """For each cluster the weight inside, twice; its degrees; its vertices. Shape (3, k)."""
    own = links[np.arange(labels.size), labels]
    return np.stack([np.bincount(labels, of, k) for of in (own, degrees, np.ones(labels.size))])


class _Group:
    """Layers that no block joins, and the labels of their vertices."""

    def __init__(
        self, graph: DeviceGraph, starts: dict[int, int], labels: NDArray[np.int32], links: Any
    ) -> None:
        self.graph, self.starts = graph, starts
        self.rows = [graph.layers[layer].slice for layer in starts]
        self.degrees: NDArray[np.float64] = np.concatenate(
            [graph.host_degrees[rows] for rows in self.rows]
        )
        self.labels: NDArray[np.int32] = np.concatenate([labels[rows] for rows in self.rows])
        self.links = concat([links[rows, :] for rows in self.rows], graph.device.xp)
        inner = [
            _on_host(graph.device, block)
            for block in graph.blocks
            if block.source == block.target and block.source in starts
        ]
        self.inner = split_blocks(inner, starts, self.labels.size)

    def improve(self, groups: list[_Group], totals: NDArray[np.float64]) -> bool:
        """Make the moves that one look at each vertex finds; whether there were any.

        The links of all groups, and totals, shape (3, k), are kept up to date.
        """
        graph, device, xp = self.graph, self.graph.device, self.graph.device.xp
        k, old = totals.shape[1], self.labels.copy()
        own = np.array(device.to_host(self.links))
        n_moves = kernels.refine(*self.inner, self.degrees, k, 1, own, self.labels, totals)
        if not n_moves:
            return False
        changed = np.flatnonzero(old != self.labels)
        moves = np.zeros((old.size, k), dtype=np.int8)
        moves[changed, old[changed]] = -1
        moves[changed, self.labels[changed]] = 1
        there = astype(device.asarray(moves), xp.float64, xp)
        if graph.packed is not None:
            products = graph.packed.from_group(there, groups.index(self))
            for group, product in zip(groups, products, strict=True):
                if product is not None:
                    group.links += product
            return True
        moved = self._with(changed)
        for group in groups:
            graph.multiply(there, moved, group.links, group.starts)
        return True

    def _with(self, vertices: NDArray[np.intp]) -> dict[int, int]:
        """The layers that some of these vertices are in, with their starts."""
        starts = list(self.starts.values())
        numbers = np.unique(np.searchsorted(starts, vertices, side="right") - 1)
        layers = list(self.starts)
        return {layers[number]: starts[number] for number in numbers}


def _joined(groups: list[_Group]) -> Any:
    """The labels of all groups' vertices in the graph's order, on the device."""
    graph = groups[0].graph
    labels: NDArray[np.int32] = np.empty(graph.n_vertices, dtype=np.int32)
    for group in groups:
        for rows, start in zip(group.rows, group.starts.values(), strict=True):
            labels[rows] = group.labels[start : start + rows.stop - rows.start]
    return graph.device.asarray(labels)


def _on_host(device: Device, block: DeviceBlock) -> Block:
    """A copy of a block on the host; what has 16 bits on the device is float32 there."""
    weights = block.weights
    if isinstance(weights, HostBlock):
        return Block(block.source, block.target, weights.weights)
    if isinstance(weights, DeviceCSR):
        from scipy import sparse

        parts = [device.to_host(one) for one in (weights.data, weights.indices, weights.indptr)]
        matrix = sparse.csr_array(tuple(parts), shape=weights.shape)
        return Block(block.source, block.target, matrix)
    wide = device.xp.float64 if weights.dtype == device.xp.float64 else device.xp.float32
    on_host = device.to_host(widened(device, weights, wide))
    return Block(block.source, block.target, np.ascontiguousarray(on_host))
