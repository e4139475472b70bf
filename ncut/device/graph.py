"""A graph with a copy of its dense weights on a device, as far as they fit there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncut.device.devices import Device, dtype_name
from ncut.graphs import NeuronGraph

VECTORS = 200
"""Single-precision numbers per vertex that block Lanczos needs in addition to the weights."""


@dataclass(frozen=True, slots=True, eq=False)
class DeviceGraph:
    """A `NeuronGraph`, and copies of its dense blocks on a device.

    Attributes
    ----------
    device : Device
    host : NeuronGraph
    weights : tuple of device arrays or None
        For each block of `host` its weights: float32, float64, float16, or uint16 with the bits
        of bfloat16. None if they are sparse or did not fit.
    """

    device: Device
    host: NeuronGraph
    weights: tuple[Any, ...]

    @property
    def n_vertices(self) -> int:
        """Number of vertices, including isolated vertices."""
        return self.host.n_vertices

    @property
    def resident_bytes(self) -> int:
        """Memory of the copies on the device."""
        return sum(
            int(one.shape[0] * one.shape[1]) * np.dtype(dtype_name(one.dtype)).itemsize
            for one in self.weights
            if one is not None
        )


def upload(graph: NeuronGraph, device: Device) -> DeviceGraph:
    """Copy a graph's dense blocks to a device; blocks beyond its budget stay on the host.

    The budget covers the blocks, the vectors of block Lanczos, and the tiles in which weights on
    the host are copied for each product.
    """
    left = device.budget - 4 * VECTORS * graph.n_vertices - 2 * device.tile_bytes
    weights: list[Any] = []
    for block in graph.blocks:
        needed, there = bytes_on(device, block.weights), None
        if isinstance(block.weights, np.ndarray) and needed <= left:
            there = copied(device, block.weights)
            left -= needed
        weights.append(there)
    return DeviceGraph(device, graph, tuple(weights))


def copied(device: Device, weights: NDArray[Any]) -> Any:
    """Dense weights from the host on the device; bfloat16 as bits."""
    if weights.dtype.itemsize == 2:
        if not device.has_extras:
            return device.asarray(weights.astype(np.float32))
        if weights.dtype != np.float16:
            weights = weights.view(np.uint16)
    return device.asarray(weights)


def downloaded(device: Device, weights: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The inverse of `copied` for weights of this type."""
    on_host = np.ascontiguousarray(device.to_host(weights))
    return on_host.view(dtype) if on_host.dtype == np.uint16 else on_host.astype(dtype, copy=False)


def bytes_on(device: Device, weights: Any) -> int:
    """Memory on a device for a block from the host.

    Sparse weights are stored by rows and by columns, with 32-bit indices.
    """
    if isinstance(weights, np.ndarray):
        itemsize = weights.dtype.itemsize if device.has_extras else max(4, weights.dtype.itemsize)
        return int(weights.size) * int(itemsize)
    per_entry = 4 + int(weights.dtype.itemsize)
    return 2 * (int(weights.nnz) * per_entry + 4 * (int(sum(weights.shape)) + 2))
