"""M = D^-1/2 A D^-1/2 on a device: products with blocks of vectors, one colour at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncut.device.devices import dtype_name
from ncut.device.graph import DeviceGraph
from ncut.spectral.operator import in_own_unit


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
    degrees : ndarray of float64, shape (n,)
        On the host, in a unit of their own as on the CPU.
    root_degrees : device array of float64, shape (n,)
    """

    def __init__(self, graph: DeviceGraph) -> None:
        self.graph = graph
        self.device = graph.device
        self.n_vertices = graph.n_vertices
        self.n_first = graph.group_sizes[0] if graph.is_bipartite else 0
        self.degrees, self._exponent = in_own_unit(graph.host_degrees)
        self.root_degrees: Any = graph.device.asarray(np.sqrt(self.degrees))
        self._scales: dict[tuple[str, int, bool], Any] = {}
        self._side_scales: dict[tuple[str, int, bool], list[Any]] = {}

    @property
    def bipartite(self) -> bool:
        """Whether the layers have two colours."""
        return self.n_first > 0

    def apply(self, x: Any) -> Any:
        """M x, for a device array x of float32 or float64, shape (n, any)."""
        there = self.graph.product(self._scale(x.dtype, 1) * x)
        return there * self._scale(x.dtype, 1, after=True)

    def apply_gram(self, x: Any) -> Any:
        """C' C x, for x of shape (n - n_first, any): two products, half each."""
        there = self.graph.half(self._side_scale(x.dtype, 1, 1) * x, 0)
        there = there * self._side_scale(x.dtype, 2, 0, after=True)
        return self.graph.half(there, 1) * self._side_scale(x.dtype, 1, 1, after=True)

    def to_large(self, x: Any) -> Any:
        """C x on the larger side, for x of shape (n - n_first, any) on the smaller one."""
        there = self.graph.half(self._side_scale(x.dtype, 1, 1) * x, 0)
        return there * self._side_scale(x.dtype, 1, 0, after=True)

    def small_side(self, x: Any) -> Any:
        """The rows of the smaller side of an array with a row for each vertex."""
        return self.graph.grouped(x)[1]

    def joined(self, large: Any, small: Any) -> Any:
        """Arrays of both sides -> one with a row for each vertex."""
        return self.graph.joined((large, small))

    def _scale(self, dtype: Any, power: int, after: bool = False) -> Any:
        """D^-power/2 as a column; `after` a product, in the unit of A's weights."""
        name = dtype_name(dtype)
        key = name, power, after
        if key not in self._scales:
            scale: NDArray[np.float64] = self.degrees ** (-power / 2)
            scale = np.ldexp(scale, -self._exponent if after else 0)
            # Degrees may be so small that the scale is beyond single precision.
            scale = np.minimum(scale, np.finfo(name).max).astype(name)
            self._scales[key] = self.device.asarray(scale[:, None])
        return self._scales[key]

    def _side_scale(self, dtype: Any, power: int, side: int, after: bool = False) -> Any:
        """The same for the vertices of one side."""
        key = dtype_name(dtype), power, after
        if key not in self._side_scales:
            self._side_scales[key] = self.graph.grouped(self._scale(dtype, power, after))
        return self._side_scales[key][side]
