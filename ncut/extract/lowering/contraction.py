"""Lowering of reductions and sums of products."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from ncut.errors import ModelError
from ncut.extract.lowering import layers
from ncut.extract.lowering.constants import gain
from ncut.extract.lowering.moves import broadcast, expanded, indexed, reshaped
from ncut.extract.lowering.pointwise import activation
from ncut.extract.lowering.signal import (
    NOTHING,
    Part,
    Signal,
    Term,
    Units,
    compact,
    first_along,
    is_in,
    joined,
    places_along,
    several,
    split,
)
from ncut.extract.lowering.sums import add, combine
from ncut.extract.lowering.wiring import Array, Product, Wiring
from ncut.extract.program.weights import Weights, expression_of

SPREADS = frozenset(["mean", "var", "std", "norm"])
"""Reductions by which norms divide, if they keep the axis."""


def reduce(
    wiring: Wiring,
    signal: Signal,
    axes: Iterable[int],
    *,
    keepdim: bool,
    kind: str,
    name: str,
) -> Signal:
    """A sum, mean, maximum or another reduction of the entries along axes.

    A reduction over positions keeps each neuron. Neurons reduced among themselves leave a
    statistic of the layer, which carries no neurons; if neurons also differ along other axes,
    each entry carries all neurons reduced into it. Statistics by which a norm may divide the
    neurons of each head or group carry no neurons either. A sum of a product is a matrix product.

    Parameters
    ----------
    kind : {"sum", "mean", "max", "min", "var", "std", "norm", ...}
        Kind of reduction.
    name : str
        Place in the model, for the name of the vertices in which the neurons end.
    """
    chosen = sorted({signal.axis(axis) for axis in axes})
    product = wiring.product_of(signal)
    if product is not None and kind in ("sum", "mean"):
        made = _contracted(wiring, product, signal, chosen, name)
        if made is not None:
            if kind == "mean":
                made = gain(wiring, made, 1 / _n_summed(signal, signal.terms, chosen))
            return made if keepdim else _without(made, chosen)
    shape = [1 if axis in chosen else size for axis, size in enumerate(signal.shape)]
    signal = signal.pushed()
    terms: list[Term] = []
    ended: list[Term] = []
    mixed: list[Term] = []
    shifts = False
    for term in signal.terms:
        along = tuple(axis for axis in chosen if term.units.shape[axis] > 1)
        apart = any(n > 1 for at, n in enumerate(term.units.shape) if at not in along)
        divides = keepdim and kind in SPREADS and several(term, along)
        # The mean of an image or of features: what is done with the same input tells.
        either = divides and apart and kind == "mean" and wiring.is_input(term.group)
        shifts = shifts or either
        if (divides or not apart) and along and not either:
            ended.append(term)
        elif not along or wiring.is_input(term.group):
            # The input entries that an entry covers make no difference.
            terms.append(first_along(term, chosen))
        elif kind in ("sum", "mean"):
            mixed.append(term)
        else:
            terms += split(term, along)
    if ended:
        _end(wiring, ended, signal.shape, chosen, name)
    result = Signal(
        tuple(shape), tuple(joined(terms)), activated=signal.activated,
        number="spread" if ended or shifts else signal.number,
    )  # fmt: skip
    if mixed:
        total = summed(wiring, replace(signal, terms=tuple(mixed)), chosen)
        if kind == "mean":
            total = gain(wiring, total, 1 / _n_summed(signal, mixed, chosen))
        result = add(wiring, total, result) if terms else total
    if kind not in ("sum", "mean"):
        result = activation(wiring, result, homogeneous=kind in ("max", "min"))
    return result if keepdim else _without(result, chosen)


def _n_summed(signal: Signal, terms: Sequence[Term], axes: Iterable[int]) -> int:
    """Number of entries along axes on which the neurons of any term depend."""
    return math.prod(signal.shape[at] for at in axes if any(_where(t, [at]) for t in terms))


def summed(wiring: Wiring, signal: Signal, axes: Iterable[int]) -> Signal:
    """A sum of branches: the neurons at each position along axes, which get length 1.

    Terms that are the same at all positions are added once, with the mean of their factors.
    """
    for axis in axes:
        signal = replace(signal, terms=tuple(_averaged(term, axis) for term in signal.terms))
        along = [term for term in signal.terms if term.units.shape[axis] > 1]
        if along:
            same = [term for term in signal.terms if not is_in(term, along)]
            places = places_along(along, axis)
            parts = [
                indexed(replace(signal, terms=tuple(along)), axis, slice(at, at + 1))
                for at in places
            ]
            if same:
                parts.append(replace(parts[0], terms=tuple(same)))
            signal = add(wiring, *parts)
        shape = [1 if at == axis else n for at, n in enumerate(signal.shape)]
        signal = replace(signal, shape=tuple(shape))
    return signal


def _averaged(term: Term, axis: int) -> Term:
    """The term with the mean of its factors along an axis, if its neurons are the same there."""
    if term.scale is None or term.units.shape[axis] > 1:
        return term
    return replace(term, scale=term.scale.mean(axis, keepdims=True))


def _end(
    wiring: Wiring, terms: Sequence[Term], shape: tuple[int, ...], axes: Sequence[int], name: str
) -> None:
    """Record neurons reduced to a number: vertices without outgoing edges."""
    sizes = tuple(shape[axis] for axis in axes)
    n = int(np.prod(sizes))
    parts = []
    for term in terms:
        units: Units = np.asarray(_laid(term.units, axes, sizes), dtype=np.int64)
        parts.append(Part(term.group, units.reshape(n, 1), None, False))
    wiring.note_end(name or "statistics", n, parts)


def _contracted(
    wiring: Wiring, product: Product, made: Signal, axes: Sequence[int], name: str
) -> Signal | None:
    """A sum of a product over axes, which get length 1; None for an ordinary sum."""
    shape = made.shape
    if not isinstance(product.second, Signal):
        return _product_with_weights(wiring, product, product.second, shape, axes)
    sides = [s.pushed() for s in broadcast((product.first, product.second))]
    own = [_along(signal.terms, axes) for signal in sides]
    if not all(own):
        return None
    several_each = [all(several(term, _where(term, axes)) for term in terms) for terms in own]
    apart = [
        any(n > 1 for at, n in enumerate(term.units.shape) if at not in axes)
        for terms in own
        for term in terms
    ]
    if all(several_each) and not any(apart):
        lengths = tuple(shape[at] for at in axes)
        size = int(np.prod(lengths))
        left, right = (
            [term.map(lambda array: _laid(array, axes, lengths)) for term in terms] for terms in own
        )
        wiring.attends = True
        _join(wiring, name or "heads", (size,), left, right)
        own_terms = [*own[0], *own[1]]
        passed = [t for s in sides for t in s.terms if not is_in(t, own_terms)]
        kept = tuple(joined(first_along(term, axes) for term in passed))
    else:
        return summed(wiring, made, axes)
    kept = tuple(replace(term, homogeneous=False) for term in kept)
    sizes = tuple(1 if at in axes else n for at, n in enumerate(shape))
    return compact(Signal(sizes, kept, activated=True))


def _product_with_weights(
    wiring: Wiring, product: Product, given: Weights, shape: tuple[int, ...], axes: Sequence[int]
) -> Signal | None:
    """A layer written as a sum of products with its weights."""
    ndim = len(shape)
    base = expanded(product.first, (1,) * (ndim - product.first.ndim) + product.first.shape)
    weights = expression_of(given).reshape((1,) * (ndim - given.ndim) + given.shape)
    new = [at for at in range(ndim) if weights.shape[at] > 1 and base.shape[at] == 1]
    rest = [at for at in range(ndim) if at not in axes and at not in new]
    fits = any(base.varies(at) for at in axes) and not set(new) & set(axes)
    if not fits or any(weights.shape[at] > 1 for at in rest):
        return None
    whole = [shape[at] if at in (*axes, *new) else 1 for at in range(ndim)]
    matrix = weights.broadcast(whole).transpose([*rest, *axes, *new])
    matrix = matrix.reshape(int(np.prod([shape[at] for at in axes])), -1)
    order = [*rest, *new, *axes]
    moved = base.map([base.shape[at] for at in order], lambda a: a.transpose(order))
    kept = [base.shape[at] for at in rest]
    flat = reshaped(moved, (*kept, matrix.shape[0]))
    name = product.name or next(iter(product.parameters), "weights")
    wiring.take_back(product.parameters or ("a constant",))
    made = layers.matrix(wiring, flat, matrix, name=name, parameters=product.parameters)
    split_up = reshaped(made, (*kept, *(shape[at] for at in new), *[1] * len(axes)))
    back = [order.index(at) for at in range(ndim)]
    return split_up.map([split_up.shape[at] for at in back], lambda array: array.transpose(back))


def matmul(wiring: Wiring, first: Signal, second: Signal, name: str = "heads") -> Signal:
    """`first @ second`, (..., i, k) by (..., k, j), of two signals.

    Neurons along k in both operands are the dimensions of a scalar product, which connects them;
    other neurons pass. Queries and keys are thus connected in `heads`, and values pass. If
    neurons along k also differ along i or j, e.g. experts weighted by a gate, each entry carries
    all neurons summed into it.
    """
    wiring.attends = True
    first, second = (_without_shares(signal).pushed() for signal in (first, second))
    if min(first.ndim, second.ndim) < 2:
        raise ModelError("a product of a matrix and a vector of signals")
    batch = np.broadcast_shapes(first.shape[:-2], second.shape[:-2])
    rows, inner = first.shape[-2:]
    columns = second.shape[-1]
    first = expanded(first, (*batch, rows, inner))
    second = expanded(second, (*batch, inner, columns))
    ends = [t for t in first.terms if t.units.shape[-1] > 1 or _alone(t, inner, rows)]
    starts = [t for t in second.terms if t.units.shape[-2] > 1 or _alone(t, inner, columns)]
    if not starts:
        # Along the inner axis lie positions of a model's input, which have neurons for each row.
        ends = [t for t in ends if not (wiring.is_input(t.group) and t.units.shape[-2] > 1)]
    elif not ends:
        starts = [t for t in starts if not (wiring.is_input(t.group) and t.units.shape[-1] > 1)]
    apart = [t.units.shape[-2] > 1 for t in ends] + [t.units.shape[-1] > 1 for t in starts]
    if ends and starts and any(apart):
        shape = (*batch, rows, inner, columns)
        wide = (
            first.map((*batch, rows, inner, 1), lambda a: a[..., None]),
            second.map((*batch, 1, inner, columns), lambda a: a[..., None, :, :]),
        )
        total = summed(wiring, combine(wiring, *wide), [len(shape) - 2])
        return _without(total, [len(shape) - 2])
    if ends and starts:
        left = [t.map(lambda a: a.take([0], axis=-2)[..., 0, :]) for t in ends]
        right = [t.map(lambda a: a.take([0], axis=-1)[..., 0]) for t in starts]
        _join(wiring, name, (*batch, inner), left, right)
    elif starts and not first.terms:
        # Data-dependent shares mix the neurons: each result carries all of them.
        starts, second = [], summed(wiring, second, [second.ndim - 2])
    elif ends and not second.terms:
        ends, first = [], summed(wiring, first, [first.ndim - 1])
    passed = [t.map(lambda a: a.take([0], axis=-1)) for t in first.terms if not is_in(t, ends)]
    passed += [t.map(lambda a: a.take([0], axis=-2)) for t in second.terms if not is_in(t, starts)]
    return compact(Signal((*batch, rows, columns), tuple(joined(passed))))


def _without_shares(signal: Signal) -> Signal:
    """Attention's shares of positions without the neurons of each head, such as position biases."""
    if signal.number != "shares":
        return signal
    kept = [t for t in signal.terms if t.units.size == 1 or t.units.shape[-2:] != (1, 1)]
    return replace(signal, terms=tuple(kept))


