"""Elementwise functions, and arithmetic between tensors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ncut.extract.program.values import MAX_LAID_OUT, Known, Operand, Value, expanded
from ncut.extract.readers.traced.operations.common import is_known, operand, rest, times_number
from ncut.extract.readers.traced.rules import Rule
from ncut.extract.readers.traced.tensor import is_traced
from ncut.extract.readers.traced.tracing import Call
from ncut.extract.registry import table


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
        return call.program.extremum(*call.signals())
    return call.program.bounded(call.signal(0, "self"), *numbers)


def _extremum(call: Call) -> Value:
    """`torch.maximum(x, y)` and its mirror image."""
    return call.program.extremum(*_both(call))


def _both(call: Call) -> list[Operand]:
    return [operand(call, call.arg(at, name)) for at, name in enumerate(("self", "other"))]


def _threshold(call: Call) -> Value:
    zero = [call.arg(1, "threshold"), call.arg(2, "value")] == [0, 0]
    return call.program.activation(call.signals()[0], homogeneous=zero)


def _saturating(call: Call) -> Value:
    return call.program.activation(call.signals()[0], homogeneous=False)


def _where(call: Call) -> Value:
    """A choice between values by a condition, which may be known."""
    return _choice(call, *(call.arg(at, n) for at, n in enumerate(("condition", "self", "other"))))


def _masked_fill(call: Call) -> Value:
    """`x.masked_fill(mask, value)`: the value where the mask is true."""
    return _choice(call, call.arg(1, "mask"), call.arg(2, "value"), call.arg(0, "self"))


def _choice(call: Call, condition: Any, first: Any, second: Any) -> Value:
    by: Operand = call.tracing.signal_of(condition)
    if is_known(call, condition) and condition.numel() <= MAX_LAID_OUT:
        by = Known(tuple(condition.shape), lambda: condition.cpu().numpy())
    return expanded(
        call.program.choice(by, operand(call, first), operand(call, second)), call.shape
    )


def _add(call: Call) -> Value:
    """A sum; `alpha` multiplies the second operand, for `rsub` the first."""
    both, at = _both(call), 0 if call.function == "rsub" else 1
    value = both[at]
    if isinstance(value, Value):
        alpha = call.kwargs.get("alpha", call.arg(2, "alpha", 1))
        both[at] = times_number(call, value, alpha if "sub" not in call.function else -alpha)
    return call.program.add(*both)


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
    return call.program.multiply(*_both(call))


def _divide(call: Call) -> Value:
    return call.program.divide(*_both(call))


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
        "feature_dropout alpha_dropout _conj conj positive real view_copy "
        "lift_fresh_copy",
        _keep,
    ),
    ("neg neg_", lambda call: call.program.gain(call.signals()[0], -1)),
    ("tril tril_ triu triu_", _triangle),
    ("addcmul addcmul_", _combination(lambda x, a, b, *, value=1: x + a * b * value)),
    ("addcdiv addcdiv_", _combination(lambda x, a, b, *, value=1: x + a / b * value)),
    ("lerp lerp_", _combination(_lerp)),
    ("_softmax _log_softmax softmax log_softmax _safe_softmax", _softmax),
)  # fmt: skip
