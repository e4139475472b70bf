"""Planned layers and edges, common to the two conventions of residual sums."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial, reduce
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ncut.extract.assembly.magnitudes import (
    both_ways,
    columns_taken,
    of_weight,
    rows_grouped,
    transposed,
    with_columns_scaled,
    with_rows_scaled,
)
from ncut.extract.lowering.signal import Scale, Units
from ncut.extract.lowering.wiring import Operation
from ncut.extract.program.weights import Expression

if TYPE_CHECKING:
    from ncut.types import Weights

Key: TypeAlias = tuple[Any, ...]


@dataclass(slots=True, eq=False)
class PlannedLayer:
    """A layer of vertices."""

    name: str
    size: int
    rescalable: bool | None = False  # whether its neurons may be rescaled; see `ncut.types.Layer`
    read_by: tuple[str, ...] = ()  # modules whose inputs are exactly these neurons, in order
    touches: list[Operation] = field(default_factory=list)  # operations that write or read it


@dataclass(frozen=True, slots=True, eq=False)
class Edges:
    """The edges that an operation's weights make between two layers.

    Attributes
    ----------
    source, target : int
        Positions of the layers read and written.
    operation : Operation
        The operation with the weights.
    n_source : int
        Vertices of the source.
    places : ndarray of int64, shape (n_in, m), optional
        The vertices of each input, `NOTHING` for none; None if the inputs are the vertices.
    units : ndarray of int64, shape (n_target, m)
        The outputs at each vertex of the target, `NOTHING` for none.
    row_scale : Factors, shape (n_in,), optional
        Factors of the inputs in addition to the operation's.
    scale : Factors, shape (n_target, m), optional
        Factors of the outputs at each vertex.
    recurrent : bool
        Whether the weights are between the operation's outputs, `within`.
    whole : bool
        Whether the block is the operation's whole matrix.
    """

    source: int
    target: int
    operation: Operation
    n_source: int
    places: NDArray[np.int64] | None
    units: Units
    row_scale: Scale | None = None
    scale: Scale | None = None
    recurrent: bool = False
    whole: bool = False

    @property
    def label(self) -> str:
        """The block's name."""
        return f"{self.operation.name} (recurrent)" if self.recurrent else self.operation.name

    @property
    def weight(self) -> Expression:
        """The operation's weight, or that between its outputs."""
        weight = self.operation.within if self.recurrent else self.operation.weight
        assert weight is not None
        return weight

    @property
    def rows_key(self) -> Key:
        """A key, equal for edges with the same matrix before the selection of outputs."""
        return _key(self.operation, self.places, self.row_scale)

    @property
    def key(self) -> Key:
        """A key, equal for edges with the same block."""
        within = self.source == self.target
        return (self.rows_key, _key(self.operation, self.units, self.scale), self.recurrent, within)


@dataclass(slots=True)
class Layout:
    """Planned layers and edges."""

    layers: list[PlannedLayer] = field(default_factory=list)
    edges: list[Edges] = field(default_factory=list)
    placed: set[Operation] = field(default_factory=set)  # operations with edges
    # Operations that may have edges, and operations whose neurons have no reader.
    kept: set[Operation] = field(default_factory=set)
    unread: set[Operation] = field(default_factory=set)
    convolutional: bool = False  # whether only channels are vertices
    # Operations outside the requested part of the model
    outside: set[Operation] = field(default_factory=set)


class Numbers(NamedTuple):
    """The numbers of edges, as arrays of NumPy or as live tensors.

    weight: shape of the operation's weight, or of `within`. rows: factors of the inputs, (n_in,)
    each. columns: factors of the outputs at each vertex, the shape of `Edges.units`; None for 1.
    """

    weight: Any
    rows: Sequence[Any] = ()
    columns: Any = None


def blocks(edges: Sequence[Edges], norm: str) -> Iterator[tuple[Edges, Weights]]:
    """The edges with their blocks, (source size, target size), one at a time.

    Intermediate results shared by several blocks are computed once, and kept until the last use.
    """
    shared = _Shared()
    for each in edges:
        shared.expect(each.key)
    rows = _Shared()
    for key, each in {each.key: each for each in edges}.items():
        if not each.recurrent:
            rows.expect(key[0])

    def made(each: Edges) -> Any:
        numbers = _stored(each)
        if each.recurrent:
            return block(each, numbers, norm)
        return block(
            each, numbers, norm, rows.use(each.rows_key, lambda: _rows(each, numbers, norm))
        )

    for each in edges:
        found = shared.use(each.key, partial(made, each))
        yield each, found
        del found


