"""A network's graph whose edges are functions of its current weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ncut.errors import InputError
from ncut.extract.assembly.assemble import check_options, plan
from ncut.extract.assembly.layout import Edges, Layout, Numbers, block
from ncut.extract.assembly.magnitudes import is_dense, of_slices
from ncut.extract.lowering.kinds import lower
from ncut.extract.lowering.signal import times
from ncut.extract.modules import unwrapped
from ncut.extract.readers.traced.module import read_module
from ncut.extract.readers.traced.plain import wide
from ncut.graphs.colouring import coloured
from ncut.training.parameter_refs import Computed, Copy, Factors, View
from ncut.training.spectrum_types import EdgeWeights, constant


@dataclass(frozen=True, slots=True)
class LiveLayer:
    """A layer of vertices: its name and its place in the numbering."""

    name: str
    start: int
    size: int

    @property
    def slice(self) -> slice:
        """The layer's vertices."""
        return slice(self.start, self.start + self.size)


class _Ends(NamedTuple):
    """The input of each entry of a kernel's norms (out, in / groups), and the edges.

    entries, outputs: the entry and the factor of each edge; rows, columns: the vertices it joins.
    """

    inputs: NDArray[np.int64]
    entries: NDArray[np.int64]
    outputs: NDArray[np.int64]
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]


@dataclass(eq=False)
class LiveEdges:
    """The edges of one operation between two layers, as a function of live tensors.

    Attributes
    ----------
    edges : Edges
        The edges planned by the extraction.
    weight : View or Computed
        The operation's weight.
    rows, columns : Factors, optional
        Factors of the operation's inputs, and of its outputs at each vertex.
    norm : str
        Norm of kernel slices, and of several weights between two vertices.
    """

    edges: Edges
    weight: View | Computed
    rows: Factors | None
    columns: Factors | None
    norm: str

    def edge_weights(self, source: int, target: int) -> EdgeWeights:
        """The edges, between vertices numbered from `source` and from `target`."""
        edges = self.edges
        operation = edges.operation
        grouped = operation.kind == "conv" and operation.groups > 1 and not edges.recurrent
        if grouped and not is_dense(operation.groups, operation.n_in, self.weight.shape[0]):
            return self._entries(source, target)
        if self._straight and isinstance(self.weight, View):
            return EdgeWeights(wide(self.weight.source.tensor()), target, source)
        weight = self.weight.tensor()
        rows = [] if self.rows is None else [self.rows.tensor(weight)]
        columns = self.columns and self.columns.tensor(weight).reshape(edges.units.shape)
        made = block(edges, Numbers(weight, rows, columns), self.norm)
        return EdgeWeights(made, source, target)

    @cached_property
    def _straight(self) -> bool:
        """Return whether the block is itself a parameter (out, in), such as that of `nn.Linear`."""
        edges = self.edges
        return (
            self.weight.kind == "transpose"
            and edges.operation.kind != "conv"
            and edges.source != edges.target
            and self.rows is None
            and self.columns is None
            and edges.places is None
            and np.array_equal(edges.units, np.arange(self.weight.shape[1])[:, None])
        )

    def _entries(self, source: int, target: int) -> EdgeWeights:
        """The edges of a convolution in many groups, one by one."""
        weight = self.weight.tensor()
        values = of_slices(weight, self.norm, self.edges.operation.name)
        found = self._ends
        inputs, entries, outputs = (
            constant(index, values.device) for index in (found.inputs, found.entries, found.outputs)
        )
        if self.rows is not None:
            values = values * self.rows.tensor(values)[inputs].reshape(values.shape)
        weights = values.reshape(-1)[entries]
        if self.columns is not None:
            weights = weights * self.columns.tensor(values)[outputs]
        rows = constant(found.rows, values.device) + source
        columns = constant(found.columns, values.device) + target
        return EdgeWeights(weights, rows=rows, columns=columns)

    @cached_property
    def _ends(self) -> _Ends:
        """Source and target vertices of the edges of a convolution in many groups."""
        edges = self.edges
        n_out, per_group = self.weight.shape[:2]
        out = np.arange(n_out)
        group = out // (n_out // edges.operation.groups)
        inputs = (group[:, None] * per_group + np.arange(per_group)).ravel()
        places = np.arange(edges.n_source)[:, None] if edges.places is None else edges.places
        vertex, column = np.nonzero(edges.units >= 0)
        mine = edges.units[vertex, column][:, None] * per_group + np.arange(per_group)
        ends = places[inputs[mine]]  # (outputs at vertices, in / groups, ways)
        here = ends >= 0
        if edges.source == edges.target:
            here &= ends != vertex[:, None, None]
        k, entry, way = np.nonzero(here)
        factor = vertex * edges.units.shape[1] + column
        return _Ends(inputs, mine[k, entry], factor[k], ends[k, entry, way], vertex[k])


