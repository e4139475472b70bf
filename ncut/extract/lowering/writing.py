"""Writing into tensors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncut.errors import ModelError
from ncut.extract.lowering.choices import masked
from ncut.extract.lowering.moves import overwritten, placed
from ncut.extract.lowering.pointwise import activation, positions
from ncut.extract.lowering.signal import Signal, Term
from ncut.extract.lowering.sums import add, combine
from ncut.extract.lowering.wiring import Wiring
from ncut.extract.program.values import MAX_LAID_OUT


def written(
    wiring: Wiring,
    whole: Signal,
    old: Signal,
    new: Signal,
    *,
    places: Callable[[], Any] | None,
    why: str = "",
) -> Signal:
    """A tensor after a part was replaced, possibly without a change of its neurons.

    Without `places`, a change is refused with the message `why`.
    """
    if _stays(old, new):
        return whole
    if places is None:
        raise ModelError(why)
    return _replaced(wiring, whole, new, places())


def _replaced(wiring: Wiring, whole: Signal, new: Signal, places: NDArray[np.int64]) -> Signal:
    """A tensor with entries at flat places replaced by constants or neurons."""
    n = math.prod(whole.shape)
    if new.terms or n > MAX_LAID_OUT:
        return overwritten(whole, new, places)
    kept = np.ones(n, dtype=np.bool_)
    kept[places] = False
    return masked(wiring, whole, kept.reshape(whole.shape))


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
        source = positions(wiring, source, signal.shape)
        if not signal.terms:
            return source
        return add(wiring, signal, source) if added else combine(wiring, signal, source)
    if not source.terms and (added or places is None or not signal.terms):
        return activation(wiring, signal, homogeneous=False)
    if places is None or math.prod(signal.shape) > MAX_LAID_OUT:
        raise ModelError(why or "it moves neurons to places that an index tells")
    flat = places()
    if not added:
        return _replaced(wiring, signal, source, flat.ravel())
    if np.unique(flat).size < flat.size:
        raise ModelError("it adds several entries at one place of a tensor")
    put = placed(source, signal.shape, flat.ravel())
    return add(wiring, signal, put) if signal.terms else put
