"""What each operation of ATen does to neurons: tables from its name to a rule.

Composite operations fall apart into these before they arrive. A rule gets a `Call` and returns
the signal of the result, or a list of signals. What torch itself tags as pointwise needs no
rule of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ncut.errors import ModelError
from ncut.extract.arrays import as_array
from ncut.extract.chain import normalization_scale
from ncut.extract.signal import (
    NOTHING,
    Signal,
    compact,
    concatenated,
    expanded,
    indexed,
    permuted,
    reduced,
    reshaped,
)
from ncut.extract.traced.initial import initial_weight
from ncut.extract.traced.tensor import is_traced
from ncut.extract.traced.tracing import Call, DependsOnDataError

if TYPE_CHECKING:
    from ncut.extract.traced.rules import Rule


# --- each entry alone ---------------------------------------------------------------------------


def pointwise(operation: Any) -> Rule | None:
    """The rule of an operation that torch tags as pointwise."""
    name = operation._schema.name.removeprefix("aten::")
    # What an operation does in place is what it does elsewhere; only the latter is tagged.
    packet = getattr(torch.ops.aten, name.removesuffix("_"), None) if name.endswith("_") else None
    overload = operation._overloadname
    original = getattr(packet, overload, operation) if packet else operation
    return _pointwise if torch.Tag.pointwise in original.tags else None


def _pointwise(call: Call) -> Signal:
    signals = call.signals()
    if len(signals) == 1:
        signal = expanded(signals[0], call.shape)
        return call.wiring.activation(signal, homogeneous=False)
    return call.wiring.combine(*signals)


def _homogeneous(call: Call) -> Signal:
    return call.wiring.activation(call.signals()[0], homogeneous=True)


def _softmax(call: Call) -> Signal:
    """Shares of what lies along an axis.

    Shares of positions choose among positions and carry no neurons, so that what is added to
    attention scores has no part in the values.
    """
    axis = call.signal(0, "self").axis(call.arg(1, "dim"))
    return call.wiring.softmax(call.signal(0, "self"), axis)


def _keep(call: Call) -> Signal:
    return call.signals()[0]


def _gated_halves(call: Call) -> Signal:
    """`F.glu`: one half of the neurons, each times a gate from the other half."""
    signal, axis = call.signal(0, "self"), call.signal(0, "self").axis(call.arg(1, "dim", -1))
    half = signal.shape[axis] // 2
    halves = [indexed(signal, axis, part) for part in (slice(0, half), slice(half, None))]
    return call.wiring.combine(*halves)


def _with_buffer(call: Call) -> list[Signal]:
    return [_saturating(call), *_rest(call)]


def _clamp(call: Call) -> Signal:
    low, high = call.arg(1, "min"), call.arg(2, "max")
    if call.function.startswith("clamp_min"):
        high = None
    return call.wiring.activation(call.signals()[0], homogeneous=low == 0 and high is None)


def _threshold(call: Call) -> Signal:
    zero = [call.arg(1, "threshold"), call.arg(2, "value")] == [0, 0]
    return call.wiring.activation(call.signals()[0], homogeneous=zero)


def _saturating(call: Call) -> Signal:
    return call.wiring.activation(call.signals()[0], homogeneous=False)


def _where(call: Call) -> Signal:
    """A choice between values by a condition: both reach whoever reads it."""
    signals = [s for s in call.signals() if s.terms]
    if len(signals) == 1:
        return call.wiring.activation(expanded(signals[0], call.shape), homogeneous=False)
    return expanded(call.wiring.combine(*call.signals()), call.shape)


def _add(call: Call) -> Signal:
    first, second = call.arg(0, "self"), call.arg(1, "other")
    if is_traced(first) and is_traced(second):
        return call.wiring.add(first.signal, second.signal)
    traced, other = (first, second) if is_traced(first) else (second, first)
    name = call.tracing.parameter(other)
    if name:
        call.wiring.ignore([name], "added as a constant, like a bias")
    return expanded(traced.signal, call.shape)


def _multiply(call: Call) -> Signal:
    first, second = call.arg(0, "self"), call.arg(1, "other")
    if is_traced(first) and is_traced(second):
        return call.wiring.multiply(first.signal, second.signal)
    traced, other = (first, second) if is_traced(first) else (second, first)
    return _scaled(call, expanded(traced.signal, call.shape), other, invert=False)


def _divide(call: Call) -> Signal:
    first, second = call.arg(0, "self"), call.arg(1, "other")
    if is_traced(first) and is_traced(second):
        return call.wiring.multiply(first.signal, second.signal)
    if is_traced(second):
        return call.wiring.activation(expanded(second.signal, call.shape), homogeneous=False)
    return _scaled(call, expanded(first.signal, call.shape), second, invert=True)


def _scaled(call: Call, signal: Signal, other: Any, *, invert: bool) -> Signal:
    """The signal times (or over) a number or an array that does not depend on the data."""
    if not isinstance(other, torch.Tensor) or other.numel() == 1:
        name = call.tracing.parameter(other)
        call.wiring.place([name] if name else [], "a factor of all neurons of a layer")
        factor = abs(float(other))
        if factor == 0 and not name:
            return Signal(signal.shape)  # a state that is nothing at first
        usable = math.isfinite(factor) and factor > 0
        return call.wiring.gain(signal, 1 / factor if invert else factor) if usable else signal
    name = call.tracing.parameter(other)
    if not signal.terms:
        return signal
    factors = np.asarray(as_array(other, "its factors"), dtype=np.float64)
    if not name and not factors.any():
        return Signal(signal.shape)
    factors = factors.reshape((1,) * (signal.ndim - factors.ndim) + factors.shape)
    if any(n > 1 and not signal.varies(axis) for axis, n in enumerate(factors.shape)):
        factors = compact(Signal(signal.shape, (), factors)).factors  # type: ignore[assignment]
    if any(n > 1 and not signal.varies(axis) for axis, n in enumerate(factors.shape)):
        # Masks, and the angles of rotary embeddings: other factors at other positions.
        if name:
            call.wiring.leave_out(name, tuple(other.shape), "a factor that differs by position")
        return signal
    with np.errstate(divide="ignore"):
        factors = 1 / factors if invert else factors
    call.wiring.place([name] if name else [], "a factor of a layer's neurons")
    return call.wiring.scale(signal, factors, name)


# --- weights ------------------------------------------------------------------------------------


def _convolution(call: Call) -> Signal:
    tensor = call.arg(1, "weight")
    if is_traced(tensor):
        raise ModelError("its kernel depends on the data")
    weight = call.tracing.weight(tensor)
    _note_bias(call, call.arg(2, "bias"))
    groups = int(call.arg(8, "groups"))
    transposed = bool(call.arg(6, "transposed"))

    def convert(values: Any) -> Any:
        return _untransposed(values, groups) if transposed else values

    signal = call.signal()
    unbatched = signal.ndim < tensor.ndim
    return call.wiring.convolution(
        signal, convert(weight.values), call.shape,
        name=weight.name, groups=groups, axis=0 if unbatched else 1,
        parameters=weight.parameters, module=weight.module,
        initial=initial_weight(weight.holder, len(call.wiring.operations), convert),
    )  # fmt: skip


def _untransposed(values: Any, groups: int) -> Any:
    """(in, out / groups, positions...) of a transposed convolution as (out, in / groups, ...)."""
    n_in, n_out = values.shape[:2]
    parts = values.reshape(groups, n_in // groups, n_out, *values.shape[2:])
    return parts.swapaxes(1, 2).reshape(groups * n_out, n_in // groups, *values.shape[2:])


def _mm(call: Call) -> Signal:
    return _product(call, call.args[0], call.args[1])


def _addmm(call: Call) -> Signal:
    _note_bias(call, call.args[0])
    product = _product(call, call.args[1], call.args[2])
    if is_traced(call.args[0]):
        return call.wiring.add(call.args[0].signal, product)
    return product


def _mv(call: Call) -> Signal:
    matrix, vector = call.args[-2:]
    if is_traced(matrix) and is_traced(vector):
        raise ModelError("a product of a matrix and a vector of signals")
    if is_traced(vector):
        weight = call.tracing.weight(matrix)
        return _linear(call, vector.signal, weight, weight.values.T, axis=0, shape=call.shape)
    weight = call.tracing.weight(vector)
    signal = _linear(call, matrix.signal, weight, weight.values[:, None], axis=1)
    return reshaped(signal, call.shape)


def _product(call: Call, first: Any, second: Any) -> Signal:
    """A product of matrices, perhaps many: of a signal with a weight, or of two signals."""
    if is_traced(first) and is_traced(second):
        path = call.tracing.path
        return call.wiring.matmul(
            first.signal, second.signal, f"heads of {path}" if path else "heads"
        )
    traced, tensor = (first, second) if is_traced(first) else (second, first)
    left = traced is second  # the weight is the left factor: it is applied along axis -2
    if not traced.signal.terms:
        return Signal(call.shape)
    weight = call.tracing.weight(tensor)
    values = weight.values.swapaxes(-1, -2) if left else weight.values
    axis = traced.signal.ndim - (2 if left else 1)
    if values.ndim == 2:
        return _linear(call, traced.signal, weight, values, axis=axis, shape=call.shape)
    same = tensor.stride(0) == 0 or bool((tensor == tensor[:1]).all())
    if same:
        return _linear(call, traced.signal, weight, values[0], axis=axis, shape=call.shape)
    return _grouped_linear(call, traced.signal, weight, values, axis)


def _linear(
    call: Call, signal: Signal, weight: Any, values: Any, *, axis: int, shape: Any = None
) -> Signal:
    return call.wiring.linear(
        signal, values, axis=axis, shape=shape,
        name=weight.name, module=weight.module, parameters=weight.parameters,
    )  # fmt: skip


def _grouped_linear(call: Call, signal: Signal, weight: Any, values: Any, axis: int) -> Signal:
    """A matrix of its own for each entry of the first axis, as experts or heads have."""
    n_groups, n_in, n_out = values.shape
    if not signal.varies(0) and signal.varies(axis):
        # All groups read the same neurons: one matrix with all their outputs.
        flat = np.ascontiguousarray(values.transpose(1, 0, 2)).reshape(n_in, n_groups * n_out)
        single = indexed(signal, 0, 0)
        moved = _moved_last(single, axis - 1)
        made = _linear(call, moved, weight, flat, axis=-1)
        split = reshaped(made, (*made.shape[:-1], n_groups, n_out))
        order = [split.ndim - 2, *range(split.ndim - 2), split.ndim - 1]
        result = permuted(split, order)
    else:
        moved = _moved_last(signal, axis)
        order = [*range(1, moved.ndim - 1), 0, moved.ndim - 1]
        wide = permuted(moved, order)
        wide = reshaped(wide, (*wide.shape[:-2], n_groups * n_in))
        kernel = np.ascontiguousarray(values.transpose(0, 2, 1)).reshape(n_groups * n_out, n_in)
        made = call.wiring.convolution(
            wide, kernel[:, :, None], (*wide.shape[:-1], n_groups * n_out),
            name=weight.name, groups=n_groups, axis=-1,
            parameters=weight.parameters, module=weight.module, on_positions=False,
        )  # fmt: skip
        split = reshaped(made, (*made.shape[:-1], n_groups, n_out))
        result = permuted(split, [split.ndim - 2, *range(split.ndim - 2), split.ndim - 1])
    if axis == result.ndim - 2:
        result = permuted(result, [*range(result.ndim - 2), result.ndim - 1, result.ndim - 2])
    return result


def _moved_last(signal: Signal, axis: int) -> Signal:
    axis = signal.axis(axis)
    return permuted(signal, [at for at in range(signal.ndim) if at != axis] + [axis])


def _note_bias(call: Call, bias: Any) -> None:
    name = call.tracing.parameter(bias)
    if name:
        call.wiring.ignore([name], "bias")


def _attention(call: Call) -> list[Signal]:
    path = call.tracing.path
    signals = [call.tracing.signal_of(value) for value in call.args[:3]]
    return [
        call.wiring.attention(*signals, name=f"heads of {path}" if path else "heads"),
        *_rest(call),
    ]


# --- norms --------------------------------------------------------------------------------------


def _batch_norm(call: Call) -> list[Signal]:
    signal, weight = call.signal(), call.arg(1, "weight")
    _note_bias(call, call.arg(2, "bias"))
    training = not call.function.endswith("no_training") and call.arg(5, "training")
    mean, variance = call.arg(3, "running_mean"), call.arg(4, "running_var")
    eps = call.args[-1] if isinstance(call.args[-1], float) else call.arg(7, "eps")
    gamma = None if weight is None else as_array(weight, "its weight")
    name = call.tracing.parameter(weight)
    if training or variance is None or mean is None:
        kind = "data-dependent batch norm"
        return [normalized(call, signal, gamma, name, 1, kind), *_rest(call)]
    if signal.terms:
        factors = normalization_scale(gamma, as_array(variance, "its variance"), float(eps))
        scaled = along(call, signal, factors, 1, name or call.tracing.path)
    else:
        scaled = signal
    return [scaled, *_rest(call)]


def _layer_norm(call: Call) -> list[Signal]:
    weight = call.arg(2, "weight")
    _note_bias(call, call.arg(3, "bias"))
    return [norm_of_last_axes(call, weight, "layer norm"), *_rest(call)]


def _rms_norm(call: Call) -> list[Signal]:
    return [norm_of_last_axes(call, call.arg(2, "weight"), "RMS norm"), *_rest(call)]


def norm_of_last_axes(call: Call, weight: Any, kind: str) -> Signal:
    """Division by a spread that depends on the data, times a weight of the last axes."""
    signal = call.wiring.normalization(call.signal(), kind)
    return signal if weight is None else _scaled(call, signal, weight, invert=False)


def _group_norm(call: Call) -> list[Signal]:
    weight = call.arg(1, "weight")
    _note_bias(call, call.arg(2, "bias"))
    gamma = None if weight is None else as_array(weight, "its weight")
    name = call.tracing.parameter(weight)
    return [normalized(call, call.signal(), gamma, name, 1, "group norm"), *_rest(call)]


def normalized(call: Call, signal: Signal, gamma: Any, name: str, axis: int, kind: str) -> Signal:
    """Division by a spread that depends on the data, times gamma."""
    signal = call.wiring.normalization(signal, kind)
    return signal if gamma is None else along(call, signal, gamma, axis, name)


def along(call: Call, signal: Signal, factors: Any, axis: int, name: str) -> Signal:
    """Factors along one axis."""
    n = signal.shape[axis]
    if n != np.size(factors):
        raise ModelError(f"it scales {np.size(factors)} values, but gets {n}")
    if signal.terms and n > 1 and not signal.varies(axis):
        call.wiring.leave_out(name, (n,), "a factor that differs by position")
        return signal
    call.wiring.place([name] if name else [], "a factor of a layer's neurons")
    shape = [n if at == axis else 1 for at in range(signal.ndim)]
    return call.wiring.scale(signal, np.reshape(factors, shape), name)


def _rest(call: Call) -> list[Signal]:
    """Further results, such as a norm's statistics, which carry no neurons."""
    return [Signal(shape) for shape in call.shapes[1:]]