def _stored(edges: Edges) -> Numbers:
    """The current numbers of edges."""
    rows = [np.asarray(f) for f in (edges.operation.factors, edges.row_scale) if f is not None]
    return Numbers(
        edges.weight.values, rows, None if edges.scale is None else np.asarray(edges.scale)
    )


def block(edges: Edges, numbers: Numbers, norm: str, rows: Any = None) -> Any:
    """The edges of an operation between two layers, (source size, target size).

    Within a layer, the edges are above the diagonal. `rows` are the magnitudes with factors of
    the inputs folded, if they are known.
    """
    if edges.recurrent:
        return _within(edges, numbers, norm)
    matrix = _rows(edges, numbers, norm) if rows is None else rows
    made = _taken(edges, matrix, numbers.columns, norm)
    return both_ways(made) if edges.source == edges.target else made


def grouped(edges: Edges, matrix: Any, norm: str) -> Any:
    """Rows of a matrix (n_in, columns) grouped by the source's vertices."""
    places = edges.places
    if places is None:
        return matrix
    if places.shape[1] == 1:
        return rows_grouped(matrix, places[:, 0], edges.n_source, norm)
    # An input that represents several neurons connects each of them.
    at, which = np.nonzero(places >= 0)
    return rows_grouped(matrix[at], places[at, which], edges.n_source, norm)


class _Shared:
    """Shared intermediate results, computed once and kept until their last use."""

    def __init__(self) -> None:
        self._uses: dict[Key, int] = {}
        self._made: dict[Key, Weights] = {}

    def expect(self, key: Key) -> None:
        """Announce a use."""
        self._uses[key] = self._uses.get(key, 0) + 1

    def use(self, key: Key, make: Callable[[], Weights]) -> Weights:
        """The result for a key, computed if missing."""
        made = self._made.pop(key, None)
        made = make() if made is None else made
        self._uses[key] -= 1
        if self._uses[key] > 0:
            self._made[key] = made
        return made


def _rows(edges: Edges, numbers: Numbers, norm: str) -> Any:
    """Magnitudes of the weights, (source size, n_out), factors of the inputs folded."""
    operation = edges.operation
    matrix = of_weight(numbers.weight, operation.kind, operation.groups, norm, operation.name)
    for factors in numbers.rows:
        matrix = with_rows_scaled(matrix, factors)
    return grouped(edges, matrix, norm)


def _taken(edges: Edges, rows: Any, factors: Any, norm: str) -> Any:
    """The columns of the outputs at each vertex, with their factors."""
    units = edges.units
    if factors is None:
        return columns_taken(rows, units, norm)
    # Each of several neurons of a vertex has a separate factor.
    parts = (
        with_columns_scaled(columns_taken(rows, units[:, [m]], norm), factors[:, m])
        for m in range(units.shape[1])
    )
    return reduce(operator.add, parts)


def _within(edges: Edges, numbers: Numbers, norm: str) -> Any:
    """Edges between the neurons of one layer, both directions combined, above the diagonal."""
    taken = columns_taken(numbers.weight, edges.units, norm)
    if numbers.columns is not None:
        taken = with_columns_scaled(taken, numbers.columns.mean(1))
    return both_ways(columns_taken(transposed(taken), edges.units, norm))


def _key(operation: Operation, *arrays: NDArray[np.generic] | Scale | None) -> Key:
    return (
        id(operation),
        *(None if array is None else (array.shape, array.tobytes()) for array in arrays),
    )


def in_order(places: NDArray[np.int64], n: int) -> bool:
    """Check whether inputs are the neurons in order, each repeated equally often."""
    per_neuron, rest = divmod(places.size, max(n, 1))
    return rest == 0 and np.array_equal(places, np.repeat(np.arange(n), per_neuron))


def rescalable(flags: Iterable[bool | None]) -> bool | None:
    """True if all flags are True, None if some are unknown, else False."""
    found = set(flags)
    if not found or False in found:
        return False
    return None if None in found else True
