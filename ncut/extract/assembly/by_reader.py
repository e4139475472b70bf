"""`residual="readers"`: each reader has separate vertices for its inputs.

A sum connects every operation that writes a part of it to every later operation that reads it,
as in the paper's graphs of residual networks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncut.extract.assembly.layout import Edges, Layout, PlannedLayer, in_order, rescalable
from ncut.extract.lowering.signal import NOTHING, Group, Part
from ncut.extract.lowering.wiring import Operation, Wiring


@dataclass(frozen=True, slots=True, eq=False)
class _Reading:
    """The vertices at an operation's inputs.

    Attributes
    ----------
    position : int
        The layer's position.
    places : ndarray of int64, shape (n_in,)
        The vertex of each input, shared by inputs with the same neurons; `NOTHING` for inputs
        without neurons.
    first : ndarray of int64, shape (n,)
        The first input of each vertex.
    known : bool
        Whether the layer belongs to an earlier reader of the same neurons.
    """

    position: int
    places: NDArray[np.int64]
    first: NDArray[np.int64]
    known: bool = False


def by_reader(wiring: Wiring, kept: set[Operation], *, inputs: bool) -> Layout:
    """Plan the graph of the operations `kept`, with or without the model's inputs as vertices."""
    layout = Layout()
    written = {operation.writes for operation in kept}
    writers: dict[Group, list[Operation]] = {}
    for operation in wiring.operations:
        if operation.writes:
            writers.setdefault(operation.writes, []).append(operation)
    readings: dict[Operation, _Reading] = {}
    names: set[str] = set()
    earlier: dict[tuple[Any, ...], int] = {}
    there: dict[Group, NDArray[np.bool_]] = {}
    for operation in wiring.operations:
        from_kept = any(part.group in written for part in operation.parts)
        if not from_kept and not (inputs and operation in kept):
            continue
        reading = _reading(operation, len(layout.layers))
        if operation.kind in ("output", "heads"):
            reading = replace(reading, first=reading.first[~_known(operation, reading, there)])
            if not reading.first.size:
                continue
        key = _neurons(operation, reading)
        if operation.kind == "heads" and key in earlier:
            continue  # the same products at another step
        if key in earlier and _shares(operation, wiring):
            reading = replace(reading, position=earlier[key], known=True)
            _touch(layout.layers[reading.position], operation, reading)
        else:
            layout.layers.append(_layer(operation, reading, wiring, writers, names))
            earlier[key] = reading.position
        _note_neurons(operation, reading, there)
        readings[operation] = reading
    for operation in wiring.operations:
        if operation in kept and operation in readings:
            _connect(layout, operation, readings)
    _set_rescalable(layout, wiring, kept, readings)
    return layout


def _reading(operation: Operation, position: int) -> _Reading:
    if not operation.parts:
        everyone = np.arange(operation.n_in)
        return _Reading(position, everyone, everyone)
    columns = np.concatenate([part.units for part in operation.parts], axis=1)
    if columns.shape[1] == 1 and np.array_equal(columns[:, 0], np.arange(operation.n_in)):
        return _Reading(position, columns[:, 0], columns[:, 0])
    _, first, places = np.unique(columns, axis=0, return_index=True, return_inverse=True)
    # Number the vertices in the order of the inputs.
    order = np.argsort(first)
    order = order[(columns[first[order]] != NOTHING).any(axis=1)]
    rank = np.full(first.size, NOTHING)
    rank[order] = np.arange(order.size)
    return _Reading(position, rank[places.ravel()], first[order])


def _neurons(operation: Operation, reading: _Reading) -> tuple[Any, ...]:
    """The neurons and factors at each vertex, as a key: equal for readers of the same neurons."""
    return (
        reading.first.size if operation.parts else operation,
        *(
            (
                part.group,
                part.units[reading.first].tobytes(),
                None if part.scale is None else part.scale[reading.first].tobytes(),
            )
            for part in operation.parts
        ),
    )


def _single(operation: Operation, reading: _Reading) -> NDArray[np.bool_]:
    """For each vertex, whether the neurons of only one layer arrive."""
    arriving = [(part.units[reading.first] != NOTHING).sum(axis=1) for part in operation.parts]
    return np.asarray(np.sum(arriving, axis=0) == 1)


def _known(
    operation: Operation, reading: _Reading, there: dict[Group, NDArray[np.bool_]]
) -> NDArray[np.bool_]:
    """Vertices at which a single neuron arrives that already is a vertex."""
    known = np.zeros(reading.first.size, dtype=bool)
    for part in operation.parts:
        units = part.units[reading.first].max(axis=1)
        if part.group in there:
            known |= (units != NOTHING) & there[part.group][units]
    return known & _single(operation, reading)