# --- positions ----------------------------------------------------------------------------------


def _positions(call: Call) -> Signal | list[Signal]:
    signal = call.wiring.positions(call.signal(0, "self"), call.shape)
    return [signal, *_rest(call)] if len(call.shapes) > 1 else signal


def _maximum_pool(call: Call) -> Signal | list[Signal]:
    return _positions(call)


def _pad(call: Call) -> Signal:
    """Padding of positions; padded channels carry nothing."""
    signal, widths = call.signal(0, "self"), list(call.arg(1, "pad"))
    value = call.arg(2, "value", 0)
    if value:
        signal = call.wiring.activation(signal, homogeneous=False)
    for number in range(len(widths) // 2):
        axis = signal.ndim - 1 - number
        before, after = widths[2 * number : 2 * number + 2]
        if not (before or after):
            continue
        n = signal.shape[axis]
        index = np.arange(-before, n + after)
        inside = (index >= 0) & (index < n)
        shape = [len(index) if at == axis else 1 for at in range(signal.ndim)]
        varies = signal.varies(axis)
        signal = indexed(signal, axis, np.clip(index, 0, n - 1))
        if varies and not inside.all():
            outside = ~inside.reshape(shape)
            terms = tuple(
                replace(t, units=np.where(outside, NOTHING, t.units)) for t in signal.terms
            )
            signal = replace(signal, terms=terms)
    return signal


def _im2col(call: Call) -> Signal:
    """Patches laid side by side: (n, c, positions...) -> (n, c * kernel, patches)."""
    signal, kernel = call.signal(0, "self"), call.arg(1, "kernel_size")
    n, c = signal.shape[:2]
    n_patches = call.shape[-1]
    size = math.prod(kernel)
    flat = reshaped(signal, (n, c, math.prod(signal.shape[2:])))
    wide = call.wiring.positions(flat, (n, c, 1)).map((n, c, 1, 1), lambda a: a[..., None])
    return reshaped(expanded(wide, (n, c, size, n_patches)), call.shape)


def _col2im(call: Call) -> Signal:
    """Patches summed where they overlap: (n, c * kernel, patches) -> (n, c, positions...)."""
    signal, kernel = call.signal(0, "self"), call.arg(2, "kernel_size")
    n, n_patches = signal.shape[0], signal.shape[-1]
    size = math.prod(kernel)
    c = signal.shape[1] // size
    summed = reduced(reshaped(signal, (n, c, size, n_patches)), [2], keepdim=False)
    placed = call.wiring.positions(summed, (n, c, math.prod(call.shape[2:])))
    return reshaped(placed, call.shape)


# --- shapes -------------------------------------------------------------------------------------


def _reshape(call: Call) -> Signal:
    return reshaped(call.signal(0, "self"), call.shape)


def _expand(call: Call) -> Signal:
    return expanded(call.signal(0, "self"), call.shape)


def _permute(call: Call) -> Signal:
    return permuted(call.signal(0, "self"), call.arg(1, "dims"))


def _transpose(call: Call) -> Signal:
    signal = call.signal(0, "self")
    order = [*range(signal.ndim)]
    first, second = (0, 1) if call.function == "t" else (call.arg(1, "dim0"), call.arg(2, "dim1"))
    if signal.ndim > 1:
        first, second = signal.axis(first), signal.axis(second)
        order[first], order[second] = order[second], order[first]
    return permuted(signal, order)


def _slice(call: Call) -> Signal:
    start, stop, step = call.arg(2, "start"), call.arg(3, "end"), call.arg(4, "step", 1)
    return indexed(call.signal(0, "self"), call.arg(1, "dim", 0), slice(start, stop, step))


def _select(call: Call) -> Signal:
    signal, axis, at = call.signal(0, "self"), call.arg(1, "dim"), call.arg(2, "index")
    n = signal.shape[signal.axis(axis)]
    return indexed(signal, axis, int(at) % n)


def _index_select(call: Call) -> Signal:
    signal, axis, index = call.signal(0, "self"), call.arg(1, "dim"), call.arg(2, "index")
    return _taken(call, signal, signal.axis(axis), index)


def _taken(call: Call, signal: Signal, axis: int, index: Any) -> Signal:
    if is_traced(index):
        if signal.varies(axis):
            raise ModelError("it chooses neurons by an index that depends on the data")
        positions = np.zeros(tuple(index.shape), dtype=np.int64)
        return indexed(signal, axis, positions)
    if index.dtype == torch.bool:
        index = index.nonzero()[:, 0]
    return indexed(signal, axis, index.detach().cpu().numpy().astype(np.int64))


def _index(call: Call) -> Signal:
    """`tensor[indices]`, with None for axes that are left as they are."""
    signal, indices = call.signal(0, "self"), call.arg(1, "indices")
    used = [axis for axis, index in enumerate(indices) if index is not None]
    if len(used) == 1:
        index = indices[used[0]]
        if (index.dtype == torch.bool and index.ndim > 1) or (
            is_traced(index) and (index.dtype == torch.bool)
        ):
            raise ModelError("it chooses entries by a mask")
        return _taken(call, signal, used[0], index)
    if any(signal.varies(axis) for axis in used):
        raise ModelError("it chooses neurons by several indices at once")
    # Positions alone are chosen: the axes that are left keep their neurons.
    kept = [axis for axis in range(signal.ndim) if axis not in used]
    adjacent = used == list(range(used[0], used[-1] + 1))
    n_new = len(call.shape) - len(kept)
    first = used[0] if adjacent else 0

    def change(array: Any) -> Any:
        squeezed = array.squeeze(tuple(used))
        return squeezed.reshape(squeezed.shape[:first] + (1,) * n_new + squeezed.shape[first:])

    return signal.map(call.shape, change)


def _gather(call: Call) -> Signal:
    signal, axis = call.signal(0, "self"), call.arg(1, "dim")
    if not signal.terms:
        return Signal(call.shape)
    if signal.varies(signal.axis(axis)):
        raise ModelError("it chooses neurons by an index that depends on the data")
    return call.wiring.positions(signal, call.shape)


def _concatenate(call: Call) -> Signal:
    tensors = call.arg(0, "tensors")
    return concatenated([call.tracing.signal_of(t) for t in tensors], call.arg(1, "dim", 0))


def _stack(call: Call) -> Signal:
    tensors, axis = call.arg(0, "tensors"), call.arg(1, "dim", 0)
    signals = [call.tracing.signal_of(t) for t in tensors]
    axis = axis % (signals[0].ndim + 1)
    # Along the new axis each has its own place, also where all of its neurons lie along others.
    return concatenated([_unsqueezed(signal, axis) for signal in signals], axis, separate=True)


def _unsqueezed(signal: Signal, axis: int) -> Signal:
    shape = (*signal.shape[:axis], 1, *signal.shape[axis:])
    return signal.map(shape, lambda a: np.expand_dims(a, axis))


def _split(call: Call) -> list[Signal]:
    signal, axis = call.signal(0, "self"), call.arg(2, "dim", 0)
    axis = signal.axis(axis)
    starts = np.cumsum([0, *(shape[axis] for shape in call.shapes)])
    return [
        indexed(signal, axis, slice(int(start), int(start) + shape[axis]))
        for start, shape in zip(starts, call.shapes, strict=False)
    ]


def _unbind(call: Call) -> list[Signal]:
    signal, axis = call.signal(0, "self"), call.arg(1, "dim", 0)
    return [indexed(signal, axis, at) for at in range(len(call.shapes))]


def _flip(call: Call) -> Signal:
    signal = call.signal(0, "self")
    for axis in call.arg(1, "dims"):
        signal = indexed(signal, axis, slice(None, None, -1))
    return signal


def _roll(call: Call) -> Signal:
    signal, shifts, axes = call.signal(0, "self"), call.arg(1, "shifts"), call.arg(2, "dims", [])
    if not axes:
        raise ModelError("it rolls a tensor over all of its axes at once")
    for shift, axis in zip(_listed(shifts), _listed(axes), strict=True):
        n = signal.shape[signal.axis(axis)]
        signal = indexed(signal, axis, np.roll(np.arange(n), shift))
    return signal


def _repeat(call: Call) -> Signal:
    signal, times = call.signal(0, "self"), call.arg(1, "repeats")
    signal = expanded(signal, (1,) * (len(times) - signal.ndim) + signal.shape)
    for axis, n in enumerate(times):
        if n > 1:
            signal = indexed(signal, axis, np.tile(np.arange(signal.shape[axis]), n))
    return signal


def _pixel_shuffle(call: Call) -> Signal:
    signal, factor = call.signal(0, "self"), call.arg(1, "upscale_factor")
    *batch, c, h, w = signal.shape
    n = len(batch)
    split = reshaped(signal, (*batch, c // factor**2, factor, factor, h, w))
    moved = permuted(split, [*range(n), n, n + 3, n + 1, n + 4, n + 2])
    return reshaped(moved, call.shape)


def _channel_shuffle(call: Call) -> Signal:
    signal, groups = call.signal(0, "self"), call.arg(1, "groups")
    n, c, *positions = signal.shape
    split = reshaped(signal, (n, groups, c // groups, *positions))
    return reshaped(permuted(split, [0, 2, 1, *range(3, split.ndim)]), call.shape)


def _pixel_unshuffle(call: Call) -> Signal:
    signal, factor = call.signal(0, "self"), call.arg(1, "downscale_factor")
    *batch, c, h, w = signal.shape
    n = len(batch)
    split = reshaped(signal, (*batch, c, h // factor, factor, w // factor, factor))
    moved = permuted(split, [*range(n), n, n + 2, n + 4, n + 1, n + 3])
    return reshaped(moved, call.shape)


def _unfold(call: Call) -> Signal:
    """`tensor.unfold(dim, size, step)`: windows along an axis, laid on a new last one."""
    signal, axis = call.signal(0, "self"), call.signal(0, "self").axis(call.arg(1, "dimension"))
    size, step = call.arg(2, "size"), call.arg(3, "step")
    starts = np.arange(call.shape[axis]) * step
    windows = indexed(signal, axis, starts[:, None] + np.arange(size)[None, :])
    order = [at for at in range(windows.ndim) if at != axis + 1] + [axis + 1]
    return permuted(windows, order)


def _as_strided(call: Call) -> Signal:
    signal = call.signal(0, "self")
    if call.shape != signal.shape:
        raise ModelError("it lays out memory by hand")
    return signal


def _view_as_complex(call: Call) -> Signal:
    """Pairs of neurons as one complex number."""
    return reduced(call.signal(0, "self"), [-1], keepdim=False)


def _view_as_real(call: Call) -> Signal:
    signal = call.signal(0, "self")
    return expanded(_unsqueezed(signal, signal.ndim), call.shape)


def _fourier(call: Call) -> Signal:
    """A Fourier transform over positions, each neuron apart."""
    signal = call.signal(0, "self")
    if any(signal.varies(axis) for axis in _listed(call.arg(1, "dim"))):
        raise ModelError("it mixes all neurons of a layer with each other without any weights")
    return call.wiring.positions(signal, call.shape)


# --- writing in place ---------------------------------------------------------------------------


def _copy(call: Call) -> Signal:
    return expanded(call.signal(1, "src"), call.shape)


def _filled(call: Call) -> Signal:
    return Signal(call.shape)


def _put(call: Call) -> Signal:
    """`tensor[indices] = values`: constants leave the neurons around them what they are."""
    if call.signal(2, "values").terms:
        raise ModelError(
            "it writes into a part of a tensor; build the tensor with torch.cat or torch.stack "
            "instead"
        )
    return call.wiring.activation(call.signal(0, "self"), homogeneous=False)


def _scatter(call: Call) -> Signal:
    """Values put or added at positions that an index tells."""
    signal, source = call.signal(0, "self"), call.signal(3, "src")
    axis = signal.axis(call.arg(1, "dim"))
    if call.function.startswith("index_"):
        source = call.signal(3, "source")
    if not source.terms:
        return call.wiring.activation(signal, homogeneous=False)
    if signal.varies(axis) or source.varies(axis):
        raise ModelError("it moves neurons to places that an index tells")
    source = call.wiring.positions(source, call.shape)
    if not signal.terms:
        return source
    added = "add" in call.function
    return call.wiring.add(signal, source) if added else call.wiring.combine(signal, source)


# --- reductions ---------------------------------------------------------------------------------


SPREADS = ("mean", "var", "std", "var_mean", "std_mean", "linalg_vector_norm", "norm")
"""Reductions by which norms divide, where they keep the axis."""


def _reduce(call: Call) -> Signal | list[Signal]:
    axes = call.arg(1, "dim")
    if call.function == "linalg_vector_norm":
        axes = call.arg(2, "dim")
    elif call.function == "kthvalue":
        axes = call.arg(2, "dim", -1)
    elif call.function in ("var", "std", "var_mean", "std_mean") and isinstance(axes, bool):
        axes = None
    signal = call.signal(0, "self")
    chosen = list(range(signal.ndim)) if axes in (None, []) else _listed(axes)
    keepdim = len(call.shape) == signal.ndim and signal.ndim > 0
    divides = keepdim and call.function in SPREADS
    result = reduced(signal, chosen, keepdim=keepdim, divides=divides)
    if call.function in ("mean", "sum"):
        return result
    if call.function in ("amax", "amin", "max", "min"):
        result = call.wiring.activation(result, homogeneous=True)
    else:
        result = call.wiring.activation(result, homogeneous=False)
    if len(call.shapes) > 1:
        return [result, *(replace(result, shape=shape) for shape in call.shapes[1:])]
    return result


def _listed(axes: Any) -> Sequence[int]:
    return [axes] if isinstance(axes, int) else list(axes)


def _chosen_index(call: Call) -> Signal:
    """Positions of something along an axis: numbers without neurons."""
    return Signal(call.shape)


def _along_axis(call: Call) -> Signal | list[Signal]:
    """Sorting, cumulative sums and the like: neurons stay where they do not lie on the axis."""
    signal = call.signal(0, "self")
    axis = call.arg(2 if call.function == "topk" else 1, "dim", -1)
    if isinstance(axis, bool):
        axis = call.arg(2, "dim", -1)
    if signal.terms and signal.varies(signal.axis(axis)):
        raise ModelError("it mixes neurons along an axis in an order that depends on the data")
    result = call.wiring.activation(signal, homogeneous=call.function == "cumsum")
    result = call.wiring.positions(result, call.shape)
    return [result, *_rest(call)] if len(call.shapes) > 1 else result


# --- what has no signal -------------------------------------------------------------------------


def _like(call: Call) -> Any:
    """A tensor of known values: zeros, ones, or noise of the shape of another."""
    source = call.args[0]
    kwargs = {k: v for k, v in call.kwargs.items() if k in ("dtype", "layout") and v is not None}
    kwargs.setdefault("dtype", source.dtype)
    device = call.kwargs.get("device") or call.tracing.device
    if call.function.startswith("new_"):
        shape, fill = call.args[1], call.args[2:3]
    else:
        shape, fill = tuple(source.shape), call.args[1:2]
    kind = call.function.removeprefix("new_").removesuffix("_like").removesuffix("_strided")
    if kind in ("rand", "randn", "empty"):
        kind = "zeros"
    if kind == "full":
        return torch.full(tuple(shape), fill[0], device=device, **kwargs)
    return getattr(torch, kind)(tuple(shape), device=device, **kwargs)


def _control_flow(call: Call) -> Any:
    raise DependsOnDataError(
        f"{call.tracing.place()} chooses what to do by values that depend on the data. Pass a "
        "model without that choice, or the weights of a chain in it as a list"
    )


def _math_attention(call: Call) -> Any:
    return 0  # SDPBackend.MATH: falls apart into products of matrices


def _no_result(call: Call) -> Any:
    return None


def _table(*rows: tuple[str, Any]) -> dict[str, Any]:
    return {name: rule for names, rule in rows for name in names.split()}


EARLY: dict[str, Any] = _table(
    (
        "zeros_like ones_like full_like empty_like rand_like randn_like new_zeros new_ones "
        "new_full new_empty new_empty_strided",
        _like,
    ),
    (
        "_local_scalar_dense item is_nonzero equal allclose nonzero unique_dim _unique2",
        _control_flow,
    ),
    ("_fused_sdp_choice", _math_attention),
    ("_assert_async _functional_assert_async _assert_tensor_metadata", _no_result),
)
"""Operations whose results are no traced tensors."""

KEEPS_SHAPE = {
    *("relu", "relu_", "leaky_relu", "leaky_relu_", "gelu", "silu", "silu_", "mish", "elu", "elu_"),
    *("sigmoid", "sigmoid_", "tanh", "tanh_", "hardtanh", "hardtanh_", "hardswish", "hardswish_"),
    *("hardsigmoid", "hardsigmoid_"),
}
"""Operations whose result has the shape and the type of their first argument."""

BATCH_NORMS = {"_native_batch_norm_legit_no_training", "native_batch_norm"}
"""Batch norms in evaluation mode give their result and two empty tensors."""

OPERATIONS: dict[str, Any] = _table(
    (
        "relu relu_ leaky_relu leaky_relu_ prelu _prelu_kernel rrelu_with_noise "
        "rrelu_with_noise_ abs abs_",
        _homogeneous,
    ),
    ("hardtanh hardtanh_ relu6 hardswish hardswish_", _saturating),
    ("log_sigmoid_forward", _with_buffer),
    ("glu", _gated_halves),
    ("complex polar", _pointwise),
    ("clamp clamp_ clamp_min clamp_min_", _clamp),
    ("threshold threshold_", _threshold),
    ("where masked_fill masked_fill_", _where),
    ("add add_ sub sub_ rsub", _add),
    ("mul mul_", _multiply),
    ("div div_ true_divide", _divide),
    (
        "clone detach detach_ alias contiguous _to_copy to lift_fresh lift dropout native_dropout "
        "feature_dropout alpha_dropout _conj conj neg neg_ positive real view_copy "
        "lift_fresh_copy tril tril_ triu triu_",
        _keep,
    ),
    ("_softmax _log_softmax softmax log_softmax _safe_softmax", _softmax),
    ("convolution _convolution", _convolution),
    ("mm bmm matmul", _mm),
    ("addmm baddbmm addbmm", _addmm),
    ("mv addmv dot", _mv),
    (
        "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_attention_math "
        "_scaled_dot_product_flash_attention _scaled_dot_product_efficient_attention",
        _attention,
    ),
    (
        "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training "
        "_batch_norm_no_update _batch_norm_with_update cudnn_batch_norm",
        _batch_norm,
    ),
    ("native_layer_norm", _layer_norm),
    ("_fused_rms_norm rms_norm", _rms_norm),
    ("native_group_norm", _group_norm),
    (
        "avg_pool1d avg_pool2d avg_pool3d max_pool1d max_pool2d max_pool3d "
        "max_pool2d_with_indices max_pool3d_with_indices _adaptive_avg_pool2d "
        "_adaptive_avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_max_pool1d "
        "adaptive_max_pool2d adaptive_max_pool3d fractional_max_pool2d fractional_max_pool3d "
        "upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d "
        "_upsample_nearest_exact2d upsample_linear1d upsample_bilinear2d upsample_bicubic2d "
        "upsample_trilinear3d _upsample_bilinear2d_aa _upsample_bicubic2d_aa reflection_pad1d "
        "reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d "
        "grid_sampler_2d grid_sampler_3d max_unpool2d max_unpool3d",
        _positions,
    ),
    ("constant_pad_nd", _pad),
    ("im2col", _im2col),
    ("col2im", _col2im),
    (
        "view _unsafe_view reshape _reshape_alias squeeze squeeze_ unsqueeze unsqueeze_ flatten",
        _reshape,
    ),
    ("expand", _expand),
    ("permute", _permute),
    ("transpose t swapaxes transpose_", _transpose),
    ("slice", _slice),
    ("select", _select),
    ("index_select", _index_select),
    ("index _unsafe_index", _index),
    ("gather", _gather),
    ("cat concatenate", _concatenate),
    ("stack", _stack),
    ("split split_with_sizes chunk tensor_split", _split),
    ("unbind", _unbind),
    ("flip", _flip),
    ("roll", _roll),
    ("repeat", _repeat),
    ("pixel_shuffle", _pixel_shuffle),
    ("pixel_unshuffle", _pixel_unshuffle),
    ("channel_shuffle native_channel_shuffle", _channel_shuffle),
    ("unfold", _unfold),
    ("as_strided as_strided_", _as_strided),
    ("view_as_complex", _view_as_complex),
    ("view_as_real", _view_as_real),
    ("_fft_r2c _fft_c2r _fft_c2c", _fourier),
    ("copy_ copy", _copy),
    ("fill_ fill zero_ zero", _filled),
    ("index_put index_put_ _index_put_impl_ _unsafe_index_put", _put),
    (
        "scatter scatter_ scatter_add scatter_add_ scatter_reduce scatter_reduce_ index_add "
        "index_add_ index_copy index_copy_",
        _scatter,
    ),
    (
        "mean sum amax amin max min prod var std var_mean std_mean logsumexp linalg_vector_norm "
        "norm any all nansum median nanmedian kthvalue",
        _reduce,
    ),
    ("argmax argmin count_nonzero", _chosen_index),
    ("cumsum cumprod sort topk cummax logcumsumexp", _along_axis),
)  # fmt: skip
"""Operations by their name in ATen, without overload."""
