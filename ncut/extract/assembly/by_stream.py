"""`residual="stream"`: summed neurons share one vertex.

The channels of a residual stream are vertices, connected to all its writers and readers, so the
number of edges grows linearly with depth, not quadratically.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ncut.extract.assembly.layout import Edges, Layout, PlannedLayer, in_order, rescalable
from ncut.extract.lowering.factors import Factors, of_units, ones
from ncut.extract.lowering.signal import NOTHING, Group, Part, Scale, Units
from ncut.extract.lowering.wiring import Operation, Wiring


@dataclass(slots=True, eq=False)
class _Plan:
    """The layers of vertices, and the vertices of each group's neurons."""

    wiring: Wiring
    layout: Layout = field(default_factory=Layout)
    layer_of: dict[Group, int] = field(default_factory=dict)
    place_of: dict[Group, NDArray[np.int64]] = field(default_factory=dict)
    input_units: dict[tuple[Group, bytes], NDArray[np.int64]] = field(default_factory=dict)
    input_layers: dict[tuple[Group, bytes], int] = field(default_factory=dict)
    column_scales: dict[Group, Scale] = field(default_factory=dict)
    uniform: set[Group] = field(default_factory=set)

    def add_layer(self, name: str, size: int) -> int:
        """Add a layer; return its position."""
        known = {layer.name for layer in self.layout.layers}
        self.layout.layers.append(PlannedLayer(name if name not in known else f"{name} #2", size))
        return len(self.layout.layers) - 1

    def vertices(self, group: Group, units: Units) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The layer of each neuron, and its index in the layer; -1 for none."""
        numbers, roots = self.wiring.merging.find(group, units)
        layers = np.full(units.shape, -1, dtype=np.int64)
        places = np.full(units.shape, -1, dtype=np.int64)
        for number in np.unique(numbers):
            root = self.wiring.groups[int(number)]
            if root not in self.layer_of:
                continue
            here = (numbers == number) & (roots != NOTHING)
            places[here] = self.place_of[root][roots[here]]
            layers[here] = np.where(places[here] >= 0, self.layer_of[root], -1)
        return layers, places


def by_stream(wiring: Wiring, kept: set[Operation], *, inputs: bool) -> Layout:
    """Plan the graph of the operations `kept`, with or without the model's inputs as vertices."""
    plan = _Plan(wiring)
    _fold_scales(plan)
    rows: dict[Operation, int] = {}
    for operation in wiring.operations:
        for part in operation.parts if operation in kept and inputs else ():
            if wiring.is_input(part.group):
                before = plan.input_units.get(_view(part), np.empty(0, dtype=np.int64))
                units = part.units[part.units != NOTHING]
                plan.input_units[_view(part)] = np.union1d(before, units)
    for operation in wiring.operations:
        if operation in kept and inputs:
            _input_layer(plan, operation, rows)
        if operation in kept and operation.writes:
            _written_layer(plan, operation.writes)
    for operation in wiring.operations:
        if operation in kept:
            _connect(plan, operation, rows)
    _set_roles(plan, kept)
    return plan.layout


def _input_layer(plan: _Plan, operation: Operation, rows: dict[Operation, int]) -> None:
    if operation.kind == "embedding":
        rows[operation] = plan.add_layer(f"rows of {operation.name}", operation.n_in)
    for part in operation.parts:
        if part.group not in plan.wiring.inputs:
            continue
        if plan.wiring.merging.has(part.group):
            _written_layer(plan, part.group)
            continue
        key = _view(part)
        if key not in plan.input_layers:
            size = plan.input_units[key].size
            plan.input_layers[key] = plan.add_layer(part.group.name, size)


def _view(part: Part) -> tuple[Group, bytes]:
    """A key for the way an input is read: whole, by channels, by patches and so on."""
    return part.group, part.units.tobytes() if part.pooled else b""


