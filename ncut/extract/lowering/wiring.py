"""The effect of a program's nodes on the neurons of its values, recorded in order.

`kinds.py` follows a program with `Signal`s in place of values and calls a method of
`Wiring` for each node; `ncut.extract.assembly` turns the record into a graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ncut.errors import ModelError
from ncut.extract.lowering.factors import Factors, Ledger
from ncut.extract.lowering.merging import Merging
from ncut.extract.lowering.signal import (
    NOTHING,
    Group,
    Part,
    Scale,
    Signal,
    Term,
    Units,
    broadcast,
    compact,
    is_in,
    joined,
    reshaped,
    times,
)
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
    """The operands of a signal that is a product, for a sum as the next operation.

    Attributes
    ----------
    first, second : Signal, and Signal or weights
        The operands, before broadcasting.
    parameters, name
        Parameters of an array of weights, and the name of the layer that it would make.
    """

    first: Signal
    second: Signal | Weights
    parameters: tuple[str, ...] = ()
    name: str = ""


@dataclass(slots=True)
class Wiring:
    """The record of a forward pass, and the operations that add to it.

    Attributes
    ----------
    residual : {"readers", "stream"}
        Whether a sum has separate vertices for each reader, or one shared set of vertices.
    operations : list of Operation
        Readers and writers of neurons, in the order of the forward pass.
    left_out : list of LeftOut
        Weights and operations that could not be folded.
    placed : dict from str to str
        Placed parameters and their roles.
    ignored : dict from str to str
        Parameters without edges, such as biases, and their roles.
    joined : set of Group
        Neurons that scalar products read.
    norms : dict from str to int
        Number of norms that depend on the data, by kind.
    merging : Merging
        Neurons merged into one vertex, if sums are streams.
    sums : bool
        Whether neurons of several operations were added.
    attends : bool
        Whether two signals were multiplied as matrices, as in attention.
    ends : list of Operation
        Reductions of a layer's neurons to a number, used as readers if there are no others.
    unscaled : dict from Group to str
        Results of integer weights without a scale so far; "table" for rows of a table.
    ledger : Ledger
        All factors.
    program : Program, optional
        The recorded program.
    """

    residual: Residual = "readers"
    operations: list[Operation] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    inputs: set[Group] = field(default_factory=set)
    left_out: list[LeftOut] = field(default_factory=list)
    placed: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)
    joined: set[Group] = field(default_factory=set)
    norms: dict[str, int] = field(default_factory=dict)
    merging: Merging = field(default_factory=Merging)
    sums: bool = False
    attends: bool = False
    ends: list[Operation] = field(default_factory=list)
    unscaled: dict[Group, str] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=Ledger)
    program: Program | None = None
    _products: dict[int, tuple[Signal, Product]] = field(default_factory=dict)
    _calls: dict[str, int] = field(default_factory=dict)
    _unread: dict[str, tuple[int, ...]] = field(default_factory=dict)
    _read_scales: set[str] = field(default_factory=set)
    _ended: dict[Group, NDArray[np.bool_]] = field(default_factory=dict)
    _reasons: set[tuple[str, str]] = field(default_factory=set)

    # --- where signals come from ------------------------------------------------------------

    def input(self, name: str, shape: Sequence[int]) -> Signal:
        """An input of the model, with examples along the first axis: each entry is a neuron."""
        shape = tuple(shape)
        size = int(np.prod(shape[1:]))
        group = self._group(name, size)
        self.inputs.add(group)
        units: Units = np.arange(size).reshape(1, *shape[1:])
        return Signal(shape, (Term(group, units),), activated=True)

    def embedding(
        self,
        weight: Expression,
        shape: Sequence[int],
        *,
        name: str,
        parameters: Sequence[str] = (),
        module: str = "",
        initial: Initial | None = None,
    ) -> Signal:
        """Rows of a table, shape (..., width): each row is a separate input."""
        name = self.call(name)
        self.place(parameters, f"edges into {name!r}")
        n_rows, width = weight.shape
        group = self._group(name, width)
        self.operations.append(
            Operation(
                *(name, "embedding", n_rows, (), weight),
                writes=group, on_positions=True, module=module, initial=self._seeded(initial),
                parameters=tuple(parameters),
            )
        )  # fmt: skip
        return self._written(group, tuple(shape), len(shape) - 1)

    # --- weights ----------------------------------------------------------------------------

    def linear(
        self,
        signal: Signal,
        weight: Expression,
        *,
        name: str,
        axis: int = -1,
        shape: Sequence[int] | None = None,
        parameters: Sequence[str] = (),
        **named: Any,
    ) -> Signal:
        """A matrix (n_in, n_out) applied along an axis, by default the last one."""
        axis = signal.axis(axis)
        if shape is None:
            shape = [*signal.shape[:axis], weight.shape[1], *signal.shape[axis + 1 :]]
        if not signal.terms and signal.number == "classes" and axis == signal.ndim - 1:
            # Each class selects a row, as an index does.
            return self.embedding(weight, shape, name=name, parameters=parameters, **named)
        if not signal.terms:
            return self._without_neurons(parameters or (name,), weight.shape, shape)
        if self._mixes_positions(signal, axis):
            for parameter in parameters:
                self.leave_out(
                    parameter, weight.shape[::-1], "mixes positions, the same for each channel"
                )
            return self.positions(signal, shape)
        return self._weighted(
            signal, weight, axis, shape,
            kind="linear", name=name, parameters=parameters, on_positions=signal.ndim > 2, **named,
        )  # fmt: skip

    def convolution(
        self,
        signal: Signal,
        weight: Expression,
        shape: Sequence[int],
        *,
        name: str,
        axis: int = 1,
        parameters: Sequence[str] = (),
        on_positions: bool = True,
        **named: Any,
    ) -> Signal:
        """A kernel (out, in / groups, positions...) applied to channels along `axis`.

        `on_positions` is false for grouped matrices, which do not make a network convolutional.
        """
        axis = signal.axis(axis)
        if not signal.terms:
            return self._without_neurons(parameters or (name,), weight.shape, shape)
        if on_positions and weight.shape[:2] == (1, 1) and self._moves_over_neurons(signal, axis):
            for parameter in parameters or (name,):
                reason = "mixes neurons of a layer as if they were positions"
                self.leave_out(parameter, weight.shape, reason)
            if tuple(shape) != signal.shape:
                raise ModelError(
                    "its kernel moves over the neurons of a layer and changes their number"
                )
            return self.activation(signal, homogeneous=True)
        return self._weighted(
            signal, weight, axis, shape,
            kind="conv", name=name, parameters=parameters, on_positions=on_positions, **named,
        )  # fmt: skip

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
        n_in, parts, _ = self._read(signal, signal.axis(axis))
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
        n_in, parts, factors = self._read(signal, axis)
        if factors is not None and signal.factors_name:
            self._unread.setdefault(signal.factors_name, factors.shape)
        if not self._ends_anew(signal):
            return
        self.operations.append(Operation(self.call(name), "output", n_in, parts))

    # --- elementwise operations and norms ---------------------------------------------------

    def activation(self, signal: Signal, *, homogeneous: bool | None) -> Signal:
        """A function of each entry alone; `homogeneous` if it commutes with positive factors."""
        if not signal.terms:
            return Signal(signal.shape, number=signal.number)
        terms = tuple(_flagged(term, homogeneous) for term in signal.terms)
        return replace(signal, terms=terms, activated=True)

    def factors(self, values: Weights) -> Factors:
        """An array as factors: constants, except for an expression that can be recomputed."""
        if isinstance(values, Expression) and values.known:
            return self.ledger.entries(values.values, values)
        return self.ledger.constant(np.abs(np.asarray(values)))

    def scale(self, signal: Signal, factors: Array | Factors, name: str = "") -> Signal:
        """Factors that do not depend on the data, an array that broadcasts to the shape.

        They belong to the writer of the neurons if no activation came since, otherwise to their
        readers. NumPy arrays are constants.
        """
        known = factors if isinstance(factors, Factors) else self.factors(factors)
        numbers = known.map(lambda a: a.reshape((1,) * (signal.ndim - a.ndim) + a.shape))
        to_reader = signal.activated or not signal.terms
        # A channel whose features have different factors gets no single factor.
        if to_reader or not all(
            _each_its_own(term, numbers.codes, signal.shape) for term in signal.terms
        ):
            product = times(signal.factors, numbers)
            return replace(signal, factors=product, factors_name=name or signal.factors_name)
        terms = tuple(replace(t, scale=times(t.scale, numbers)) for t in signal.terms)
        return replace(signal, terms=terms)

    def dequantize(self, signal: Signal, scale: Array, zero: Array | None = None) -> bool:
        """Fold the scale of a result into the integer weights that wrote it.

        Returns whether all neurons come from integer weights and each has a single scale.
        """
        groups = {term.group for term in signal.terms}
        plain = all(term.scale is None and term.gain is None for term in signal.terms)
        if not groups or not plain or not groups <= self.unscaled.keys():
            return False
        sides = [np.asarray(scale, np.float64), np.asarray(0 if zero is None else zero, np.float64)]
        wide = [x.reshape((1,) * (signal.ndim - x.ndim) + x.shape) for x in sides]
        if not all(_each_its_own(t, x, signal.shape) for t in signal.terms for x in wide):
            return False
        for term in signal.terms:
            factors, shifts = (_of_neurons(term, x, signal.shape)[0] for x in wide)
            at = next(n for n, o in enumerate(self.operations) if o.writes is term.group)
            operation = self.operations[at]
            assert operation.weight is not None
            outputs = 0 if operation.kind == "conv" else 1
            shape = [-1 if axis == outputs else 1 for axis in range(operation.weight.ndim)]
            weight = operation.weight.values.astype(np.float32)
            weight = weight - shifts.astype(np.float32).reshape(shape)
            weight = weight * factors.astype(np.float32).reshape(shape)
            made = Expression(weight, leaves=operation.weight.leaves)
            self.operations[at] = replace(operation, weight=made)
        if zero is None or np.any(sides[0] != 1):
            for group in groups:
                self.unscaled.pop(group, None)
        return True

    def gain(self, signal: Signal, factor: float | Factors) -> Signal:
        """A factor shared by all neurons."""
        known = factor if isinstance(factor, Factors) else self.factors(np.array(float(factor)))
        terms = tuple(replace(term, gain=times(term.gain, known)) for term in signal.terms)
        return replace(signal, terms=terms)

    def normalization(self, signal: Signal, kind: str = "norm") -> Signal:
        """Division by a number that depends on the data, the same for many neurons."""
        if not signal.terms:
            return Signal(signal.shape, number=signal.number)
        self.norms[kind] = self.norms.get(kind, 0) + 1
        terms = tuple(_flagged(term, False) for term in signal.terms)
        return replace(signal, terms=terms)

    def softmax(self, signal: Signal, axis: int) -> Signal:
        """Softmax along an axis; over positions, shares that a matrix product may apply."""
        if not any(size > 1 for term in signal.terms for size in term.units.shape):
            return self.activation(signal, homogeneous=False)
        kept = tuple(term for term in signal.terms if term.units.shape[signal.axis(axis)] > 1)
        if not kept:
            signal = replace(signal, number="shares")
        elif any(not is_in(t, kept) and any(n > 1 for n in t.units.shape) for t in signal.terms):
            # Channels compared with channels: mixed values pass, the shares do not.
            self.attends = True
            self.joined |= {term.group for term in signal.terms}
            return Signal(signal.shape)
        else:
            signal = replace(signal, terms=kept)
        return self.activation(signal, homogeneous=False)

    def positions(
        self, signal: Signal, shape: Sequence[int], *, axis: int = 1, nearest: bool = False
    ) -> Signal:
        """Pooling, padding or another change of positions that mixes no neurons.

        Channels lie along `axis`. If `nearest`, each position is a copy of the nearest one, which
        may have its own neurons.
        """
        shape = tuple(shape)
        if len(shape) != signal.ndim:
            raise ModelError(f"it makes a tensor of shape {shape} of one of shape {signal.shape}")
        changed = [at for at in range(signal.ndim) if shape[at] != signal.shape[at]]
        channels = signal.axis(axis) if signal.ndim > 1 else 0
        terms = []
        for term in signal.terms:
            if term.group in self.inputs and all(
                term.units.shape[at] == 1 or at not in (0, channels) for at in changed
            ):
                # The image entries that an entry covers make no difference to channels.
                for at in changed:
                    term = term.map(lambda a, at=at: a.take([0], axis=at))  # type: ignore[misc]
            elif nearest:
                for at in changed:
                    term = term.map(partial(_resized, at, shape[at], signal.shape[at]))
            elif any(term.units.shape[at] > 1 for at in changed):
                raise ModelError("it pools over neurons, as they lie along an axis that it changes")
            terms.append(term)
        factors = signal.factors
        if factors is not None:
            for at in changed:
                factors = factors.mean(at, keepdims=True)
        return replace(signal, shape=shape, terms=tuple(terms), factors=factors)

    # --- several signals --------------------------------------------------------------------

    def add(self, *signals: Signal) -> Signal:
        """A sum. If residual sums are streams, the summed neurons become one vertex."""
        # Factors of numbers do not scale the neurons added to them.
        known = [s if s.terms else replace(s, factors=None) for s in signals]
        total, *others = broadcast(known)
        for other in others:
            total = self._sum(total, other)
        return total

    def combine(self, *signals: Signal) -> Signal:
        """Any other function of the entries of several signals, such as a product."""
        pushed = [signal.pushed() for signal in broadcast(signals)]
        terms = [replace(t, homogeneous=False) for signal in pushed for t in signal.terms]
        return Signal(pushed[0].shape, tuple(joined(terms)), activated=True)

    def multiply(self, first: Signal, second: Signal, *, invert: bool = False) -> Signal:
        """An entry-wise product, or quotient if `invert`: both operands reach each reader."""
        if invert and not second.terms and second.factors is not None:
            second = replace(second, factors=second.factors.inverse())
        made = self._product(first, second)
        pairs = [(ours, theirs) for ours in first.terms for theirs in second.terms]
        if pairs and not invert and not any(_shares_neurons(*pair) for pair in pairs):
            self.note_product(made, first, second)
        return made

    def _product(self, first: Signal, second: Signal) -> Signal:
        first, second = _without_means(*broadcast((first, second)))
        for signal, other in ((first, second), (second, first)):
            if not other.terms:
                # A number that depends on the data, but carries no neuron.
                return self._times_data(signal, other)
        return self.combine(first, second)

    def _times_data(self, signal: Signal, other: Signal) -> Signal:
        """Multiply by a number that depends on the data, and by its constant factors, if any."""
        if not signal.terms:
            factors = times(signal.factors, other.factors)
            number = "spread" if "spread" in (signal.number, other.number) else signal.number
            return Signal(signal.shape, (), factors, other.factors_name, number=number)
        if other.number == "spread":
            made = self.normalization(signal)
        else:
            made = self.activation(signal, homogeneous=other.number == "drawn")
        factors = other.factors
        if factors is None or self.dequantize(made, np.asarray(factors)):
            return made
        if factors.size == 1:
            return self.gain(made, factors.map(lambda array: array.reshape(())))
        factors = factors.map(lambda array: np.broadcast_to(array, other.shape))
        narrow = compact(Signal(made.shape, (), factors)).factors
        assert narrow is not None
        if any(n > 1 and not made.varies(axis) for axis, n in enumerate(narrow.shape)):
            if other.factors_name:
                reason = "a factor that differs by position"
                self.leave_out(other.factors_name, factors.shape, reason)
            return made
        return self.scale(made, narrow, other.factors_name)

    # --- products that are summed -----------------------------------------------------------

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

    # --- inside -----------------------------------------------------------------------------

    def _seeded(self, initial: Initial | None) -> Callable[[], NDArray[np.floating] | None] | None:
        """A function that draws initial weights of the next operation, seeded by its number."""
        return None if initial is None else partial(initial, len(self.operations))

    def _group(self, name: str, size: int) -> Group:
        group = Group(len(self.groups), name, size)
        self.groups.append(group)
        return group

    @staticmethod
    def _written(group: Group, shape: tuple[int, ...], axis: int) -> Signal:
        units: Units = np.arange(group.size).reshape(
            [group.size if at == axis else 1 for at in range(len(shape))]
        )
        return Signal(shape, (Term(group, units),))

    def _weighted(
        self,
        signal: Signal,
        weight: Expression,
        axis: int,
        shape: Sequence[int],
        *,
        kind: Kind,
        name: str,
        parameters: Sequence[str],
        on_positions: bool,
        module: str = "",
        groups: int = 1,
        within: Expression | None = None,
        initial: Initial | None = None,
    ) -> Signal:
        name = self.call(name)
        self.place(parameters, f"edges into {name!r}")
        n_in, parts, factors = self._read(signal, axis)
        self._read_scales.add(signal.factors_name)
        group = self._group(name, weight.shape[0] if kind == "conv" else weight.shape[1])
        self.operations.append(
            Operation(
                *(name, kind, n_in, parts, weight, groups, factors, group, within),
                *(on_positions, module or name, self._seeded(initial), tuple(parameters)),
            )
        )
        return self._written(group, tuple(shape), axis)

    def _without_neurons(
        self, names: Iterable[str], shape: Sequence[int], result: Sequence[int]
    ) -> Signal:
        """The result of weights on values that depend on the data, but carry no neurons."""
        for name in names:
            self.leave_out(name, shape, "reads values that carry no neurons")
        return Signal(tuple(result))

    def _ends_anew(self, signal: Signal) -> bool:
        """Check whether a result has neurons that earlier results lack; a last state has none."""
        anew = False
        for term in signal.terms:
            ended = self._ended.setdefault(term.group, np.zeros(term.group.size, dtype=bool))
            units = term.units[term.units != NOTHING]
            anew = anew or not ended[units].all()
            ended[units] = True
        return anew

    def _mixes_positions(self, signal: Signal, axis: int) -> bool:
        """Check whether neurons lie along axes other than the axis that is read."""
        if signal.shape[axis] == 1 or signal.varies(axis):
            return False
        return any(size > 1 for term in signal.terms for size in term.units.shape)

    def _moves_over_neurons(self, signal: Signal, axis: int) -> bool:
        """Check whether a layer's neurons lie along positions only."""
        return any(
            term.group not in self.inputs
            and term.units.shape[axis] == 1
            and any(n > 1 for n in term.units.shape[axis + 1 :])
            for term in signal.terms
        )

    def _read(self, signal: Signal, axis: int) -> tuple[int, tuple[Part, ...], Scale | None]:
        """The neurons and factors at each entry along an axis."""
        n = signal.shape[axis]
        factors = None
        if signal.factors is not None:
            factors = signal.factors.map(lambda array: _rows(array, axis, n)).mean(1)
        parts = []
        for term in signal.terms:
            pooled = False
            if term.group in self.inputs and not self.merging.has(term.group):
                # A channel's pixels are equivalent: the first represents all.
                units = np.asarray(_rows(term.units, axis, n), dtype=np.int64)
                pooled = units.shape[1] > 1
                units = _first_used(units)
                # No edges lead to an input, so its factors belong to its reader.
                if term.scale is not None:
                    own = term.scale.map(lambda array: _rows(array, axis, n)).mean(1)
                    factors = times(factors, own)
                factors = times(factors, self._for_all(term.gain, n))
                scale = None
            else:
                units = np.asarray(_rows(term.units, axis, n), dtype=np.int64)
                scale = (
                    None
                    if term.scale is None
                    else term.scale.map(lambda array: _rows(array, axis, n))
                )
                units, scale = _distinct(units, scale)
                scale = times(scale, self._for_all(term.gain, *units.shape))
            parts.append(Part(term.group, units, scale, term.homogeneous, pooled))
        return n, tuple(parts), factors

    @staticmethod
    def _for_all(gain: Scale | None, *shape: int) -> Scale | None:
        """One factor for each entry of an array."""
        return None if gain is None else gain.map(lambda array: np.broadcast_to(array, shape))

    def _sum(self, first: Signal, second: Signal) -> Signal:
        first, second = _without_means(first, second)
        if bool(first.terms) != bool(second.terms):
            # Numbers added to neurons act as a bias.
            return first if first.terms else second
        if first.factors is not None and first.factors is second.factors:
            pass
        elif self.residual == "stream":
            first, second = self._without_factors(first), self._without_factors(second)
        else:
            first, second = first.pushed(), second.pushed()
        terms = [*first.terms, *second.terms]
        if any(self._differ(ours, theirs) for ours in first.terms for theirs in second.terms):
            reason = "a neuron enters it twice, by constant factors that differ and are not summed"
            self.leave_out("factors of a sum", (), reason)
        self.sums = self.sums or bool(terms)
        if self.residual == "stream" and terms:
            if any(self.merging.rescales(term) for term in terms):
                reason = "folded into what reads its values, not into the sum that they go on to"
                self.leave_out("a factor of a sum", (), reason)
            terms = self.merging.merge(first.terms, second.terms)
            return Signal(first.shape, tuple(joined(terms)), activated=True)
        if terms:
            return Signal(first.shape, tuple(joined(terms)), first.factors, first.factors_name)
        number = "spread" if "spread" in (first.number, second.number) else first.number
        return Signal(first.shape, factors_name=first.factors_name, number=number)

    def _differ(self, first: Term, second: Term) -> bool:
        """Check whether a neuron occurs twice with different constant factors, as in x - x * mask.

        The signs of the factors are unknown, and so is the factor of the sum.
        """
        if first.group is not second.group or not (first.homogeneous and second.homogeneous):
            return False
        codes = []
        for term in (first, second):
            factor = times(term.scale, term.gain)
            codes.append(np.zeros(1, dtype=np.int64) if factor is None else factor.codes)
        if codes[0] is codes[1] or not all(map(self.ledger.constants, codes)):
            return False
        same = (first.units == second.units) & (first.units != NOTHING)
        return bool((same & (codes[0] != codes[1])).any())

    def _without_factors(self, signal: Signal) -> Signal:
        """Drop the factors of a sum's operand, which cannot be folded into the sum's readers."""
        if signal.factors is None or not signal.terms:
            return signal
        if all(t.group in self.inputs or not self.merging.has(t.group) for t in signal.terms):
            return signal.pushed()
        if signal.factors_name and np.ptp(np.asarray(signal.factors)):
            self.leave_out(
                signal.factors_name,
                (signal.factors.size,),
                "folded into what reads its values, not into the residual sum that they go on to",
            )
        return replace(signal, factors=None, factors_name="")


