"""Movement of entries, and the neurons they carry: reshape, slice, join, gather, overwrite."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncut.errors import ModelError
from ncut.extract.lowering.signal import (
    NOTHING,
    Signal,
    Term,
    Units,
    all_activated,
    compact,
    compact_array,
    first_along,
    joined,
    split,
)
from ncut.extract.program.values import MAX_LAID_OUT


def permuted(signal: Signal, order: Sequence[int]) -> Signal:
    """`tensor.permute(order)`."""
    order = [signal.axis(axis) for axis in order]
    return signal.map([signal.shape[axis] for axis in order], lambda a: a.transpose(order))


def reshaped(signal: Signal, shape: Sequence[int]) -> Signal:
    """`tensor.reshape(shape)`, all sizes given."""
    shape = tuple(int(size) for size in shape)
    if shape == signal.shape:
        return signal
    if [n for n in shape if n != 1] == [n for n in signal.shape if n != 1]:
        return signal.map(shape, partial(_with_axes_of_one, signal.shape, shape))
    pairs = _matching_axes(signal.shape, shape)
    return signal.map(shape, lambda array: _reshaped(array, signal.shape, shape, pairs))


def expanded(signal: Signal, shape: Sequence[int]) -> Signal:
    """`tensor.expand(shape)`: new axes in front, and axes of length 1 made longer."""
    shape = tuple(shape)
    extra = len(shape) - signal.ndim
    return signal.map(shape, lambda array: array.reshape((1,) * extra + array.shape))


def broadcast(signals: Sequence[Signal]) -> list[Signal]:
    """The signals, broadcast to one shape."""
    shape = np.broadcast_shapes(*(signal.shape for signal in signals))
    return [expanded(signal, shape) for signal in signals]


def indexed(signal: Signal, axis: int, index: NDArray[np.int64] | slice | int) -> Signal:
    """Entries of one axis: a slice, an array of positions, or one position (drops the axis)."""
    axis = signal.axis(axis)
    n = signal.shape[axis]
    positions = np.arange(n)[index]
    shape = list(signal.shape)
    if positions.ndim == 0:
        del shape[axis]
    else:
        shape[axis : axis + 1] = positions.shape

    def change(array: NDArray[np.generic]) -> NDArray[np.generic]:
        if array.shape[axis] == 1:
            taken = np.zeros_like(positions) if positions.ndim == 0 else positions[:1] * 0
            if positions.ndim > 1:
                taken = np.zeros((1,) * positions.ndim, dtype=np.int64)
            return np.take(array, taken, axis=axis)
        return np.take(array, positions, axis=axis)

    return compact(signal.map(shape, change))


def padded(signal: Signal, axis: int, index: NDArray[np.int64]) -> Signal:
    """Entries at positions of an axis; positions outside it carry no neurons."""
    n = signal.shape[axis]
    inside = (index >= 0) & (index < n)
    result = indexed(signal, axis, np.clip(index, 0, n - 1))
    if inside.all() or not signal.varies(axis):
        return result
    outside = ~inside.reshape([-1 if at == axis else 1 for at in range(signal.ndim)])
    terms = tuple(replace(t, units=np.where(outside, NOTHING, t.units)) for t in result.terms)
    return replace(result, terms=terms)


def concatenated(signals: Sequence[Signal], axis: int) -> Signal:
    """`torch.cat(tensors, axis)`.

    Along an axis that distinguishes neurons, or if all parts have length 1 (a stack), each part
    keeps its own neurons. Along any other axis (positions), the parts carry the same neurons.
    """
    signals = [signal for signal in signals if signal.shape != (0,)]
    axis = signals[0].axis(axis)
    length = sum(signal.shape[axis] for signal in signals)
    shape = [*signals[0].shape]
    shape[axis] = length
    # Otherwise factors that all parts share, or that a part lacks, would be lost.
    signals = [signal.pushed() for signal in signals]
    tells_apart = any(signal.varies(axis) for signal in signals)
    separate = all(signal.shape[axis] == 1 for signal in signals)
    terms: list[Term] = []
    start = 0
    for signal in signals:
        stop = start + signal.shape[axis]
        for term in signal.terms:
            place = slice(start, stop)
            own = separate or tells_apart or all(size == 1 for size in term.units.shape)
            terms.append(_padded(term, axis, place, length) if own else term)
        start = stop
    made = Signal(tuple(shape), tuple(joined(terms)), activated=all_activated(signals))
    return compact(made)


def _padded(term: Term, axis: int, place: slice, length: int) -> Term:
    """A term of one part of a concatenation, as a term of the whole."""

    def pad(array: NDArray[np.generic], fill: float) -> NDArray[np.generic]:
        shape = list(array.shape)
        shape[axis] = length
        whole = np.full(shape, fill, dtype=array.dtype)
        whole[(slice(None),) * axis + (place,)] = array
        return whole

    units: Units = np.asarray(pad(term.units, NOTHING), dtype=np.int64)
    scale = None if term.scale is None else term.scale.map(lambda array: pad(array, 0))
    return replace(term, units=units, scale=scale)


def overwritten(whole: Signal, part: Signal, places: NDArray[np.int64]) -> Signal:
    """A tensor after its entries at flat `places` were replaced by those of `part`."""
    whole = whole.pushed()
    n = math.prod(whole.shape)
    if n > MAX_LAID_OUT:
        raise ModelError(f"it writes into a tensor of {n} entries; build it with torch.cat instead")
    terms = []
    for term in whole.terms:
        units: Units = np.broadcast_to(term.units, whole.shape).reshape(n).copy()
        units[places] = NOTHING
        if (units != NOTHING).any():
            terms.append(replace(term, units=units.reshape(whole.shape)))
    put = placed(part, whole.shape, places)
    activated = all_activated([whole, put])
    made = Signal(whole.shape, tuple(joined([*terms, *put.terms])), activated=activated)
    return compact(made)


def placed(signal: Signal, shape: Sequence[int], places: NDArray[np.int64]) -> Signal:
    """A tensor with a signal's entries at flat `places`, without neurons elsewhere."""
    signal = signal.pushed()
    n = math.prod(shape)

    def put(array: NDArray[np.generic], fill: float) -> NDArray[np.generic]:
        whole = np.full(n, fill, dtype=array.dtype)
        whole[places] = np.broadcast_to(array, signal.shape).ravel()
        return whole.reshape(tuple(shape))

    terms = []
    for term in signal.terms:
        units: Units = np.asarray(put(term.units, NOTHING), dtype=np.int64)
        scale = None if term.scale is None else term.scale.map(lambda array: put(array, 0))
        terms.append(replace(term, units=units, scale=scale))
    return compact(Signal(tuple(shape), tuple(terms), activated=signal.activated))


