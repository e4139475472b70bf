"""Functions of single entries, norms, and changes of positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncut.errors import ModelError
from ncut.extract.lowering.moves import padded
from ncut.extract.lowering.signal import Signal, Term, is_in
from ncut.extract.lowering.wiring import Wiring


def activation(wiring: Wiring, signal: Signal, *, homogeneous: bool | None) -> Signal:
    """A function of each entry alone; `homogeneous` if it commutes with positive factors."""
    if not signal.terms:
        return Signal(signal.shape, number=signal.number)
    terms = tuple(_flagged(term, homogeneous) for term in signal.terms)
    return replace(signal, terms=terms, activated=True)


def normalization(wiring: Wiring, signal: Signal, kind: str = "norm") -> Signal:
    """Division by a number that depends on the data, the same for many neurons."""
    if not signal.terms:
        return Signal(signal.shape, number=signal.number)
    wiring.norms[kind] = wiring.norms.get(kind, 0) + 1
    terms = tuple(_flagged(term, False) for term in signal.terms)
    return replace(signal, terms=terms)


def softmax(wiring: Wiring, signal: Signal, axis: int) -> Signal:
    """Softmax along an axis; over positions, shares that a matrix product may apply."""
    if not any(size > 1 for term in signal.terms for size in term.units.shape):
        return activation(wiring, signal, homogeneous=False)
    kept = tuple(term for term in signal.terms if term.units.shape[signal.axis(axis)] > 1)
    if not kept:
        signal = replace(signal, number="shares")
    elif any(not is_in(t, kept) and any(n > 1 for n in t.units.shape) for t in signal.terms):
        # Channels compared with channels: mixed values pass, the shares do not.
        wiring.attends = True
        wiring.joined |= {term.group for term in signal.terms}
        return Signal(signal.shape)
    else:
        signal = replace(signal, terms=kept)
    return activation(wiring, signal, homogeneous=False)


def positions(
    wiring: Wiring, signal: Signal, shape: Sequence[int], *, axis: int = 1, nearest: bool = False
) -> Signal:
    """Pooling, padding or another change of positions that mixes no neurons.

    Channels lie along `axis`. If `nearest`, each position is a copy of the nearest one, which
    may have its own neurons. Positions of the model's input are the nearest entries.
    """
    shape = tuple(shape)
    if len(shape) != signal.ndim:
        raise ModelError(f"it makes a tensor of shape {shape} of one of shape {signal.shape}")
    changed = [at for at in range(signal.ndim) if shape[at] != signal.shape[at]]
    channels = signal.axis(axis) if signal.ndim > 1 else 0
    terms = []
    for term in signal.terms:
        # One of the image entries that an entry covers stands for all.
        covers = term.group in wiring.inputs and all(
            term.units.shape[at] == 1 or at not in (0, channels) for at in changed
        )
        if nearest or covers:
            for at in changed:
                term = term.map(partial(_resized, at, shape[at], signal.shape[at]))
        elif any(term.units.shape[at] > 1 for at in changed):
            raise ModelError("it pools over neurons, as they lie along an axis that it changes")
        terms.append(term)
    factors = signal.factors
    if factors is not None:
        for at in changed:
            factors = factors.mean(at, keepdims=True)
    return replace(signal, shape=shape, terms=tuple(terms), factors=factors)


def pad(
    wiring: Wiring,
    signal: Signal,
    *,
    axis: int,
    before: int,
    after: int,
    fill: float,
    index: NDArray[np.int64] | None,
    channels: int | None,
) -> Signal:
    """Padding along an axis, with numbers or with the entries at `index`.

    If `channels` gives the axis of an image's channels, its positions are not distinguished.
    """
    if channels is not None and not signal.varies(axis):
        n = signal.shape[axis] + before + after
        shape = (*signal.shape[:axis], n, *signal.shape[axis + 1 :])
        return positions(wiring, signal, shape, axis=channels)
    if fill and index is None:
        signal = activation(wiring, signal, homogeneous=False)
    if index is None:
        index = np.arange(-before, signal.shape[signal.axis(axis)] + after)
    return padded(signal, signal.axis(axis), index)


def _flagged(term: Term, homogeneous: bool | None) -> Term:
    if homogeneous or term.homogeneous is False:
        return term
    return replace(term, homogeneous=homogeneous)


def _resized(axis: int, n_new: int, n_old: int, array: NDArray[Any]) -> NDArray[Any]:
    """The nearest entries along an axis whose length changes."""
    nearest = np.arange(n_new) * n_old // n_new
    return array if array.shape[axis] == 1 else array.take(nearest, axis)
