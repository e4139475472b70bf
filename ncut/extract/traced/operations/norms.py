"""Norms: their factors along channels."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from ncut.extract.arrays import as_array
from ncut.extract.chain import normalization_scale
from ncut.extract.program.values import (
    Value,
)
from ncut.extract.traced.operations.common import (
    note_bias,
    rest,
    scaled_by,
    table,
)
from ncut.extract.traced.provenance import itself
from ncut.extract.traced.tracing import Call


def _batch_norm(call: Call) -> list[Value]:
    signal, weight = call.signal(), call.arg(1, "weight")
    note_bias(call, call.arg(2, "bias"))
    training = not call.function.endswith("no_training") and call.arg(5, "training")
    mean, variance = call.arg(3, "running_mean"), call.arg(4, "running_var")
    eps = call.args[-1] if isinstance(call.args[-1], float) else call.arg(7, "eps")
    gamma = None if weight is None else as_array(weight, "its weight")
    name = [n for n in [call.tracing.parameter(weight)] if n]
    if training or variance is None or mean is None:
        kind = "data-dependent batch norm"
        made = call.program.normalized(
            signal, kind, gamma, 1, parameters=name, source=source_of(call, weight)
        )
        return [made, *rest(call)]
    return [with_running_statistics(call, signal, weight, variance, float(eps), 1), *rest(call)]


def with_running_statistics(
    call: Call, signal: Value, weight: Any, variance: Any, eps: float, axis: int
) -> Value:
    """A batch norm's factors: its weight over the square root of the running variance."""
    gamma = None if weight is None else as_array(weight, "its weight")
    factors = normalization_scale(gamma, as_array(variance, "its variance"), eps)
    tensors = [variance] if weight is None else [variance, weight]
    source = call.tracing.provenance.source(tensors, partial(_over_spread, eps), is_batch_norm=True)
    name = [n for n in [call.tracing.parameter(weight)] if n]
    return call.program.along(
        signal, factors, axis, parameters=name, name=call.tracing.path, source=source
    )


def _over_spread(eps: float, variance: Any, weight: Any = None) -> Any:
    scale = torch.rsqrt(variance + eps)
    return scale if weight is None else weight * scale


def source_of(call: Call, weight: Any) -> Any:
    """What makes the factors of a norm that has a weight."""
    return None if weight is None else call.tracing.provenance.source([weight], itself)


def _layer_norm(call: Call) -> list[Value]:
    weight = call.arg(2, "weight")
    note_bias(call, call.arg(3, "bias"))
    return [norm_of_last_axes(call, weight, "layer norm"), *rest(call)]


def _rms_norm(call: Call) -> list[Value]:
    return [norm_of_last_axes(call, call.arg(2, "weight"), "RMS norm"), *rest(call)]


def norm_of_last_axes(call: Call, weight: Any, kind: str) -> Value:
    """Division by a spread that depends on the data, times a weight of the last axes."""
    signal = call.program.normalization(call.signal(), kind)
    return signal if weight is None else scaled_by(call, signal, weight, invert=False)


def _group_norm(call: Call) -> list[Value]:
    weight = call.arg(1, "weight")
    note_bias(call, call.arg(2, "bias"))
    gamma = None if weight is None else as_array(weight, "its weight")
    name = [n for n in [call.tracing.parameter(weight)] if n]
    made = call.program.normalized(
        call.signal(), "group norm", gamma, 1, parameters=name,
        source=source_of(call, weight),
    )  # fmt: skip
    return [made, *rest(call)]


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