def _written_layer(plan: _Plan, group: Group) -> None:
    """Add a layer of the group's neurons that represent themselves or a sum."""
    if group in plan.layer_of:
        return
    merging = plan.wiring.merging
    everyone = np.arange(group.size)
    numbers, roots = merging.find(group, everyone)
    own = (numbers == group.number) & (roots == everyone)
    for copies in merging.copies:
        if copies.group is group:
            own[copies.units] = False
    if not own.any():
        # An older group represents the class, possibly a group that is not written here.
        for number in np.unique(numbers):
            older = plan.wiring.groups[int(number)]
            if older is not group:
                _written_layer(plan, older)
        return
    places = np.full(group.size, -1, dtype=np.int64)
    places[own] = np.arange(np.count_nonzero(own))
    plan.place_of[group] = places
    name = f"stream of {group.name}" if group in merging.sums else group.name
    plan.layer_of[group] = plan.add_layer(name, int(own.sum()))


def _fold_scales(plan: _Plan) -> None:
    """Move factors shared by all readers of a group into the weights that write it."""
    seen: dict[Group, list[Factors | None]] = {}
    for operation in plan.wiring.operations:
        for part in operation.parts:
            seen.setdefault(part.group, []).append(_per_neuron(part))
    for group, vectors in seen.items():
        if group in plan.wiring.merging.sums:
            continue
        first = vectors[0]
        if first is not None and all(
            vector is not None and np.array_equal(vector.codes, first.codes) for vector in vectors
        ):
            plan.column_scales[group] = first
            plan.uniform.add(group)
    for group, scale in plan.wiring.merging.scales.items():
        plan.column_scales[group] = scale


def _per_neuron(part: Part) -> Factors | None:
    if part.scale is None:
        return None
    vector = ones((part.group.size,), part.scale.ledger)
    used = part.units != NOTHING
    vector.codes[part.units[used]] = part.scale.codes[used]
    return vector


def _connect(plan: _Plan, operation: Operation, rows: dict[Operation, int]) -> None:
    assert operation.writes is not None
    n_out = operation.writes.size
    landings = _landings(plan, operation.writes)
    factors = plan.column_scales.get(operation.writes)
    if operation.within is not None:
        for position, landed in landings:
            plan.layout.edges.append(
                Edges(position, position, operation, landed.size, None, landed, recurrent=True)
            )
    for source in _sources(plan, operation, rows):
        for position, landed in landings:
            straight = np.array_equal(landed[:, 0], np.arange(n_out))
            plan.layout.placed.add(operation)
            plan.layout.edges.append(
                Edges(
                    source=source.position,
                    target=position,
                    operation=operation,
                    n_source=plan.layout.layers[source.position].size,
                    places=source.places,
                    units=landed,
                    row_scale=source.scale,
                    scale=None if factors is None else of_units(factors, landed),
                    whole=straight and source.position != position,
                )
            )


def _landings(plan: _Plan, group: Group) -> list[tuple[int, Units]]:
    """Layers with a group's neurons, and the neuron at each vertex, (n, 1), -1 for none.

    A layer occurs several times if several neurons share a vertex, such as a query's and a key's
    written by one matrix: their weights add up.
    """
    found: dict[tuple[int, int], Units] = {}

    def put(units: Units, layers: NDArray[np.int64], places: NDArray[np.int64]) -> None:
        for position in np.unique(layers[layers >= 0]):
            here = layers == position
            size = plan.layout.layers[int(position)].size
            ours, at = units[here], places[here]
            number = 0
            while ours.size:
                empty: Units = np.full(size, NOTHING, dtype=np.int64)
                landed = found.setdefault((int(position), number), empty)
                _, first = np.unique(at, return_index=True)
                first = first[landed[at[first]] == NOTHING]
                landed[at[first]] = ours[first]
                ours, at = np.delete(ours, first), np.delete(at, first)
                number += 1

    everyone = np.arange(group.size)
    put(everyone, *plan.vertices(group, everyone))
    for copies in plan.wiring.merging.copies:
        if copies.group is group:
            put(copies.units, *plan.vertices(copies.target, copies.target_units))
    return [(position, landed[:, None]) for (position, _), landed in found.items()]


