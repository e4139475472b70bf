"""Entries of a signal that are moved by an index, or written into another one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ncut.errors import ModelError
from ncut.extract.program.values import MAX_LAID_OUT
from ncut.extract.signal import (
    Signal,
    Term,
    compact,
    overwritten,
    placed,
)

if TYPE_CHECKING:
    from ncut.extract.wiring import Wiring

__all__ = ["gathered", "looked_up", "placed", "scattered", "squeezed", "unchanged", "written"]


def squeezed(signal: Signal, axes: tuple[int, ...]) -> Signal:
    """The signal without axes of length 1."""
    kept = [n for at, n in enumerate(signal.shape) if at not in axes]
    return signal.map(kept, lambda array: array.squeeze(axes))


def gathered(
    signal: Signal, axes: Sequence[int], shape: tuple[int, ...], at: int, why: str
) -> Signal:
    """Entries that the data choose along axes: positions, but no neurons."""
    n_new = len(shape) - signal.ndim + len(axes)

    def change(array: NDArray[np.generic]) -> NDArray[np.generic]:
        if any(array.shape[axis] > 1 for axis in axes):
            raise ModelError(why)
        left = array.squeeze(tuple(axes))
        return left.reshape(left.shape[:at] + (1,) * n_new + left.shape[at:])

    return signal.map(shape, change)


def looked_up(signal: Signal, indices: Sequence[Any], shape: tuple[int, ...]) -> Signal:
    """Entries at indices or in masks that do not depend on the data."""
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
    _: Wiring, whole: Signal, old: Signal, new: Signal, *, places: Callable[[], Any]
) -> Signal:
    """A tensor after a part of it was replaced, which need not change its neurons."""
    return whole if _stays(old, new) else overwritten(whole, new, places())


def unchanged(_: Wiring, old: Signal, new: Signal, *, why: str) -> None:
    """Refuse a part that was replaced by other neurons."""
    if not _stays(old, new):
        raise ModelError(why)


def _stays(old: Signal, new: Signal) -> bool:
    """Whether all of a tensor's neurons lie where they do in another one."""
    return len(old.terms) == len(new.terms) and all(_is_among(term, old) for term in new.terms)


def _is_among(term: Term, signal: Signal) -> bool:
    return any(
        term.group is other.group and bool(np.equal(term.units, other.units).all())
        for other in signal.terms
    )


def scattered(
    wiring: Wiring, signal: Signal, source: Signal, *, axis: int | None, added: bool, why: str
) -> Signal:
    """Values put or added at positions that an index tells; constants keep what is around them."""
    if not source.terms:
        return wiring.activation(signal, homogeneous=False)
    if axis is None or signal.varies(axis) or source.varies(axis):
        raise ModelError(why or "it moves neurons to places that an index tells")
    source = wiring.positions(source, signal.shape)
    if not signal.terms:
        return source
    return wiring.add(signal, source) if added else wiring.combine(signal, source)
