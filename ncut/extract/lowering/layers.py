"""Weights that read neurons and write new ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ncut.errors import ModelError
from ncut.extract.lowering.constants import gain, scale
from ncut.extract.lowering.moves import concatenated, expanded, indexed, permuted, reshaped
from ncut.extract.lowering.pointwise import activation, positions
from ncut.extract.lowering.signal import NOTHING, Signal, places_along, several
from ncut.extract.lowering.sums import add, combine
from ncut.extract.lowering.wiring import Wiring, rows_along
from ncut.extract.program.weights import Expression, combined, joined


class WithoutExamplesError(ModelError):
    """Weights read the first axis of an input, which would hold examples, as features.

    Attributes
    ----------
    input : str
        The input's name.
    """

    def __init__(self, name: str) -> None:
        super().__init__(
            f"it reads the first axis of the input {name!r} as features; pass the input with an "
            "axis of examples before it"
        )
        self.input = name


def embedding(wiring: Wiring, weight: Expression, shape: Sequence[int], **named: Any) -> Signal:
    """Rows of a table, shape (..., width): each row is a separate input."""
    return wiring.weights(None, weight, len(shape) - 1, shape, kind="embedding", **named)


def linear(
    wiring: Wiring,
    signal: Signal,
    *,
    weight: Expression,
    axis: int,
    shape: Sequence[int],
    quiet: bool = False,
    **named: Any,
) -> Signal:
    """A matrix, or matrices (..., n_in, n_out), one for each entry of the leading axes."""
    if weight.ndim == 2:
        return matrix(wiring, signal, weight, axis=axis, shape=shape, **named)
    if quiet and not signal.terms:
        return Signal(tuple(shape))
    for at, size in enumerate(weight.shape[:-2]):
        before = (slice(None),) * at
        first = weight[(*before, slice(1))]
        if all(_is_same(weight[(*before, slice(n, n + 1))], first) for n in range(1, size)):
            weight = first
    which = [at for at, size in enumerate(weight.shape[:-2]) if size > 1]
    flat = weight.reshape(-1, *weight.shape[-2:])
    if not which:
        return expanded(_layer(wiring, signal, flat[0], axis=axis, **named), shape)
    if len(which) > 1:
        raise ModelError(f"its weights have several axes of matrices, {weight.shape}")
    back = weight.ndim - which[0]  # the axis of the groups, from the end
    if signal.ndim < back:
        signal = expanded(signal, (1,) * (back - signal.ndim) + signal.shape)
    at = signal.ndim - back
    n_groups, period = flat.shape[0], _period(flat, signal, at)
    if period == n_groups:
        return expanded(_grouped_linear(wiring, signal, flat, at, axis, **named), shape)
    signal = indexed(signal, at, slice(period))
    made = _grouped_linear(wiring, signal, flat[:period], at, axis, **named)
    return expanded(indexed(made, at, np.arange(n_groups) % period), shape)


def _is_same(first: Expression, second: Expression) -> bool:
    """Check whether two arrays of matrices are one, repeated; experts may begin as copies."""
    # Products of repeated examples may differ in their last digits. Mostly, a few rows tell.
    step = max(first.shape[-2] // 8, 1)
    for every, tolerance in ((step, 0.01), (1, 1e-5)):
        ours, theirs = (np.asarray(array.values[..., ::every, :]) for array in (first, second))
        with np.errstate(invalid="ignore"):
            differ = np.abs(ours - theirs).max(initial=0)
        if not differ <= tolerance * np.abs(ours).max(initial=0):  # also if not a number
            return False
    places = {first.place(), second.place()}
    return None in places or len(places) == 1


def _period(matrices: Expression, signal: Signal, axis: int) -> int:
    """The number of matrices after which they and the neurons that they read repeat.

    A batch of examples may be merged with the axis of the heads.
    """
    n = matrices.shape[0]
    signal = signal.pushed()
    laid = [term.units for term in signal.terms]
    laid += [term.scale.codes for term in signal.terms if term.scale is not None]
    rows = [np.moveaxis(array, axis, 0) for array in laid if array.shape[axis] > 1]
    for period in range(2, n // 2 + 1):
        repeats = n % period == 0 and all(
            np.array_equal(array[period:], array[:-period]) for array in rows
        )
        if repeats and all(
            _is_same(matrices[at], matrices[at - period]) for at in range(period, n)
        ):
            return period
    return n


def _grouped_linear(
    wiring: Wiring, signal: Signal, matrices: Expression, group_axis: int, axis: int, **named: Any
) -> Signal:
    """Matrices (n_groups, n_in, n_out), one for each entry of an axis, such as experts.

    `named` goes to `_layer` or `convolution`.
    """
    n_groups, n_in, n_out = matrices.shape
    group_axis, axis = signal.axis(group_axis), signal.axis(axis)
    rest = [at for at in range(signal.ndim) if at not in (group_axis, axis)]
    sizes = [signal.shape[at] for at in rest]
    moved = permuted(signal, [*rest, group_axis, axis])
    if moved.shape[-2] not in (1, n_groups) or moved.shape[-1] != n_in:
        raise ModelError(f"it applies weights of shape {matrices.shape} to {signal.shape}")
    if not moved.varies(-2) and moved.varies(-1):
        # All groups read the same neurons: one matrix with all their outputs.
        flat = matrices.transpose((1, 0, 2)).reshape(n_in, -1)
        made = _layer(wiring, indexed(moved, -2, 0), flat, **named)
    else:
        wide = reshaped(expanded(moved, (*sizes, n_groups, n_in)), (*sizes, n_groups * n_in))
        kernel = matrices.transpose((0, 2, 1)).reshape(n_groups * n_out, n_in)
        made = convolution(
            wiring, wide, kernel[:, :, None], (*sizes, n_groups * n_out), axis=-1,
            groups=n_groups, on_positions=False, **named,
        )  # fmt: skip
    split = reshaped(made, (*sizes, n_groups, n_out))
    order = [0] * signal.ndim
    for at, old in enumerate([*rest, group_axis, axis]):
        order[old] = at
    return permuted(split, order)


def matrix(
    wiring: Wiring,
    signal: Signal,
    weight: Expression,
    *,
    axis: int = -1,
    shape: Sequence[int] | None = None,
    parameters: Sequence[str] = (),
    **named: Any,
) -> Signal:
    """A matrix (n_in, n_out) applied along an axis.

    If each entry along the axis carries the neurons of a separate branch, the matrix is not a
    layer that reads them, but factors of a sum of the branches.
    """
    at = signal.axis(axis)
    if not _has_branches(signal, at):
        return _layer(
            wiring, signal, weight, axis=axis, shape=shape, parameters=parameters, **named
        )
    wiring.place(parameters, "factors of the branches of a sum")
    places = places_along(signal.terms, at)
    n_out = weight.shape[1]
    sizes = [n_out if axis == at else 1 for axis in range(signal.ndim)]
    parts = []
    for place in places:
        factors = wiring.factors(weight[place])
        part = indexed(signal, at, slice(place, place + 1))
        if n_out == 1:
            parts.append(gain(wiring, part, factors.map(lambda array: array.reshape(()))))
            continue
        part = expanded(part, [n_out if axis == at else n for axis, n in enumerate(part.shape)])
        parts.append(scale(wiring, part, factors.map(lambda array: array.reshape(sizes))))
    return add(wiring, *parts)


def _has_branches(signal: Signal, axis: int) -> bool:
    """Check whether each entry along an axis has separate neurons, which lie along other axes."""
    return bool(signal.terms) and all(
        term.units.shape[axis] > 1
        and any(n > 1 for at, n in enumerate(term.units.shape) if at != axis)
        and not several(term, (axis,))
        for term in signal.terms
    )


def _layer(
    wiring: Wiring,
    signal: Signal,
    weight: Expression,
    *,
    name: str,
    axis: int = -1,
    shape: Sequence[int] | None = None,
    parameters: Sequence[str] = (),
    **named: Any,
) -> Signal:
    """A matrix (n_in, n_out) applied along an axis, by default the last one."""
    axis = signal.axis(axis)
    if shape is None:
        shape = [*signal.shape[:axis], weight.shape[1], *signal.shape[axis + 1 :]]
    if not signal.terms and signal.number == "classes" and axis == signal.ndim - 1:
        # Each class selects a row, as an index does.
        return embedding(wiring, weight, shape, name=name, parameters=parameters, **named)
    if not signal.terms:
        return _without_neurons(wiring, parameters or (name,), weight.shape, shape)
    _check_examples(wiring, signal, axis, alone=True)
    if _mixes_positions(signal, axis):
        for parameter in parameters:
            wiring.leave_out(
                parameter, weight.shape[::-1], "mixes positions, the same for each channel"
            )
        return positions(wiring, signal, shape)
    return wiring.weights(
        signal, weight, axis, shape,
        kind="linear", name=name, parameters=parameters, on_positions=signal.ndim > 2, **named,
    )  # fmt: skip


def convolution(
    wiring: Wiring,
    signal: Signal,
    weight: Expression,
    shape: Sequence[int],
    *,
    name: str,
    axis: int = 1,
    parameters: Sequence[str] = (),
    on_positions: bool = True,
    **named: Any,
) -> Signal:
    """A kernel (out, in / groups, positions...) applied to channels along `axis`.

    `on_positions` is false for grouped matrices, which do not make a network convolutional.
    """
    axis = signal.axis(axis)
    if not signal.terms:
        return _without_neurons(wiring, parameters or (name,), weight.shape, shape)
    _check_examples(wiring, signal, axis, alone=False)
    if on_positions and weight.shape[:2] == (1, 1) and _moves_over_neurons(wiring, signal, axis):
        for parameter in parameters or (name,):
            reason = "mixes neurons of a layer as if they were positions"
            wiring.leave_out(parameter, weight.shape, reason)
        if tuple(shape) != signal.shape:
            raise ModelError(
                "its kernel moves over the neurons of a layer and changes their number"
            )
        return activation(wiring, signal, homogeneous=True)
    return wiring.weights(
        signal, weight, axis, shape,
        kind="conv", name=name, parameters=parameters, on_positions=on_positions, **named,
    )  # fmt: skip


def recurrence(
    wiring: Wiring,
    signal: Signal,
    *given: Signal,
    states: tuple[bool, bool],
    weight_input: Expression,
    weight_hidden: Expression,
    weight_projection: Expression | None,
    n_hidden: int,
    kind: str,
    name: str,
    **named: Any,
) -> Signal:
    """One direction of an RNN, LSTM or GRU layer.

    A hidden unit is one vertex. The edge from an input to a unit is the norm over its gates, as
    over the positions of a kernel; the edge between two units is the norm of the weights in both
    directions, and self-loops are left out.

    `states` tells whether `given` has a first state and a first cell. Their neurons enter through
    the recurrent weights, like the layer's own neurons later. First states that a gate passes to
    the unit of the same number (the first state of a GRU, the first cell of an LSTM) also reach
    the layer's readers.
    """
    first = iter(given)
    state, cell = (next(first) if there else None for there in states)
    gates = weight_input.shape[0] // n_hidden
    passes = cell
    if state is not None and state.terms:
        wide = expanded(state, (*signal.shape[:-1], state.shape[-1]))
        signal = concatenated([signal, wide], -1)
        weight_input = joined(weight_input, weight_hidden, 1)
        passes = state if kind == "GRU" else cell
    kernel = weight_input.reshape(gates, n_hidden, -1).transpose((1, 2, 0))
    within = combined(
        lambda hidden: abs(hidden.reshape(gates, n_hidden, -1)).sum(0).T, weight_hidden
    )
    if weight_projection is not None:
        # The state fed back to a unit comes from all units through the projection.
        within = combined(lambda back, own: abs(back).T @ own, weight_projection, within)
    shape = (*signal.shape[:-1], n_hidden)
    output = convolution(wiring, signal, kernel, shape, axis=-1, name=name, within=within, **named)
    output = activation(wiring, output, homogeneous=False)
    if passes is not None and passes.terms:
        output = combine(wiring, output, expanded(passes, output.shape))
    if weight_projection is None:
        return output
    return _layer(wiring, output, weight_projection.T, name=f"{name} projection")


def _check_examples(wiring: Wiring, signal: Signal, axis: int, *, alone: bool) -> None:
    """Refuse to read an input's axis of examples as its features or channels.

    If `alone`, neurons along another axis make it an axis of positions instead.
    """
    for term in signal.terms:
        n_examples = wiring.n_examples.get(term.group, 1)
        if n_examples == 1:
            continue
        rows = np.asarray(rows_along(term.units, axis, signal.shape[axis]))
        rows = rows[(rows != NOTHING).any(axis=1)]
        if len(rows) != n_examples or (alone and rows.shape[1] > 1):
            continue
        if (rows == rows[0]).all():
            raise WithoutExamplesError(term.group.name)


def _without_neurons(
    wiring: Wiring, names: Iterable[str], shape: Sequence[int], result: Sequence[int]
) -> Signal:
    """The result of weights on values that depend on the data, but carry no neurons."""
    for name in names:
        wiring.leave_out(name, shape, "reads values that carry no neurons")
    return Signal(tuple(result))


def _mixes_positions(signal: Signal, axis: int) -> bool:
    """Check whether neurons lie along axes other than the axis that is read."""
    if signal.shape[axis] == 1 or signal.varies(axis):
        return False
    return any(size > 1 for term in signal.terms for size in term.units.shape)


def _moves_over_neurons(wiring: Wiring, signal: Signal, axis: int) -> bool:
    """Check whether a layer's neurons lie along positions only."""
    return any(
        term.group not in wiring.inputs
        and term.units.shape[axis] == 1
        and any(n > 1 for n in term.units.shape[axis + 1 :])
        for term in signal.terms
    )
