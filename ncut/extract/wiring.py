"""What a model's operations do to the neurons that its tensors carry, recorded as they come.

Whatever reads a kind of model (torch, ONNX, Keras, a folder of a transformer, a list of arrays)
follows its forward pass with `Signal`s in place of tensors and calls a method of `Wiring` for
each operation; `ncut.extract.assemble` turns the record into a graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ncut.errors import ModelError
from ncut.extract.merging import Merging
from ncut.extract.signal import (
    NOTHING,
    Group,
    Part,
    Scale,
    Signal,
    Term,
    Units,
    broadcast,
    compact,
    expanded,
    joined,
    reduced,
    times,
)
from ncut.types import LeftOut

Residual: TypeAlias = Literal["readers", "stream"]
Kind: TypeAlias = Literal["linear", "conv", "embedding", "heads", "output"]
Array: TypeAlias = NDArray[np.generic]

MANY_COLUMNS = 256
"""Columns of neurons from which on equal ones are looked for by their sums first."""


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """One use of a weight array, or one place where neurons end: a reader of a signal.

    Attributes
    ----------
    name : str
        The layer's name in the model; a second call of it is marked.
    kind : {"linear", "conv", "embedding", "heads", "output"}
        `"embedding"` reads rows by number, `"heads"` are the dimensions along which queries and
        keys are multiplied, `"output"` is where the model's values end.
    n_in : int
        Inputs: features or channels.
    parts : tuple of Part
        The neurons that reach them.
    weight : ndarray, optional
        (n_in, n_out), for a convolution (out, in / groups, positions...).
    groups : int
        Groups of the convolution.
    factors : ndarray of float64, shape (n_in,), optional
        Factors of the inputs that come after an activation.
    writes : Group, optional
        The neurons that it writes.
    within : ndarray of shape (n_out, n_out), optional
        Magnitudes of the weights by which its neurons read each other (recurrent layers).
    on_positions : bool
        Whether it acts at each of several positions, as a convolution does.
    module : str
        Name of the module that holds the weight.
    initial : callable, optional
        Returns weights as the layer is initialized, of the shape of `weight`, or None.
    """

    name: str
    kind: Kind
    n_in: int
    parts: tuple[Part, ...]
    weight: NDArray[np.floating] | None = None
    groups: int = 1
    factors: Scale | None = None
    writes: Group | None = None
    within: NDArray[np.floating] | None = None
    on_positions: bool = False
    module: str = ""
    initial: Callable[[], NDArray[np.floating] | None] | None = None


@dataclass(slots=True)
class Wiring:
    """The record of a forward pass, and the operations that add to it.

    Attributes
    ----------
    residual : {"readers", "stream"}
        Whether a sum's neurons are told apart by who reads them, or are vertices once.
    operations : list of Operation
        What reads and writes neurons, in the order of the forward pass.
    left_out : list of LeftOut
        What could not be folded.
    placed : dict from str to str
        Parameters that are in the graph, and as what.
    ignored : dict from str to str
        Parameters that are not meant to be in the graph, such as biases, and as what.
    joined : set of Group
        Neurons that scalar products read.
    norms : dict from str to int
        How many norms that depend on the data there were, by kind.
    merging : Merging
        Which neurons are one, where sums are streams.
    sums : bool
        Whether neurons of several operations were added up.
    attends : bool
        Whether two signals were multiplied as matrices, as attention does.
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
    _calls: dict[str, int] = field(default_factory=dict)
    _unread: dict[str, tuple[int, ...]] = field(default_factory=dict)
    _read_scales: set[str] = field(default_factory=set)
    _ended: dict[Group, NDArray[np.bool_]] = field(default_factory=dict)
    _reasons: set[tuple[str, str]] = field(default_factory=set)

    # --- where signals come from ------------------------------------------------------------

    def input(self, name: str, shape: Sequence[int]) -> Signal:
        """An input of the model, whose first axis are examples: each entry is a neuron."""
        shape = tuple(shape)
        size = int(np.prod(shape[1:]))
        group = self._group(name, size)
        self.inputs.add(group)
        units: Units = np.arange(size).reshape(1, *shape[1:])
        return Signal(shape, (Term(group, units),), activated=True)

    def embedding(
        self,
        weight: NDArray[np.floating],
        shape: Sequence[int],
        *,
        name: str,
        parameters: Sequence[str] = (),
        module: str = "",
        initial: Callable[[], NDArray[np.floating] | None] | None = None,
    ) -> Signal:
        """Rows of a table, shape (..., width): each row is an input of its own."""
        name = self.call(name)
        self.place(parameters, f"edges into {name!r}")
        n_rows, width = weight.shape
        group = self._group(name, width)
        self.operations.append(
            Operation(
                *(name, "embedding", n_rows, (), weight),
                writes=group, on_positions=True, module=module, initial=initial,
            )
        )  # fmt: skip
        return self._written(group, tuple(shape), len(shape) - 1)

    # --- weights ----------------------------------------------------------------------------

    def linear(
        self,
        signal: Signal,
        weight: NDArray[np.floating],
        *,
        name: str,
        axis: int = -1,
        shape: Sequence[int] | None = None,
        parameters: Sequence[str] = (),
        module: str = "",
        within: NDArray[np.floating] | None = None,
        initial: Callable[[], NDArray[np.floating] | None] | None = None,
    ) -> Signal:
        """A matrix (n_in, n_out) applied along an axis, by default the last one."""
        axis = signal.axis(axis)
        n_in, n_out = weight.shape
        if not weight.size:
            raise ModelError(f"its weights have shape {weight.shape}: no neurons")
        if n_in != signal.shape[axis]:
            raise ModelError(f"it reads {n_in} values, but gets {signal.shape[axis]}")
        if shape is None:
            shape = [*signal.shape[:axis], n_out, *signal.shape[axis + 1 :]]
        if self._mixes_positions(signal, axis):
            for parameter in parameters:
                self.leave_out(
                    parameter, weight.shape[::-1], "mixes positions, the same for each channel"
                )
            return self.positions(signal, shape)
        return self._weighted(
            signal, weight, axis, shape,
            kind="linear", name=name, parameters=parameters, module=module, within=within,
            on_positions=signal.ndim > 2, initial=initial,
        )  # fmt: skip

    def convolution(
        self,
        signal: Signal,
        weight: NDArray[np.floating],
        shape: Sequence[int],
        *,
        name: str,
        groups: int = 1,
        axis: int = 1,
        parameters: Sequence[str] = (),
        module: str = "",
        within: NDArray[np.floating] | None = None,
        initial: Callable[[], NDArray[np.floating] | None] | None = None,
        on_positions: bool = True,
    ) -> Signal:
        """A kernel (out, in / groups, positions...) applied to channels along `axis`.

        `on_positions` is false for matrices in groups, which make no network convolutional.
        """
        if not weight.size:
            raise ModelError(f"its weights have shape {weight.shape}: no neurons")
        axis = signal.axis(axis)
        n_in = weight.shape[1] * groups
        if n_in != signal.shape[axis]:
            raise ModelError(f"it reads {n_in} channels, but gets {signal.shape[axis]}")
        return self._weighted(
            signal, weight, axis, shape,
            kind="conv", name=name, parameters=parameters, module=module, groups=groups,
            on_positions=on_positions, within=within, initial=initial,
        )  # fmt: skip

    def heads(self, name: str, n: int, parts: Sequence[Part]) -> None:
        """Dimensions along which the neurons of `parts` are multiplied and summed."""
        self.attends = True
        self.joined |= {part.group for part in parts}
        if self.residual == "stream":
            self.merging.join(parts)
            return
        self.operations.append(Operation(self.call(name), "heads", n, tuple(parts)))

    def choose(self, signal: Signal, axis: int, shape: Sequence[int], name: str) -> Signal:
        """Neurons along an axis that the data chooses among, as a router does among experts.

        What is chosen carries no neurons; the neurons are vertices all the same.
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
        axes = [axis for axis in range(signal.ndim) if signal.varies(axis)]
        single = signal.ndim - 1 if signal.ndim else None
        axis = axes[0] if len(axes) == 1 else single
        if axis is None or not signal.terms:
            return
        if len(axes) > 1:  # channels at several positions: the first axis that tells them apart
            axis = axes[0]
        n_in, parts, factors = self._read(signal, axis)
        if factors is not None and signal.factors_name:
            self._unread.setdefault(signal.factors_name, factors.shape)
        if not self._ends_anew(signal):
            return
        self.operations.append(Operation(self.call(name), "output", n_in, parts))

    # --- what keeps neurons apart -----------------------------------------------------------

    def activation(self, signal: Signal, *, homogeneous: bool | None) -> Signal:
        """A function of each entry alone; `homogeneous` if it commutes with positive factors."""
        terms = tuple(_flagged(term, homogeneous) for term in signal.terms)
        return replace(signal, terms=terms, activated=True)

    def scale(self, signal: Signal, factors: Array, name: str = "") -> Signal:
        """Factors that do not depend on the data, an array that broadcasts to the shape.

        They belong to what wrote the neurons where no activation came since, and else to what
        reads them.
        """
        numbers: Scale = np.asarray(factors, dtype=np.float64)
        numbers = numbers.reshape((1,) * (signal.ndim - numbers.ndim) + numbers.shape)
        to_reader = signal.activated or not signal.terms
        # Features of one channel that have different factors leave the channel none of its own.
        if to_reader or not all(
            _each_its_own(term, numbers, signal.shape) for term in signal.terms
        ):
            product = times(signal.factors, numbers)
            return replace(signal, factors=product, factors_name=name or signal.factors_name)
        terms = tuple(replace(t, scale=times(t.scale, numbers)) for t in signal.terms)
        return replace(signal, terms=terms)

    def gain(self, signal: Signal, factor: float) -> Signal:
        """One factor for all neurons."""
        terms = tuple(replace(term, gain=term.gain * factor) for term in signal.terms)
        return replace(signal, terms=terms)

    def normalization(self, signal: Signal, kind: str = "norm") -> Signal:
        """Division by a number that depends on the data, the same for many neurons."""
        self.norms[kind] = self.norms.get(kind, 0) + 1
        terms = tuple(_flagged(term, False) for term in signal.terms)
        return replace(signal, terms=terms)

    def softmax(self, signal: Signal, axis: int) -> Signal:
        """Shares along an axis; those of positions carry no neurons."""
        if not any(size > 1 for term in signal.terms for size in term.units.shape):
            return self.activation(signal, homogeneous=False)
        kept = tuple(term for term in signal.terms if term.units.shape[signal.axis(axis)] > 1)
        if kept and any(
            not _is_in(t, kept) and any(n > 1 for n in t.units.shape) for t in signal.terms
        ):
            # Channels compared with channels: what is mixed by the shares passes, these do not.
            self.attends = True
            self.joined |= {term.group for term in signal.terms}
            kept = ()
        return self.activation(replace(signal, terms=kept), homogeneous=False)

    def positions(self, signal: Signal, shape: Sequence[int], *, axis: int = 1) -> Signal:
        """Pooling, padding or anything else that changes positions and mixes no neurons.

        Channels lie along `axis`.
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
                # Which entries of the image lie in an entry now makes no difference to channels.
                for at in changed:
                    term = term.map(lambda a, at=at: a.take([0], axis=at))  # type: ignore[misc]
            elif any(term.units.shape[at] > 1 for at in changed):
                raise ModelError("it pools over neurons, as they lie along an axis that it changes")
            terms.append(term)
        factors = signal.factors
        if factors is not None:
            for at in changed:
                factors = factors.mean(axis=at, keepdims=True)
        return replace(signal, shape=shape, terms=tuple(terms), factors=factors)

    # --- several signals --------------------------------------------------------------------

    def add(self, *signals: Signal) -> Signal:
        """A sum. Where residual sums are streams, what is summed becomes one neuron."""
        signals = tuple(broadcast(signals))
        total = signals[0]
        for other in signals[1:]:
            total = self._sum(total, other)
        return total

    def combine(self, *signals: Signal) -> Signal:
        """Any other function of the entries of several signals, such as a product."""
        pushed = [signal.pushed() for signal in broadcast(signals)]
        terms = [replace(t, homogeneous=False) for signal in pushed for t in signal.terms]
        return Signal(pushed[0].shape, tuple(joined(terms)), activated=True)

    def multiply(self, first: Signal, second: Signal) -> Signal:
        """An entry-wise product: both factors reach whoever reads it."""
        first, second = broadcast((first, second))
        for signal, other in ((first, second), (second, first)):
            if not other.terms:
                # A number that depends on the data, but on no neuron of its own.
                return self.normalization(signal)
        return self.combine(first, second)

    def matmul(self, first: Signal, second: Signal, name: str = "heads") -> Signal:
        """`first @ second`, (..., i, k) by (..., k, j), of two signals.

        Neurons that lie along k in both are the dimensions of a scalar product, which joins
        them; others pass. So queries and keys meet in `heads`, and values come out.
        """
        self.attends = True
        first, second = first.pushed(), second.pushed()
        if min(first.ndim, second.ndim) < 2:
            raise ModelError("a product of a matrix and a vector of signals")
        batch = np.broadcast_shapes(first.shape[:-2], second.shape[:-2])
        rows, inner = first.shape[-2:]
        columns = second.shape[-1]
        first = expanded(first, (*batch, rows, inner))
        second = expanded(second, (*batch, inner, columns))
        ends = [t for t in first.terms if t.units.shape[-1] > 1 or _alone(t, inner, rows)]
        starts = [t for t in second.terms if t.units.shape[-2] > 1 or _alone(t, inner, columns)]
        if ends and starts:
            left = [t.map(lambda a: a.take([0], axis=-2)[..., 0, :]) for t in ends]
            right = [t.map(lambda a: a.take([0], axis=-1)[..., 0]) for t in starts]
            self._join(name, (*batch, inner), left, right)
        elif starts and not first.terms:
            # Neurons are mixed by shares that the data give them: each result has all of them.
            starts, second = [], reduced(second, [-2], keepdim=True)
        elif ends and not second.terms:
            ends, first = [], reduced(first, [-1], keepdim=True)
        passed = [t.map(lambda a: a.take([0], axis=-1)) for t in first.terms if not _is_in(t, ends)]
        passed += [
            t.map(lambda a: a.take([0], axis=-2)) for t in second.terms if not _is_in(t, starts)
        ]
        return compact(Signal((*batch, rows, columns), tuple(joined(passed))))

    def attention(
        self, query: Signal, key: Signal, value: Signal, *, name: str = "heads"
    ) -> Signal:
        """Scaled dot-product attention of (..., time, dims) signals: the value's neurons."""
        axes = [*range(key.ndim - 2), key.ndim - 1, key.ndim - 2]
        shape = tuple(key.shape[axis] for axis in axes)
        scores = self.matmul(query, key.map(shape, lambda a: a.transpose(axes)), name)
        return self.matmul(replace(scores, terms=()), value, name)

    # --- bookkeeping ------------------------------------------------------------------------

    def call(self, name: str) -> str:
        """The name of an operation, marked if it has been called before."""
        self._calls[name] = n = self._calls.get(name, 0) + 1
        return name if n == 1 else f"{name} (call {n})"

    def leave_out(self, name: str, shape: Sequence[int], reason: str) -> None:
        """Record what is not in the graph, once."""
        if (name, reason) not in self._reasons:
            self._reasons.add((name, reason))
            self.left_out.append(LeftOut(name, tuple(shape), reason))

    def finish(self) -> None:
        """Record norms that depend on the data, and factors that only the model's results have."""
        for kind, n in self.norms.items():
            what = f"{n} {kind.replace('norm', 'norms', 1)}" if n > 1 else kind
            self.leave_out(what, (), "division by the data's own spread is not folded, gamma is")
        for name, shape in self._unread.items():
            if name not in self._read_scales:
                self.leave_out(name, shape, "no layer reads what it scales")

    def place(self, parameters: Iterable[str], role: str) -> None:
        """Record parameters that are in the graph."""
        for parameter in parameters:
            self.placed.setdefault(parameter, role)

    def ignore(self, parameters: Iterable[str], role: str) -> None:
        """Record parameters that have no edges, such as biases."""
        for parameter in parameters:
            self.ignored.setdefault(parameter, role)

    # --- inside -----------------------------------------------------------------------------

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
        weight: NDArray[np.floating],
        axis: int,
        shape: Sequence[int],
        *,
        kind: Kind,
        name: str,
        parameters: Sequence[str],
        module: str,
        on_positions: bool,
        groups: int = 1,
        within: NDArray[np.floating] | None = None,
        initial: Callable[[], NDArray[np.floating] | None] | None = None,
    ) -> Signal:
        name = self.call(name)
        self.place(parameters, f"edges into {name!r}")
        n_in, parts, factors = self._read(signal, axis)
        self._read_scales.add(signal.factors_name)
        group = self._group(name, weight.shape[0] if kind == "conv" else weight.shape[1])
        self.operations.append(
            Operation(
                *(name, kind, n_in, parts, weight, groups, factors, group, within),
                *(on_positions, module or name, initial),
            )
        )
        return self._written(group, tuple(shape), axis)

    def _ends_anew(self, signal: Signal) -> bool:
        """Whether any of a result's neurons are not in results before, as a last state's are."""
        anew = False
        for term in signal.terms:
            ended = self._ended.setdefault(term.group, np.zeros(term.group.size, dtype=bool))
            units = term.units[term.units != NOTHING]
            anew = anew or not ended[units].all()
            ended[units] = True
        return anew

    def _mixes_positions(self, signal: Signal, axis: int) -> bool:
        """Whether neurons lie along other axes than the one that is read."""
        if signal.shape[axis] == 1 or signal.varies(axis):
            return False
        return any(size > 1 for term in signal.terms for size in term.units.shape)

    def _read(self, signal: Signal, axis: int) -> tuple[int, tuple[Part, ...], Scale | None]:
        """The neurons and factors at each entry along an axis."""
        n = signal.shape[axis]
        factors = None
        if signal.factors is not None:
            factors = np.asarray(np.abs(_rows(signal.factors, axis, n)).mean(axis=1))
        parts = []
        for term in signal.terms:
            if term.group in self.inputs and not self.merging.has(term.group):
                # Which pixels a channel has makes no difference; each input is its own vertex.
                units: Units = np.arange(n)[:, None]
                scale = (
                    None
                    if term.scale is None
                    else np.asarray(_rows(term.scale, axis, n)).mean(axis=1)[:, None]
                )
                if scale is not None or term.gain != 1.0:
                    # No edges lead to an input, so that its factors belong to its reader.
                    own = np.ones(n) if scale is None else np.abs(scale[:, 0])
                    factors = times(factors, own * abs(term.gain))
                    scale = None
            else:
                units = np.asarray(_rows(term.units, axis, n), dtype=np.int64)
                scale = None if term.scale is None else np.asarray(_rows(term.scale, axis, n))
                units, scale = _distinct(units, scale)
                if term.gain != 1.0:
                    scale = times(scale, np.full(units.shape, term.gain))
            parts.append(Part(term.group, units, scale, term.homogeneous))
        return n, tuple(parts), factors

    def _sum(self, first: Signal, second: Signal) -> Signal:
        if first.factors is not None and first.factors is second.factors:
            pass
        elif self.residual == "stream":
            first, second = self._without_factors(first), self._without_factors(second)
        else:
            first, second = first.pushed(), second.pushed()
        terms = [*first.terms, *second.terms]
        self.sums = self.sums or bool(first.terms and second.terms)
        if self.residual == "stream" and first.terms and second.terms:
            terms = self.merging.merge(first.terms, second.terms)
            return Signal(first.shape, tuple(joined(terms)), activated=True)
        only = first if not second.terms else second
        activated = only.activated if not (first.terms and second.terms) else False
        return Signal(
            first.shape, tuple(joined(terms)), first.factors, first.factors_name, activated
        )

    def _without_factors(self, signal: Signal) -> Signal:
        """Factors of a sum's operand cannot be folded into what reads the sum."""
        if signal.factors is None or not signal.terms:
            return signal
        if all(t.group in self.inputs or not self.merging.has(t.group) for t in signal.terms):
            return signal.pushed()
        if signal.factors_name and np.ptp(signal.factors):
            self.leave_out(
                signal.factors_name,
                (signal.factors.size,),
                "folded into what reads its values, not into the residual sum that they go on to",
            )
        return replace(signal, factors=None, factors_name="")

    def _join(
        self, name: str, shape: tuple[int, ...], left: Sequence[Term], right: Sequence[Term]
    ) -> None:
        sides = [_head_dimensions(terms, shape) for terms in (left, right)]
        n = int(np.prod(np.broadcast_shapes(*(s[0] for s in sides))))
        full = np.broadcast_shapes(*(s[0] for s in sides))
        parts = []
        for _, terms in sides:
            for term in terms:
                whole = term.map(lambda a: np.broadcast_to(a, full).reshape(n, 1))
                scale = whole.scale
                if scale is not None and not np.ptp(scale):
                    scale = None  # a factor that all dimensions share, such as 1 / sqrt(dims)
                parts.append(Part(term.group, whole.units, scale, False))
        self.heads(name, n, parts)


