"""A graph with a copy of its dense weights on a device, as far as they fit there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncut.device.devices import Device, dtype_name
from ncut.graphs import NeuronGraph

VECTORS = 200
"""Single-precision numbers per vertex that block Lanczos needs beside the weights."""


@dataclass(frozen=True, slots=True, eq=False)
class DeviceGraph:
    """A `NeuronGraph`, and copies of its dense blocks on a device.

    Attributes
    ----------
    device : Device
    host : NeuronGraph
    weights : tuple of device arrays or None
        For each block of `host` its weights: float32, float64, float16, or uint16 with the bits
        of bfloat16. None where they are sparse or did not fit.
    """

    device: Device
    host: NeuronGraph
    weights: tuple[Any, ...]

    @property
    def n_vertices(self) -> int:
        """Number of vertices, those without edges included."""
        return self.host.n_vertices

    @property
    def resident_bytes(self) -> int:
        """Memory that the copies take on the device."""
        return sum(
            int(one.shape[0] * one.shape[1]) * np.dtype(dtype_name(one.dtype)).itemsize
            for one in self.weights
            if one is not None
        )


def upload(graph: NeuronGraph, device: Device) -> DeviceGraph:
    """Copy a graph's dense blocks to a device; those beyond its budget stay on the host.

    The budget is for the blocks, the vectors of block Lanczos, and the tiles in which weights
    on the host are copied for each product.
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
    """Dense weights of the host on the device; bfloat16 as bits."""
    if weights.dtype.itemsize == 2:
        if not device.has_extras:
            return device.asarray(weights.astype(np.float32))
        if weights.dtype != np.float16:
            weights = weights.view(np.uint16)
    return device.asarray(weights)


def downloaded(device: Device, weights: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    """What `copied` made of weights of this type, back on the host."""
    on_host = np.ascontiguousarray(device.to_host(weights))
    return on_host.view(dtype) if on_host.dtype == np.uint16 else on_host.astype(dtype, copy=False)


def bytes_on(device: Device, weights: Any) -> int:
    """Memory that a block of the host takes on a device.

    Sparse weights lie there by rows and by columns, with indices of 32 bits.
    """
    if isinstance(weights, np.ndarray):
        itemsize = weights.dtype.itemsize if device.has_extras else max(4, weights.dtype.itemsize)
        return int(weights.size) * int(itemsize)
    per_entry = 4 + int(weights.dtype.itemsize)
    return 2 * (int(weights.nnz) * per_entry + 4 * (int(sum(weights.shape)) + 2))
