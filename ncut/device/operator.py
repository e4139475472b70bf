"""M = D^-1/2 A D^-1/2 on a device: products with blocks of vectors, one colour at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncut.device.devices import dtype_name
from ncut.device.graph import DeviceGraph


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
        self.n_first = graph.group_sizes[0] if graph.is_bipartite else 0
        self.root_degrees: Any = graph.device.xp.sqrt(graph.degrees)
        self._scales: dict[tuple[str, int], Any] = {}
        self._side_scales: dict[tuple[str, int], list[Any]] = {}

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
        scale = self._side_scale(x.dtype, 1, 1)
        there = self.graph.half(scale * x, 0) * self._side_scale(x.dtype, 2, 0)
        return self.graph.half(there, 1) * scale

    def to_large(self, x: Any) -> Any:
        """C x on the larger side, for x of shape (n - n_first, any) on the smaller one."""
        there = self.graph.half(self._side_scale(x.dtype, 1, 1) * x, 0)
        return there * self._side_scale(x.dtype, 1, 0)

    def small_side(self, x: Any) -> Any:
        """The rows of the smaller side of an array with a row for each vertex."""
        return self.graph.grouped(x)[1]

    def joined(self, large: Any, small: Any) -> Any:
        """Arrays of both sides -> one with a row for each vertex."""
        return self.graph.joined((large, small))

    def _scale(self, dtype: Any, power: int) -> Any:
        """D^-power/2 as a column."""
        name = dtype_name(dtype)
        if (name, power) not in self._scales:
            scale: NDArray[np.float64] = self.graph.host_degrees ** (-power / 2)
            # Degrees may be so small that the scale is beyond single precision.
            scale = np.minimum(scale, np.finfo(name).max).astype(name)
            self._scales[name, power] = self.device.asarray(scale[:, None])
        return self._scales[name, power]

    def _side_scale(self, dtype: Any, power: int, side: int) -> Any:
        """The same for the vertices of one side."""
        key = dtype_name(dtype), power
        if key not in self._side_scales:
            self._side_scales[key] = self.graph.grouped(self._scale(dtype, power))
        return self._side_scales[key][side]
