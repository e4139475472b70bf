"""M = D^-1/2 A D^-1/2 with its weights on a device, which computes the products."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncut.device.devices import Device, astype, dtype_name
from ncut.device.graph import VECTORS, DeviceGraph, copied
from ncut.graphs import NeuronGraph
from ncut.spectral.operator import Float, NormalizedAdjacency

BYTES_PER_PART = 2**28
"""Largest number of bytes per part for which the graph becomes one dense matrix; an H100 reads
about as much while the host launches the four operations of a part."""

FEW_PARTS = 2
"""Largest number of parts that are not combined into one matrix."""


def operator_of(graph: NeuronGraph | DeviceGraph, threads: int) -> NormalizedAdjacency:
    """The normalized adjacency of a graph without isolated vertices, on the graph's device."""
    if isinstance(graph, DeviceGraph):
        return DeviceOperator(graph, threads)
    return NormalizedAdjacency(graph, threads)


@dataclass(frozen=True, slots=True, eq=False)
class MatrixPart:
    """A rectangle of A, on the device or streamed from the host.

    Attributes
    ----------
    row, column : int
        The operator's numbers of its first vertices.
    weights : device array, sparse matrix of the device, ndarray or csr_array
    on_device : bool
    two_way : bool
        Whether it also represents its mirror image.
    """

    row: int
    column: int
    weights: Any
    on_device: bool
    two_way: bool = False

    @property
    def rows(self) -> slice:
        """Vertices along its rows."""
        return slice(self.row, self.row + self.weights.shape[0])

    @property
    def columns(self) -> slice:
        """Vertices along its columns."""
        return slice(self.column, self.column + self.weights.shape[1])

    def tiles(self, device: Device, dtype: Any) -> Iterator[tuple[int, int, Any]]:
        """Its rows as matrices of this type on the device: first row, last row, matrix.

        Weights on the device in this type are one tile; others are converted, or copied from the
        host, `device.tile_bytes` at a time.
        """
        n_rows = self.weights.shape[0]
        is_sparse = hasattr(self.weights, "indptr")
        if self.on_device and (is_sparse or self.weights.dtype == dtype):
            same = self.weights.dtype == dtype
            yield 0, n_rows, self.weights if same else self.weights.astype(dtype)
            return
        start = 0
        while start < n_rows:
            stop = self._end_of_tile(device, start, np.dtype(dtype_name(dtype)).itemsize)
            rows = self.weights[start:stop] if is_sparse else self.weights[start:stop, :]
            yield start, stop, _converted(device, rows, dtype, self.on_device)
            start = stop

    def _end_of_tile(self, device: Device, start: int, itemsize: int) -> int:
        """The row after a tile that starts here."""
        n_rows, n_columns = self.weights.shape
        if hasattr(self.weights, "indptr") and device.has_extras:
            indptr = self.weights.indptr
            limit = int(indptr[start]) + device.tile_bytes // (8 + 2 * itemsize)
            stop = int(np.searchsorted(indptr, limit, side="right")) - 1
        else:  # a row before and after it is converted
            stop = start + device.tile_bytes // (n_columns * (itemsize + 4))
        return int(min(max(stop, start + 1), n_rows))


