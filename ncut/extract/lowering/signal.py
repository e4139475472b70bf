"""Signals: the neurons that each entry of a tensor carries while a forward pass is followed.

A `Signal` stands for one tensor of a forward pass. It has the tensor's shape and, instead of
values, *terms*: for each contributing layer an integer array with the neuron of the layer that
each entry carries. The arrays broadcast to the shape, with length 1 along the axes on which the
neuron does not depend (batch, time, image positions), so that reshaping, permuting, slicing and
concatenating a tensor is the same operation on small integer arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ncut.errors import ModelError
from ncut.extract.arrays import Shaped
from ncut.extract.lowering.factors import Factors, one_of

Units: TypeAlias = NDArray[np.int64]
Scale: TypeAlias = Factors


NOTHING = -1
"""Marks an entry that carries no neuron of a layer."""


MAX_SPLIT = 64
"""Largest number of neurons summed into one entry that are kept as separate terms."""


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Neurons that one operation writes, numbered from 0."""

    number: int  # position among the groups of a model, in the order of its forward pass
    name: str  # name of the layer that writes them
    size: int


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """The contribution of one group to a signal.

    Attributes
    ----------
    group : Group
        The group that wrote the neurons.
    units : ndarray of int64, broadcasts to the signal's shape
        Neuron numbers within the group; `NOTHING` at entries without a contribution.
    scale : Factors, broadcasts to the signal's shape, optional
        Factors between the writer and the signal, before any activation.
    homogeneous : bool or None
        Whether the path from the writer commutes with positive factors; None if unknown.
    gain : Factors of shape (), optional
        A factor on the path, shared by all neurons.
    """

    group: Group
    units: Units
    scale: Scale | None = None
    homogeneous: bool | None = True
    gain: Scale | None = None

    def map(self, change: Callable[[NDArray[np.generic]], NDArray[np.generic]]) -> Term:
        """The term with the same change applied to its units and its scale."""
        units: Units = np.asarray(change(self.units), dtype=np.int64)
        scale = None if self.scale is None else self.scale.map(change)
        return replace(self, units=units, scale=scale)


@dataclass(frozen=True, slots=True, eq=False)
class Signal(Shaped):
    """A tensor: its shape and the neurons in it.

    Attributes
    ----------
    shape : tuple of int
        The tensor's shape.
    terms : tuple of Term
        Contributions of groups, summed (or multiplied: both operands reach each reader of the
        product).
    factors : Factors, broadcasts to the shape, optional
        Factors after an activation, which apply to each reader of the signal.
    factors_name : str
        The parameter of the last factors.
    activated : bool
        Whether an activation came after the last layer (or the model's input).
    number : {"", "spread", "drawn", "shares", "classes"}
        Kind of a signal: "spread" is a reduction of neurons by which a norm may divide them
        (without neurons, except for a mean of the model's input), "drawn" are random numbers such
        as noise, "shares" a softmax over positions, "classes" a choice as a vector of zeros and
        ones, "" is any other function of the data.
    """

    shape: tuple[int, ...]
    terms: tuple[Term, ...] = ()
    factors: Scale | None = None
    factors_name: str = ""
    activated: bool = field(default=False)
    number: Literal["", "spread", "drawn", "shares", "classes"] = ""

    def map(
        self,
        shape: Sequence[int],
        change: Callable[[NDArray[np.generic]], NDArray[np.generic]],
    ) -> Signal:
        """The signal with the same change applied to every array, as a tensor of `shape`."""
        factors = None if self.factors is None else self.factors.map(change)
        terms = tuple(term.map(change) for term in self.terms)
        return replace(self, shape=tuple(shape), terms=terms, factors=factors)

    def varies(self, axis: int) -> bool:
        """Check whether any term's neurons depend on the position along an axis."""
        return any(term.units.shape[axis] > 1 for term in self.terms)

    def pushed(self) -> Signal:
        """The signal with its factors moved into its terms."""
        if self.factors is None:
            return self
        terms = tuple(replace(t, scale=times(t.scale, self.factors)) for t in self.terms)
        return replace(self, terms=terms, factors=None, factors_name="")


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """The neurons of one group that an operation reads.

    Attributes
    ----------
    group : Group
        The group that wrote the neurons.
    units : ndarray of int64, shape (n_in, m)
        The neurons that reach each input of the operation; several if an input stands for
        positions that carry different neurons.
    scale : Factors, shape (n_in, m), optional
        Factors on the path.
    homogeneous : bool or None
        Whether the path commutes with positive factors.
    pooled : bool
        Whether each neuron of the model's input stands for several, as a pixel for its channel.
    """

    group: Group
    units: Units
    scale: Scale | None
    homogeneous: bool | None
    pooled: bool = False


def same_factor(first: Scale | None, second: Scale | None) -> bool:
    """Check whether two factors are equal; None stands for 1."""
    codes = [0 if factor is None else int(factor.codes) for factor in (first, second)]
    return codes[0] == codes[1]


