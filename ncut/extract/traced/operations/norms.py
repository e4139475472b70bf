"""Norms: their factors along channels."""

from __future__ import annotations

from typing import Any

from ncut.extract.arrays import as_array
from ncut.extract.chain import normalization_scale
from ncut.extract.signal import (
    Signal,
)
from ncut.extract.traced.operations.common import (
    along,
    normalized,
    note_bias,
    rest,
    scaled_by,
    table,
)
from ncut.extract.traced.tracing import Call


def _batch_norm(call: Call) -> list[Signal]:
    signal, weight = call.signal(), call.arg(1, "weight")
    note_bias(call, call.arg(2, "bias"))
    training = not call.function.endswith("no_training") and call.arg(5, "training")
    mean, variance = call.arg(3, "running_mean"), call.arg(4, "running_var")
    eps = call.args[-1] if isinstance(call.args[-1], float) else call.arg(7, "eps")
    gamma = None if weight is None else as_array(weight, "its weight")
    name = call.tracing.parameter(weight)
    if training or variance is None or mean is None:
        kind = "data-dependent batch norm"
        return [normalized(call, signal, gamma, name, 1, kind), *rest(call)]
    if signal.terms:
        factors = normalization_scale(gamma, as_array(variance, "its variance"), float(eps))
        scaled = along(call, signal, factors, 1, name or call.tracing.path)
    else:
        scaled = signal
    return [scaled, *rest(call)]


def _layer_norm(call: Call) -> list[Signal]:
    weight = call.arg(2, "weight")
    note_bias(call, call.arg(3, "bias"))
    return [norm_of_last_axes(call, weight, "layer norm"), *rest(call)]


def _rms_norm(call: Call) -> list[Signal]:
    return [norm_of_last_axes(call, call.arg(2, "weight"), "RMS norm"), *rest(call)]


def norm_of_last_axes(call: Call, weight: Any, kind: str) -> Signal:
    """Division by a spread that depends on the data, times a weight of the last axes."""
    signal = call.wiring.normalization(call.signal(), kind)
    return signal if weight is None else scaled_by(call, signal, weight, invert=False)


def _group_norm(call: Call) -> list[Signal]:
    weight = call.arg(1, "weight")
    note_bias(call, call.arg(2, "bias"))
    gamma = None if weight is None else as_array(weight, "its weight")
    name = call.tracing.parameter(weight)
    return [normalized(call, call.signal(), gamma, name, 1, "group norm"), *rest(call)]


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