class DeviceOperator(NormalizedAdjacency):
    """The normalized adjacency of a graph on a device, for vectors there and on the host.

    `apply` and `apply_gram` take and return device arrays, so that block Lanczos uses no others;
    everything else takes host arrays, which `multiply` copies both ways.
    """

    def __init__(self, graph: DeviceGraph, threads: int) -> None:
        super().__init__(graph.host, threads)
        self.arrays = self.device = graph.device
        self._columns: dict[tuple[str, int, bool], Any] = {}
        left = self.device.budget - graph.resident_bytes
        left -= 4 * VECTORS * self.n_vertices + 2 * self.device.tile_bytes
        self._parts = self._dense_parts(graph) + self._sparse_parts(left)
        if len(self._parts) > FEW_PARTS and all(part.on_device for part in self._parts):
            self._parts = self._packed(left // 2)

    def apply(self, x: Any) -> Any:
        """M x, for a device array x of float32 or float64, shape (n, any)."""
        everything = slice(0, self.n_vertices)
        there = self._product(x * self._column(x.dtype, 1, everything), 0, everything)
        return there * self._column(x.dtype, 1, everything, after=True)

    def apply_gram(self, x: Any) -> Any:
        """C' C x, for a device array x of shape (n - n_first, any): two products, half each."""
        large, small = slice(0, self.n_first), slice(self.n_first, self.n_vertices)
        there = self._product(x * self._column(x.dtype, 1, small), self.n_first, large)
        there = there * self._column(x.dtype, 2, large, after=True)
        return self._product(there, 0, small) * self._column(x.dtype, 1, small, after=True)

    def multiply(self, x: NDArray[Float], out: NDArray[Float], rows: slice, power: int = 1) -> None:
        """The host operator's `multiply` for host arrays; the device computes the product."""
        product = self._product(self.device.asarray(x), 0, rows)
        scaled = product * self._column(product.dtype, power, rows, after=True)
        out[rows] = self.device.to_host(scaled)

    def _product(self, x: Any, first: int, rows: slice) -> Any:
        """(A x)[rows], for x with the rows of vertices from `first` on, zero for other vertices."""
        given = slice(first, first + x.shape[0])
        out = self.device.xp.zeros((rows.stop - rows.start, x.shape[1]), dtype=x.dtype)
        for part in self._parts:
            forth = _inside(part.rows, rows) and _inside(part.columns, given)
            back = part.two_way and _inside(part.columns, rows) and _inside(part.rows, given)
            if not (forth or back):
                continue
            columns = part.columns
            for start, stop, tile in part.tiles(self.device, x.dtype):
                some = slice(part.row + start, part.row + stop)
                # Slices are views in all namespaces; `out[...] +=` would write everything twice.
                if forth:
                    there = out[_moved(some, rows.start), :]
                    there += tile @ x[_moved(columns, first), :]
                if back:
                    there = out[_moved(columns, rows.start), :]
                    there += tile.T @ x[_moved(some, first), :]
        return out

    def _column(self, dtype: Any, power: int, rows: slice, after: bool = False) -> Any:
        """D^-power/2 as a column; `after` a product, in the unit of A's weights."""
        key = dtype_name(dtype), power, after
        if key not in self._columns:
            exponent = -self._exponent if after else 0
            scale = self._scale_as(np.dtype(key[0]), power, exponent)
            self._columns[key] = self.device.asarray(scale[:, None])
        return self._columns[key][rows, :]

    def _dense_parts(self, graph: DeviceGraph) -> list[MatrixPart]:
        parts = []
        for block, there in zip(graph.host.blocks, graph.weights, strict=True):
            if not isinstance(block.weights, np.ndarray):
                continue
            row, column = (
                int(self.place[graph.host.layers[layer].start])
                for layer in (block.source, block.target)
            )
            weights = block.weights if there is None else there
            parts.append(MatrixPart(row, column, weights, there is not None, two_way=True))
        return parts

    def _sparse_parts(self, budget: int) -> list[MatrixPart]:
        """All sparse blocks together, by the rows of each colour; on the device if they fit."""
        from scipy import sparse

        indptr, indices, data = self._sparse
        if not data.size:
            return []
        whole = sparse.csr_array((data, indices, indptr), shape=(self.n_vertices,) * 2)
        first = self.n_first
        parts = [(0, 0, whole)]
        if self.bipartite:
            parts = [(0, first, whole[:first, first:]), (first, 0, whole[first:, :first])]
        fits = self.device.has_extras and data.size < 2**31
        fits &= data.size * (4 + data.itemsize) + 4 * (self.n_vertices + 2) <= budget
        return [
            MatrixPart(row, column, _uploaded(self.device, part) if fits else part, fits)
            for row, column, part in parts
        ]

    def _packed(self, budget: int) -> list[MatrixPart]:
        """The graph as one dense matrix, if that is small for the number of parts; else its parts.

        A GPU computes the product of a small block faster than the host can launch the next.
        """
        xp, n = self.device.xp, self.n_vertices
        rows, columns = (self.n_first, n - self.n_first) if self.bipartite else (n, n)
        types = {dtype_name(part.weights.dtype) for part in self._parts}
        dtype = xp.float64 if "float64" in types else xp.float32
        n_bytes = rows * columns * (8 if "float64" in types else 4)
        if n_bytes > min(BYTES_PER_PART * len(self._parts), budget):
            return self._parts
        matrix = xp.zeros((rows, columns), dtype=dtype)
        first = self.n_first
        for part in self._parts:
            for start, stop, tile in part.tiles(self.device, dtype):
                some = slice(part.row + start, part.row + stop)
                dense = tile.toarray() if hasattr(tile, "indptr") else tile
                if part.row < first or not self.bipartite:
                    there = matrix[some, _moved(part.columns, first)]
                    there += dense
                if part.two_way and (part.column < first or not self.bipartite):
                    there = matrix[part.columns, _moved(some, first)]
                    there += dense.T
        return [MatrixPart(0, first, matrix, on_device=True, two_way=self.bipartite)]


def _inside(part: slice, whole: slice) -> bool:
    return bool(whole.start <= part.start and part.stop <= whole.stop)


def _moved(rows: slice, first: int) -> slice:
    return slice(rows.start - first, rows.stop - first)


def _converted(device: Device, rows: Any, dtype: Any, on_device: bool) -> Any:
    """Some rows as a device matrix in float32 or float64; uint16 holds bits of bfloat16."""
    if hasattr(rows, "indptr"):
        there = _uploaded(device, rows) if device.has_extras else device.asarray(rows.toarray())
        return there.astype(dtype) if device.has_extras else astype(there, dtype, device.xp)
    there = rows if on_device else copied(device, rows)
    if there.dtype != device.xp.uint16:
        return astype(there, dtype, device.xp)
    bits = there.astype(np.uint32) << 16  # only with 16-bit types: NumPy and CuPy
    return bits.view(np.float32).astype(dtype, copy=False)


def _uploaded(device: Device, matrix: Any) -> Any:
    """A sparse matrix on the device: cupyx's, or SciPy's on the host."""
    if not device.is_cuda:
        return matrix
    from cupyx.scipy import sparse

    indices, indptr = (one.astype(np.int32, copy=False) for one in (matrix.indices, matrix.indptr))
    parts = (device.asarray(one) for one in (matrix.data, indices, indptr))
    return sparse.csr_matrix(tuple(parts), shape=matrix.shape)
