"""Activation layers, and the `activation` setting of other layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ncut.errors import ModelError
from ncut.extract.program.record import commutes
from ncut.extract.program.values import Value
from ncut.extract.readers.keras.calls import Call, Rule

_LINEAR = {"linear", "identity"}
_OTHERS = {
    *("elu", "selu", "gelu", "silu", "swish", "sigmoid", "tanh", "softplus", "softsign"),
    *("exponential", "hard_sigmoid", "hard_silu", "hard_swish", "mish", "relu6", "celu"),
    *("log_sigmoid", "squareplus", "sparse_plus", "hard_shrink", "soft_shrink", "hard_tanh"),
    *("tanh_shrink", "threshold", "sparse_sigmoid", "thresholdedrelu", "thresholded_relu"),
    *("exp", "hardsigmoid", "hardswish", "hardtanh"),
}
_SHARES = {"softmax", "log_softmax", "sparsemax"}


def activated(call: Call, signal: Value) -> Value:
    """Apply the layer's setting `activation`."""
    return applied(call, signal, call.config.get("activation"))


def applied(call: Call, signal: Value, activation: Any) -> Value:
    """Apply an activation: a name, a serialized function or layer."""
    name, config = _named(activation)
    if name in _LINEAR:
        return signal
    if name in _SHARES:
        return call.program.softmax(signal, _axis(config))
    if name in ("relu", "leaky_relu", "leakyrelu"):
        return call.program.activation(signal, homogeneous=_is_plain(config))
    if commutes(name) or name in _OTHERS:
        return call.program.activation(signal, homogeneous=commutes(name))
    if name == "glu":
        return call.program.gated_halves(signal, _axis(config))
    if not call.guess:
        raise ModelError(
            f"its activation {name!r} is not known; pass unknown='elementwise' to take it as a "
            "function of each entry alone"
        )
    call.program.leave_out(
        str(name), (), f"unknown activation of {call.path!r}, taken as element-wise"
    )
    return call.program.activation(signal, homogeneous=False)


def is_known(name: str) -> bool:
    """Check whether the name of an elementwise function is known."""
    return commutes(name) or name in _OTHERS | _SHARES


def _named(activation: Any) -> tuple[str, Mapping[str, Any]]:
    if activation is None:
        return "linear", {}
    if isinstance(activation, str):
        return activation.rpartition(">")[2].rpartition(".")[2].lower(), {}
    if isinstance(activation, Mapping):
        config = activation.get("config")
        if activation.get("class_name") == "function" and isinstance(config, str):
            return _named(config)
        if activation.get("class_name") == "Activation" and isinstance(config, Mapping):
            return _named(config.get("activation"))
        if isinstance(activation.get("class_name"), str):
            name = activation["class_name"].rpartition(">")[2].lower()
            return name, config if isinstance(config, Mapping) else {}
    raise ModelError(f"its activation is not understood: {str(activation)[:80]}")


def _is_plain(config: Mapping[str, Any]) -> bool:
    """Check whether a rectifier has its threshold at 0 and no upper bound."""
    return config.get("max_value") is None and not config.get("threshold")


def _axis(config: Mapping[str, Any]) -> int:
    axis = config.get("axis", -1)
    axis = axis[-1] if isinstance(axis, list) and axis else axis
    return axis if isinstance(axis, int) else -1


def _prelu(call: Call) -> Value:
    call.weights("alpha")
    call.program.ignore([call.parameter("alpha")], "slope of an activation")
    return call.program.activation(call.signal, homogeneous=True)


ACTIVATIONS: dict[str, Rule] = {
    "Activation": lambda call: activated(call, call.signal),
    "PReLU": _prelu,
    **dict.fromkeys(
        ("ReLU", "LeakyReLU", "ELU", "Softmax", "ThresholdedReLU", "GELU", "SELU", "Mish"),
        lambda c: applied(c, c.signal, {"class_name": c.layer.cls, "config": c.config}),
    ),
}