def merged(signal: Signal, axes: tuple[int, ...]) -> Signal:
    """Entries merged along axes into one that carries the neurons of all; drops the axes."""
    terms: list[Term] = []
    for term in signal.pushed().terms:
        along = tuple(axis for axis in axes if term.units.shape[axis] > 1)
        terms += split(term, along) if along else [first_along(term, axes)]
    made = replace(signal.pushed(), terms=tuple(joined(terms)))
    kept = [n for at, n in enumerate(signal.shape) if at not in axes]
    return made.map(kept, lambda array: array.squeeze(axes))


def taken(
    signal: Signal, *, index: Any, axis: int | None = None, shape: tuple[int, ...] = ()
) -> Signal:
    """Entries at a known index along one axis, or at indices and masks along several."""
    return _looked_up(signal, index, shape) if axis is None else indexed(signal, axis, index)


def _looked_up(signal: Signal, indices: Sequence[Any], shape: tuple[int, ...]) -> Signal:
    """Entries at known indices or in known masks."""
    key = [slice(None) if index is None else index for index in indices]
    along: list[int] = []
    axis = 0
    for index in indices:
        n = index.ndim if index is not None and index.dtype == np.bool_ else 1
        along += range(axis, axis + n) if index is not None else ()
        axis += n

    def change(array: NDArray[np.generic]) -> NDArray[np.generic]:
        sizes = [signal.shape[at] if at in along else n for at, n in enumerate(array.shape)]
        if math.prod(sizes) > MAX_LAID_OUT:
            raise ModelError(f"it lays out {math.prod(sizes)} neurons when it chooses among them")
        return np.broadcast_to(array, sizes)[tuple(key)]

    return compact(signal.map(shape, change))


