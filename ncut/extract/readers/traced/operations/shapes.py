"""Reshaping, slicing, joining: neurons move with their entries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


def _transpose(call: Call) -> Value:
    signal = call.signal()
    order = [*range(signal.ndim)]
    first, second = (0, 1) if call.function == "t" else (call.arg(1, "dim0"), call.arg(2, "dim1"))
    if signal.ndim > 1:
        first, second = signal.axis(first), signal.axis(second)
        order[first], order[second] = order[second], order[first]
    return permuted(signal, order)


def _slice(call: Call) -> Value:
    start, stop, step = call.arg(2, "start"), call.arg(3, "end"), call.arg(4, "step", 1)
    return indexed(call.signal(), call.arg(1, "dim", 0), slice(start, stop, step))


def _select(call: Call) -> Value:
    signal, axis = call.signal(), call.axis()
    return indexed(signal, axis, int(call.arg(2, "index")) % signal.shape[axis])


def _taken(call: Call, axis: int, index: Any) -> Value:
    """Entries along an axis, by an index that may depend on the data."""
    signal = call.signal()
    if not is_known(call, index):
        shape = (*signal.shape[:axis], *index.shape, *signal.shape[axis + 1 :])
        return gathered(signal, [axis], shape)
    if index.dtype == torch.bool:
        index = index.nonzero()[:, 0]
    return indexed(signal, axis, index.detach().cpu().numpy().astype(np.int64))


def _index(call: Call) -> Value:
    """`tensor[indices]`, with None for unindexed axes."""
    signal, indices = call.signal(), call.arg(1, "indices")
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
        return _taken(call, used[0], chosen_by[0])
    adjacent = used == list(range(used[0], used[-1] + 1))
    return gathered(signal, used, call.shape, at=used[0] if adjacent else 0)


def _gather(call: Call) -> Value:
    index, axis = call.arg(2, "index"), call.axis()
    if not is_known(call, index):
        return chosen(call, call.signal(), axis)
    return taken_along(call.signal(), axis, index.cpu().numpy())


def _by_places(signal: Value, move: Callable[[torch.Tensor], torch.Tensor]) -> Value:
    """Move entries by moving their flat indices, counted from 1; new entries are 0."""
    numbers = torch.arange(1, laid_out(signal) + 1).reshape(signal.shape)
    return moved(signal, move(numbers).numpy() - 1)


def _moved(call: Call) -> Value:
    """`diag_embed`, `diagonal`, `take`, `rot90` and similar, with known positions."""
    if not all(is_known(call, value) for value in call.args[1:] if torch.is_tensor(value)):
        raise ModelError("it chooses entries by an index that depends on the data")
    move: Any = getattr(torch.ops.aten, call.function.removesuffix("_copy"))
    return _by_places(call.signal(), lambda x: move(x, *call.args[1:], **call.kwargs))


def _joined(join: Callable[[Sequence[Value], int], Value]) -> Callable[[Call], Value]:
    """`cat` or `stack`."""

    def rule(call: Call) -> Value:
        signals = [call.tracing.signal_of(tensor) for tensor in call.arg(0, "tensors")]
        return join(signals, call.arg(1, "dim", 0))

    return rule


def _split(call: Call) -> list[Value]:
    axis = call.axis(2, 0)
    return parts(call.signal(), axis, [shape[axis] for shape in call.shapes])


def _roll(call: Call) -> Value:
    signal, shifts, axes = call.signal(), call.arg(1, "shifts"), call.arg(2, "dims", [])
    if not axes:
        return _by_places(signal, lambda whole: whole.roll(shifts))
    for shift, axis in zip(listed(shifts), listed(axes), strict=True):
        n = signal.shape[signal.axis(axis)]
        signal = indexed(signal, axis, np.roll(np.arange(n), shift))
    return signal


def _pixel_shuffle(call: Call) -> Value:
    signal, factor = call.signal(), call.arg(1, "upscale_factor")
    *batch, c, h, w = signal.shape
    n = len(batch)
    split = (*batch, c // factor**2, factor, factor, h, w)
    return rearranged(signal, split, [*range(n), n, n + 3, n + 1, n + 4, n + 2], call.shape)


def _channel_shuffle(call: Call) -> Value:
    signal, groups = call.signal(), call.arg(1, "groups")
    n, c, *positions = signal.shape
    order = [0, 2, 1, *range(3, 3 + len(positions))]
    return rearranged(signal, (n, groups, c // groups, *positions), order, call.shape)


def _pixel_unshuffle(call: Call) -> Value:
    signal, factor = call.signal(), call.arg(1, "downscale_factor")
    *batch, c, h, w = signal.shape
    n = len(batch)
    split = (*batch, c, h // factor, factor, w // factor, factor)
    return rearranged(signal, split, [*range(n), n, n + 2, n + 4, n + 1, n + 3], call.shape)


def _unfold(call: Call) -> Value:
    """`tensor.unfold(dim, size, step)`: windows along an axis, on a new last axis."""
    axis, size = call.signal().axis(call.arg(1, "dimension")), call.arg(2, "size")
    starts = np.arange(call.shape[axis]) * call.arg(3, "step")
    windows = indexed(call.signal(), axis, starts[:, None] + np.arange(size)[None, :])
    return permuted(windows, [at for at in range(windows.ndim) if at != axis + 1] + [axis + 1])


def _as_strided(call: Call) -> Value:
    if call.shape != call.signal().shape:
        raise ModelError("it lays out memory by hand")
    return call.signal()


def _fourier(call: Call) -> Value:
    """A Fourier transform over positions, separate for each neuron."""
    why = "it mixes all neurons of a layer with each other without any weights"
    signal = call.signal()
    for axis in listed(call.arg(1, "dim")):
        signal = gathered(signal, [axis], signal.shape, why=why)
    return call.program.positions(signal, call.shape)


RULES = table(
    (
        "view _unsafe_view reshape _reshape_alias squeeze squeeze_ unsqueeze unsqueeze_ flatten",
        lambda call: reshaped(call.signal(), call.shape),
    ),
    ("expand", lambda call: expanded(call.signal(), call.shape)),
    ("permute", lambda call: permuted(call.signal(), call.arg(1, "dims"))),
    ("transpose t swapaxes transpose_", _transpose),
    ("slice", _slice),
    ("select", _select),
    ("index_select", lambda call: _taken(call, call.axis(), call.arg(2, "index"))),
    ("index _unsafe_index", _index),
    ("gather", _gather),
    ("diag_embed diagonal diagonal_copy take rot90", _moved),
    ("cat concatenate", _joined(concatenated)),
    ("stack", _joined(stacked)),
    ("split split_with_sizes chunk tensor_split", _split),
    ("unbind", lambda call: unbound(call.signal(), call.arg(1, "dim", 0))),
    ("flip", lambda call: flipped(call.signal(), call.arg(1, "dims"))),
    ("roll", _roll),
    ("repeat", lambda call: tiled(call.signal(), call.arg(1, "repeats"))),
    ("pixel_shuffle", _pixel_shuffle),
    ("pixel_unshuffle", _pixel_unshuffle),
    ("channel_shuffle native_channel_shuffle", _channel_shuffle),
    ("unfold", _unfold),
    ("as_strided as_strided_", _as_strided),
    # Pairs of neurons as one complex number, and back.
    ("view_as_complex", lambda call: merged(call.signal(), [call.signal().ndim - 1])),
    ("view_as_real", lambda c: expanded(unsqueezed(c.signal(), c.signal().ndim), c.shape)),
    ("_fft_r2c _fft_c2r _fft_c2c", _fourier),
)