def _note_neurons(
    operation: Operation, reading: _Reading, there: dict[Group, NDArray[np.bool_]]
) -> None:
    """Record neurons that are vertices by themselves."""
    if not operation.parts:
        return
    single = _single(operation, reading)
    for part in operation.parts:
        units = part.units[reading.first][single].max(axis=1)
        mask = there.setdefault(part.group, np.zeros(part.group.size, dtype=bool))
        mask[units[units != NOTHING]] = True


def _shares(operation: Operation, wiring: Wiring) -> bool:
    """Check whether an operation may share vertices with another reader of the same neurons.

    Fully connected and recurrent layers do in a network without sums; convolutions have separate
    input channels. Outputs and reductions have vertices only for neurons without any so far, and
    for sums.
    """
    if operation.kind in ("output", "heads"):
        return False
    convolves = operation.kind == "conv" and operation.on_positions and operation.within is None
    return not (wiring.sums or wiring.attends or convolves or operation.kind == "embedding")


def _touch(layer: PlannedLayer, operation: Operation, reading: _Reading) -> None:
    """Record another reader of a layer."""
    if operation.kind in ("output", "heads", "embedding"):
        return
    layer.touches.append(operation)
    if in_order(reading.places, layer.size):
        layer.read_by = (*layer.read_by, operation.module)


def _layer(
    operation: Operation,
    reading: _Reading,
    wiring: Wiring,
    writers: dict[Group, list[Operation]],
    names: set[str],
) -> PlannedLayer:
    n = reading.first.size
    name = _name(operation, n, wiring)
    if name in names:
        name = f"{name} read by {operation.name}"
    names.add(name)
    touches = [writer for part in operation.parts for writer in writers.get(part.group, ())]
    reads = operation.kind not in ("output", "heads", "embedding")
    if reads:
        touches.append(operation)
    straight = reads and in_order(reading.places, n)
    return PlannedLayer(name, n, read_by=(operation.module,) if straight else (), touches=touches)


def _name(operation: Operation, n: int, wiring: Wiring) -> str:
    if operation.kind == "heads":
        return operation.name
    parts = operation.parts
    if all(part.group in wiring.inputs for part in parts):
        if operation.kind == "embedding":
            return f"rows of {operation.name}"
        return parts[0].group.name if parts else f"input of {operation.name}"
    if len(parts) == 1 and n == parts[0].group.size:
        return parts[0].group.name
    return "output" if operation.kind == "output" else f"input of {operation.name}"


def _connect(layout: Layout, operation: Operation, readings: dict[Operation, _Reading]) -> None:
    own = readings[operation]
    straight = np.array_equal(own.places, np.arange(own.first.size))
    for reading, part in _readers(operation, readings):
        units = part.units[reading.first]
        scale = None if part.scale is None else part.scale[reading.first]
        whole = np.array_equal(units[:, 0], np.arange(part.group.size))
        edges = Edges(
            source=own.position,
            target=reading.position,
            operation=operation,
            n_source=own.first.size,
            places=None if straight else own.places[:, None],
            units=units,
            scale=scale,
            whole=whole and units.shape[1] == 1,
        )
        layout.placed.add(operation)
        layout.edges.append(edges)
        if operation.within is not None:
            layout.edges.append(
                replace(edges, source=reading.position, recurrent=True, whole=False)
            )


def _readers(
    operation: Operation, readings: dict[Operation, _Reading]
) -> Iterator[tuple[_Reading, Part]]:
    """The readers of an operation's neurons."""
    for reader, reading in readings.items():
        if reading.known:
            continue
        for part in reader.parts:
            if part.group is operation.writes:
                yield reading, part


def _set_rescalable(
    layout: Layout,
    wiring: Wiring,
    kept: set[Operation],
    readings: dict[Operation, _Reading],
) -> None:
    """Mark layers as rescalable if one operation writes them for a single reader."""
    n_readers: dict[Group, int] = {}
    for operation in wiring.operations:
        for group in {part.group for part in operation.parts}:
            n_readers[group] = n_readers.get(group, 0) + 1
    recurrent = {o.writes for o in wiring.operations if o.within is not None}
    for operation, reading in readings.items():
        layer = layout.layers[reading.position]
        if operation.kind in ("output", "heads", "embedding"):
            continue
        groups = {part.group for part in operation.parts}
        alone = len(operation.parts) == 1 and all(n_readers[group] == 1 for group in groups)
        if alone and not groups & (wiring.inputs | recurrent):
            layer.rescalable = rescalable(part.homogeneous for part in operation.parts)
