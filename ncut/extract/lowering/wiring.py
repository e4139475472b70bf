"""The record of a lowering: which operations read and write which neurons, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ncut.errors import ModelError
from ncut.extract.lowering.factors import Factors, Ledger
from ncut.extract.lowering.merging import Merging
from ncut.extract.lowering.moves import reshaped
from ncut.extract.lowering.signal import NOTHING, Group, Part, Scale, Signal, Term, Units, times
from ncut.extract.program.record import Initial, Program
from ncut.extract.program.weights import Expression, Weights
from ncut.types import LeftOut

Residual: TypeAlias = Literal["readers", "stream"]
Kind: TypeAlias = Literal["linear", "conv", "embedding", "heads", "output"]
Array: TypeAlias = NDArray[np.generic]

MANY_COLUMNS = 256
"""Number of columns above which duplicates are first searched by column sums."""


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """One use of a weight array, or one end of neurons: a reader of a signal.

    Attributes
    ----------
    name : str
        The layer's name in the model; repeated calls are marked.
    kind : {"linear", "conv", "embedding", "heads", "output"}
        `"embedding"` reads rows by index, `"heads"` are the head dimensions along which queries
        and keys are multiplied, `"output"` is an output of the model.
    n_in : int
        Number of inputs: features or channels.
    parts : tuple of Part
        The neurons that reach the inputs.
    weight : Expression, optional
        (n_in, n_out), for a convolution (out, in / groups, positions...).
    groups : int
        Groups of the convolution.
    factors : Factors, shape (n_in,), optional
        Factors of the inputs that come after an activation.
    writes : Group, optional
        The neurons written.
    within : Expression of shape (n_out, n_out), optional
        Magnitudes of the recurrent weights between the layer's neurons.
    on_positions : bool
        Whether the operation acts at each of several positions, like a convolution.
    module : str
        Name of the module that holds the weight.
    initial : callable, optional
        Returns weights as the layer is initialized, of the shape of `weight`, or None.
    parameters : tuple of str
        Names of the parameters that the weights come from.
    """

    name: str
    kind: Kind
    n_in: int
    parts: tuple[Part, ...]
    weight: Expression | None = None
    groups: int = 1
    factors: Scale | None = None
    writes: Group | None = None
    within: Expression | None = None
    on_positions: bool = False
    module: str = ""
    initial: Callable[[], NDArray[np.floating] | None] | None = None
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """The operands of a signal that is a product, for a sum as the next operation."""

    # The operands, before broadcasting
    first: Signal
    second: Signal | Weights
    # Parameters of an array of weights, and the name of the layer that it would make.
    parameters: tuple[str, ...] = ()
    name: str = ""


@dataclass(slots=True)
class Wiring:
    """The record of a forward pass, from which `ncut.extract.assembly` makes a graph."""

    # Whether a sum has separate vertices for each reader, or one shared set of vertices.
    residual: Residual = "readers"
    # Readers and writers of neurons, in the order of the forward pass.
    operations: list[Operation] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    inputs: set[Group] = field(default_factory=set)
    # Weights and operations that could not be folded
    left_out: list[LeftOut] = field(default_factory=list)
    placed: dict[str, str] = field(default_factory=dict)  # placed parameters and their roles
    # Parameters without edges, such as biases, and their roles
    ignored: dict[str, str] = field(default_factory=dict)
    joined: set[Group] = field(default_factory=set)  # neurons that scalar products read
    # Number of norms that depend on the data, by kind
    norms: dict[str, int] = field(default_factory=dict)
    # Neurons merged into one vertex, if sums are streams
    merging: Merging = field(default_factory=Merging)
    sums: bool = False  # whether neurons of several operations were added
    attends: bool = False  # whether two signals were multiplied as matrices, as in attention
    # Reductions of a layer's neurons to a number, used as readers if there are no others.
    ends: list[Operation] = field(default_factory=list)
    # Results of integer weights without a scale so far; "table" for rows of a table.
    unscaled: dict[Group, str] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=Ledger)  # all factors
    program: Program | None = None  # the recorded program
    # Examples along the first axis of each input that has them
    n_examples: dict[Group, int] = field(default_factory=dict)
    _products: dict[int, tuple[Signal, Product]] = field(default_factory=dict)
    _calls: dict[str, int] = field(default_factory=dict)
    _unread: dict[str, tuple[int, ...]] = field(default_factory=dict)
    _read_scales: set[str] = field(default_factory=set)
    _ended: dict[Group, NDArray[np.bool_]] = field(default_factory=dict)
    _reasons: set[tuple[str, str]] = field(default_factory=set)

    # --- writers of neurons -----------------------------------------------------------------

    def input(self, name: str, shape: Sequence[int], *, examples: bool = True) -> Signal:
        """An input of the model: each entry is a neuron.

        The first axis holds examples of the same neurons, unless `examples` is false.
        """
        shape = tuple(shape)
        sizes = (1, *shape[1:]) if examples else shape
        size = int(np.prod(sizes))
        group = self._group(name, size)
        self.inputs.add(group)
        if examples and shape:
            self.n_examples[group] = shape[0]
        units: Units = np.arange(size).reshape(sizes)
        return Signal(shape, (Term(group, units),), activated=True)

    def weights(
        self,
        signal: Signal | None,
        weight: Expression,
        axis: int,
        shape: Sequence[int],
        *,
        kind: Kind,
        name: str,
        parameters: Sequence[str] = (),
        on_positions: bool = True,
        module: str = "",
        groups: int = 1,
        within: Expression | None = None,
        initial: Initial | None = None,
    ) -> Signal:
        """Weights that read the neurons of a signal along an axis, and write new ones there.

        Without a signal, a table whose rows an index selects. `initial` is called with the
        number of earlier operations as the seed.
        """
        name = self.call(name)
        self.place(parameters, f"edges into {name!r}")
        n_in, factors = weight.shape[0], None
        parts: tuple[Part, ...] = ()
        if signal is not None:
            n_in, parts, factors = self.read(signal, axis)
            self._read_scales.add(signal.factors_name)
        group = self._group(name, weight.shape[0] if kind == "conv" else weight.shape[1])
        drawn = None if initial is None else partial(initial, len(self.operations))
        self.operations.append(
            Operation(
                *(name, kind, n_in, parts, weight, groups, factors, group, within),
                *(on_positions, module or name, drawn, tuple(parameters)),
            )
        )
        units: Units = np.arange(group.size).reshape(
            [group.size if at == axis else 1 for at in range(len(shape))]
        )
        return Signal(tuple(shape), (Term(group, units),))

    # --- readers of neurons, without weights ------------------------------------------------

    def heads(self, name: str, n: int, parts: Sequence[Part]) -> None:
        """Dimensions along which the neurons of `parts` are multiplied and summed."""
        self.attends = True
        self.joined |= {part.group for part in parts}
        if self.residual == "stream":
            self.merging.join(parts)
            return
        self.operations.append(Operation(self.call(name), "heads", n, tuple(parts)))

    def end(self, name: str, n: int, parts: Sequence[Part]) -> None:
        """Neurons reduced to a number: vertices without outgoing edges."""
        self.joined |= {part.group for part in parts}
        if self.residual == "readers":
            self.operations.append(Operation(self.call(name), "heads", n, tuple(parts)))

    def choose(self, signal: Signal, axis: int, shape: Sequence[int], name: str) -> Signal:
        """Neurons along an axis among which the data choose, like a router's.

        The selection carries no neurons, but the neurons are vertices.
        """
        n_in, parts, _ = self.read(signal, signal.axis(axis))
        name = self.call(name)
        self.joined |= {part.group for part in parts}
        if self.residual == "readers":
            self.operations.append(Operation(name, "heads", n_in, parts))
        self.leave_out(name, (n_in,), "values that the data chooses carry no neurons further")
        return Signal(tuple(shape))

    def output(self, signal: Signal, name: str = "output") -> None:
        """The end of the model's forward pass: a value that it returns."""
        if not signal.terms or not signal.ndim:
            return
        # Entries of an input are distinct along all axes until an axis is read.
        own = tuple(term for term in signal.terms if term.group not in self.inputs)
        apart = replace(signal, terms=own) if own else signal
        axes = [axis for axis in range(signal.ndim) if apart.varies(axis)]
        axis = axes[0] if axes else signal.ndim - 1
        if len(axes) > 1:
            signal, axis = _side_by_side(signal, axes), 0
        n_in, parts, factors = self.read(signal, axis)
        if factors is not None and signal.factors_name:
            self._unread.setdefault(signal.factors_name, factors.shape)
        if not self._ends_anew(signal):
            return
        self.operations.append(Operation(self.call(name), "output", n_in, parts))

    def is_input(self, group: Group) -> bool:
        """Check whether neurons are entries of the model's input, not added to others."""
        return group in self.inputs and not self.merging.has(group)

    def read(self, signal: Signal, axis: int) -> tuple[int, tuple[Part, ...], Scale | None]:
        """The neurons and factors at each entry along an axis."""
        n = signal.shape[axis]
        factors = None
        if signal.factors is not None:
            factors = signal.factors.map(lambda array: rows_along(array, axis, n)).mean(1)
        parts = []
        for term in signal.terms:
            pooled = False
            if self.is_input(term.group):
                # A channel's pixels are equivalent: the first represents all.
                units = np.asarray(rows_along(term.units, axis, n), dtype=np.int64)
                pooled = units.shape[1] > 1
                units = _first_used(units)
                # No edges lead to an input, so its factors belong to its reader.
                if term.scale is not None:
                    own = term.scale.map(lambda array: rows_along(array, axis, n)).mean(1)
                    factors = times(factors, own)
                factors = times(factors, self._for_all(term.gain, n))
                scale = None
            else:
                units = np.asarray(rows_along(term.units, axis, n), dtype=np.int64)
                scale = (
                    None
                    if term.scale is None
                    else term.scale.map(lambda array: rows_along(array, axis, n))
                )
                units, scale = _distinct(units, scale)
                scale = times(scale, self._for_all(term.gain, *units.shape))
            parts.append(Part(term.group, units, scale, term.homogeneous, pooled))
        return n, tuple(parts), factors

    # --- notes for later operations ---------------------------------------------------------

    def factors(self, values: Weights) -> Factors:
        """An array as factors: constants, except for an expression that can be recomputed."""
        if isinstance(values, Expression) and values.known:
            return self.ledger.entries(values.values, values)
        return self.ledger.constant(np.abs(np.asarray(values)))

    def note_product(
        self,
        made: Signal,
        first: Signal,
        second: Signal | Weights,
        parameters: Sequence[str] = (),
        name: str = "",
    ) -> None:
        """Record the operands of a product, for the next operation."""
        product = Product(first, second, tuple(parameters), name)
        self._products[id(made)] = (made, product)

    def product_of(self, signal: Signal) -> Product | None:
        """The operands of a signal that the previous operation made as a product."""
        known, product = self._products.get(id(signal), (None, None))
        return product if known is signal else None

    def note_end(self, name: str, n: int, parts: Sequence[Part]) -> None:
        """Record neurons reduced to a number, which may have no other reader."""
        self.ends.append(Operation(name, "heads", n, tuple(parts)))

    # --- bookkeeping ------------------------------------------------------------------------

    def call(self, name: str) -> str:
        """The name of an operation, marked if it has been called before."""
        self._calls[name] = n = self._calls.get(name, 0) + 1
        return name if n == 1 else f"{name} (call {n})"

    def leave_out(self, name: str, shape: Sequence[int], reason: str) -> None:
        """Record weights or an operation that is not in the graph, once."""
        if (name, reason) not in self._reasons:
            self._reasons.add((name, reason))
            self.left_out.append(LeftOut(name, tuple(shape), reason))

    def take_back(self, names: Iterable[str]) -> None:
        """Remove the last operation's entries of `left_out`: it was a part of a larger one."""
        wanted = set(names)
        while self.left_out and self.left_out[-1].name in wanted:
            entry = self.left_out.pop()
            self._reasons.discard((entry.name, entry.reason))

    def finish(self) -> None:
        """Record norms that depend on the data, and factors of the model's results alone."""
        for kind, n in self.norms.items():
            what = f"{n} {kind.replace('norm', 'norms', 1)}" if n > 1 else kind
            self.leave_out(what, (), "gamma is folded in; normalization by the data is not")
        for name, shape in self._unread.items():
            if name not in self._read_scales:
                self.leave_out(name, shape, "no layer reads what it scales")

    def check_scales(self) -> None:
        """Refuse integer rows that weights read without a scale."""
        read = {part.group for operation in self.operations for part in operation.parts}
        for group, what in self.unscaled.items():
            if what == "table" and group in read:
                raise ModelError(
                    f"the table {group.name!r} has weights of whole numbers, and what reads its "
                    "rows gets them without a scale"
                )

    def place(self, parameters: Iterable[str], role: str) -> None:
        """Record parameters that are in the graph."""
        for parameter in parameters:
            self.placed.setdefault(parameter, role)

    def ignore(self, parameters: Iterable[str], role: str) -> None:
        """Record parameters that have no edges, such as biases."""
        for parameter in parameters:
            self.ignored.setdefault(parameter, role)

    def _group(self, name: str, size: int) -> Group:
        group = Group(len(self.groups), name, size)
        self.groups.append(group)
        return group

    def _ends_anew(self, signal: Signal) -> bool:
        """Check whether a result has neurons that earlier results lack; a last state has none."""
        anew = False
        for term in signal.terms:
            ended = self._ended.setdefault(term.group, np.zeros(term.group.size, dtype=bool))
            units = term.units[term.units != NOTHING]
            anew = anew or not ended[units].all()
            ended[units] = True
        return anew

    @staticmethod
    def _for_all(gain: Scale | None, *shape: int) -> Scale | None:
        """One factor for each entry of an array."""
        return None if gain is None else gain.map(lambda array: np.broadcast_to(array, shape))