def under_convention(
    residual: str | None, follow: Callable[[Wiring], object], *, likely: Residual = "stream"
) -> Wiring:
    """The record of a forward pass that `follow` writes.

    Without a convention of sums they are streams in a model with attention, else readers'. Which
    it is shows when the pass has been followed; what is `likely` saves following it twice.
    """
    if residual is not None:
        wiring = Wiring("readers" if residual == "readers" else "stream")
        follow(wiring)
        return wiring
    wiring = Wiring(likely)
    follow(wiring)
    right: Residual = "stream" if wiring.attends else "readers"
    # Without sums and heads the two are the same.
    if right != likely and (wiring.attends or wiring.merging.sums):
        wiring = Wiring(right)
        follow(wiring)
    wiring.residual = right
    return wiring


def _flagged(term: Term, homogeneous: bool | None) -> Term:
    if homogeneous or term.homogeneous is False:
        return term
    return replace(term, homogeneous=homogeneous)


def _each_its_own(term: Term, factors: Scale, shape: tuple[int, ...]) -> bool:
    """Whether each neuron has one factor at all its entries."""
    varies = [n > 1 or m > 1 for n, m in zip(term.units.shape, factors.shape, strict=True)]
    sizes = [n if v else 1 for n, v in zip(shape, varies, strict=True)]
    units = np.broadcast_to(term.units, sizes).ravel()
    numbers = np.broadcast_to(factors, sizes).ravel()
    used = units != NOTHING
    found = np.zeros(term.group.size)
    found[units[used]] = numbers[used]
    return np.array_equal(found[units[used]], numbers[used], equal_nan=True)


