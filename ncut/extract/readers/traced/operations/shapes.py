"""Reshaping, slicing, joining: neurons move with their entries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ncut.errors import ModelError
from ncut.extract.program.values import (
    Value,
    concatenated,
    expanded,
    flipped,
    gathered,
    indexed,
    laid_out,
    looked_up,
    merged,
    moved,
    parts,
    permuted,
    rearranged,
    reshaped,
    stacked,
    taken_along,
    tiled,
    unbound,
    unsqueezed,
)
from ncut.extract.readers.traced.operations.common import chosen, is_known, listed
from ncut.extract.readers.traced.tensor import is_traced
from ncut.extract.readers.traced.tracing import Call
from ncut.extract.registry import table


def _reshape(call: Call) -> Value:
    return reshaped(call.signal(0, "self"), call.shape)


def _expand(call: Call) -> Value:
    return expanded(call.signal(0, "self"), call.shape)


def _permute(call: Call) -> Value:
    return permuted(call.signal(0, "self"), call.arg(1, "dims"))


def _transpose(call: Call) -> Value:
    signal = call.signal(0, "self")
    order = [*range(signal.ndim)]
    first, second = (0, 1) if call.function == "t" else (call.arg(1, "dim0"), call.arg(2, "dim1"))
    if signal.ndim > 1:
        first, second = signal.axis(first), signal.axis(second)
        order[first], order[second] = order[second], order[first]
    return permuted(signal, order)


def _slice(call: Call) -> Value:
    start, stop, step = call.arg(2, "start"), call.arg(3, "end"), call.arg(4, "step", 1)
    return indexed(call.signal(0, "self"), call.arg(1, "dim", 0), slice(start, stop, step))


def _select(call: Call) -> Value:
    signal, axis, at = call.signal(0, "self"), call.arg(1, "dim"), call.arg(2, "index")
    n = signal.shape[signal.axis(axis)]
    return indexed(signal, axis, int(at) % n)


def _index_select(call: Call) -> Value:
    signal, axis, index = call.signal(0, "self"), call.arg(1, "dim"), call.arg(2, "index")
    return _taken(call, signal, signal.axis(axis), index)


def _taken(call: Call, signal: Value, axis: int, index: Any) -> Value:
    if not is_known(call, index):
        shape = (*signal.shape[:axis], *index.shape, *signal.shape[axis + 1 :])
        return gathered(signal, [axis], shape)
    if index.dtype == torch.bool:
        index = index.nonzero()[:, 0]
    return indexed(signal, axis, index.detach().cpu().numpy().astype(np.int64))


def _index(call: Call) -> Value:
    """`tensor[indices]`, with None for unindexed axes."""
    signal, indices = call.signal(0, "self"), call.arg(1, "indices")
    used = [axis for axis, index in enumerate(indices) if index is not None]
    chosen_by = [indices[axis] for axis in used]
    masks = any(index.dtype == torch.bool for index in chosen_by)
    traced = any(map(is_traced, chosen_by))
    if all(is_known(call, index) for index in chosen_by) or (masks and not traced):
        known = [None if index is None else index.detach().cpu().numpy() for index in indices]
        return looked_up(signal, known, call.shape)
    if masks:
        raise ModelError("it chooses entries by a mask")
    if len(used) == 1:
        return _taken(call, signal, used[0], chosen_by[0])
    adjacent = used == list(range(used[0], used[-1] + 1))
    return gathered(signal, used, call.shape, at=used[0] if adjacent else 0)


def _gather(call: Call) -> Value:
    signal, index = call.signal(0, "self"), call.arg(2, "index")
    axis = signal.axis(call.arg(1, "dim"))
    if not is_known(call, index):
        return chosen(call, signal, axis)
    return taken_along(signal, axis, index.cpu().numpy())


def _by_places(signal: Value, move: Callable[[torch.Tensor], torch.Tensor]) -> Value:
    """Move entries by moving their flat indices, counted from 1; new entries are 0."""
    numbers = torch.arange(1, laid_out(signal) + 1).reshape(signal.shape)
    return moved(signal, move(numbers).numpy() - 1)


def _moved(call: Call) -> Value:
    """`diag_embed`, `diagonal`, `take`, `rot90` and similar, with known positions."""
    if not all(is_known(call, value) for value in call.args[1:] if torch.is_tensor(value)):
        raise ModelError("it chooses entries by an index that depends on the data")
    move: Any = getattr(torch.ops.aten, call.function.removesuffix("_copy"))
    return _by_places(call.signal(0, "self"), lambda x: move(x, *call.args[1:], **call.kwargs))


def _concatenate(call: Call) -> Value:
    tensors = call.arg(0, "tensors")
    return concatenated([call.tracing.signal_of(t) for t in tensors], call.arg(1, "dim", 0))


def _stack(call: Call) -> Value:
    tensors, axis = call.arg(0, "tensors"), call.arg(1, "dim", 0)
    return stacked([call.tracing.signal_of(t) for t in tensors], axis)


def _split(call: Call) -> list[Value]:
    signal, axis = call.signal(0, "self"), call.arg(2, "dim", 0)
    return parts(signal, axis, [shape[signal.axis(axis)] for shape in call.shapes])


def _unbind(call: Call) -> list[Value]:
    return unbound(call.signal(0, "self"), call.arg(1, "dim", 0))


def _flip(call: Call) -> Value:
    return flipped(call.signal(0, "self"), call.arg(1, "dims"))


def _roll(call: Call) -> Value:
    signal, shifts, axes = call.signal(0, "self"), call.arg(1, "shifts"), call.arg(2, "dims", [])
    if not axes:
        return _by_places(signal, lambda whole: whole.roll(shifts))
    for shift, axis in zip(listed(shifts), listed(axes), strict=True):
        n = signal.shape[signal.axis(axis)]
        signal = indexed(signal, axis, np.roll(np.arange(n), shift))
    return signal


def _repeat(call: Call) -> Value:
    return tiled(call.signal(0, "self"), call.arg(1, "repeats"))


def _pixel_shuffle(call: Call) -> Value:
    signal, factor = call.signal(0, "self"), call.arg(1, "upscale_factor")
    *batch, c, h, w = signal.shape
    n = len(batch)
    split = (*batch, c // factor**2, factor, factor, h, w)
    return rearranged(signal, split, [*range(n), n, n + 3, n + 1, n + 4, n + 2], call.shape)


def _channel_shuffle(call: Call) -> Value:
    signal, groups = call.signal(0, "self"), call.arg(1, "groups")
    n, c, *positions = signal.shape
    order = [0, 2, 1, *range(3, 3 + len(positions))]
    return rearranged(signal, (n, groups, c // groups, *positions), order, call.shape)


def _pixel_unshuffle(call: Call) -> Value:
    signal, factor = call.signal(0, "self"), call.arg(1, "downscale_factor")
    *batch, c, h, w = signal.shape
    n = len(batch)
    split = (*batch, c, h // factor, factor, w // factor, factor)
    return rearranged(signal, split, [*range(n), n, n + 2, n + 4, n + 1, n + 3], call.shape)


def _unfold(call: Call) -> Value:
    """`tensor.unfold(dim, size, step)`: windows along an axis, on a new last axis."""
    signal, axis = call.signal(0, "self"), call.signal(0, "self").axis(call.arg(1, "dimension"))
    size, step = call.arg(2, "size"), call.arg(3, "step")
    starts = np.arange(call.shape[axis]) * step
    windows = indexed(signal, axis, starts[:, None] + np.arange(size)[None, :])
    order = [at for at in range(windows.ndim) if at != axis + 1] + [axis + 1]
    return permuted(windows, order)


def _as_strided(call: Call) -> Value:
    signal = call.signal(0, "self")
    if call.shape != signal.shape:
        raise ModelError("it lays out memory by hand")
    return signal


def _view_as_complex(call: Call) -> Value:
    """Pairs of neurons as one complex number."""
    return merged(call.signal(0, "self"), [call.signal(0, "self").ndim - 1])


def _view_as_real(call: Call) -> Value:
    signal = call.signal(0, "self")
    return expanded(unsqueezed(signal, signal.ndim), call.shape)


def _fourier(call: Call) -> Value:
    """A Fourier transform over positions, separate for each neuron."""
    why = "it mixes all neurons of a layer with each other without any weights"
    axes = [call.signal(0, "self").axis(axis) for axis in listed(call.arg(1, "dim"))]
    signal = call.signal(0, "self")
    for axis in axes:
        signal = gathered(signal, [axis], signal.shape, why=why)
    return call.program.positions(signal, call.shape)


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
    ("diag_embed diagonal diagonal_copy take rot90", _moved),
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
