"""Choices among values, by a known condition or by the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ncut.errors import ModelError
from ncut.extract.lowering.constants import scale
from ncut.extract.lowering.moves import expanded, of_neurons, overlaid
from ncut.extract.lowering.pointwise import activation, positions
from ncut.extract.lowering.signal import Signal, Term, first_along, joined, split
from ncut.extract.lowering.sums import combine
from ncut.extract.lowering.wiring import Wiring


def choice(
    wiring: Wiring,
    *signals: Signal,
    shape: Sequence[int],
    condition: NDArray[np.bool_] | None,
    sides: Sequence[bool],
) -> Signal:
    """`where`, a choice between values by a condition: all values reach each reader.

    If the condition does not depend on the data, only the selected entries do.
    """
    present = [signal for signal in signals if signal.terms]
    if not present:
        return Signal(tuple(shape))
    if condition is not None:
        wide = [expanded(signal, shape) for signal in signals]
        if len(wide) == 2:
            return overlaid(wide[0], wide[1], condition)
        return masked(wiring, wide[0], condition if sides[0] else ~condition)
    if len(present) == 1:
        return activation(wiring, expanded(present[0], shape), homogeneous=False)
    return expanded(combine(wiring, *signals), shape)


def masked(wiring: Wiring, signal: Signal, mask: NDArray[np.bool_]) -> Signal:
    """Entries with constants where a known mask is False, which removes the neurons there.

    A neuron kept at any position is kept.
    """
    kept = of_neurons(mask, signal, signal.varies)
    if kept.all() or not signal.terms:
        return signal
    return scale(wiring, signal, kept.astype(np.float64)) if kept.any() else Signal(signal.shape)


def gathered(
    wiring: Wiring,
    signal: Signal,
    *,
    axes: Sequence[int],
    shape: tuple[int, ...],
    at: int,
    why: str,
) -> Signal:
    """Entries that the data select along axes of branches with separate neurons."""
    for axis in () if why else axes:
        signal = _any_of(wiring, signal, axis, "")
    return _selected(signal, axes, shape, at, why)


def _selected(
    signal: Signal, axes: Sequence[int], shape: tuple[int, ...], at: int, why: str
) -> Signal:
    """Entries that the data select along axes: positions, but no neurons."""
    n_new = len(shape) - signal.ndim + len(axes)

    def change(array: NDArray[np.generic]) -> NDArray[np.generic]:
        if any(array.shape[axis] > 1 for axis in axes):
            raise ModelError(why)
        left = array.squeeze(tuple(axes))
        return left.reshape(left.shape[:at] + (1,) * n_new + left.shape[at:])

    return signal.map(shape, change)


def _any_of(wiring: Wiring, signal: Signal, axis: int, name: str) -> Signal:
    """The union of all entries that the data may choose along an axis, which gets length 1.

    If each choice has neurons along other axes, all of them may come out. Neurons along the axis
    itself, such as a router's, become vertices without outgoing edges; an error without a name.
    """
    if not signal.varies(axis):
        return signal
    signal = signal.pushed()
    kept: list[Term] = []
    alone: list[Term] = []
    for term in signal.terms:
        apart = any(n > 1 for at, n in enumerate(term.units.shape) if at != axis)
        if term.units.shape[axis] == 1 or wiring.is_input(term.group):
            kept.append(first_along(term, [axis]))
        elif apart:
            kept += split(term, (axis,))
        else:
            alone.append(term)
    if alone and not name:
        raise ModelError("it chooses neurons by an index that depends on the data")
    if alone:
        wiring.choose(replace(signal, terms=tuple(alone)), axis, signal.shape, name)
    shape = [1 if at == axis else n for at, n in enumerate(signal.shape)]
    return replace(signal, shape=tuple(shape), terms=tuple(joined(kept)))


def ordered(
    wiring: Wiring, signal: Signal, *, kind: str, axis: int, shape: Sequence[int], name: str
) -> Signal:
    """Sorting, cumulative sums, top-k or entries picked along an axis.

    Neurons along other axes are unchanged. For neurons along this axis, top-k is a choice by the
    data, and any other ordering is refused.
    """
    varies = signal.terms and signal.varies(signal.axis(axis))
    if kind == "pick" or (kind == "topk" and varies):
        return positions(wiring, _any_of(wiring, signal, axis, name), shape)
    if varies:
        if kind.lower() != "sort":
            raise ModelError("it mixes all neurons of a layer with each other without any weights")
        raise ModelError("it mixes neurons along an axis in an order that depends on the data")
    result = activation(wiring, signal, homogeneous=kind == "cumsum")
    return positions(wiring, result, shape)