def overlaid(first: Signal, second: Signal, mask: NDArray[np.bool_]) -> Signal:
    """The first signal where a known mask is True, the second elsewhere."""
    terms: list[Term] = []
    for signal, here in ((first.pushed(), mask), (second.pushed(), ~mask)):
        for term in signal.terms:
            kept = of_neurons(here, signal, partial(_varies, term.units))
            terms.append(replace(term, units=np.where(kept, term.units, NOTHING)))
    activated = all_activated([first, second])
    return compact(Signal(first.shape, tuple(joined(terms)), activated=activated))


def _varies(units: NDArray[np.generic], axis: int) -> bool:
    return bool(units.shape[axis] > 1)


def of_neurons(
    mask: NDArray[np.bool_], signal: Signal, varies: Callable[[int], bool]
) -> NDArray[np.bool_]:
    """The mask, reduced by `any` along axes that do not distinguish neurons."""
    wide = mask.reshape((1,) * (signal.ndim - mask.ndim) + mask.shape)
    positions = tuple(axis for axis in range(signal.ndim) if not varies(axis))
    return np.asarray(wide.any(axis=positions, keepdims=True))


def _with_axes_of_one(
    old: tuple[int, ...], new: tuple[int, ...], array: NDArray[np.generic]
) -> NDArray[np.generic]:
    """The array reshaped by adding or dropping axes of length 1 only."""
    sizes = (size for size, n in zip(array.shape, old, strict=True) if n != 1)
    return array.reshape([1 if n == 1 else next(sizes) for n in new])


def _matching_axes(
    old: tuple[int, ...], new: tuple[int, ...]
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Runs of axes of the old and the new shape with equal numbers of entries."""
    if np.prod(old) != np.prod(new):
        raise ModelError(f"cannot reshape {old} to {new}")
    pairs: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        i0, j0 = i, j
        n_old = n_new = 1
        # Take at least one remaining axis of each, and continue until the sizes agree.
        if i < len(old):
            n_old, i = old[i], i + 1
        if j < len(new):
            n_new, j = new[j], j + 1
        while n_old != n_new:
            if n_old < n_new and i < len(old):
                n_old, i = n_old * old[i], i + 1
            elif n_new < n_old and j < len(new):
                n_new, j = n_new * new[j], j + 1
            else:
                raise ModelError(f"cannot reshape {old} to {new}")
        pairs.append((tuple(range(i0, i)), tuple(range(j0, j))))
    return pairs


def _reshaped(
    array: NDArray[np.generic],
    old: tuple[int, ...],
    new: tuple[int, ...],
    pairs: list[tuple[tuple[int, ...], tuple[int, ...]]],
) -> NDArray[np.generic]:
    full: list[int] = []
    target: list[int] = []
    grown = False
    for before, after in pairs:
        sizes = [array.shape[axis] for axis in before]
        if all(size == 1 for size in sizes):
            full += sizes
            target += [1] * len(after)
        elif len(before) == len(after) == 1:
            full += sizes
            target += sizes
        else:
            full += [old[axis] for axis in before]
            target += [new[axis] for axis in after]
            grown = True
    if grown and math.prod(full) > MAX_LAID_OUT:
        raise ModelError(f"it lays out {math.prod(full)} neurons when it reshapes {old} to {new}")
    result = np.broadcast_to(array, full).reshape(target)
    return compact_array(result) if grown else result
