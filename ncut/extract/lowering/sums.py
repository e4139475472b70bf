"""Sums and products of values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ncut.extract.lowering.constants import dequantize, gain, scale
from ncut.extract.lowering.moves import broadcast
from ncut.extract.lowering.pointwise import activation, normalization
from ncut.extract.lowering.signal import NOTHING, Signal, Term, compact, joined, times
from ncut.extract.lowering.wiring import Wiring


def add(wiring: Wiring, *signals: Signal) -> Signal:
    """A sum. If residual sums are streams, the summed neurons become one vertex."""
    # Factors of numbers do not scale the neurons added to them.
    known = [s if s.terms else replace(s, factors=None) for s in signals]
    total, *others = broadcast(known)
    for other in others:
        total = _sum(wiring, total, other)
    return total


def combine(wiring: Wiring, *signals: Signal) -> Signal:
    """Any other function of the entries of several signals, such as a product."""
    pushed = [signal.pushed() for signal in broadcast(signals)]
    terms = [replace(t, homogeneous=False) for signal in pushed for t in signal.terms]
    return Signal(pushed[0].shape, tuple(joined(terms)), activated=True)


def multiply(wiring: Wiring, first: Signal, second: Signal, *, invert: bool = False) -> Signal:
    """An entry-wise product, or quotient if `invert`: both operands reach each reader."""
    if invert and not second.terms and second.factors is not None:
        second = replace(second, factors=second.factors.inverse())
    made = _product(wiring, first, second)
    pairs = [(ours, theirs) for ours in first.terms for theirs in second.terms]
    if pairs and not invert and not any(_shares_neurons(*pair) for pair in pairs):
        wiring.note_product(made, first, second)
    return made


def _product(wiring: Wiring, first: Signal, second: Signal) -> Signal:
    first, second = _without_means(*broadcast((first, second)))
    for signal, other in ((first, second), (second, first)):
        if not other.terms:
            # A number that depends on the data, but carries no neuron.
            return _times_data(wiring, signal, other)
    return combine(wiring, first, second)


def _times_data(wiring: Wiring, signal: Signal, other: Signal) -> Signal:
    """Multiply by a number that depends on the data, and by its constant factors, if any."""
    if not signal.terms:
        factors = times(signal.factors, other.factors)
        number = "spread" if "spread" in (signal.number, other.number) else signal.number
        return Signal(signal.shape, (), factors, other.factors_name, number=number)
    if other.number == "spread":
        made = normalization(wiring, signal)
    else:
        made = activation(wiring, signal, homogeneous=other.number == "drawn")
    factors = other.factors
    if factors is None or dequantize(wiring, made, np.asarray(factors)):
        return made
    if factors.size == 1:
        return gain(wiring, made, factors.map(lambda array: array.reshape(())))
    factors = factors.map(lambda array: np.broadcast_to(array, other.shape))
    narrow = compact(Signal(made.shape, (), factors)).factors
    assert narrow is not None
    if any(n > 1 and not made.varies(axis) for axis, n in enumerate(narrow.shape)):
        if other.factors_name:
            reason = "a factor that differs by position"
            wiring.leave_out(other.factors_name, factors.shape, reason)
        return made
    return scale(wiring, made, narrow, other.factors_name)


def _sum(wiring: Wiring, first: Signal, second: Signal) -> Signal:
    first, second = _without_means(first, second)
    if bool(first.terms) != bool(second.terms):
        # Numbers added to neurons act as a bias.
        return first if first.terms else second
    if first.factors is not None and first.factors is second.factors:
        pass
    elif wiring.residual == "stream":
        first, second = _without_factors(wiring, first), _without_factors(wiring, second)
    else:
        first, second = first.pushed(), second.pushed()
    terms = [*first.terms, *second.terms]
    if any(_differ(wiring, ours, theirs) for ours in first.terms for theirs in second.terms):
        reason = "a neuron enters it twice, by factors that differ and are not summed"
        wiring.leave_out("factors of a sum", (), reason)
    wiring.sums = wiring.sums or bool(terms)
    if wiring.residual == "stream" and terms:
        if any(wiring.merging.rescales(term) for term in terms):
            reason = "folded into what reads its values, not into the sum that they go on to"
            wiring.leave_out("a factor of a sum", (), reason)
        terms = wiring.merging.merge(first.terms, second.terms)
        return Signal(first.shape, tuple(joined(terms)), activated=True)
    if terms:
        return Signal(first.shape, tuple(joined(terms)), first.factors, first.factors_name)
    number = "spread" if "spread" in (first.number, second.number) else first.number
    return Signal(first.shape, factors_name=first.factors_name, number=number)


def _differ(wiring: Wiring, first: Term, second: Term) -> bool:
    """Check whether a neuron occurs twice with different factors, as in x - x * mask.

    The signs of the factors are unknown, and so is the factor of the sum.
    """
    if first.group is not second.group or not (first.homogeneous and second.homogeneous):
        return False
    codes = []
    for term in (first, second):
        factor = times(term.scale, term.gain)
        codes.append(np.zeros(1, dtype=np.int64) if factor is None else factor.codes)
    if codes[0] is codes[1]:
        return False
    same = (first.units == second.units) & (first.units != NOTHING)
    return bool((same & (codes[0] != codes[1])).any())


def _without_factors(wiring: Wiring, signal: Signal) -> Signal:
    """Drop the factors of a sum's operand, which cannot be folded into the sum's readers."""
    if signal.factors is None or not signal.terms:
        return signal
    if all(t.group in wiring.inputs or not wiring.merging.has(t.group) for t in signal.terms):
        return signal.pushed()
    if signal.factors_name and np.ptp(np.asarray(signal.factors)):
        wiring.leave_out(
            signal.factors_name,
            (signal.factors.size,),
            "folded into what reads its values, not into the residual sum that they go on to",
        )
    return replace(signal, factors=None, factors_name="")


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
