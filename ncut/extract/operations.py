"""Lowering of nodes that take more than one step of the record."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncut.errors import ModelError
from ncut.extract import contraction, moves
from ncut.extract.program.weights import Expression, Weights
from ncut.extract.signal import (
    Signal,
    Term,
    compact,
    expanded,
    first_along,
    indexed,
    joined,
    padded,
    permuted,
    reshaped,
    split,
)
from ncut.extract.wiring import Array, Wiring

# --- constants ----------------------------------------------------------------------------------


def scaled(
    wiring: Wiring,
    signal: Signal,
    factors: Weights,
    *,
    axis: int | None = None,
    parameters: Sequence[str] = (),
    invert: bool = False,
    name: str = "",
) -> Signal:
    """The signal multiplied or divided by an array that does not depend on the data."""
    numbers = np.asarray(factors)
    if axis is not None:
        numbers = numbers.reshape([-1 if at == axis else 1 for at in range(signal.ndim)])
    shape = np.broadcast_shapes(signal.shape, numbers.shape)
    laid = (1,) * (len(shape) - numbers.ndim) + numbers.shape
    trained = axis is not None or (isinstance(factors, Expression) and factors.known)
    wide = expanded(signal, shape)
    if not invert and wiring.unscaled and wiring.dequantize(wide, numbers):
        wiring.place(parameters, "the scale of quantized weights")
        return wide
    if numbers.size == 1:
        return _times_number(wiring, wide, factors, parameters, invert)
    if not trained and not numbers.any() and signal.terms:
        return Signal(shape)
    known = wiring.factors(factors).map(lambda array: array.reshape(laid))
    narrow = compact(Signal(shape, (), known)).factors
    assert narrow is not None
    if signal.terms and any(n > 1 and not wide.varies(axis) for axis, n in enumerate(narrow.shape)):
        # Masks and the angles of rotary embeddings, or weights if a sum follows.
        reason = "a factor that differs by position"
        for parameter in parameters or (name if axis is not None else "a constant",):
            wiring.leave_out(parameter, np.shape(factors), reason)
        made = replace(wide)
        if not invert and axis is None:
            wiring.note_product(made, signal, factors, parameters, name)
        return made
    wiring.place(parameters, "a factor of a layer's neurons")
    narrow = narrow.inverse() if invert else narrow
    return wiring.scale(wide, narrow, next(iter(parameters), name))


def _times_number(
    wiring: Wiring,
    signal: Signal,
    number: Weights,
    parameters: Sequence[str],
    invert: bool,
) -> Signal:
    wiring.place(parameters, "a factor of all neurons of a layer")
    value = float(np.asarray(number).ravel()[0])
    trained = isinstance(number, Expression) and number.known
    if value == 0 and not trained and not invert:
        return Signal(signal.shape)  # a zero initial state
    if not math.isfinite(value) or (invert and value == 0):
        return signal
    factor = wiring.factors(number).map(lambda array: array.reshape(()))
    factor = factor.inverse() if invert else factor
    if signal.terms:
        return wiring.gain(signal, factor)
    return wiring.scale(signal, factor)


# --- integer weights ----------------------------------------------------------------------------


def dequantized(
    wiring: Wiring,
    signal: Signal,
    *,
    scale: Array,
    zero: Array | None,
    placed: Sequence[str],
    ignored: Sequence[str],
    only: str,
) -> Signal:
    """Scale and zero point for results of integer weights, only of the kind `only` if given."""
    due = wiring.unscaled and (not only or only in wiring.unscaled.values())
    if due and wiring.dequantize(signal, scale, zero):
        wiring.place(placed, "the scale of quantized weights")
        wiring.ignore(ignored, "zero point")
    return signal


def awaiting_scale(wiring: Wiring, signal: Signal, *, what: str) -> Signal:
    """Mark results of integer weights, which take over the scale of their results."""
    for operation in wiring.operations[-1:]:
        if operation.writes is not None and operation.writes in {t.group for t in signal.terms}:
            wiring.unscaled[operation.writes] = what
    return signal


# --- choices ------------------------------------------------------------------------------------


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
            return moves.overlaid(wide[0], wide[1], condition)
        return moves.masked(wiring, wide[0], condition if sides[0] else ~condition)
    if len(present) == 1:
        return wiring.activation(expanded(present[0], shape), homogeneous=False)
    return expanded(wiring.combine(*signals), shape)


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
    return moves.gathered(signal, axes, shape, at, why)


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
        is_input = term.group in wiring.inputs and not wiring.merging.has(term.group)
        if term.units.shape[axis] == 1 or is_input:
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


# --- positions ----------------------------------------------------------------------------------


def pad(
    wiring: Wiring,
    signal: Signal,
    *,
    axis: int,
    before: int,
    after: int,
    fill: float,
    index: NDArray[np.int64] | None,
    channels: int | None,
) -> Signal:
    """Padding along an axis, with numbers or with the entries at `index`.

    If `channels` gives the axis of an image's channels, its positions are not distinguished.
    """
    own = any(term.group not in wiring.inputs for term in signal.terms)
    if channels is not None and not (own and signal.varies(axis)):
        n = signal.shape[axis] + before + after
        shape = (*signal.shape[:axis], n, *signal.shape[axis + 1 :])
        return wiring.positions(signal, shape, axis=channels)
    if fill and index is None:
        signal = wiring.activation(signal, homogeneous=False)
    if index is None:
        index = np.arange(-before, signal.shape[signal.axis(axis)] + after)
    return padded(signal, signal.axis(axis), index)


def ordered(
    wiring: Wiring, signal: Signal, *, kind: str, axis: int, shape: Sequence[int], name: str
) -> Signal:
    """Sorting, cumulative sums, top-k or entries picked along an axis.

    Neurons along other axes are unchanged. For neurons along this axis, top-k is a choice by the
    data, and any other ordering is refused.
    """
    varies = signal.terms and signal.varies(signal.axis(axis))
    if kind == "pick" or (kind == "topk" and varies):
        return wiring.positions(_any_of(wiring, signal, axis, name), shape)
    if varies:
        if kind.lower() != "sort":
            raise ModelError("it mixes all neurons of a layer with each other without any weights")
        raise ModelError("it mixes neurons along an axis in an order that depends on the data")
    result = wiring.activation(signal, homogeneous=kind == "cumsum")
    return wiring.positions(result, shape)


# --- products of matrices -----------------------------------------------------------------------


def linear(
    wiring: Wiring,
    signal: Signal,
    *,
    weight: Expression,
    axis: int,
    shape: Sequence[int],
    quiet: bool = False,
    **named: Any,
) -> Signal:
    """A matrix, or matrices (..., n_in, n_out), one for each entry of the leading axes."""
    if weight.ndim == 2:
        return contraction.linear(wiring, signal, weight, axis=axis, shape=shape, **named)
    if quiet and not signal.terms:
        return Signal(tuple(shape))
    for at, size in enumerate(weight.shape[:-2]):
        before = (slice(None),) * at
        first = weight[(*before, slice(1))]
        if all(_is_same(weight[(*before, slice(n, n + 1))], first) for n in range(1, size)):
            weight = first
    which = [at for at, size in enumerate(weight.shape[:-2]) if size > 1]
    flat = weight.reshape(-1, *weight.shape[-2:])
    if not which:
        return expanded(wiring.linear(signal, flat[0], axis=axis, **named), shape)
    if len(which) > 1:
        raise ModelError(f"its weights have several axes of matrices, {weight.shape}")
    back = weight.ndim - which[0]  # the axis of the groups, from the end
    if signal.ndim < back:
        signal = expanded(signal, (1,) * (back - signal.ndim) + signal.shape)
    at = signal.ndim - back
    n_groups, period = flat.shape[0], _period(flat, signal, at)
    if period == n_groups:
        return expanded(_grouped_linear(wiring, signal, flat, at, axis, **named), shape)
    signal = indexed(signal, at, slice(period))
    made = _grouped_linear(wiring, signal, flat[:period], at, axis, **named)
    return expanded(indexed(made, at, np.arange(n_groups) % period), shape)


def _is_same(first: Expression, second: Expression) -> bool:
    """Check whether two arrays of matrices are one, repeated; experts may begin as copies."""
    # Products of repeated examples may differ in their last digits. Mostly, a few rows tell.
    step = max(first.shape[-2] // 8, 1)
    for every, tolerance in ((step, 0.01), (1, 1e-5)):
        ours, theirs = (np.asarray(array.values[..., ::every, :]) for array in (first, second))
        with np.errstate(invalid="ignore"):
            differ = np.abs(ours - theirs).max(initial=0)
        if not differ <= tolerance * np.abs(ours).max(initial=0):  # also if not a number
            return False
    places = {first.place(), second.place()}
    return None in places or len(places) == 1


def _period(matrices: Expression, signal: Signal, axis: int) -> int:
    """The number of matrices after which they and the neurons that they read repeat.

    A batch of examples may be merged with the axis of the heads.
    """
    n = matrices.shape[0]
    signal = signal.pushed()
    laid = [term.units for term in signal.terms]
    laid += [term.scale.codes for term in signal.terms if term.scale is not None]
    rows = [np.moveaxis(array, axis, 0) for array in laid if array.shape[axis] > 1]
    for period in range(2, n // 2 + 1):
        repeats = n % period == 0 and all(
            np.array_equal(array[period:], array[:-period]) for array in rows
        )
        if repeats and all(
            _is_same(matrices[at], matrices[at - period]) for at in range(period, n)
        ):
            return period
    return n


def _grouped_linear(
    wiring: Wiring, signal: Signal, matrices: Expression, group_axis: int, axis: int, **named: Any
) -> Signal:
    """Matrices (n_groups, n_in, n_out), one for each entry of an axis, such as experts.

    `named` goes to `Wiring.linear` or `Wiring.convolution`.
    """
    n_groups, n_in, n_out = matrices.shape
    group_axis, axis = signal.axis(group_axis), signal.axis(axis)
    rest = [at for at in range(signal.ndim) if at not in (group_axis, axis)]
    sizes = [signal.shape[at] for at in rest]
    moved = permuted(signal, [*rest, group_axis, axis])
    if moved.shape[-2] not in (1, n_groups) or moved.shape[-1] != n_in:
        raise ModelError(f"it applies weights of shape {matrices.shape} to {signal.shape}")
    if not moved.varies(-2) and moved.varies(-1):
        # All groups read the same neurons: one matrix with all their outputs.
        flat = matrices.transpose((1, 0, 2)).reshape(n_in, -1)
        made = wiring.linear(indexed(moved, -2, 0), flat, **named)
    else:
        wide = reshaped(expanded(moved, (*sizes, n_groups, n_in)), (*sizes, n_groups * n_in))
        kernel = matrices.transpose((0, 2, 1)).reshape(n_groups * n_out, n_in)
        made = wiring.convolution(
            wide, kernel[:, :, None], (*sizes, n_groups * n_out), axis=-1, groups=n_groups,
            on_positions=False, **named,
        )  # fmt: skip
    split = reshaped(made, (*sizes, n_groups, n_out))
    order = [0] * signal.ndim
    for at, old in enumerate([*rest, group_axis, axis]):
        order[old] = at
    return permuted(split, order)
