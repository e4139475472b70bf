"""Functions of each entry alone, and arithmetic between tensors."""

from __future__ import annotations

import math

import numpy as np

from ncut.extract import operations
from ncut.extract.signal import Signal, expanded
from ncut.extract.traced.operations.common import rest, scaled_by, table
from ncut.extract.traced.tensor import is_traced
from ncut.extract.traced.tracing import Call


def entrywise(call: Call) -> Signal:
    signals = call.signals()
    if len(signals) == 1:
        signal = expanded(signals[0], call.shape)
        return call.wiring.activation(signal, homogeneous=False)
    return call.wiring.combine(*signals)


def _homogeneous(call: Call) -> Signal:
    return call.wiring.activation(call.signals()[0], homogeneous=True)


def _softmax(call: Call) -> Signal:
    """Shares of what lies along an axis.

    Shares of positions choose among positions and carry no neurons, so that what is added to
    attention scores has no part in the values.
    """
    axis = call.signal(0, "self").axis(call.arg(1, "dim"))
    return call.wiring.softmax(call.signal(0, "self"), axis)


def _keep(call: Call) -> Signal:
    return call.signals()[0]


def _gated_halves(call: Call) -> Signal:
    """`F.glu`: one half of the neurons, each times a gate from the other half."""
    return operations.gated_halves(call.wiring, call.signal(0, "self"), call.arg(1, "dim", -1))


def _with_buffer(call: Call) -> list[Signal]:
    return [_saturating(call), *rest(call)]


def _clamp(call: Call) -> Signal:
    ends = call.arg(1, "min"), call.arg(2, "max")
    if call.function.startswith("clamp_max"):
        ends = None, call.arg(1, "max")
    numbers = [
        None if end is None else math.nan if is_traced(end) or np.size(end) != 1 else float(end)
        for end in ends
    ]
    if any(is_traced(end) for end in ends):
        return operations.extremum(call.wiring, call.signals(), [])
    return operations.bounded(call.wiring, call.signal(0, "self"), *numbers)


def _extremum(call: Call) -> Signal | list[Signal]:
    """`torch.maximum(x, y)` and its mirror image."""
    both = call.arg(0, "self"), call.arg(1, "other")
    constants = [np.asarray(x.detach().cpu()) for x in both if not is_traced(x)]
    return operations.extremum(call.wiring, call.signals(), constants)


def _threshold(call: Call) -> Signal:
    zero = [call.arg(1, "threshold"), call.arg(2, "value")] == [0, 0]
    return call.wiring.activation(call.signals()[0], homogeneous=zero)


def _saturating(call: Call) -> Signal:
    return call.wiring.activation(call.signals()[0], homogeneous=False)


def _where(call: Call) -> Signal:
    """A choice between values by a condition: both reach whoever reads it."""
    return operations.choice(call.wiring, call.signals(), call.shape)


def _add(call: Call) -> Signal:
    first, second = call.arg(0, "self"), call.arg(1, "other")
    if is_traced(first) and is_traced(second):
        return call.wiring.add(first.signal, second.signal)
    traced, other = (first, second) if is_traced(first) else (second, first)
    name = call.tracing.parameter(other)
    if name:
        call.wiring.ignore([name], "added as a constant, like a bias")
    return expanded(traced.signal, call.shape)


def _multiply(call: Call) -> Signal:
    first, second = call.arg(0, "self"), call.arg(1, "other")
    if is_traced(first) and is_traced(second):
        return call.wiring.multiply(first.signal, second.signal)
    traced, other = (first, second) if is_traced(first) else (second, first)
    return scaled_by(call, traced.signal, other, invert=False)


def _divide(call: Call) -> Signal:
    first, second = call.arg(0, "self"), call.arg(1, "other")
    if is_traced(first) and is_traced(second):
        return call.wiring.divide(first.signal, second.signal)
    if is_traced(second):
        return call.wiring.activation(expanded(second.signal, call.shape), homogeneous=False)
    return scaled_by(call, first.signal, second, invert=True)


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
