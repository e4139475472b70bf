"""Factors of neurons: constants and parameters, also the scales of integer weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncut.extract.lowering.factors import Factors
from ncut.extract.lowering.moves import expanded
from ncut.extract.lowering.signal import NOTHING, Signal, Term, Units, compact, times
from ncut.extract.lowering.wiring import Array, Wiring
from ncut.extract.program.weights import Expression, Weights


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
    if numbers.size == 1 and not trained and abs(numbers.item()) == 1:
        return wide
    if not invert and wiring.unscaled and dequantize(wiring, wide, numbers):
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
    return scale(wiring, wide, narrow, next(iter(parameters), name))


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
        return gain(wiring, signal, factor)
    return scale(wiring, signal, factor)


def scale(wiring: Wiring, signal: Signal, factors: Array | Factors, name: str = "") -> Signal:
    """Factors that do not depend on the data, an array that broadcasts to the shape.

    They belong to the writer of the neurons if no activation came since, otherwise to their
    readers. NumPy arrays are constants.
    """
    known = factors if isinstance(factors, Factors) else wiring.factors(factors)
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


def gain(wiring: Wiring, signal: Signal, factor: float | Factors) -> Signal:
    """A factor shared by all neurons."""
    known = factor if isinstance(factor, Factors) else wiring.factors(np.array(float(factor)))
    terms = tuple(replace(term, gain=times(term.gain, known)) for term in signal.terms)
    return replace(signal, terms=terms)


def dequantize(wiring: Wiring, signal: Signal, scale: Array, zero: Array | None = None) -> bool:
    """Fold the scale of a result into the integer weights that wrote it.

    Returns whether all neurons come from integer weights and each has a single scale.
    """
    groups = {term.group for term in signal.terms}
    plain = all(term.scale is None and term.gain is None for term in signal.terms)
    if not groups or not plain or not groups <= wiring.unscaled.keys():
        return False
    sides = [np.asarray(scale, np.float64), np.asarray(0 if zero is None else zero, np.float64)]
    wide = [x.reshape((1,) * (signal.ndim - x.ndim) + x.shape) for x in sides]
    if not all(_each_its_own(t, x, signal.shape) for t in signal.terms for x in wide):
        return False
    for term in signal.terms:
        factors, shifts = (_of_neurons(term, x, signal.shape)[0] for x in wide)
        at = next(n for n, o in enumerate(wiring.operations) if o.writes is term.group)
        operation = wiring.operations[at]
        assert operation.weight is not None
        outputs = 0 if operation.kind == "conv" else 1
        shape = [-1 if axis == outputs else 1 for axis in range(operation.weight.ndim)]
        weight = operation.weight.values.astype(np.float32)
        weight = weight - shifts.astype(np.float32).reshape(shape)
        weight = weight * factors.astype(np.float32).reshape(shape)
        made = Expression(weight, leaves=operation.weight.leaves)
        wiring.operations[at] = replace(operation, weight=made)
    if zero is None or np.any(sides[0] != 1):
        for group in groups:
            wiring.unscaled.pop(group, None)
    return True


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
    if due and dequantize(wiring, signal, scale, zero):
        wiring.place(placed, "the scale of quantized weights")
        wiring.ignore(ignored, "zero point")
    return signal


def awaiting_scale(wiring: Wiring, signal: Signal, *, what: str) -> Signal:
    """Mark results of integer weights, which take over the scale of their results."""
    for operation in wiring.operations[-1:]:
        if operation.writes is not None and operation.writes in {t.group for t in signal.terms}:
            wiring.unscaled[operation.writes] = what
    return signal


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