def _resized(axis: int, n_new: int, n_old: int, array: NDArray[Any]) -> NDArray[Any]:
    """The nearest entries along an axis whose length changes."""
    nearest = np.arange(n_new) * n_old // n_new
    return array if array.shape[axis] == 1 else array.take(nearest, axis)


def _without_means(first: Signal, second: Signal) -> tuple[Signal, Signal]:
    """Two operands; a mean of an input by which a norm shifts or divides it loses its neurons."""
    made = []
    for signal, other in ((first, second), (second, first)):
        inside = {t.group for t in signal.terms} <= {t.group for t in other.terms}
        divides = signal.number == "spread" and signal.terms and inside
        made.append(Signal(signal.shape, number="spread") if divides else signal)
    return made[0], made[1]


def _shares_neurons(first: Term, second: Term) -> bool:
    """Check whether two terms have neurons in common."""
    if first.group is not second.group:
        return False
    both = np.intersect1d(first.units, second.units)
    return bool((both != NOTHING).any())


def _flagged(term: Term, homogeneous: bool | None) -> Term:
    if homogeneous or term.homogeneous is False:
        return term
    return replace(term, homogeneous=homogeneous)


def _of_neurons(
    term: Term, numbers: NDArray[Any], shape: tuple[int, ...]
) -> tuple[NDArray[Any], Units, NDArray[Any]]:
    """Each neuron's number (0 without entries), and the neurons and numbers of used entries."""
    varies = [n > 1 or m > 1 for n, m in zip(term.units.shape, numbers.shape, strict=True)]
    sizes = [n if v else 1 for n, v in zip(shape, varies, strict=True)]
    units = np.broadcast_to(term.units, sizes).ravel()
    used = units != NOTHING
    entries = np.broadcast_to(numbers, sizes).ravel()[used]
    found = np.zeros(term.group.size, dtype=numbers.dtype)
    found[units[used]] = entries
    return found, units[used], entries


def _each_its_own(term: Term, numbers: NDArray[Any], shape: tuple[int, ...]) -> bool:
    """Check whether each neuron has one factor at all its entries."""
    found, units, entries = _of_neurons(term, numbers, shape)
    return np.array_equal(found[units], entries, equal_nan=numbers.dtype.kind == "f")


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


def _rows(array: NDArray[np.generic], axis: int, n: int) -> NDArray[np.generic]:
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
