"""A graph as one dense matrix on a device: a product is a few operations, whatever its blocks.

A GPU computes the product of a small block sooner than the host can ask for the next one, so that
many blocks cost their number, not their size.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ncut.device.devices import astype, concat, dtype_name
from ncut.device.weights import DeviceCSR

if TYPE_CHECKING:
    from ncut.device.graph import DeviceBlock, DeviceGraph

BYTES_PER_BLOCK = 2**28
"""Of the matrix, for each block, at most: an H100 reads about as much while four are launched."""

PER_CELL = 12
"""Bytes for each entry: it is kept in float32 and in float64."""


class Packed:
    """The adjacency matrix with the vertices of each of the graph's groups side by side.

    Of a graph of two colours only the C of A = [[0, C], [C', 0]] is kept.

    Attributes
    ----------
    row_layers, column_layers : dict of int to int
        The layers along each axis, with their first row and column.
    """

    def __init__(self, graph: DeviceGraph) -> None:
        # Not the graph, which has this: what holds itself is not freed in time.
        self._xp, self._halved = graph.device.xp, graph.is_bipartite
        self._sizes = [layer.size for layer in graph.layers]
        self._starts = [0, *itertools.accumulate(graph.group_sizes)]
        if self._halved:
            self.row_layers, self.column_layers = graph.groups
        else:
            placed = zip(graph.groups, self._starts, strict=False)
            everyone = {layer: at + start for group, at in placed for layer, start in group.items()}
            self.row_layers = self.column_layers = everyone
        n_rows, n_columns = _shape(graph)
        dtype = self._xp.float64 if graph.has_float64 else self._xp.float32
        matrix = self._xp.zeros((n_rows, n_columns), dtype=dtype)
        for block in graph.blocks:
            for some, part in _dense(graph, block, dtype):
                for rows, columns, values in (
                    (self.rows(block.source, some), self.columns(block.target), part),
                    (self.rows(block.target), self.columns(block.source, some), part.T),
                ):
                    if rows is not None and columns is not None:
                        there = matrix[rows, columns]
                        there += values
        self._matrices = {dtype_name(dtype): matrix}

    def rows(self, layer: int, some: slice | None = None) -> slice | None:
        """The rows of a layer, or some of these; None if it lies along the columns."""
        return _within(self.row_layers.get(layer), self._sizes[layer], some)

    def columns(self, layer: int, some: slice | None = None) -> slice | None:
        """The same for columns."""
        return _within(self.column_layers.get(layer), self._sizes[layer], some)

    def matrix(self, dtype: Any) -> Any:
        """The matrix in float32 or float64; kept."""
        name = dtype_name(dtype)
        if name not in self._matrices:
            (stored,) = self._matrices.values()
            self._matrices[name] = astype(stored, dtype, self._xp)
        return self._matrices[name]

    def from_group(self, x: Any, here: int) -> list[Any]:
        """A x by group, for x with the rows of one group and zero for the others.

        Of a graph of two colours None for the group itself.
        """
        matrix = self.matrix(x.dtype)
        if self._halved:
            return [None, matrix.T @ x] if here == 0 else [matrix @ x, None]
        # Whole rows, which a transposed product can use as they lie there.
        return self._by_group(matrix[self._starts[here] : self._starts[here + 1], :].T @ x)

    def multiply(self, parts: list[Any]) -> list[Any]:
        """A x, where x and the product are given by the rows of each group."""
        matrix = self.matrix(parts[0].dtype)
        if self._halved:
            return [matrix @ parts[1], matrix.T @ parts[0]]
        return self._by_group(matrix @ concat(parts, self._xp))

    def _by_group(self, x: Any) -> list[Any]:
        return [x[start:stop, :] for start, stop in itertools.pairwise(self._starts)]


def fits(graph: DeviceGraph) -> bool:
    """Whether a graph had better be packed: few bytes for so many blocks, and there is room."""
    pairs = {frozenset((block.source, block.target)) for block in graph.blocks}
    if not graph.is_resident or len(pairs) < len(graph.blocks):
        return False
    n_rows, n_columns = _shape(graph)
    left = graph.device.budget - graph.resident_bytes
    return PER_CELL * n_rows * n_columns <= min(BYTES_PER_BLOCK * len(graph.blocks), left // 2)


def _shape(graph: DeviceGraph) -> tuple[int, int]:
    if not graph.is_bipartite:
        return graph.n_vertices, graph.n_vertices
    n_rows, n_columns = graph.group_sizes
    return n_rows, n_columns


def _dense(graph: DeviceGraph, block: DeviceBlock, dtype: Any) -> Iterator[tuple[slice, Any]]:
    """A block's rows as dense arrays, some at a time."""
    if isinstance(block.weights, DeviceCSR):  # without the transpose that products would need
        yield slice(0, block.weights.shape[0]), block.weights.matrix(graph.device, dtype).toarray()
        return
    for tile in graph.tiles(block, dtype):
        yield slice(tile.start, tile.stop), tile.forward


def _within(first: int | None, size: int, some: slice | None) -> slice | None:
    if first is None:
        return None
    start, stop = (0, size) if some is None else (some.start, some.stop)
    return slice(first + start, first + stop)