@dataclass(frozen=True, slots=True, eq=False)
class _Source:
    """A layer that an operation reads.

    Attributes
    ----------
    position : int
        The layer's position.
    places : ndarray of int64, shape (n_in, m), optional
        The vertices of each row; None if rows and vertices coincide.
    scale : Factors, shape (n_in,), optional
        Factors of the rows.
    """

    position: int
    places: NDArray[np.int64] | None = None
    scale: Scale | None = None


def _sources(plan: _Plan, operation: Operation, rows: dict[Operation, int]) -> list[_Source]:
    """The layers that an operation reads, the vertices of its inputs, and their factors."""
    layers = plan.layout.layers
    if operation.kind == "embedding":
        return [_Source(rows[operation])] if operation in rows else []
    found: list[_Source] = []
    for part in operation.parts:
        scale = _row_scale(plan, part)
        key = _view(part)
        if key in plan.input_layers and not plan.wiring.merging.has(part.group):
            position, units = plan.input_layers[key], part.units[:, 0]
            at = np.searchsorted(plan.input_units[key], units)
            at = np.where(units == NOTHING, NOTHING, at)
            _mark(layers[position], operation, at)
            straight = np.array_equal(at, np.arange(layers[position].size))
            found.append(_Source(position, None if straight else at[:, None], scale))
            continue
        positions, places = plan.vertices(part.group, part.units)
        for position in np.unique(positions[positions >= 0]):
            here = np.where(positions == position, places, -1)
            _mark(layers[int(position)], operation, here[:, 0])
            size = layers[int(position)].size
            straight = here.shape == (size, 1) and np.array_equal(here[:, 0], np.arange(size))
            found.append(_Source(int(position), None if straight else here, scale))
    return found


def _row_scale(plan: _Plan, part: Part) -> Scale | None:
    if part.group in plan.uniform:
        return None
    written = plan.wiring.merging.scales.get(part.group)
    if written is None:
        return None if part.scale is None else part.scale.mean(1)
    # The vertex already has the factors with which its neurons enter a sum.
    ours = ones(part.units.shape, written.ledger) if part.scale is None else part.scale
    scale = ours.over(of_units(written, part.units))
    return None if not scale.codes.any() else scale.mean(1)


def _mark(layer: PlannedLayer, operation: Operation, places: NDArray[np.int64]) -> None:
    layer.touches.append(operation)
    if in_order(places, layer.size) and operation.module not in layer.read_by:
        layer.read_by = (*layer.read_by, operation.module)


def _set_roles(plan: _Plan, kept: set[Operation]) -> None:
    """Mark layers as rescalable if one operation writes all of it and one operation reads it."""
    writers: dict[int, list[Edges]] = {}
    for edges in plan.layout.edges:
        writers.setdefault(edges.target, []).append(edges)
        plan.layout.layers[edges.target].touches.append(edges.operation)
    readers: dict[Group, list[Part]] = {}
    for operation in plan.wiring.operations:
        for part in operation.parts:
            readers.setdefault(part.group, []).append(part)
    # Edges back to an earlier layer lose their direction.
    back = {edges.source for edges in plan.layout.edges if edges.source >= edges.target}
    for position, written in writers.items():
        if position in back:
            continue
        operations = {edges.operation for edges in written}
        group = written[0].operation.writes
        parts = readers.get(group, []) if group else []
        one = len(operations) == 1 and written[0].whole and len(parts) == 1
        if one and all(edges.source != position for edges in written):
            reader = plan.layout.layers[position]
            if any(o is not written[0].operation for o in reader.touches if o in kept):
                reader.rescalable = rescalable(part.homogeneous for part in parts)
