"""Norms: their factors along channels."""

from __future__ import annotations

from typing import Any

from ncut.extract.program.values import Value
from ncut.extract.readers.traced.operations.common import (
    note_bias,
    operand,
    rest,
)
from ncut.extract.readers.traced.tracing import Call
from ncut.extract.registry import table


def _batch_norm(call: Call) -> list[Value]:
    signal, weight = call.signal(), call.arg(1, "weight")
    note_bias(call, call.arg(2, "bias"))
    training = not call.function.endswith("no_training") and call.arg(5, "training")
    mean, variance = call.arg(3, "running_mean"), call.arg(4, "running_var")
    eps = call.args[-1] if isinstance(call.args[-1], float) else call.arg(7, "eps")
    if training or variance is None or mean is None:
        return [normalized(call, signal, "data-dependent batch norm", weight, 1), *rest(call)]
    return [with_running_statistics(call, signal, weight, variance, float(eps), 1), *rest(call)]


def with_running_statistics(
    call: Call, signal: Value, weight: Any, variance: Any, eps: float, axis: int
) -> Value:
    """A batch norm with running statistics."""
    factors = call.tracing.provenance.batch_norm(weight, variance, eps)
    return call.program.scaled(
        signal, factors, axis, parameters=factors.leaves, name=call.tracing.path
    )


def normalized(call: Call, signal: Value, kind: str, weight: Any, axis: int) -> Value:
    """Division by a spread that depends on the data, times a weight along an axis."""
    provenance = call.tracing.provenance
    gamma = None if weight is None else provenance.factors(weight, "its weight")
    names = provenance.leaves(weight)
    return call.program.normalized(signal, kind, gamma, axis, parameters=names)


def _layer_norm(call: Call) -> list[Value]:
    weight = call.arg(2, "weight")
    note_bias(call, call.arg(3, "bias"))
    return [norm_of_last_axes(call, weight, "layer norm"), *rest(call)]


def _rms_norm(call: Call) -> list[Value]:
    return [norm_of_last_axes(call, call.arg(2, "weight"), "RMS norm"), *rest(call)]


def norm_of_last_axes(call: Call, weight: Any, kind: str) -> Value:
    """Division by a spread that depends on the data, times a weight of the last axes."""
    signal = call.program.normalization(call.signal(), kind)
    return signal if weight is None else call.program.multiply(signal, operand(call, weight))


def _group_norm(call: Call) -> list[Value]:
    weight = call.arg(1, "weight")
    note_bias(call, call.arg(2, "bias"))
    return [normalized(call, call.signal(), "group norm", weight, 1), *rest(call)]


RULES = table(
    (
        "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training "
        "_batch_norm_no_update _batch_norm_with_update cudnn_batch_norm",
        _batch_norm,
    ),
    ("native_layer_norm", _layer_norm),
    ("_fused_rms_norm rms_norm", _rms_norm),
    ("native_group_norm", _group_norm),
)  # fmt: skip
