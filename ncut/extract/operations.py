"""What operations do to neurons, whatever kind of model they come from.

A reader's rule sorts out names, attributes and the order of arguments and calls one of these. What
is constant is an array here, what depends on the data a `Signal`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncut.errors import ModelError
from ncut.extract.signal import (
    Signal,
    compact,
    expanded,
    indexed,
    padded,
    permuted,
    reshaped,
)
from ncut.extract.wiring import Array, Wiring

FLOAT32_MAX = float(np.finfo(np.float32).max)


# --- constants ----------------------------------------------------------------------------------


def scaled(
    wiring: Wiring,
    signal: Signal,
    factors: Array,
    *,
    parameters: Sequence[str] = (),
    trained: bool = False,
    invert: bool = False,
    name: str = "",
    source: Any = None,
) -> Signal:
    """The signal times (or over) an array that does not depend on the data.

    Parameters
    ----------
    factors : ndarray that broadcasts with the signal
        Numbers or booleans.
    parameters : sequence of str
        What they come from.
    trained : bool
        Whether training may change them: zeros of others take the neurons away.
    invert : bool
        Whether the signal is divided by them.
    name : str
        What a layer of weights is called that such a product may turn out to be, if the next
        operation is a sum; by default the first of the parameters.
    source : object, optional
        What makes the array, for whoever computes it again later; see `ncut.extract.factors`.
    """
    numbers = np.asarray(factors)
    shape = np.broadcast_shapes(signal.shape, numbers.shape)
    wide = expanded(signal, shape)
    if not invert and wiring.unscaled and wiring.dequantize(wide, numbers):
        wiring.place(parameters, "the scale of quantized weights")
        return wide
    if numbers.size == 1:
        return _times_number(wiring, wide, numbers, parameters, trained, invert, source)
    if not trained and not numbers.any() and signal.terms:
        return Signal(shape)
    known = wiring.factors(numbers, source if trained else None)
    known = known.map(lambda array: array.reshape((1,) * (len(shape) - array.ndim) + array.shape))
    narrow = compact(Signal(shape, (), known)).factors
    assert narrow is not None
    if signal.terms and any(n > 1 and not wide.varies(axis) for axis, n in enumerate(narrow.shape)):
        # Masks, and the angles of rotary embeddings; or weights, if a sum comes next.
        reason = "a factor that differs by position"
        for parameter in parameters or ("a constant",):
            wiring.leave_out(parameter, np.shape(factors), reason)
        made = replace(wide)
        if not invert:
            wiring.note_product(made, signal, np.asarray(factors), parameters, name)
        return made
    wiring.place(parameters, "a factor of a layer's neurons")
    narrow = narrow.inverse() if invert else narrow
    return wiring.scale(wide, narrow, next(iter(parameters), name))


def _times_number(
    wiring: Wiring,
    signal: Signal,
    number: Array,
    parameters: Sequence[str],
    trained: bool,
    invert: bool,
    source: Any,
) -> Signal:
    wiring.place(parameters, "a factor of all neurons of a layer")
    value = float(number.ravel()[0])
    if value == 0 and not trained and not invert:
        return Signal(signal.shape)  # a state that is nothing at first
    if not math.isfinite(value) or (invert and value == 0):
        return signal
    factor = wiring.factors(number.reshape(()), source if trained else None)
    factor = factor.inverse() if invert else factor
    if signal.terms:
        return wiring.gain(signal, factor)
    return wiring.scale(signal, factor)


def along(
    wiring: Wiring,
    signal: Signal,
    factors: Array,
    axis: int,
    *,
    parameters: Sequence[str] = (),
    name: str = "",
    source: Any = None,
) -> Signal:
    """Factors along one axis, as a norm's."""
    factors = np.ravel(factors)
    axis = signal.axis(axis)
    n = signal.shape[axis]
    if n != factors.size:
        raise ModelError(f"it scales {factors.size} values, but gets {n}")
    if signal.terms and n > 1 and not signal.varies(axis):
        for parameter in parameters or (name,):
            wiring.leave_out(parameter, (n,), "a factor that differs by position")
        return signal
    wiring.place(parameters, "a factor of a layer's neurons")
    if not signal.terms:
        return signal
    shape = [n if at == axis else 1 for at in range(signal.ndim)]
    known = wiring.factors(factors, source).map(lambda array: array.reshape(shape))
    return wiring.scale(signal, known, next(iter(parameters), name))


def normalized(
    wiring: Wiring,
    signal: Signal,
    kind: str,
    gamma: Array | None = None,
    axis: int = -1,
    *,
    parameters: Sequence[str] = (),
    source: Any = None,
) -> Signal:
    """Division by a spread that depends on the data, times gamma along an axis."""
    signal = wiring.normalization(signal, kind)
    if gamma is None:
        return signal
    return along(wiring, signal, gamma, axis, parameters=parameters, source=source)


# --- functions of each entry --------------------------------------------------------------------


