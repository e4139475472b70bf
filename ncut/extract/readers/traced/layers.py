"""Modules that are followed as a whole: recurrent, quantized and instance norm layers, experts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from ncut.errors import ModelError
from ncut.extract.arrays import as_array
from ncut.extract.program.values import Value, concatenated, expanded, indexed, unsqueezed
from ncut.extract.program.weights import Expression
from ncut.extract.readers.traced.operations.weights import normalized, with_running_statistics
from ncut.extract.readers.traced.tensor import is_traced
from ncut.extract.readers.traced.tracing import Call


def _recurrent(call: Call) -> Any:
    """`nn.RNN`, `nn.LSTM`, `nn.GRU`: layer by layer, direction by direction."""
    layer = call.module
    given = call.arg(0, "input")
    packed = isinstance(given, PackedSequence)
    sequence = given.data if packed else given
    signal = call.tracing.signal_of(sequence)
    time = 1 if layer.batch_first and signal.ndim == 3 else 0
    first = _first_states(call, signal, None if packed else time)
    directions = ("", "_reverse") if layer.bidirectional else ("",)
    final: list[Value] = []
    for number in range(layer.num_layers):
        outputs = []
        for direction in directions:
            states = [indexed(state, 0, len(final)) for state in first]
            output = _direction(call, signal, f"_l{number}{direction}", states)
            outputs.append(output)
            final.append(output)
        signal = concatenated(outputs, -1) if len(outputs) > 1 else outputs[0]
        signal = call.program.activation(signal, homogeneous=False)
    made: Any = call.tracing.made(signal, sequence)
    if packed:
        batch: tuple[int, ...] = (int(given.batch_sizes[0]),)
        made = PackedSequence(made, given.batch_sizes, given.sorted_indices, given.unsorted_indices)
    else:
        batch = () if signal.ndim == 2 else (signal.shape[1 - time],)
    last = [_state(call, output, 0 if packed else time, batch, sequence) for output in final]
    hidden = torch.stack(last)
    return made, (hidden, hidden) if layer.mode == "LSTM" else hidden


class _Weights(SimpleNamespace):
    """The weights of a recurrent function, with the attributes of a module."""


def recurrent_function(kind: str) -> Callable[[Call], Any]:
    """`torch.lstm`, `torch.gru` and others, which modules and exported programs call."""

    def rule(call: Call) -> Any:
        _, _, weights, _, n_layers, _, _, both_ways, batch_first = call.args
        if not isinstance(weights, list | tuple):
            raise ModelError("it reads a packed sequence; pass a padded one")
        directions = ("", "_reverse") if both_ways else ("",)
        suffixes = [f"_l{at}{direction}" for at in range(n_layers) for direction in directions]
        per = len(weights) // len(suffixes)
        names = ["weight_ih", "weight_hh", *["bias_ih", "bias_hh"] * (per > 3)]
        names += ["weight_hr"] * (per % 2)
        keys = [name + suffix for suffix in suffixes for name in names]
        layer = _held(
            call, kind, dict(zip(keys, weights, strict=True)), weights[1], num_layers=n_layers,
            bidirectional=both_ways, batch_first=batch_first,
        )  # fmt: skip
        made, states = _recurrent(call.of(layer))
        return (made, *states) if kind == "LSTM" else (made, states)

    return rule


def cell_function(kind: str) -> Callable[[Call], Any]:
    """`torch.lstm_cell` and others."""

    def rule(call: Call) -> Any:
        weights = dict(zip(("weight_ih", "weight_hh"), call.args[2:4], strict=True))
        return _cell(call.of(_held(call, kind, weights, call.args[3])))

    return rule


def _held(call: Call, kind: str, weights: dict[str, Any], hidden: Any, **settings: Any) -> Any:
    first = call.tracing.parameter(next(iter(weights.values())))
    n_hidden = hidden.shape[0] // {"LSTM": 4, "GRU": 3}.get(kind, 1)
    path = first.rpartition(".")[0] or call.tracing.path
    return _Weights(path=path, mode=kind, hidden_size=n_hidden, **settings, **weights)


def _path(call: Call) -> str:
    path: str = call.module.path if isinstance(call.module, _Weights) else call.tracing.path
    return path


def _first_states(call: Call, signal: Value, time: int | None) -> list[Value]:
    """The layer's first states, (layers, ..., n), each broadcastable to its sequence."""
    given = call.arg(1, "hx")
    found = []
    for state in given if isinstance(given, tuple | list) else [given]:
        if not is_traced(state):
            found.append(Value((call.module.num_layers * (1 + call.module.bidirectional), 1)))
            continue
        own = state.value
        if time is None:  # packed: examples lie among the steps
            own = call.program.positions(own, (own.shape[0], 1, own.shape[2]), axis=2)
        elif own.ndim == 3 and signal.ndim == 3:
            own = unsqueezed(own, 1 + time)
        found.append(own)
    return found if given is not None else []


