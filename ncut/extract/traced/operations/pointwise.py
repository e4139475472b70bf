"""Functions of each entry alone, and arithmetic between tensors."""

from __future__ import annotations

import math

import numpy as np

from ncut.extract.program.values import Value, expanded
from ncut.extract.traced.operations.common import rest, scaled_by, table
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
    """Shares of what lies along an axis.

    Shares of positions choose among positions and carry no neurons, so that what is added to
    attention scores has no part in the values.
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
    """A choice between values by a condition: both reach whoever reads it."""
    return call.program.choice(call.signals(), call.shape)


def _add(call: Call) -> Value:
    first, second = call.arg(0, "self"), call.arg(1, "other")
    if is_traced(first) and is_traced(second):
        return call.program.add(first.value, second.value)
    traced, other = (first, second) if is_traced(first) else (second, first)
    name = call.tracing.parameter(other)
    if name:
        call.program.ignore([name], "added as a constant, like a bias")
    return expanded(traced.value, call.shape)


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
    ("complex polar normal bernoulli", entrywise),
    ("clamp clamp_ clamp_min clamp_min_ clamp_max clamp_max_", _clamp),
    ("maximum minimum", _extremum),
    ("threshold threshold_", _threshold),
    ("where masked_fill masked_fill_", _where),
    ("add add_ sub sub_ rsub", _add),
    ("mul mul_", _multiply),
    ("div div_ true_divide", _divide),
    (
        "clone detach detach_ alias contiguous _to_copy to lift_fresh lift dropout native_dropout "
        "feature_dropout alpha_dropout _conj conj neg neg_ positive real view_copy "
        "lift_fresh_copy tril tril_ triu triu_",
        _keep,
    ),
    ("_softmax _log_softmax softmax log_softmax _safe_softmax", _softmax),
)  # fmt: skip