def _join(
    wiring: Wiring, name: str, shape: tuple[int, ...], left: Sequence[Term], right: Sequence[Term]
) -> None:
    sides = [_head_dimensions(terms, shape) for terms in (left, right)]
    n = int(np.prod(np.broadcast_shapes(*(s[0] for s in sides))))
    full = np.broadcast_shapes(*(s[0] for s in sides))
    parts = []
    for _, terms in sides:
        for term in terms:
            whole = term.map(lambda a: np.broadcast_to(a, full).reshape(n, 1))
            scale = whole.scale
            if scale is not None and scale.single:
                scale = None  # a factor shared by all dimensions, such as 1 / sqrt(dims)
            parts.append(Part(term.group, whole.units, scale, False))
    wiring.heads(name, n, parts)


def _without(signal: Signal, axes: Sequence[int]) -> Signal:
    kept = [size for axis, size in enumerate(signal.shape) if axis not in axes]
    return signal.map(kept, lambda array: array.squeeze(tuple(axes)))


def _along(terms: Iterable[Term], axes: Sequence[int]) -> list[Term]:
    return [term for term in terms if _where(term, axes)]


def _where(term: Term, axes: Sequence[int]) -> tuple[int, ...]:
    """The axes, among those given, along which a term's neurons differ."""
    return tuple(axis for axis in axes if term.units.shape[axis] > 1)