def _is_in(term: Term, terms: Sequence[Term]) -> bool:
    return any(term is other for other in terms)


def _alone(term: Term, inner: int, other: int) -> bool:
    """Whether a term lies along an inner axis of length 1, and not along the other."""
    return inner == 1 and other > 1 and all(n == 1 for n in term.units.shape[-2:])


def _rows(array: NDArray[np.generic], axis: int, n: int) -> NDArray[np.generic]:
    """The array with `axis` first and all others side by side, shape (n, m)."""
    moved = np.moveaxis(array, axis, 0)
    rows = moved.reshape(moved.shape[0], -1)
    return np.broadcast_to(rows, (n, rows.shape[1]))


def _distinct(units: Units, scale: Scale | None) -> tuple[Units, Scale | None]:
    """Columns that are not there yet; the scale of the first of equal ones."""
    if units.shape[1] > MANY_COLUMNS:
        # Sums of columns are sorted far faster than columns; equal ones have equal sums.
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
        scale = np.broadcast_to(scale, units.shape)
    return units, scale


def _head_dimensions(
    terms: Sequence[Term], shape: tuple[int, ...]
) -> tuple[tuple[int, ...], list[Term]]:
    """The terms of one side of a scalar product, as the neurons of its dimensions.

    Rotary embeddings mix the dimensions of a head among themselves by angles that depend on the
    position only; the neurons are then those of the head, in their own order.
    """
    sizes = np.broadcast_shapes(*(term.units.shape for term in terms))
    sizes = (*sizes[:-1], shape[-1])
    if len(terms) > 1 and len({id(term.group) for term in terms}) == 1:
        stacked = np.stack([np.broadcast_to(term.units, sizes) for term in terms], axis=-1)
        per_head = stacked.reshape(-1, sizes[-1] * len(terms))
        heads = [np.unique(row[row != NOTHING]) for row in per_head]
        if all(head.size == sizes[-1] for head in heads):
            units: Units = np.stack(heads).reshape(sizes)
            scale = None
            if terms[0].scale is not None:
                order = np.argsort(np.broadcast_to(terms[0].units, sizes), axis=-1)
                scale = np.take_along_axis(np.broadcast_to(terms[0].scale, sizes), order, axis=-1)
            return sizes, [Term(terms[0].group, units, scale, False)]
    return sizes, list(terms)
