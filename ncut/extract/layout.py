"""What the two conventions of residual sums have in common: planned layers and edges."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ncut.extract.magnitudes import of_weight, rows_grouped, with_rows_scaled
from ncut.extract.wiring import Operation

if TYPE_CHECKING:
    from ncut.types import Weights


@dataclass(slots=True, eq=False)
class PlannedLayer:
    """A layer of vertices.

    Attributes
    ----------
    name : str
        Its name.
    size : int
        How many vertices it has.
    rescalable : bool or None
        Whether its neurons may be rescaled; see `ncut.types.Layer`.
    read_by : tuple of str
        Modules whose inputs are exactly these neurons, in order.
    touches : list of Operation
        What writes and reads it.
    """

    name: str
    size: int
    rescalable: bool | None = False
    read_by: tuple[str, ...] = ()
    touches: list[Operation] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class Edges:
    """The edges that an operation's weights make between two layers.

    Attributes
    ----------
    source, target : int
        Positions of the layers: of what it reads, and of where its neurons land.
    label : str
        The operation's name, for the block.
    operation : Operation
        Whose weights they are.
    grouped : callable
        Groups the rows of a matrix (n_in, columns) by the source's vertices.
    weights : callable
        Returns the block, (source size, target size).
    whole : bool
        Whether the block is the operation's whole matrix.
    """

    source: int
    target: int
    label: str
    operation: Operation
    grouped: Callable[[Weights], Weights]
    weights: Callable[[], Weights]
    whole: bool


@dataclass(slots=True)
class Layout:
    """Planned layers and edges, and the operations that have edges."""

    layers: list[PlannedLayer] = field(default_factory=list)
    edges: list[Edges] = field(default_factory=list)
    placed: set[Operation] = field(default_factory=set)


def magnitudes(operation: Operation, norm: str) -> Weights:
    """Magnitudes of an operation's weights, (n_in, n_out), factors of its inputs folded."""
    assert operation.weight is not None
    matrix = of_weight(operation.weight, operation.kind, operation.groups, norm, operation.name)
    return with_rows_scaled(matrix, operation.factors)


def grouping(places: NDArray[np.int64], n: int, norm: str) -> Callable[[Weights], Weights]:
    """A function that groups rows by their places."""
    return lambda matrix: rows_grouped(matrix, places, n, norm)


def in_order(places: NDArray[np.int64], n: int) -> bool:
    """Whether inputs are the neurons in order, each of them as often as all others."""
    per_neuron, rest = divmod(places.size, max(n, 1))
    return rest == 0 and np.array_equal(places, np.repeat(np.arange(n), per_neuron))


def rescalable(flags: Iterable[bool | None]) -> bool | None:
    """True if all are, None if some are not known, else False."""
    found = set(flags)
    if not found or False in found:
        return False
    return None if None in found else True