def _side_by_side(signal: Signal, axes: Sequence[int]) -> Signal:
    """The signal with the axes along which neurons differ merged into a first axis."""
    order = [*axes, *(at for at in range(signal.ndim) if at not in axes)]
    moved = signal.map([signal.shape[at] for at in order], lambda a: a.transpose(order))
    n = int(np.prod(moved.shape[: len(axes)]))
    return reshaped(moved, (n, *moved.shape[len(axes) :]))


def _first_used(units: Units) -> Units:
    """The first neuron of each row, shape (n, 1); `NOTHING` for empty rows."""
    if units.shape[1] == 1:
        return units
    largest = np.iinfo(np.int64).max
    least = np.where(units == NOTHING, largest, units).min(axis=1)
    return np.where(least == largest, NOTHING, least)[:, None]


def rows_along(array: NDArray[np.generic], axis: int, n: int) -> NDArray[np.generic]:
    """The array with `axis` first and all others flattened, shape (n, m)."""
    moved = np.moveaxis(array, axis, 0)
    rows = moved.reshape(moved.shape[0], -1)
    return np.broadcast_to(rows, (n, rows.shape[1]))


def _distinct(units: Units, scale: Scale | None) -> tuple[Units, Scale | None]:
    """Columns without duplicates; the scale of the first of equal columns.

    Factors that differ by position, where the neurons do not, are averaged.
    """
    if scale is not None and units.shape[1] == 1 < scale.shape[1]:
        scale = scale.mean(1, keepdims=True)
    if units.shape[1] > MANY_COLUMNS:
        # Sorting sums is far faster than sorting columns; equal columns have equal sums.
        odd = np.random.default_rng(0).integers(2**62, size=len(units)) * 2 + 1
        _, first, back = np.unique(odd @ units, return_index=True, return_inverse=True)
        if all(np.array_equal(row[first][back], row) for row in units):
            kept = np.sort(first)
            if scale is not None and scale.shape[1] > 1:
                scale = scale[:, kept]
            units = units[:, kept]
    if units.shape[1] > 1:
        units, first = np.unique(units, axis=1, return_index=True)
        if scale is not None and scale.shape[1] > 1:
            scale = scale[:, first]
    if scale is not None:
        scale = scale.map(lambda array: np.broadcast_to(array, units.shape))
    return units, scale
