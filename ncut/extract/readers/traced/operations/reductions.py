"""Sums, means and sorting along axes."""

from __future__ import annotations

from ncut.extract.program.values import Known, Value, unsqueezed
from ncut.extract.readers.traced.operations.common import choices, listed, operand, rest
from ncut.extract.readers.traced.tracing import Call
from ncut.extract.registry import table

KINDS = {
    **{"amax": "max", "amin": "min", "linalg_vector_norm": "norm"},
    **{"var_mean": "var", "std_mean": "std", "nansum": "sum"},
}
"""Reductions whose kind differs from their name."""


def _reduce(call: Call) -> Value | list[Value]:
    axes = call.arg(1, "dim")
    if isinstance(axes, bool):
        axes = None
    signal = call.signal(0, "self")
    reduces = list(range(signal.ndim)) if axes in (None, []) else listed(axes)
    keepdim = len(call.shape) == signal.ndim and signal.ndim > 0
    path = call.tracing.path
    kind = KINDS.get(call.function, call.function)
    name = f"{call.function} in {path}" if path else call.function
    if kind == "norm" and call.arg(1, "ord", call.arg(1, "p", 2)) == 2:
        made = call.program.distance(signal, reduces, keepdim, name)
        if made is not None:
            return made
    result = call.program.reduce(signal, reduces, keepdim=keepdim, kind=kind, name=name)
    return [result] * len(call.shapes)


def _distances(call: Call) -> Value:
    """`torch.cdist(x, y)`: a distance for each pair of rows."""
    path = call.tracing.path
    name = f"distances in {path}" if path else "distances"
    rows, columns = (call.tracing.signal_of(value) for value in call.args[:2])
    rows, columns = unsqueezed(rows, rows.ndim - 1), unsqueezed(columns, columns.ndim - 2)
    for at, given in enumerate(call.args[:2]):
        centres = operand(call, given.unsqueeze(-2 - at))
        if isinstance(centres, Known) and call.arg(2, "p", 2) == 2:
            differences = call.program.shifted((columns, rows)[at], centres)
            made = call.program.distance(differences, [-1], False, name)
            if made is not None:
                return made
    wide = call.program.add(rows, columns)
    return call.program.reduce(wide, [-1], keepdim=False, kind="distance", name=name)


def _chosen_index(call: Call) -> Value:
    """Indices along an axis: numbers without neurons that record a choice."""
    signal, axis = call.signal(0, "self"), call.arg(1, "dim")
    if axis is not None and call.function != "count_nonzero" and signal.ndim:
        call.program.chosen(signal, axis, choices(call))
    return Value(call.shape)


def _along_axis(call: Call) -> Value | list[Value]:
    """Sorting, cumulative sums and similar; neurons along other axes are unchanged."""
    signal = call.signal(0, "self")
    axis = call.arg(2 if call.function == "topk" else 1, "dim", -1)
    if isinstance(axis, bool):
        axis = call.arg(2, "dim", -1)
    if call.function == "topk":
        return [*call.program.largest(signal, axis, call.shape, choices(call))]
    made = call.program.ordered(call.function, signal, axis, call.shape, choices(call))
    return [made, *rest(call)] if len(call.shapes) > 1 else made


RULES = table(
    (
        "mean sum amax amin max min prod var std var_mean std_mean logsumexp linalg_vector_norm "
        "norm any all nansum median nanmedian kthvalue",
        _reduce,
    ),
    ("_cdist_forward _euclidean_dist", _distances),
    ("argmax argmin count_nonzero", _chosen_index),
    ("cumsum cumprod sort topk cummax logcumsumexp", _along_axis),
)  # fmt: skip
