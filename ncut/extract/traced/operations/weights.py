"""Operations with weights: products of matrices, convolutions, attention."""

from __future__ import annotations

from typing import Any

from ncut.errors import ModelError
from ncut.extract.operations import grouped_linear, untransposed
from ncut.extract.signal import Signal, reshaped
from ncut.extract.traced.initial import initial_weight
from ncut.extract.traced.operations.common import note_bias, rest, table
from ncut.extract.traced.tensor import is_traced
from ncut.extract.traced.tracing import Call


def _convolution(call: Call) -> Signal:
    tensor = call.arg(1, "weight")
    if is_traced(tensor):
        raise ModelError("its kernel depends on the data")
    weight = call.tracing.weight(tensor)
    note_bias(call, call.arg(2, "bias"))
    groups = int(call.arg(8, "groups"))
    transposed = bool(call.arg(6, "transposed"))

    def convert(values: Any) -> Any:
        return untransposed(values, groups) if transposed else values

    signal = call.signal()
    unbatched = signal.ndim < tensor.ndim
    return call.wiring.convolution(
        signal, convert(weight.values), call.shape,
        name=weight.name, groups=groups, axis=0 if unbatched else 1,
        parameters=weight.parameters, module=weight.module,
        initial=initial_weight(weight.holder, len(call.wiring.operations), convert),
    )  # fmt: skip


def _mm(call: Call) -> Signal:
    return _product(call, call.args[0], call.args[1])


def _addmm(call: Call) -> Signal:
    note_bias(call, call.args[0])
    product = _product(call, call.args[1], call.args[2])
    if is_traced(call.args[0]):
        return call.wiring.add(call.args[0].signal, product)
    return product


def _mv(call: Call) -> Signal:
    matrix, vector = call.args[-2:]
    if is_traced(matrix) and is_traced(vector):
        raise ModelError("a product of a matrix and a vector of signals")
    if is_traced(vector):
        weight = call.tracing.weight(matrix)
        return _linear(call, vector.signal, weight, weight.values.T, axis=0, shape=call.shape)
    weight = call.tracing.weight(vector)
    signal = _linear(call, matrix.signal, weight, weight.values[:, None], axis=1)
    return reshaped(signal, call.shape)


def _product(call: Call, first: Any, second: Any) -> Signal:
    """A product of matrices, perhaps many: of a signal with a weight, or of two signals."""
    if is_traced(first) and is_traced(second):
        path = call.tracing.path
        return call.wiring.matmul(
            first.signal, second.signal, f"heads of {path}" if path else "heads"
        )
    traced, tensor = (first, second) if is_traced(first) else (second, first)
    left = traced is second  # the weight is the left factor: it is applied along axis -2
    weight = call.tracing.weight(tensor)
    values = weight.values.swapaxes(-1, -2) if left else weight.values
    axis = traced.signal.ndim - (2 if left else 1)
    if values.ndim == 2:
        return _linear(call, traced.signal, weight, values, axis=axis, shape=call.shape)
    same = tensor.stride(0) == 0 or bool((tensor == tensor[:1]).all())
    if same:
        return _linear(call, traced.signal, weight, values[0], axis=axis, shape=call.shape)
    return grouped_linear(
        call.wiring, traced.signal, values, 0, axis,
        name=weight.name, module=weight.module, parameters=weight.parameters,
    )  # fmt: skip


def _linear(
    call: Call, signal: Signal, weight: Any, values: Any, *, axis: int, shape: Any = None
) -> Signal:
    return call.wiring.linear(
        signal, values, axis=axis, shape=shape,
        name=weight.name, module=weight.module, parameters=weight.parameters,
    )  # fmt: skip


def _attention(call: Call) -> list[Signal]:
    path = call.tracing.path
    signals = [call.tracing.signal_of(value) for value in call.args[:3]]
    return [
        call.wiring.attention(*signals, name=f"heads of {path}" if path else "heads"),
        *rest(call),
    ]


RULES = table(
    ("convolution _convolution", _convolution),
    ("mm bmm matmul", _mm),
    ("addmm baddbmm addbmm", _addmm),
    ("mv addmv dot", _mv),
    (
        "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_attention_math "
        "_scaled_dot_product_flash_attention _scaled_dot_product_efficient_attention",
        _attention,
    ),
)  # fmt: skip
