"""`residual="readers"`: the inputs of each reader are vertices of their own.

A sum connects every operation that writes a part of it to every later one that reads it, as
in the paper's graphs of residual networks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ncut.extract.layout import (
    Edges,
    Layout,
    PlannedLayer,
    grouping,
    in_order,
    magnitudes,
    rescalable,
)
from ncut.extract.magnitudes import both_ways, columns_taken, transposed, with_columns_scaled
from ncut.extract.signal import Group, Scale, Units
from ncut.extract.wiring import Operation, Wiring

if TYPE_CHECKING:
    from ncut.types import Weights


@dataclass(frozen=True, slots=True, eq=False)
class _Reading:
    """The vertices at an operation's inputs.

    Attributes
    ----------
    position : int
        The layer's position.
    places : ndarray of int64, shape (n_in,)
        The vertex of each input: inputs at which the same neurons arrive are one.
    first : ndarray of int64, shape (n,)
        The first input of each vertex.
    """

    position: int
    places: NDArray[np.int64]
    first: NDArray[np.int64]


def by_reader(wiring: Wiring, kept: set[Operation], norm: str, *, inputs: bool) -> Layout:
    """Plan the graph of the operations `kept`, with or without the model's inputs as vertices."""
    layout = Layout()
    written = {operation.writes for operation in kept}
    writers: dict[Group, list[Operation]] = {}
    for operation in wiring.operations:
        if operation.writes:
            writers.setdefault(operation.writes, []).append(operation)
    readings: dict[Operation, _Reading] = {}
    names: set[str] = set()
    for operation in wiring.operations:
        from_kept = any(part.group in written for part in operation.parts)
        if not from_kept and not (inputs and operation in kept):
            continue
        readings[operation] = _reading(operation, len(layout.layers))
        layout.layers.append(_layer(operation, readings[operation], wiring, writers, names))
    for operation in wiring.operations:
        if operation in kept and operation in readings:
            _connect(layout, operation, readings, norm)
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
    # Number the vertices in the order in which the inputs come.
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(order.size)
    return _Reading(position, rank[places.ravel()], first[order])


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


def _connect(
    layout: Layout, operation: Operation, readings: dict[Operation, _Reading], norm: str
) -> None:
    own = readings[operation]
    group_rows = grouping(own.places, own.first.size, norm)
    matrix: list[Weights] = []

    def rows() -> Weights:
        # Made when the first block is, and shared by all.
        if not matrix:
            matrix.append(group_rows(magnitudes(operation, norm)))
        return matrix[0]

    for reader, reading in readings.items():
        for part in reader.parts:
            if part.group is not operation.writes:
                continue
            units = part.units[reading.first]
            scale = None if part.scale is None else part.scale[reading.first]
            whole = np.array_equal(units[:, 0], np.arange(part.group.size))
            layout.placed.add(operation)
            layout.edges.append(
                Edges(
                    source=own.position,
                    target=reading.position,
                    label=operation.name,
                    operation=operation,
                    grouped=group_rows,
                    weights=_block(rows, units, scale, norm),
                    whole=whole and units.shape[1] == 1,
                )
            )
            if operation.within is not None:
                within = operation.within
                layout.edges.append(
                    Edges(
                        source=reading.position,
                        target=reading.position,
                        label=f"{operation.name} (recurrent)",
                        operation=operation,
                        grouped=group_rows,
                        weights=_within(within, units, scale, norm),
                        whole=False,
                    )
                )


def _block(
    rows: Callable[[], Weights], units: Units, scale: Scale | None, norm: str
) -> Callable[[], Weights]:
    def weights() -> Weights:
        if scale is None:
            return columns_taken(rows(), units, norm)
        if scale.shape[1] == 1:
            return with_columns_scaled(columns_taken(rows(), units, norm), scale[:, 0])
        # Each of several neurons of an input has a factor of its own.
        scaled = [
            with_columns_scaled(columns_taken(rows(), units[:, [m]], norm), scale[:, m])
            for m in range(units.shape[1])
        ]
        total: Weights = scaled[0]
        for other in scaled[1:]:
            total = total + other
        return total

    return weights


def _within(
    within: NDArray[np.floating], units: Units, scale: Scale | None, norm: str
) -> Callable[[], Weights]:
    """Edges between the neurons of one layer, both directions together, above the diagonal."""

    def weights() -> Weights:
        taken = columns_taken(np.ascontiguousarray(within), units, norm)
        if scale is not None:
            taken = with_columns_scaled(taken, scale.mean(axis=1))
        return both_ways(columns_taken(transposed(taken), units, norm))

    return weights


def _set_rescalable(
    layout: Layout,
    wiring: Wiring,
    kept: set[Operation],
    readings: dict[Operation, _Reading],
) -> None:
    """A layer may be rescaled if one operation writes it for one reader alone."""
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