def _direction(call: Call, signal: Value, suffix: str, states: Sequence[Value]) -> Value:
    path = _path(call)
    first = suffix == "_l0"
    name = path if first and path else f"{path}." * bool(path) + suffix[1:]
    return _layer(call, signal, suffix, states, name, path if first else "", call.module.mode)


def _layer(
    call: Call,
    signal: Value,
    suffix: str,
    states: Sequence[Value | None],
    name: str,
    module: str,
    kind: str,
) -> Value:
    """One direction of a layer, whose weights are attributes that end in `suffix`."""
    weights: list[Expression | None] = []
    used: list[str] = []
    for part in ("weight_ih", "weight_hh", "weight_hr"):
        tensor = getattr(call.module, part + suffix, None)
        weight = None if tensor is None else call.tracing.weight(tensor, part + suffix)
        weights.append(None if weight is None else weight.values)
        used += () if weight is None else weight.parameters
    prefix = f"{_path(call)}." if _path(call) else ""
    call.program.ignore([f"{prefix}bias_ih{suffix}", f"{prefix}bias_hh{suffix}"], "bias")
    assert weights[0] is not None
    assert weights[1] is not None
    return call.program.recurrence(
        signal, weights[0], weights[1], weights[2],
        n_hidden=call.module.hidden_size, name=name, module=module, parameters=used, kind=kind,
        state=states[0] if states else None, cell=states[1] if len(states) > 1 else None,
    )  # fmt: skip


def _state(call: Call, output: Value, time: int, batch: tuple[int, ...], like: Any) -> Any:
    """The last hidden state of one layer and direction, (batch, hidden)."""
    state = indexed(output, time, output.shape[time] - 1)
    return call.tracing.made(expanded(state, (*batch, output.shape[-1])), like)


def _cell(call: Call) -> Any:
    """`nn.RNNCell`, `nn.LSTMCell`, `nn.GRUCell`: one step with an external state."""
    cell, given, path = call.module, call.arg(1, "hx"), _path(call)
    kinds = {"GRU": nn.GRUCell, "LSTM": nn.LSTMCell}
    kind = next((kind for kind, cls in kinds.items() if isinstance(cell, cls)), "")
    kind = cell.mode if isinstance(cell, _Weights) else kind
    states = [_traced_state(call, given, number) for number in (0, 1)]
    output = _layer(call, call.signal(), "", states, path or "cell", path, kind)
    made = call.tracing.made(output, call.arg(0, "input"))
    return (made, made) if kind == "LSTM" else made


def _traced_state(call: Call, given: Any, number: int) -> Value | None:
    """A state passed to a cell, if it depends on the data."""
    states = list(given) if isinstance(given, tuple | list) else [given]
    state: Any = states[number] if number < len(states) else None
    return state.value if is_traced(state) else None


def _instance_norm(call: Call) -> Value:
    """A norm by example and channel."""
    layer, signal = call.module, call.signal()
    axis = (
        1 if signal.ndim > {nn.InstanceNorm1d: 2, nn.InstanceNorm2d: 3}.get(type(layer), 4) else 0
    )
    path = call.tracing.path
    if layer.bias is not None:
        call.program.ignore([f"{path}.bias" if path else "bias"], "bias")
    if layer.running_var is not None:
        return with_running_statistics(
            call, signal, layer.weight, layer.running_var, layer.eps, axis
        )
    return normalized(call, signal, "instance norm", layer.weight, axis)


