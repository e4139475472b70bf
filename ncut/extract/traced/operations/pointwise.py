"""Functions of each entry alone, and arithmetic between tensors."""

from __future__ import annotations

from ncut.extract.signal import (
    Signal,
    expanded,
    indexed,
)
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
    signal, axis = call.signal(0, "self"), call.signal(0, "self").axis(call.arg(1, "dim", -1))
    half = signal.shape[axis] // 2
    halves = [indexed(signal, axis, part) for part in (slice(0, half), slice(half, None))]
    return call.wiring.combine(*halves)


def _with_buffer(call: Call) -> list[Signal]:
    return [_saturating(call), *rest(call)]


def _clamp(call: Call) -> Signal:
    low, high = call.arg(1, "min"), call.arg(2, "max")
    if call.function.startswith("clamp_min"):
        high = None
    return call.wiring.activation(call.signals()[0], homogeneous=low == 0 and high is None)


def _threshold(call: Call) -> Signal:
    zero = [call.arg(1, "threshold"), call.arg(2, "value")] == [0, 0]
    return call.wiring.activation(call.signals()[0], homogeneous=zero)


def _saturating(call: Call) -> Signal:
    return call.wiring.activation(call.signals()[0], homogeneous=False)


def _where(call: Call) -> Signal:
    """A choice between values by a condition: both reach whoever reads it."""
    signals = [s for s in call.signals() if s.terms]
    if len(signals) == 1:
        return call.wiring.activation(expanded(signals[0], call.shape), homogeneous=False)
    return expanded(call.wiring.combine(*call.signals()), call.shape)


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
    return scaled_by(call, expanded(traced.signal, call.shape), other, invert=False)


def _divide(call: Call) -> Signal:
    first, second = call.arg(0, "self"), call.arg(1, "other")
    if is_traced(first) and is_traced(second):
        return call.wiring.multiply(first.signal, second.signal)
    if is_traced(second):
        return call.wiring.activation(expanded(second.signal, call.shape), homogeneous=False)
    return scaled_by(call, expanded(first.signal, call.shape), second, invert=True)


RULES = table(
    (
        "relu relu_ leaky_relu leaky_relu_ prelu _prelu_kernel rrelu_with_noise "
        "rrelu_with_noise_ abs abs_",
        _homogeneous,
    ),
    ("hardtanh hardtanh_ relu6 hardswish hardswish_", _saturating),
    ("log_sigmoid_forward", _with_buffer),
    ("glu", _gated_halves),
    ("complex polar", entrywise),
    ("clamp clamp_ clamp_min clamp_min_", _clamp),
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