def times(first: Scale | None, second: Scale | None) -> Scale | None:
    """Product of two arrays of factors; None stands for 1."""
    if first is None or second is None:
        return second if first is None else first
    return first * second


def several(term: Term, axes: tuple[int, ...]) -> bool:
    """Test if a group contributes at several positions along axes, so is not a single branch."""
    rest = tuple(axis for axis in range(term.units.ndim) if axis not in axes)
    return int(np.count_nonzero((term.units != NOTHING).any(axis=rest))) > 1


def all_activated(signals: Sequence[Signal]) -> bool:
    """Check whether an activation came after the last layer of every signal."""
    with_neurons = [signal.activated for signal in signals if signal.terms]
    return bool(with_neurons) and all(with_neurons)


def is_in(term: Term, terms: Sequence[Term]) -> bool:
    """Check whether `terms` contains a term, by identity."""
    return any(term is other for other in terms)


def compact(signal: Signal) -> Signal:
    """The signal with length 1 along the axes on which its arrays do not vary.

    Groups without a contribution are dropped.
    """
    made = signal.map(signal.shape, compact_array)
    present = tuple(term for term in made.terms if (term.units != NOTHING).any())
    return made if len(present) == len(made.terms) else replace(made, terms=present)


def joined(terms: Iterable[Term]) -> list[Term]:
    """Terms, with those of one group at disjoint entries merged."""
    result: list[Term] = []
    for term in terms:
        for at, other in enumerate(result):
            together = _together(other, term)
            if together is not None:
                result[at] = together
                break
        else:
            result.append(term)
    return result


def _together(first: Term, second: Term) -> Term | None:
    if first.group is not second.group:
        return None
    has_first, has_second = first.units != NOTHING, second.units != NOTHING
    same = first.units == second.units
    if np.any(has_first & has_second & ~same):
        return None
    units: Units = np.where(has_first, first.units, second.units)
    scale: Scale | None = None
    known = first.scale if first.scale is not None else second.scale
    if known is not None:
        one: Units = np.zeros((1,) * units.ndim, dtype=np.int64)
        codes = [one if term.scale is None else term.scale.codes for term in (first, second)]
        scale = one_of(known.ledger, has_first, codes[0], codes[1], has_first & has_second)
    flags = {first.homogeneous, second.homogeneous}
    homogeneous = flags.pop() if len(flags) == 1 else (False if False in flags else None)
    # Functions of a neuron such as x (1 + tanh(c x)) have no single factor.
    gain = first.gain if same_factor(first.gain, second.gain) else None
    return Term(first.group, units, scale, homogeneous, gain)


def places_along(terms: Iterable[Term], axis: int) -> list[int]:
    """Positions along an axis at which any term has neurons."""
    there: set[int] = set()
    for term in terms:
        rest = tuple(at for at in range(term.units.ndim) if at != axis)
        found = np.flatnonzero((term.units != NOTHING).any(axis=rest))
        if len(found) > MAX_SPLIT:
            raise ModelError(
                f"it sums {len(found)} neurons of {term.group.name!r} into each of its values"
            )
        there.update(found.tolist())
    return sorted(there)


def split(term: Term, axes: tuple[int, ...]) -> list[Term]:
    """One term per position along summed axes, each of length 1 along them."""
    full = term.map(lambda array: np.broadcast_to(array, _along(array, term.units, axes)))

    def flattened(array: NDArray[np.generic]) -> NDArray[np.generic]:
        moved = np.moveaxis(array, axes, range(len(axes)))
        return moved.reshape(-1, *moved.shape[len(axes) :])

    flat = full.map(flattened)
    some = np.flatnonzero((flat.units != NOTHING).any(axis=tuple(range(1, flat.units.ndim))))
    if len(some) > MAX_SPLIT:
        raise ModelError(
            f"it sums {len(flat.units)} neurons of {term.group.name!r} into each of its values"
        )
    return [flat.map(lambda array, at=at: np.expand_dims(array[at], axes)) for at in some]  # type: ignore[misc]


def _along(array: NDArray[np.generic], units: Units, axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(
        units.shape[axis] if axis in axes else size for axis, size in enumerate(array.shape)
    )


def first_along(term: Term, axes: Sequence[int]) -> Term:
    """The term at the first position along axes, which are kept with length 1."""

    def change(array: NDArray[np.generic]) -> NDArray[np.generic]:
        for axis in axes:
            array = array[(slice(None),) * axis + (slice(0, 1),)]
        return array

    return term.map(change)


def compact_array(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """The array with length 1 along the axes on which it does not vary."""
    for axis, size in enumerate(array.shape):
        if size > 1:
            first = array[(slice(None),) * axis + (slice(0, 1),)]
            if (array == first).all():
                array = first
    return array
