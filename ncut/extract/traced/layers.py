"""Modules that are followed as a whole: recurrent layers, norms by example, quantized layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from ncut.errors import ModelError
from ncut.extract.arrays import as_array
from ncut.extract.recurrent import recurrent_layer
from ncut.extract.signal import Signal, concatenated
from ncut.extract.traced.experts import are_experts, experts
from ncut.extract.traced.operations.common import along, normalized
from ncut.extract.traced.tracing import Call


def _recurrent(call: Call) -> Any:
    """`nn.RNN`, `nn.LSTM`, `nn.GRU`: layer by layer, direction by direction."""
    layer = call.module
    sequence = call.arg(0, "input")
    if not isinstance(sequence, torch.Tensor):
        raise ModelError("it reads a packed sequence; pass the padded one")
    signal = call.tracing.signal_of(sequence)
    directions = ("", "_reverse") if layer.bidirectional else ("",)
    final: list[Signal] = []
    for number in range(layer.num_layers):
        outputs = []
        for direction in directions:
            output = _direction(call, signal, f"_l{number}{direction}")
            outputs.append(output)
            final.append(output)
        signal = concatenated(outputs, -1) if len(outputs) > 1 else outputs[0]
        signal = call.wiring.activation(signal, homogeneous=False)
    made = call.tracing.made(signal, sequence)
    time = 1 if layer.batch_first and signal.ndim == 3 else 0
    batch = () if signal.ndim == 2 else (signal.shape[1 - time],)
    states = [_state(call, output, time, batch, sequence) for output in final]
    hidden = torch.stack(states)
    return made, (hidden, hidden) if isinstance(layer, nn.LSTM) else hidden


def _direction(call: Call, signal: Signal, suffix: str) -> Signal:
    names = [f"weight_ih{suffix}", f"weight_hh{suffix}", f"weight_hr{suffix}"]
    weights = [
        as_array(getattr(call.module, name), name) if hasattr(call.module, name) else None
        for name in names
    ]
    path = call.tracing.path
    prefix = f"{path}." if path else ""
    call.wiring.ignore([f"{prefix}bias_ih{suffix}", f"{prefix}bias_hh{suffix}"], "bias")
    used = [f"{prefix}{n}" for n, w in zip(names, weights, strict=True) if w is not None]
    first = suffix == "_l0"
    assert weights[0] is not None
    assert weights[1] is not None
    return recurrent_layer(
        call.wiring, signal, weights[0], weights[1], weights[2],
        n_hidden=call.module.hidden_size, name=path if first and path else f"{prefix}{suffix[1:]}",
        module=path if first else "", parameters=used,
    )  # fmt: skip


def _state(call: Call, output: Signal, time: int, batch: tuple[int, ...], like: Any) -> Any:
    """The last hidden state of one layer and direction, (batch, hidden)."""
    shape = (*batch, output.shape[-1])
    state = output.map(
        (*output.shape[:time], *output.shape[time + 1 :]), lambda a: a.squeeze(axis=time)
    )
    return call.tracing.made(replace(state, shape=shape), like)


def _cell(call: Call) -> Any:
    """`nn.RNNCell`, `nn.LSTMCell`, `nn.GRUCell`: one step, the state coming from outside."""
    cell = call.module
    signal = call.signal()
    path = call.tracing.path
    prefix = f"{path}." if path else ""
    call.wiring.ignore([f"{prefix}bias_ih", f"{prefix}bias_hh"], "bias")
    output = recurrent_layer(
        call.wiring, signal, as_array(cell.weight_ih, "weight_ih"),
        as_array(cell.weight_hh, "weight_hh"), None,
        n_hidden=cell.hidden_size, name=path or "cell", module=path,
        parameters=[f"{prefix}weight_ih", f"{prefix}weight_hh"],
    )  # fmt: skip
    made = call.tracing.made(output, call.arg(0, "input"))
    return (made, made) if isinstance(cell, nn.LSTMCell) else made


def _instance_norm(call: Call) -> Signal:
    """A norm by example and channel."""
    layer, signal = call.module, call.signal()
    axis = (
        1 if signal.ndim > {nn.InstanceNorm1d: 2, nn.InstanceNorm2d: 3}.get(type(layer), 4) else 0
    )
    gamma = None if layer.weight is None else as_array(layer.weight, "its weight")
    path = call.tracing.path
    if layer.bias is not None:
        call.wiring.ignore([f"{path}.bias" if path else "bias"], "bias")
    name = call.tracing.parameter(layer.weight) if layer.weight is not None else ""
    if layer.running_var is not None:
        from ncut.extract.chain import normalization_scale

        factors = normalization_scale(gamma, as_array(layer.running_var, "its variance"), layer.eps)
        return along(call, signal, factors, axis, name or path)
    return normalized(call, signal, gamma, name, axis, "instance norm")


def _quantized_linear(call: Call) -> Signal:
    layer, signal = call.module, call.signal()
    weight = layer.weight() if callable(layer.weight) else layer.weight
    path = call.tracing.path
    return call.wiring.linear(
        signal, _dequantized(weight).T, name=path or "weight", module=path,
        parameters=[f"{path}._packed_params"],
    )  # fmt: skip


def _quantized_convolution(call: Call) -> Signal:
    layer, signal = call.module, call.signal()
    path = call.tracing.path
    shape = _shape_after(layer, signal.shape)
    return call.wiring.convolution(
        signal, _dequantized(layer.weight()), shape,
        name=path or "weight", groups=layer.groups, module=path, parameters=[f"{path}.weight"],
    )  # fmt: skip


def _shape_after(layer: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    sizes = []
    for at, size in enumerate(shape[2:]):
        reach = layer.dilation[at] * (layer.kernel_size[at] - 1)
        sizes.append((size + 2 * layer.padding[at] - reach - 1) // layer.stride[at] + 1)
    return (shape[0], layer.out_channels, *sizes)


def _with_relu(rule: Callable[[Call], Signal]) -> Callable[[Call], Signal]:
    return lambda call: call.wiring.activation(rule(call), homogeneous=True)


def _dequantized(weight: Any) -> Any:
    return np.asarray(as_array(weight.dequantize(), "its weight"))


def _same(call: Call) -> Signal:
    return call.signal()


def _quantized() -> dict[Any, Callable[[Call], Any]]:
    """Layers of torch.ao.quantization, where this version of torch has them."""
    try:
        import torch.ao.nn.intrinsic.quantized as fused
        import torch.ao.nn.quantized as static
        import torch.ao.nn.quantized.dynamic as dynamic
    except ImportError:
        return {}
    return {
        static.Linear: _quantized_linear,
        dynamic.Linear: _quantized_linear,
        fused.LinearReLU: _with_relu(_quantized_linear),
        static.Conv1d: _quantized_convolution,
        static.Conv2d: _quantized_convolution,
        static.Conv3d: _quantized_convolution,
        fused.ConvReLU1d: _with_relu(_quantized_convolution),
        fused.ConvReLU2d: _with_relu(_quantized_convolution),
        static.Quantize: _same,
        static.DeQuantize: _same,
    }


MODULES: dict[Any, Callable[[Call], Any]] = {
    nn.RNN: _recurrent,
    nn.LSTM: _recurrent,
    nn.GRU: _recurrent,
    nn.RNNCell: _cell,
    nn.LSTMCell: _cell,
    nn.GRUCell: _cell,
    nn.InstanceNorm1d: _instance_norm,
    nn.InstanceNorm2d: _instance_norm,
    nn.InstanceNorm3d: _instance_norm,
    **_quantized(),
}


def by_parts(module: nn.Module) -> Callable[[Call], Any] | None:
    """The rule of a module that is known by what it holds, not by its class."""
    return experts if are_experts(module) else None
