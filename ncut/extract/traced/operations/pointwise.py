"""Elementwise functions, and arithmetic between tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from ncut.extract.program.values import MAX_LAID_OUT, Value, expanded
from ncut.extract.traced.operations.common import (
    constant,
    is_known,
    rest,
    scaled_by,
    table,
    times_number,
)
from ncut.extract.traced.rules import Rule
from ncut.extract.traced.tensor import is_traced
from ncut.extract.traced.tracing import Call


def entrywise(call: Call) -> Value:
    signals = call.signals()
    if len(signals) == 1:
        signal = expanded(signals[0], call.shape)
        return call.program.activation(signal, homogeneous=False)
    return call.program.combine(*signals)


def _homogeneous(call: Call) -> Value:
    return call.program.activation(call.signals()[0], homogeneous=True)


def _softmax(call: Call) -> Value:
    """Softmax along an axis.

    A softmax over positions chooses among positions and carries no neurons, so terms added to
    attention scores do not contribute to the values.
    """
    axis = call.signal(0, "self").axis(call.arg(1, "dim"))
    return call.program.softmax(call.signal(0, "self"), axis)


def _keep(call: Call) -> Value:
    return call.signals()[0]


def _gated_halves(call: Call) -> Value:
    """`F.glu`: one half of the neurons, each times a gate from the other half."""
    return call.program.gated_halves(call.signal(0, "self"), call.arg(1, "dim", -1))


def _with_buffer(call: Call) -> list[Value]:
    return [_saturating(call), *rest(call)]


def _clamp(call: Call) -> Value:
    ends = call.arg(1, "min"), call.arg(2, "max")
    if call.function.startswith("clamp_max"):
        ends = None, call.arg(1, "max")
    numbers = [
        None if end is None else math.nan if is_traced(end) or np.size(end) != 1 else float(end)
        for end in ends
    ]
    if any(is_traced(end) for end in ends):
        return call.program.extremum(call.signals(), [])
    return call.program.bounded(call.signal(0, "self"), *numbers)


def _extremum(call: Call) -> Value | list[Value]:
    """`torch.maximum(x, y)` and its mirror image."""
    both = call.arg(0, "self"), call.arg(1, "other")
    constants = [np.asarray(x.detach().cpu()) for x in both if not is_traced(x)]
    return call.program.extremum(call.signals(), constants)


def _threshold(call: Call) -> Value:
    zero = [call.arg(1, "threshold"), call.arg(2, "value")] == [0, 0]
    return call.program.activation(call.signals()[0], homogeneous=zero)


def _saturating(call: Call) -> Value:
    return call.program.activation(call.signals()[0], homogeneous=False)


def _where(call: Call) -> Value:
    """A choice between values by a condition, which may be known."""
    return _choice(call, call.arg(0, "condition"), [call.arg(1, "self"), call.arg(2, "other")])


def _masked_fill(call: Call) -> Value:
    mask = call.arg(1, "mask")
    known = is_known(call, mask)
    sides = [call.arg(0, "self"), call.arg(2, "value")]
    return _choice(call, mask.logical_not() if known else mask, sides)


def _choice(call: Call, condition: Any, sides: Sequence[Any]) -> Value:
    known = is_known(call, condition) and condition.numel() <= MAX_LAID_OUT
    return call.program.choice(
        [side.value for side in (*sides, *(() if known else (condition,))) if is_traced(side)],
        call.shape, condition=condition.cpu().numpy() if known else None,
        sides=[first for first, side in zip((True, False), sides, strict=True) if is_traced(side)],
    )  # fmt: skip


def _add(call: Call) -> Value:
    first, second = call.arg(0, "self"), call.arg(1, "other")
    alpha = call.kwargs.get("alpha", call.arg(2, "alpha", 1))
    if is_traced(first) and is_traced(second):
        both = [first.value, second.value]
        # `alpha` multiplies the second operand; for `rsub` the first.
        at = 0 if call.function == "rsub" else 1
        both[at] = times_number(call, both[at], alpha)
        return call.program.add(*both)
    traced, other = (first, second) if is_traced(first) else (second, first)
    name = call.tracing.parameter(other)
    if name:
        call.program.ignore([name], "added as a constant, like a bias")
    scaled = is_traced(second) if call.function != "rsub" else is_traced(first)
    value = times_number(call, traced.value, alpha) if scaled else traced.value
    if isinstance(other, torch.Tensor) and other.is_floating_point() and other.ndim > 1:
        numbers, named = constant(call, other)
        return call.program.shifted(value, numbers, **named)
    return expanded(value, call.shape)


def _power(call: Call) -> Value:
    exponent = call.arg(1, "exponent")
    square = isinstance(exponent, int | float) and exponent == 2
    return call.program.squared(call.signal(0, "self")) if square else entrywise(call)


def _combination(compute: Callable[..., Any]) -> Rule:
    """An operation composed of others."""

    def rule(call: Call) -> Value:
        made = compute(*call.args, **call.kwargs)
        return call.tracing.signal_of(made)

    return rule


def _lerp(start: Any, end: Any, weight: Any) -> Any:
    return start * (1 - weight) + end * weight


def _triangle(call: Call) -> Value:
    """`tril` and `triu`."""
    diagonal, upper = call.arg(1, "diagonal", 0), call.function.startswith("triu")
    return call.program.triangle(call.signal(0, "self"), diagonal, upper=upper)


def _multiply(call: Call) -> Value:
    first, second = call.arg(0, "self"), call.arg(1, "other")
    if is_traced(first) and is_traced(second):
        return call.program.multiply(first.value, second.value)
    traced, other = (first, second) if is_traced(first) else (second, first)
    return scaled_by(call, traced.value, other, invert=False)


def _divide(call: Call) -> Value:
    first, second = call.arg(0, "self"), call.arg(1, "other")
    if is_traced(first) and is_traced(second):
        return call.program.divide(first.value, second.value)
    if is_traced(second):
        return call.program.activation(expanded(second.value, call.shape), homogeneous=False)
    return scaled_by(call, first.value, second, invert=True)


RULES = table(
    (
        "relu relu_ leaky_relu leaky_relu_ prelu _prelu_kernel rrelu_with_noise "
        "rrelu_with_noise_ abs abs_",
        _homogeneous,
    ),
    ("hardtanh hardtanh_ relu6 hardswish hardswish_", _saturating),
    ("log_sigmoid_forward", _with_buffer),
    ("glu", _gated_halves),
    ("complex polar normal bernoulli poisson", entrywise),
    ("clamp clamp_ clamp_min clamp_min_ clamp_max clamp_max_", _clamp),
    ("maximum minimum", _extremum),
    ("threshold threshold_", _threshold),
    ("pow pow_", _power),
    ("where", _where),
    ("masked_fill masked_fill_", _masked_fill),
    ("add add_ sub sub_ rsub", _add),
    ("mul mul_", _multiply),
    ("div div_ true_divide", _divide),
    (
        "clone detach detach_ alias contiguous _to_copy to lift_fresh lift dropout native_dropout "
        "feature_dropout alpha_dropout _conj conj neg neg_ positive real view_copy "
        "lift_fresh_copy",
        _keep,
    ),
    ("tril tril_ triu triu_", _triangle),
    ("addcmul addcmul_", _combination(lambda x, a, b, *, value=1: x + a * b * value)),
    ("addcdiv addcdiv_", _combination(lambda x, a, b, *, value=1: x + a / b * value)),
    ("lerp lerp_", _combination(_lerp)),
    ("_softmax _log_softmax softmax log_softmax _safe_softmax", _softmax),
)  # fmt: skip
