"""Elementwise functions, and arithmetic between tensors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ncut.extract.program.values import MAX_LAID_OUT, Known, Operand, Value, expanded
from ncut.extract.readers.traced.operations.common import is_known, operand, rest, times_number
from ncut.extract.readers.traced.tensor import is_traced
from ncut.extract.readers.traced.tracing import Call
from ncut.extract.registry import Rule, table


def entrywise(call: Call) -> Value:
    """Any function of the entries of one or several tensors."""
    signals = call.signals()
    if len(signals) == 1:
        signal = expanded(signals[0], call.shape)
        return call.program.activation(signal, homogeneous=False)
    return call.program.combine(*signals)


def _activation(homogeneous: bool) -> Rule:
    """A function of the only traced argument."""
    return lambda call: call.program.activation(call.signals()[0], homogeneous=homogeneous)


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
    return call.program.bounded(call.signal(), *numbers)


def _both(call: Call) -> list[Operand]:
    return [operand(call, call.arg(at, name)) for at, name in enumerate(("self", "other"))]


def _threshold(call: Call) -> Value:
    zero = [call.arg(1, "threshold"), call.arg(2, "value")] == [0, 0]
    return call.program.activation(call.signals()[0], homogeneous=zero)


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
    return call.program.squared(call.signal()) if square else entrywise(call)


def _combination(compute: Callable[..., Any]) -> Rule:
    """An operation composed of others."""
    return lambda call: call.tracing.signal_of(compute(*call.args, **call.kwargs))


def _triangle(call: Call) -> Value:
    """`tril` and `triu`."""
    diagonal, upper = call.arg(1, "diagonal", 0), call.function.startswith("triu")
    return call.program.triangle(call.signal(), diagonal, upper=upper)


RULES = table(
    (
        "relu relu_ leaky_relu leaky_relu_ prelu _prelu_kernel rrelu_with_noise "
        "rrelu_with_noise_ abs abs_",
        _activation(True),
    ),
    ("hardtanh hardtanh_ relu6 hardswish hardswish_", _activation(False)),
    ("log_sigmoid_forward", lambda call: [_activation(False)(call), *rest(call)]),
    ("glu", lambda call: call.program.gated_halves(call.signal(), call.arg(1, "dim", -1))),
    ("complex polar normal bernoulli poisson", entrywise),
    ("clamp clamp_ clamp_min clamp_min_ clamp_max clamp_max_", _clamp),
    ("maximum minimum", lambda call: call.program.extremum(*_both(call))),
    ("threshold threshold_", _threshold),
    ("pow pow_", _power),
    ("where", _where),
    ("masked_fill masked_fill_", _masked_fill),
    ("add add_ sub sub_ rsub", _add),
    ("mul mul_", lambda call: call.program.multiply(*_both(call))),
    ("div div_ true_divide", lambda call: call.program.divide(*_both(call))),
    (
        "clone detach detach_ alias contiguous _to_copy to lift_fresh lift dropout native_dropout "
        "feature_dropout alpha_dropout _conj conj positive real view_copy "
        "lift_fresh_copy",
        lambda call: call.signals()[0],
    ),
    ("neg neg_", lambda call: call.program.gain(call.signals()[0], -1)),
    ("tril tril_ triu triu_", _triangle),
    ("addcmul addcmul_", _combination(lambda x, a, b, *, value=1: x + a * b * value)),
    ("addcdiv addcdiv_", _combination(lambda x, a, b, *, value=1: x + a / b * value)),
    ("lerp lerp_", _combination(lambda start, end, w: start * (1 - w) + end * w)),
    (
        "_softmax _log_softmax softmax log_softmax _safe_softmax",
        lambda call: call.program.softmax(call.signal(), call.axis()),
    ),
)
