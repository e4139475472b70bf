"""Indexing and writing: moves entries of a signal, or writes them into another signal."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ncut.errors import ModelError
from ncut.extract.lowering.signal import (
    NOTHING,
    Signal,
    Term,
    all_activated,
    compact,
    first_along,
    joined,
    overwritten,
    placed,
    split,
)
from ncut.extract.program.values import MAX_LAID_OUT

if TYPE_CHECKING:
    from ncut.extract.lowering.wiring import Wiring


def merged(signal: Signal, axes: tuple[int, ...]) -> Signal:
    """Entries merged along axes into one that carries the neurons of all; drops the axes."""
    terms: list[Term] = []
    for term in signal.pushed().terms:
        along = tuple(axis for axis in axes if term.units.shape[axis] > 1)
        terms += split(term, along) if along else [first_along(term, axes)]
    made = replace(signal.pushed(), terms=tuple(joined(terms)))
    kept = [n for at, n in enumerate(signal.shape) if at not in axes]
    return made.map(kept, lambda array: array.squeeze(axes))


def masked(wiring: Wiring, signal: Signal, mask: NDArray[np.bool_]) -> Signal:
    """Entries with constants where a known mask is False, which removes the neurons there.

    A neuron kept at any position is kept.
    """
    kept = _of_neurons(mask, signal, signal.varies)
    if kept.all() or not signal.terms:
        return signal
    return wiring.scale(signal, kept.astype(np.float64)) if kept.any() else Signal(signal.shape)


def overlaid(first: Signal, second: Signal, mask: NDArray[np.bool_]) -> Signal:
    """The first signal where a known mask is True, the second elsewhere."""
    terms: list[Term] = []
    for signal, here in ((first.pushed(), mask), (second.pushed(), ~mask)):
        for term in signal.terms:
            kept = _of_neurons(here, signal, partial(_varies, term.units))
            terms.append(replace(term, units=np.where(kept, term.units, NOTHING)))
    activated = all_activated([first, second])
    return compact(Signal(first.shape, tuple(joined(terms)), activated=activated))


def _varies(units: NDArray[np.generic], axis: int) -> bool:
    return bool(units.shape[axis] > 1)


def _of_neurons(
    mask: NDArray[np.bool_], signal: Signal, varies: Callable[[int], bool]
) -> NDArray[np.bool_]:
    """The mask, reduced by `any` along axes that do not distinguish neurons."""
    wide = mask.reshape((1,) * (signal.ndim - mask.ndim) + mask.shape)
    positions = tuple(axis for axis in range(signal.ndim) if not varies(axis))
    return np.asarray(wide.any(axis=positions, keepdims=True))


def gathered(
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


def looked_up(signal: Signal, indices: Sequence[Any], shape: tuple[int, ...]) -> Signal:
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


def written(
    wiring: Wiring, whole: Signal, old: Signal, new: Signal, *, places: Callable[[], Any]
) -> Signal:
    """A tensor after a part was replaced, possibly without a change of its neurons."""
    return whole if _stays(old, new) else _replaced(wiring, whole, new, places())


def _replaced(wiring: Wiring, whole: Signal, new: Signal, places: NDArray[np.int64]) -> Signal:
    """A tensor with entries at flat places replaced by constants or neurons."""
    n = math.prod(whole.shape)
    if new.terms or n > MAX_LAID_OUT:
        return overwritten(whole, new, places)
    kept = np.ones(n, dtype=np.bool_)
    kept[places] = False
    return masked(wiring, whole, kept.reshape(whole.shape))


def unchanged(_: Wiring, old: Signal, new: Signal, *, why: str) -> None:
    """Refuse a part whose replacement has other neurons."""
    if not _stays(old, new):
        raise ModelError(why)


def _stays(old: Signal, new: Signal) -> bool:
    """Check whether all neurons of a tensor are at the same entries in another."""
    return len(old.terms) == len(new.terms) and all(_is_among(term, old) for term in new.terms)


def _is_among(term: Term, signal: Signal) -> bool:
    return any(
        term.group is other.group and bool(np.equal(term.units, other.units).all())
        for other in signal.terms
    )


def scattered(
    wiring: Wiring,
    signal: Signal,
    source: Signal,
    *,
    axis: int | None,
    added: bool,
    why: str,
    places: Callable[[], Any] | None,
) -> Signal:
    """Values put or added at indexed positions, along `axis` or at flat places."""
    along = axis is not None and (signal.varies(axis) or source.varies(axis))
    if source.terms and axis is not None and not along:
        source = wiring.positions(source, signal.shape)
        if not signal.terms:
            return source
        return wiring.add(signal, source) if added else wiring.combine(signal, source)
    if not source.terms and (added or places is None or not signal.terms):
        return wiring.activation(signal, homogeneous=False)
    if places is None or math.prod(signal.shape) > MAX_LAID_OUT:
        raise ModelError(why or "it moves neurons to places that an index tells")
    flat = places()
    if not added:
        return _replaced(wiring, signal, source, flat.ravel())
    if np.unique(flat).size < flat.size:
        raise ModelError("it adds several entries at one place of a tensor")
    put = placed(source, signal.shape, flat.ravel())
    return wiring.add(signal, put) if signal.terms else put
