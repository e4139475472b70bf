"""A graph's blocks on a device, and those that do not fit there, streamed from the host."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ncut.device.devices import Device, astype, concat, dtype_name
from ncut.device.packed import Packed, fits
from ncut.graphs import NeuronGraph
from ncut.graphs.colouring import independent_layers
from ncut.types import Layer

VECTORS = 200
"""Single-precision numbers per vertex that solvers and k-means need beside the blocks."""

SMALL = 2**20
"""Bytes below which an array is copied to a GPU as it is."""

MOST_INDICES = 2**31 - 1
"""Non-zeros that one sparse matrix of CuPy can hold."""


@dataclass(frozen=True, eq=False)
class DeviceCSR:
    """A sparse block on a device: rows compressed, columns of a row ascending.

    Attributes
    ----------
    indptr, indices : device arrays of int32
    data : device array of float32 or float64
    shape : (int, int)
    """

    indptr: Any
    indices: Any
    data: Any
    shape: tuple[int, int]
    _kept: dict[str, tuple[Any, Any]] = field(default_factory=dict, init=False, repr=False)

    @property
    def nbytes(self) -> int:
        """Memory that it takes, its transpose and copies in float32 for products included."""
        return _bytes_of_csr(self)

    def matrix(self, device: Device, dtype: Any) -> Any:
        """The block as a matrix of cupyx.scipy.sparse, or of scipy.sparse on the host."""
        data = astype(self.data, dtype, device.xp)
        return _sparse(device).csr_matrix((data, self.indices, self.indptr), shape=self.shape)

    def both_ways(self, device: Device, dtype: Any) -> tuple[Any, Any]:
        """The matrix and its transpose, both compressed by rows; those in float32 are kept."""
        name, stored = np.dtype(dtype).name, self.data.dtype.name
        if name in self._kept:
            return self._kept[name]
        if stored not in self._kept:
            matrix = self.matrix(device, self.data.dtype)
            # Products with a transposed view would add in an order that changes from run to run.
            self._kept[stored] = matrix, matrix.T.tocsr()
        forward, backward = (_in_type(device, one, dtype) for one in self._kept[stored])
        if name == "float32":
            self._kept[name] = forward, backward
        return forward, backward


def _in_type(device: Device, matrix: Any, dtype: Any) -> Any:
    """A sparse matrix with its values in another type; its indices are shared."""
    data = astype(matrix.data, dtype, device.xp)
    return type(matrix)((data, matrix.indices, matrix.indptr), shape=matrix.shape)


@dataclass(frozen=True, slots=True, eq=False)
class HostBlock:
    """A block that stays on the host and is copied tile by tile where it is needed.

    Attributes
    ----------
    weights : ndarray or scipy.sparse.csr_array
        As the host's graph has them.
    """

    weights: Any

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, columns = self.weights.shape
        return int(rows), int(columns)


DeviceWeights: TypeAlias = Any
"""A device array of two dimensions, a `DeviceCSR` or a `HostBlock`.

Arrays are float32, float64, float16, or uint16 with the bits of bfloat16.
"""


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


class Tile(NamedTuple):
    """Some rows of a block, ready for products.

    Attributes
    ----------
    start, stop : int
        Which rows of the block.
    forward, backward : matrices
        `forward @ x` is these rows' product, `backward @ y` that of their transpose; device
        arrays or sparse matrices of the type asked for.
    """

    start: int
    stop: int
    forward: Any
    backward: Any


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
        return sum(_nbytes(block.weights) for block in self.blocks)

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
        return any(_type_of(block.weights) == "float64" for block in self.blocks)

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
        """A block in pieces that are ready for products in this type, one after the other.

        A block that is on the device in this type is one piece, unless `whole` is false; others
        are converted, or copied from the host, `device.tile_bytes` at a time.
        """
        weights, device = block.weights, self.device
        if isinstance(weights, DeviceCSR):
            yield Tile(0, weights.shape[0], *weights.both_ways(device, dtype))
            return
        n_rows, n_columns = weights.shape
        on_host = isinstance(weights, HostBlock)
        if whole and not on_host and weights.dtype == dtype:
            yield Tile(0, n_rows, weights, weights.T)
            return
        if on_host and not isinstance(weights.weights, np.ndarray):
            yield from self._sparse_tiles(weights.weights, dtype)
            return
        # A row's bytes before and after it is converted.
        row_bytes = n_columns * (np.dtype(dtype_name(dtype)).itemsize + 4)
        step = max(1, self.device.tile_bytes // max(1, row_bytes))
        for start in range(0, n_rows, step):
            stop = min(start + step, n_rows)
            rows = (
                _copied(device, weights.weights[start:stop]) if on_host else weights[start:stop, :]
            )
            wide = widened(device, rows, dtype)
            yield Tile(start, stop, wide, wide.T)

    def _sparse_tiles(self, weights: Any, dtype: Any) -> Iterator[Tile]:
        """Rows of a sparse block of the host, as many at a time as fit."""
        most = max(1, min(self.device.tile_bytes // 40, MOST_INDICES))
        start, n_rows = 0, weights.shape[0]
        while start < n_rows:
            limit = int(weights.indptr[start]) + most
            stop = int(np.searchsorted(weights.indptr, limit, side="right")) - 1
            stop = min(max(stop, start + 1), n_rows)
            part = _upload_sparse(self.device, weights[start:stop])
            if isinstance(part, DeviceCSR):
                yield Tile(start, stop, *part.both_ways(self.device, dtype))
            else:
                wide = astype(part, dtype, self.device.xp)
                yield Tile(start, stop, wide, wide.T)
            start = stop

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


def upload_weights(device: Device, weights: Any) -> DeviceWeights:
    """A host block's weights on a device: an array, or a DeviceCSR where the device has them."""
    if not isinstance(weights, np.ndarray):
        return _upload_sparse(device, weights)
    return _copied(device, weights)