def _laid(array: Array, axes: Sequence[int], sizes: Sequence[int]) -> Array:
    """An array along some axes, at the first position of the others, broadcast and flattened."""
    rest = [at for at in range(array.ndim) if at not in axes]
    moved = array.transpose([*rest, *axes])
    first = moved.reshape(-1, *moved.shape[len(rest) :])[0]
    return np.broadcast_to(first, tuple(sizes)).ravel()


def _alone(term: Term, inner: int, other: int) -> bool:
    """Check whether a term lies along an inner axis of length 1, and not along the other."""
    return inner == 1 and other > 1 and all(n == 1 for n in term.units.shape[-2:])


def _head_dimensions(
    terms: Sequence[Term], shape: tuple[int, ...]
) -> tuple[tuple[int, ...], list[Term]]:
    """The terms of one operand of a scalar product, as the neurons of its dimensions.

    Rotary embeddings mix the dimensions of a head by angles that depend on the position only; the
    neurons are then the head's neurons in their original order.
    """
    sizes = np.broadcast_shapes(*(term.units.shape for term in terms))
    sizes = (*sizes[:-1], shape[-1])
    if len(terms) > 1 and len({id(term.group) for term in terms}) == 1:
        stacked = np.stack([np.broadcast_to(term.units, sizes) for term in terms], axis=-1)
        per_head = stacked.reshape(-1, sizes[-1] * len(terms))
        heads = [np.unique(row[row != NOTHING]) for row in per_head]
        if all(head.size == sizes[-1] for head in heads):
            units: Units = np.stack(heads).reshape(sizes)
            scale = None
            if terms[0].scale is not None:
                order = np.argsort(np.broadcast_to(terms[0].units, sizes), axis=-1)
                scale = terms[0].scale.map(
                    lambda a: np.take_along_axis(np.broadcast_to(a, sizes), order, axis=-1)
                )
            return sizes, [Term(terms[0].group, units, scale, False)]
    return sizes, list(terms)