def bounded(wiring: Wiring, signal: Signal, low: float | None, high: float | None) -> Signal:
    """A clamp between two numbers: a ReLU, or its mirror image, where one of them is 0."""
    low = None if low is not None and low <= -FLOAT32_MAX else low
    high = None if high is not None and high >= FLOAT32_MAX else high
    ends = [end for end in (low, high) if end is not None]
    return wiring.activation(signal, homogeneous=ends == [0])


def extremum(wiring: Wiring, signals: Sequence[Signal], constants: Sequence[Array]) -> Signal:
    """The largest or smallest of several at each entry; with zeros alone a ReLU or its mirror."""
    shape = np.broadcast_shapes(*(s.shape for s in signals), *(np.shape(c) for c in constants))
    if len(signals) == 1:
        zeros = all(not np.any(constant) for constant in constants)
        return wiring.activation(expanded(signals[0], shape), homogeneous=zeros)
    return expanded(wiring.combine(*signals), shape)


def choice(wiring: Wiring, signals: Sequence[Signal], shape: Sequence[int]) -> Signal:
    """`where`: a choice between values by a condition: all reach whoever reads it."""
    present = [signal for signal in signals if signal.terms]
    if not present:
        return Signal(tuple(shape))
    if len(present) == 1:
        return wiring.activation(expanded(present[0], shape), homogeneous=False)
    return expanded(wiring.combine(*signals), shape)


def gated_halves(wiring: Wiring, signal: Signal, axis: int) -> Signal:
    """A GLU: one half of the neurons, each times a gate from the other half."""
    half = signal.shape[signal.axis(axis)] // 2
    values, gates = (indexed(signal, axis, part) for part in (slice(half), slice(half, None)))
    return wiring.multiply(values, wiring.activation(gates, homogeneous=False))


# --- positions ----------------------------------------------------------------------------------


def pad(
    wiring: Wiring,
    signal: Signal,
    axis: int,
    before: int,
    after: int,
    *,
    fill: float = 0.0,
    index: NDArray[np.int64] | None = None,
) -> Signal:
    """Entries put before and after those of an axis: numbers, or those that `index` names."""
    if fill and index is None:
        signal = wiring.activation(signal, homogeneous=False)
    if index is None:
        index = np.arange(-before, signal.shape[signal.axis(axis)] + after)
    return padded(signal, signal.axis(axis), index)


def ordered(
    wiring: Wiring, kind: str, signal: Signal, axis: int, shape: Sequence[int], name: str
) -> Signal:
    """Sorting, cumulative sums, the largest ones along an axis.

    Neurons stay where they do not lie on the axis. Where they do, the largest ones are a choice
    that the data makes, and any other order of them is refused.
    """
    if signal.terms and signal.varies(signal.axis(axis)):
        if kind == "topk":
            return wiring.choose(signal, axis, shape, name)
        raise ModelError("it mixes neurons along an axis in an order that depends on the data")
    result = wiring.activation(signal, homogeneous=kind == "cumsum")
    return wiring.positions(result, shape)


# --- products of matrices -----------------------------------------------------------------------


def untransposed(values: Any, groups: int) -> Any:
    """(in, out / groups, positions...) of a transposed convolution as (out, in / groups, ...)."""
    n_in, n_out = values.shape[:2]
    parts = values.reshape(groups, n_in // groups, n_out, *values.shape[2:])
    return parts.swapaxes(1, 2).reshape(groups * n_out, n_in // groups, *values.shape[2:])


def grouped_linear(
    wiring: Wiring, signal: Signal, matrices: Any, group_axis: int, axis: int, **named: Any
) -> Signal:
    """A matrix (n_groups, n_in, n_out) of its own for each entry of an axis, as experts have.

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
        flat = np.ascontiguousarray(matrices.transpose(1, 0, 2)).reshape(n_in, -1)
        made = wiring.linear(indexed(moved, -2, 0), flat, **named)
    else:
        wide = reshaped(expanded(moved, (*sizes, n_groups, n_in)), (*sizes, n_groups * n_in))
        kernel = np.ascontiguousarray(matrices.transpose(0, 2, 1)).reshape(n_groups * n_out, n_in)
        made = wiring.convolution(
            wide, kernel[:, :, None], (*sizes, n_groups * n_out), axis=-1, groups=n_groups,
            on_positions=False, **named,
        )  # fmt: skip
    split = reshaped(made, (*sizes, n_groups, n_out))
    order = [0] * signal.ndim
    for at, old in enumerate([*rest, group_axis, axis]):
        order[old] = at
    return permuted(split, order)


def repeated_heads(signal: Signal, n_heads: int, axis: int) -> Signal:
    """Heads of keys or values along an axis, each as often as queries share it."""
    n = signal.shape[signal.axis(axis)]
    if n == n_heads:
        return signal
    repeats, rest = divmod(n_heads, max(n, 1))
    if rest:
        raise ModelError(f"{n_heads} heads of queries do not share {n} heads of keys evenly")
    return indexed(signal, axis, np.repeat(np.arange(n), repeats))