def widened(device: Device, values: Any, dtype: Any) -> Any:
    """Values as they lie on a device in float32 or float64; uint16 is the bits of bfloat16."""
    if values.dtype != device.xp.uint16:
        return astype(values, dtype, device.xp)
    bits = values.astype(np.uint32) << 16  # only where there are 16 bits: NumPy and CuPy
    return bits.view(np.float32).astype(dtype, copy=False)


def _copied(device: Device, weights: NDArray[Any]) -> Any:
    """Dense weights of the host on the device; bfloat16 as bits."""
    narrow = weights.dtype.itemsize == 2
    if narrow and not device.has_scipy:
        return device.asarray(weights.astype(np.float32))
    if narrow and weights.dtype != np.float16:
        weights = weights.view(np.uint16)
    if device.is_cuda and weights.nbytes >= SMALL:
        return _staged(device, np.ascontiguousarray(weights))
    return device.asarray(weights)


def _upload_sparse(device: Device, weights: Any) -> Any:
    if not device.has_scipy:
        return device.asarray(weights.toarray())
    return DeviceCSR(
        device.asarray(weights.indptr.astype(np.int32, copy=False)),
        device.asarray(weights.indices.astype(np.int32, copy=False)),
        device.asarray(weights.data),
        (int(weights.shape[0]), int(weights.shape[1])),
    )


class _Staging:
    """Two page-locked buffers: while one is copied to the device, the other is filled."""

    SIZE = 2**25

    def __init__(self, device: Device) -> None:
        from cupyx import empty_pinned

        self._device = device
        self._buffers = [empty_pinned((self.SIZE,), np.uint8) for _ in range(2)]
        self._free: list[Any] = [None, None]
        self._turn = 0

    def copy(self, host: NDArray[Any]) -> Any:
        """A contiguous array on the device; returns while the last of it is under way."""
        cupy = self._device.xp
        array = cupy.empty(host.shape, dtype=host.dtype)
        target = array.reshape(-1).view(np.uint8)
        source = host.reshape(-1).view(np.uint8)
        stream = cupy.cuda.get_current_stream()
        for start in range(0, source.size, self.SIZE):
            turn, self._turn = self._turn, 1 - self._turn
            if self._free[turn] is not None:
                self._free[turn].synchronize()
            part = source[start : start + self.SIZE]
            pinned = self._buffers[turn][: part.size]
            pinned[:] = part
            target[start : start + part.size].set(pinned, stream=stream)
            self._free[turn] = stream.record()
        return array


_OF_THREAD = threading.local()


def _staged(device: Device, host: NDArray[Any]) -> Any:
    """A copy through this thread's page-locked buffers."""
    buffers: dict[int, _Staging] = _OF_THREAD.__dict__.setdefault("staging", {})
    if device.index not in buffers:
        buffers[device.index] = _Staging(device)
    return buffers[device.index].copy(host)


def select(
    device: Device,
    weights: DeviceWeights,
    rows: tuple[NDArray[np.intp], Any],
    columns: tuple[NDArray[np.intp], Any],
) -> DeviceWeights:
    """Some rows and columns of a block, given by numbers on the host and on the device."""
    if weights.shape == (rows[0].size, columns[0].size):
        return weights
    if isinstance(weights, HostBlock):
        if isinstance(weights.weights, np.ndarray):
            return HostBlock(np.ascontiguousarray(weights.weights[np.ix_(rows[0], columns[0])]))
        some = weights.weights[rows[0]][:, columns[0]]
        some.sort_indices()
        return HostBlock(some)
    if isinstance(weights, DeviceCSR):
        # Selected by products: what cupyx and SciPy do alike.
        matrix = weights.matrix(device, weights.data.dtype)[rows[1]][:, columns[1]]
        matrix.sort_indices()
        return DeviceCSR(matrix.indptr, matrix.indices, matrix.data, matrix.shape)
    xp = device.xp
    return xp.take(xp.take(weights, rows[1], axis=0), columns[1], axis=1)


def _sparse(device: Device) -> Any:
    if device.is_cuda:
        from cupyx.scipy import sparse as on_device

        return on_device
    from scipy import sparse

    return sparse


def _type_of(weights: DeviceWeights) -> str:
    """The name of the type of a block's weights."""
    if isinstance(weights, DeviceCSR):
        return dtype_name(weights.data.dtype)
    return dtype_name((weights.weights if isinstance(weights, HostBlock) else weights).dtype)


def _nbytes(weights: DeviceWeights) -> int:
    if isinstance(weights, HostBlock):
        return 0
    if isinstance(weights, DeviceCSR):
        return weights.nbytes
    n_rows, n_columns = weights.shape
    return int(n_rows * n_columns) * np.dtype(dtype_name(weights.dtype)).itemsize


def bytes_on(device: Device, weights: Any) -> int:
    """What a block of the host takes on a device."""
    if isinstance(weights, np.ndarray):
        itemsize = weights.dtype.itemsize if device.has_scipy else max(4, weights.dtype.itemsize)
        return int(weights.size) * int(itemsize)
    if not device.has_scipy:
        return int(weights.shape[0]) * int(weights.shape[1]) * int(weights.dtype.itemsize)
    return _bytes_of_csr(weights)


def _bytes_of_csr(weights: Any) -> int:
    """Both ways, in the type of the weights and in float32."""
    n_stored, n_rows = int(weights.data.shape[0]), int(weights.shape[0])
    per_entry = 4 + (4 if weights.data.dtype == np.float32 else 12)
    return 2 * (n_stored * per_entry + 4 * (n_rows + 1))