def _quantized_linear(call: Call) -> Value:
    layer, signal = call.module, call.signal()
    weight = layer.weight() if callable(layer.weight) else layer.weight
    path = call.tracing.path
    return call.program.linear(
        signal, _dequantized(weight).T, name=path or "weight", module=path,
        parameters=[f"{path}.weight" if path else "weight"],
    )  # fmt: skip


def _quantized_convolution(call: Call) -> Value:
    layer, signal = call.module, call.signal()
    path = call.tracing.path
    shape = _shape_after(layer, signal.shape)
    return call.program.convolution(
        signal, _dequantized(layer.weight()), shape,
        name=path or "weight", groups=layer.groups, module=path,
        parameters=[f"{path}.weight" if path else "weight"],
    )  # fmt: skip


def _shape_after(layer: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    sizes = []
    for at, size in enumerate(shape[2:]):
        reach = layer.dilation[at] * (layer.kernel_size[at] - 1)
        sizes.append((size + 2 * layer.padding[at] - reach - 1) // layer.stride[at] + 1)
    return (shape[0], layer.out_channels, *sizes)


def _with_relu(rule: Callable[[Call], Value]) -> Callable[[Call], Value]:
    return lambda call: call.program.activation(rule(call), homogeneous=True)


def _dequantized(weight: Any) -> Any:
    return np.asarray(as_array(weight.dequantize(), "its weight"))


def _same(call: Call) -> Value:
    return call.signal()


def _quantized() -> dict[Any, Callable[[Call], Any]]:
    """Layers of torch.ao.quantization, if this version of torch has them."""
    try:
        import torch.ao.nn.intrinsic.quantized as fused
        import torch.ao.nn.quantized as static
        import torch.ao.nn.quantized.dynamic as dynamic
        from torch.ao.quantization import fake_quantize, observer
    except ImportError:
        return {}
    kinds = fake_quantize.FakeQuantizeBase, observer.ObserverBase
    both = [*vars(fake_quantize).values(), *vars(observer).values()]
    observers = [cls for cls in both if isinstance(cls, type) and issubclass(cls, kinds)]
    return {
        **dict.fromkeys(observers, _same),
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


# --- experts -------------------------------------------------------------------------------------


def are_experts(module: nn.Module) -> bool:
    """Test if a module holds all experts of a layer: weights (experts, ..., ...) and a gate."""
    name = type(module).__name__
    weights = [getattr(module, part, None) for part in ("gate_up_proj", "down_proj")]
    stacked = all(isinstance(weight, nn.Parameter) and weight.ndim == 3 for weight in weights)
    return name.endswith("Experts") and stacked and hasattr(module, "_apply_gate")


def experts(call: Call) -> Any:
    """Every expert reads the layer's input and writes to its output.

    A forward pass runs only the experts that the router chooses for its data; the graph has all
    of them. The router's shares scale their outputs by numbers that depend on the data.
    """
    module: Any = call.module
    hidden = call.arg(0, "hidden_states")
    path = call.tracing.path
    transposed = bool(getattr(module, "is_transposed", False))
    for bias in ("gate_up_proj_bias", "down_proj_bias"):
        if isinstance(getattr(module, bias, None), nn.Parameter):
            call.program.ignore([f"{path}.{bias}"], "bias")

    def linear(value: Any, part: str, number: int) -> Any:
        weight = call.tracing.weight(getattr(module, part)[number], part)
        made = call.program.linear(
            value.value, weight.values if transposed else weight.values.T,
            name=f"{path}.{number}.{part}", module=path, parameters=weight.parameters,
        )  # fmt: skip
        return call.tracing.made(made, value)

    written: list[Value] = []
    for number in range(module.gate_up_proj.shape[0]):
        gated = module._apply_gate(linear(hidden, "gate_up_proj", number))
        assert is_traced(gated)
        written.append(linear(gated, "down_proj", number).value)
    return call.program.add(*written)
