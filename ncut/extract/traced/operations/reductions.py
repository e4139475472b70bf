"""Sums, means and orders along axes."""

from __future__ import annotations

from dataclasses import replace

from ncut.errors import ModelError
from ncut.extract.signal import (
    Signal,
    reduced,
)
from ncut.extract.traced.operations.common import chosen, listed, rest, table
from ncut.extract.traced.tracing import Call

SPREADS = ("mean", "var", "std", "var_mean", "std_mean", "linalg_vector_norm", "norm")
"""Reductions by which norms divide, where they keep the axis."""


def _reduce(call: Call) -> Signal | list[Signal]:
    axes = call.arg(1, "dim")
    if call.function == "linalg_vector_norm":
        axes = call.arg(2, "dim")
    elif call.function == "kthvalue":
        axes = call.arg(2, "dim", -1)
    elif call.function in ("var", "std", "var_mean", "std_mean") and isinstance(axes, bool):
        axes = None
    signal = call.signal(0, "self")
    reduces = list(range(signal.ndim)) if axes in (None, []) else listed(axes)
    keepdim = len(call.shape) == signal.ndim and signal.ndim > 0
    divides = keepdim and call.function in SPREADS
    result = reduced(signal, reduces, keepdim=keepdim, divides=divides)
    if call.function in ("mean", "sum"):
        return result
    if call.function in ("amax", "amin", "max", "min"):
        result = call.wiring.activation(result, homogeneous=True)
    else:
        result = call.wiring.activation(result, homogeneous=False)
    if len(call.shapes) > 1:
        return [result, *(replace(result, shape=shape) for shape in call.shapes[1:])]
    return result


def _chosen_index(call: Call) -> Signal:
    """Positions of something along an axis: numbers without neurons."""
    return Signal(call.shape)


def _along_axis(call: Call) -> Signal | list[Signal]:
    """Sorting, cumulative sums and the like: neurons stay where they do not lie on the axis."""
    signal = call.signal(0, "self")
    axis = call.arg(2 if call.function == "topk" else 1, "dim", -1)
    if isinstance(axis, bool):
        axis = call.arg(2, "dim", -1)
    if signal.terms and signal.varies(signal.axis(axis)):
        if call.function == "topk":
            return [chosen(call, signal, axis), *rest(call)]
        raise ModelError("it mixes neurons along an axis in an order that depends on the data")
    result = call.wiring.activation(signal, homogeneous=call.function == "cumsum")
    result = call.wiring.positions(result, call.shape)
    return [result, *rest(call)] if len(call.shapes) > 1 else result


RULES = table(
    (
        "mean sum amax amin max min prod var std var_mean std_mean logsumexp linalg_vector_norm "
        "norm any all nansum median nanmedian kthvalue",
        _reduce,
    ),
    ("argmax argmin count_nonzero", _chosen_index),
    ("cumsum cumprod sort topk cummax logcumsumexp", _along_axis),
)  # fmt: skip
