"""Reshaping, slicing, joining: neurons move as the entries do."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from ncut.errors import ModelError
from ncut.extract.signal import (
    MAX_LAID_OUT,
    Signal,
    compact,
    concatenated,
    expanded,
    indexed,
    permuted,
    reduced,
    reshaped,
    stacked,
    unsqueezed,
)
from ncut.extract.traced.operations.common import chosen, listed, table
from ncut.extract.traced.tensor import is_traced
from ncut.extract.traced.tracing import Call


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
    if not any(is_traced(indices[axis]) for axis in used):
        return _at_known(call, signal, indices)
    if len(used) == 1:
        if indices[used[0]].dtype == torch.bool:
            raise ModelError("it chooses entries by a mask")
        return _taken(call, signal, used[0], indices[used[0]])
    if any(signal.varies(axis) for axis in used):
        raise ModelError("it chooses neurons by several indices at once, which depend on the data")
    # Positions alone are chosen: the axes that are left keep their neurons.
    kept = [axis for axis in range(signal.ndim) if axis not in used]
    adjacent = used == list(range(used[0], used[-1] + 1))
    n_new = len(call.shape) - len(kept)
    first = used[0] if adjacent else 0

    def change(array: Any) -> Any:
        squeezed = array.squeeze(tuple(used))
        return squeezed.reshape(squeezed.shape[:first] + (1,) * n_new + squeezed.shape[first:])

    return signal.map(call.shape, change)


def _at_known(call: Call, signal: Signal, indices: Any) -> Signal:
    """Entries at indices or in masks that do not depend on the data."""
    key: list[Any] = []
    along: list[int] = []
    axis = 0
    for index in indices:
        n = index.ndim if index is not None and index.dtype == torch.bool else 1
        if index is not None:
            along += range(axis, axis + n)
        axis += n
        key.append(slice(None) if index is None else index.detach().cpu().numpy())

    def change(array: Any) -> Any:
        sizes = [signal.shape[at] if at in along else n for at, n in enumerate(array.shape)]
        if math.prod(sizes) > MAX_LAID_OUT:
            raise ModelError(f"it lays out {math.prod(sizes)} neurons when it chooses among them")
        return np.broadcast_to(array, sizes)[tuple(key)]

    return compact(signal.map(call.shape, change))


def _gather(call: Call) -> Signal:
    signal, axis = call.signal(0, "self"), call.arg(1, "dim")
    if not signal.terms:
        return Signal(call.shape)
    if signal.varies(signal.axis(axis)):
        return chosen(call, signal, axis)
    return call.wiring.positions(signal, call.shape)


def _concatenate(call: Call) -> Signal:
    tensors = call.arg(0, "tensors")
    return concatenated([call.tracing.signal_of(t) for t in tensors], call.arg(1, "dim", 0))


def _stack(call: Call) -> Signal:
    tensors, axis = call.arg(0, "tensors"), call.arg(1, "dim", 0)
    return stacked([call.tracing.signal_of(t) for t in tensors], axis)


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
    for shift, axis in zip(listed(shifts), listed(axes), strict=True):
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
    return expanded(unsqueezed(signal, signal.ndim), call.shape)


def _fourier(call: Call) -> Signal:
    """A Fourier transform over positions, each neuron apart."""
    signal = call.signal(0, "self")
    if any(signal.varies(axis) for axis in listed(call.arg(1, "dim"))):
        raise ModelError("it mixes all neurons of a layer with each other without any weights")
    return call.wiring.positions(signal, call.shape)


RULES = table(
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
)  # fmt: skip
