"""A graph's blocks on a device, and those that do not fit there, streamed from the host."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncut.device.devices import Device, concat
from ncut.device.packed import Packed, fits
from ncut.device.weights import (
    MOST_INDICES,
    DeviceWeights,
    HostBlock,
    Tile,
    bytes_on,
    nbytes,
    select,
    tiles,
    type_of,
    upload_weights,
)
from ncut.graphs import NeuronGraph
from ncut.graphs.colouring import independent_layers
from ncut.types import Layer

VECTORS = 200
"""Single-precision numbers per vertex that solvers and k-means need beside the blocks."""


@dataclass(frozen=True, slots=True, eq=False)
class DeviceBlock:
    """All edges of one block: `ncut.types.Block` with its weights on a device.

    Attributes
    ----------
    source, target : int
        Positions of its two layers.
    weights : device array, DeviceCSR or HostBlock, shape (size of source, size of target)
        Where `source == target`, only entries above the diagonal are set.
    """

    source: int
    target: int
    weights: DeviceWeights


@dataclass(frozen=True, eq=False)
class DeviceGraph:
    """A `NeuronGraph` whose weights live on a device.

    Attributes
    ----------
    device : Device
    host : NeuronGraph
        For layers, colours, names and ties; the weights of a shuffle are not its weights.
    blocks : tuple of DeviceBlock
        In the order of the host's blocks.
    """

    device: Device
    host: NeuronGraph
    blocks: tuple[DeviceBlock, ...]

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers, as the host's graph has them."""
        return self.host.layers

    @property
    def n_vertices(self) -> int:
        """Number of vertices, those without edges included."""
        return self.host.n_vertices

    @property
    def is_resident(self) -> bool:
        """Whether all blocks are on the device."""
        return not any(isinstance(block.weights, HostBlock) for block in self.blocks)

    @property
    def resident_bytes(self) -> int:
        """Memory that the blocks take on the device."""
        return sum(nbytes(block.weights) for block in self.blocks)

    @property
    def starts(self) -> dict[int, int]:
        """The first vertex of each layer, by the layer's position."""
        return {number: layer.start for number, layer in enumerate(self.layers)}

    @cached_property
    def groups(self) -> tuple[dict[int, int], ...]:
        """The layers in groups that no block joins inside, each with its first row in its group.

        The larger and the smaller colour if the layers have two; see `independent_layers`.
        """
        found = []
        for layers in independent_layers(self.host):
            ends = itertools.accumulate((self.layers[layer].size for layer in layers), initial=0)
            found.append(dict(zip(layers, ends, strict=False)))
        return tuple(found)

    @cached_property
    def group_sizes(self) -> list[int]:
        """Vertices of each group."""
        return [sum(self.layers[layer].size for layer in group) for group in self.groups]

    @cached_property
    def is_bipartite(self) -> bool:
        """Whether the layers have two colours."""
        within = any(block.source == block.target for block in self.blocks)
        return len(self.groups) == 2 and not within

    @cached_property
    def packed(self) -> Packed | None:
        """The graph as one matrix, where that makes products faster."""
        return Packed(self) if fits(self) else None

    def grouped(self, x: Any) -> list[Any]:
        """The rows of each group, of an array with a row for each vertex."""
        xp = self.device.xp
        return [concat([x[self.layers[at].slice, :] for at in group], xp) for group in self.groups]

    def joined(self, parts: Sequence[Any]) -> Any:
        """Arrays with the rows of each group -> one with a row for each vertex."""
        rows: dict[int, Any] = {}
        for group, part in zip(self.groups, parts, strict=True):
            for layer, start in group.items():
                rows[layer] = part[start : start + self.layers[layer].size, :]
        return concat([rows[layer] for layer in range(len(rows))], self.device.xp)

    @property
    def has_float64(self) -> bool:
        """Whether some weights are float64."""
        return any(type_of(block.weights) == "float64" for block in self.blocks)

    def placed_blocks(self) -> list[tuple[int, int, DeviceBlock]]:
        """Each block with the first vertex of its source and of its target layer."""
        return [
            (self.layers[block.source].start, self.layers[block.target].start, block)
            for block in self.blocks
        ]

    @cached_property
    def degrees(self) -> Any:
        """Sum of the weights of each vertex's edges, device float64, shape (n_vertices,)."""
        xp = self.device.xp
        return self.product(xp.ones((self.n_vertices, 1), dtype=xp.float64))[:, 0]

    @cached_property
    def host_degrees(self) -> NDArray[np.float64]:
        """`degrees` on the host."""
        return np.asarray(self.device.to_host(self.degrees), dtype=np.float64)

    def product(self, x: Any) -> Any:
        """A x, for a device array x of float32 or float64, shape (n_vertices, any)."""
        if self.packed is not None:
            return self.joined(self.packed.multiply(self.grouped(x)))
        out = self.device.xp.zeros(x.shape, dtype=x.dtype)
        self.multiply(x, self.starts, out, self.starts)
        return out

    def half(self, x: Any, there: int) -> Any:
        """Of two groups the rows of one of A x, for x with the rows of the other."""
        if self.packed is not None:
            return self.packed.from_group(x, 1 - there)[there]
        out = self.device.xp.zeros((self.group_sizes[there], x.shape[1]), dtype=x.dtype)
        self.multiply(x, self.groups[1 - there], out, self.groups[there])
        return out

    def multiply(
        self, x: Any, x_starts: Mapping[int, int], out: Any, out_starts: Mapping[int, int]
    ) -> None:
        """Add products with A, from some layers to some layers, to `out`.

        Parameters
        ----------
        x, out : device arrays of one type, float32 or float64, shape (any, columns)
        x_starts, out_starts : mappings of int to int
            The first row of each layer that is in `x`, and in `out`, by the layer's position.
        """
        # Slices are views in all namespaces: `out[rows, :] +=` would write everything twice.
        for block in self.blocks:
            forth = block.target in x_starts and block.source in out_starts
            back = block.source in x_starts and block.target in out_starts
            if not (forth or back):
                continue
            n_columns = self.layers[block.target].size
            for tile in self.tiles(block, x.dtype):
                if forth:
                    first, at = x_starts[block.target], out_starts[block.source]
                    there = out[at + tile.start : at + tile.stop, :]
                    there += tile.forward @ x[first : first + n_columns, :]
                if back:
                    first, at = x_starts[block.source], out_starts[block.target]
                    there = out[at : at + n_columns, :]
                    there += tile.backward @ x[first + tile.start : first + tile.stop, :]

    def tiles(self, block: DeviceBlock, dtype: Any, whole: bool = True) -> Iterator[Tile]:
        """A block in pieces that are ready for products; see `ncut.device.weights.tiles`."""
        return tiles(self.device, block.weights, dtype, whole)

    def without_isolated(self) -> tuple[DeviceGraph, NDArray[np.intp]]:
        """The graph without the vertices that have no edges, and the numbers of those kept.

        Returns the graph itself if nothing is isolated.
        """
        if not self.is_resident:
            connected_host, kept = self.host.without_isolated()
            same = connected_host is self.host
            return self if same else upload(connected_host, self.device), kept
        connected = self.host_degrees > 0
        kept = np.flatnonzero(connected)
        if kept.size == self.n_vertices:
            return self, kept
        rows = [np.flatnonzero(connected[layer.slice]) for layer in self.layers]
        starts = np.concatenate([[0], np.cumsum([r.size for r in rows])])
        layers = tuple(
            replace(layer, start=int(start), size=r.size)
            for layer, start, r in zip(self.layers, starts, rows, strict=False)
        )
        places = [self.device.asarray(r) for r in rows]
        blocks = tuple(
            replace(
                block,
                weights=select(
                    self.device,
                    block.weights,
                    (rows[block.source], places[block.source]),
                    (rows[block.target], places[block.target]),
                ),
            )
            for block in self.blocks
        )
        return replace(self, host=replace(self.host, layers=layers), blocks=blocks), kept


def upload(graph: NeuronGraph, device: Device) -> DeviceGraph:
    """Copy a graph's blocks to a device; those beyond its budget stay on the host.

    Parameters
    ----------
    graph : NeuronGraph
    device : Device
        Its budget is for the blocks, the vectors of a solver, and the tiles that blocks on the
        host are copied in.
    """
    left = device.budget - 4 * VECTORS * graph.n_vertices - 2 * device.tile_bytes
    blocks = []
    for block in graph.blocks:
        weights: Any = HostBlock(block.weights)
        needed = bytes_on(device, block.weights)
        if needed <= left and getattr(block.weights, "nnz", 0) <= MOST_INDICES:
            weights = upload_weights(device, block.weights)
            left -= needed
        blocks.append(DeviceBlock(block.source, block.target, weights))
    uploaded = DeviceGraph(device, graph, tuple(blocks))
    if not uploaded.is_resident:
        # The host knows the degrees or counts them as fast as it could send the weights.
        uploaded.__dict__["degrees"] = device.asarray(graph.degrees)
    return uploaded