class LiveGraph:
    """A connected part of a network's graph.

    Attributes
    ----------
    layers : list of LiveLayer
        In the order of the forward pass.
    n : int
        Vertices.
    n_first : int
        Vertices of the first colour, which come first in the numbering, if all edges join two
        colours; else 0.
    edges : list of LiveEdges
        With `source` and `target` as positions in `layers`.
    """

    def __init__(
        self,
        names: Sequence[str],
        sizes: Sequence[int],
        pairs: Sequence[tuple[int, int]],
        copied: Copy | None = None,
    ) -> None:
        starts, n_first = numbered(sizes, pairs)
        self.layers = [
            LiveLayer(name, int(start), int(size))
            for name, start, size in zip(names, starts, sizes, strict=True)
        ]
        self.n = int(sum(sizes))
        self.n_first = n_first
        self.edges: list[LiveEdges] = []
        self._ends: list[tuple[int, int]] = []
        self._copied = copied

    def add(self, edges: LiveEdges, source: int, target: int) -> None:
        """Add edges between two of the layers."""
        self.edges.append(edges)
        self._ends.append((source, target))

    def layer_of(self, vertex: int) -> str:
        """Name of a vertex's layer."""
        return next(
            layer.name for layer in self.layers if layer.start <= vertex < layer.start + layer.size
        )

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.edges[0].weight.device

    @torch.no_grad()
    def modules(self) -> set[nn.Module]:
        """The model's modules that hold the tensors of the edges."""
        self.edge_weights()
        weights = [edges.weight for edges in self.edges]
        viewed = {weight.source.module for weight in weights if isinstance(weight, View)}
        return viewed if self._copied is None else viewed | self._copied.used

    def edge_weights(self) -> list[EdgeWeights]:
        """The current edges, of one type."""
        if self._copied is not None:
            self._copied.check_ties()
        blocks = [
            edges.edge_weights(self.layers[source].start, self.layers[target].start)
            for edges, (source, target) in zip(self.edges, self._ends, strict=True)
        ]
        return of_one_type(blocks)


def of_one_type(blocks: list[EdgeWeights]) -> list[EdgeWeights]:
    """The blocks in float64 if any of them is, else in float32."""
    kinds = {block.weights.dtype for block in blocks}
    if kinds == {torch.float32} or kinds == {torch.float64}:
        return blocks
    dtype = torch.float64 if torch.float64 in kinds else torch.float32
    return [block._replace(weights=block.weights.to(dtype)) for block in blocks]


def live_graphs(
    model: nn.Module,
    *,
    layers: Sequence[str] | None = None,
    scope: str = "paper",
    norm: str = "l1",
    residual: str | None = None,
    example_inputs: Any = None,
    apart: bool = True,
) -> list[LiveGraph]:
    """The graphs of a model, one for each part without edges to the others.

    Parameters are the same as for `ncut.graph`, except `layers`: names or patterns
    ("blocks.*.mlp.*") of the modules whose weights count; by default all. With `apart=False` all
    parts are one graph.

    Raises
    ------
    InputError
        If no weights are left, or one is computed in a way that cannot be followed.
    """
    planned = Planned(
        model, scope=scope, norm=norm, residual=residual, example_inputs=example_inputs
    )
    return graphs_of(planned, layers, apart=apart)


def graphs_of(
    planned: Planned, layers: Sequence[str] | None = None, *, apart: bool = True
) -> list[LiveGraph]:
    """The graphs of a model already read, one for each part; see `live_graphs`."""
    layout = planned.layout
    chosen = _chosen(layout, layers)
    found = []
    parts = _parts(layout, chosen)
    for positions in parts if apart else [set().union(*parts)]:
        part = [number for number in chosen if layout.edges[number].source in positions]
        order = sorted(positions)
        at = {position: number for number, position in enumerate(order)}
        graph = LiveGraph(
            [layout.layers[position].name for position in order],
            [layout.layers[position].size for position in order],
            [(at[layout.edges[n].source], at[layout.edges[n].target]) for n in part],
            planned.copied,
        )
        for number in part:
            edges = layout.edges[number]
            graph.add(planned.live(number), at[edges.source], at[edges.target])
        found.append(graph)
    return found


