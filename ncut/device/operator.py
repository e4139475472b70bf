"""M = D^-1/2 A D^-1/2 on a device: products with blocks of vectors, one colour at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncut.device.devices import concat
from ncut.device.graph import DeviceGraph, dtype_name
from ncut.graphs.colouring import two_colours


class DeviceOperator:
    """The normalized adjacency matrix M of a graph on a device in which every vertex has edges.

    If the layers have two colours, then M = [[0, C], [C', 0]] with the vertices of the smaller
    side last, and all its eigenpairs follow from C' C: vectors of one side hold its layers one
    after the other. Vectors of all vertices are in the graph's numbering.

    Attributes
    ----------
    graph : DeviceGraph
    device : Device
    n_vertices : int
    n_first : int
        How many vertices the larger side has; 0 if the layers have not two colours.
    """

    def __init__(self, graph: DeviceGraph) -> None:
        self.graph = graph
        self.device = graph.device
        self.n_vertices = graph.n_vertices
        sides = _sides(graph)
        self._sides = [dict(zip(side, _starts(graph, side), strict=True)) for side in sides]
        self.n_first = sum(graph.layers[layer].size for layer in sides[0])
        self.root_degrees: Any = graph.device.xp.sqrt(graph.degrees)
        self._scales: dict[tuple[str, int], Any] = {}

    @property
    def bipartite(self) -> bool:
        """Whether the layers have two colours."""
        return self.n_first > 0

    def apply(self, x: Any) -> Any:
        """M x, for a device array x of float32 or float64, shape (n, any)."""
        scale = self._scale(x.dtype, 1)
        return self.graph.product(scale * x) * scale

    def apply_gram(self, x: Any) -> Any:
        """C' C x, for x of shape (n - n_first, any): two products, half each."""
        large, small = self._sides
        scale = self.side(self._scale(x.dtype, 1), small)
        there = self._half(scale * x, small, large)
        there = there * self.side(self._scale(x.dtype, 2), large)
        return self._half(there, large, small) * scale

    def to_large(self, x: Any) -> Any:
        """C x on the larger side, for x of shape (n - n_first, any) on the smaller one."""
        large, small = self._sides
        there = self._half(self.side(self._scale(x.dtype, 1), small) * x, small, large)
        return there * self.side(self._scale(x.dtype, 1), large)

    def small_side(self, x: Any) -> Any:
        """The rows of the smaller side of an array with a row for each vertex."""
        return self.side(x, self._sides[1])

    def side(self, x: Any, layers: dict[int, int]) -> Any:
        """The rows of some layers of an array with a row for each vertex."""
        parts = [x[self.graph.layers[layer].slice, :] for layer in layers]
        return concat(parts, self.device.xp)

    def joined(self, large: Any, small: Any) -> Any:
        """Arrays of both sides -> one with a row for each vertex."""
        rows: dict[int, Any] = {}
        for side, array in zip(self._sides, (large, small), strict=True):
            for layer, start in side.items():
                rows[layer] = array[start : start + self.graph.layers[layer].size, :]
        return concat([rows[layer] for layer in range(len(rows))], self.device.xp)

    def _half(self, x: Any, here: dict[int, int], there: dict[int, int]) -> Any:
        """The rows `there` of A x, for x with the rows `here`."""
        n_rows = sum(self.graph.layers[layer].size for layer in there)
        out = self.device.xp.zeros((n_rows, x.shape[1]), dtype=x.dtype)
        self.graph.multiply(x, here, out, there)
        return out

    def _scale(self, dtype: Any, power: int) -> Any:
        """D^-power/2 as a column."""
        name = dtype_name(dtype)
        if (name, power) not in self._scales:
            scale: NDArray[np.float64] = self.graph.host_degrees ** (-power / 2)
            # Degrees may be so small that the scale is beyond single precision.
            scale = np.minimum(scale, np.finfo(name).max).astype(name)
            self._scales[name, power] = self.device.asarray(scale[:, None])
        return self._scales[name, power]


def _sides(graph: DeviceGraph) -> list[list[int]]:
    """The layers of the larger and of the smaller colour; none and all without two colours."""
    colours = two_colours(graph.host)
    layers = range(len(graph.layers))
    if colours is None:
        return [[], list(layers)]
    sides = [[layer for layer in layers if colours[layer] == side] for side in (0, 1)]
    sides.sort(key=lambda side: -sum(graph.layers[layer].size for layer in side))
    return sides


def _starts(graph: DeviceGraph, side: list[int]) -> list[int]:
    """The first row of each layer of a side among that side's rows."""
    sizes = [graph.layers[layer].size for layer in side]
    return [int(start) for start in np.concatenate([[0], np.cumsum(sizes)])[: len(side)]]