class Planned:
    """The components of a model's graph, and the source of each.

    Attributes
    ----------
    model : nn.Module
        The model itself, without wrappers.
    layout : Layout
        Layers of vertices and edges between them.
    copied : Copy
        The copy of the model that was read.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        scope: str,
        norm: str = "l1",
        residual: str | None = None,
        example_inputs: Any = None,
    ) -> None:
        check_options(scope, norm, residual)
        if not isinstance(model, nn.Module):
            raise InputError(f"model: must be a torch.nn.Module, got {type(model).__name__}")
        self.model = unwrapped(model)
        self._norm = norm
        self.copied = Copy(self.model)

        wiring = read_module(
            self.copied.model, partial(lower, residual=residual), example_inputs=example_inputs
        )
        self.layout: Layout = plan(wiring, scope=scope, norm=norm, name=type(self.model).__name__)

    def array(self, number: int) -> View | Computed:
        """The weights of edges as an array of the model's tensors."""
        edges = self.layout.edges[number]
        return self.copied.array(edges.weight, edges.operation.name)

    def view(self, number: int) -> View | None:
        """The tensor that contains the weights of edges; None if they are computed."""
        found = self.array(number)
        return None if isinstance(found, Computed) or self.layout.edges[number].recurrent else found

    def columns(self, number: int) -> Factors | None:
        """Factors of the outputs at each vertex, (vertices * m,)."""
        scale = self.layout.edges[number].scale
        return None if scale is None else Factors(scale, self.copied)

    def rows(self, number: int) -> Factors | None:
        """Factors of the inputs, (n_in,)."""
        edges = self.layout.edges[number]
        factors = times(edges.operation.factors, edges.row_scale)
        return None if factors is None else Factors(factors, self.copied)

    def live(self, number: int) -> LiveEdges:
        """Edges as a function of the model's tensors."""
        edges = self.layout.edges[number]
        rows = self.rows(number)
        return LiveEdges(edges, self.array(number), rows, self.columns(number), self._norm)


def _chosen(layout: Layout, layers: Sequence[str] | None) -> list[int]:
    """Numbers of the edges of the selected modules."""
    if layers is None:
        return [*range(len(layout.edges))]
    if isinstance(layers, str):
        raise InputError(f"layers: must be a sequence of names, got the string {layers!r}")
    names = [{edges.operation.module, edges.operation.name} for edges in layout.edges]
    for pattern in layers:
        if not any(fnmatchcase(name, pattern) for ours in names for name in ours):
            known = ", ".join(sorted({edges.operation.module for edges in layout.edges}))
            raise InputError(f"layers: {pattern!r} matches none of the graph's layers: {known}")
    return [
        number
        for number, ours in enumerate(names)
        if any(fnmatchcase(name, pattern) for name in ours for pattern in layers)
    ]


def _parts(layout: Layout, chosen: Sequence[int]) -> list[set[int]]:
    """Sets of layers that edges connect."""
    part: dict[int, set[int]] = {}
    for number in chosen:
        edges = layout.edges[number]
        joined = part.get(edges.source, {edges.source}) | part.get(edges.target, {edges.target})
        for position in joined:
            part[position] = joined
    unique = {id(positions): positions for positions in part.values()}
    return sorted(unique.values(), key=min)


def numbered(
    sizes: Sequence[int], pairs: Sequence[tuple[int, int]]
) -> tuple[NDArray[np.int64], int]:
    """The first vertex of each layer, the larger colour numbered first, and its number of vertices.

    0 if no colouring gives each pair of connected layers two colours.
    """
    colours = coloured(len(sizes), pairs)
    order, n_first = [*range(len(sizes))], 0
    if colours is not None:
        sides = [[layer for layer in order if colours[layer] == side] for side in (0, 1)]
        sides.sort(key=lambda side: -sum(sizes[layer] for layer in side))
        order, n_first = sides[0] + sides[1], sum(sizes[layer] for layer in sides[0])
    starts = np.empty(len(sizes), dtype=np.int64)
    starts[order] = np.concatenate([[0], np.cumsum([sizes[layer] for layer in order])])[:-1]
    return starts, n_first
