"""Operations with weights: matrix products, convolutions, attention."""

from __future__ import annotations

from typing import Any

from ncut.errors import ModelError
from ncut.extract.arrays import untransposed
from ncut.extract.program.values import Value
from ncut.extract.program.weights import combined
from ncut.extract.readers.traced.initial import initial_weight
from ncut.extract.readers.traced.operations.common import (
    heads,
    matrix,
    note_bias,
    rest,
    times_number,
)
from ncut.extract.readers.traced.tensor import is_traced
from ncut.extract.readers.traced.tracing import Call
from ncut.extract.registry import table


def _convolution(call: Call) -> Value:
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
    return call.program.convolution(
        signal, combined(convert, weight.values), call.shape,
        name=weight.name, groups=groups, axis=0 if unbatched else 1,
        parameters=weight.parameters, module=weight.module,
        initial=initial_weight(weight.holder, convert),
    )  # fmt: skip


def _mm(call: Call) -> Value:
    return _product(call, call.args[0], call.args[1])


def _addmm(call: Call) -> Value:
    """`alpha * (a @ b) + beta * x`; addbmm sums the products of a batch."""
    given, first, second = call.args[:3]
    if not is_traced(first) and not is_traced(second):
        added = (first @ second) * call.kwargs.get("alpha", 1)
        added = added.sum(0) if call.function == "addbmm" else added
        return call.tracing.signal_of(given * call.kwargs.get("beta", 1) + added)
    note_bias(call, given)
    product = _product(call, first, second)
    if call.function == "addbmm":
        product = call.program.reduce(product, [0], keepdim=False)
    product = times_number(call, product, call.kwargs.get("alpha", 1))
    if is_traced(given):
        total = times_number(call, given.value, call.kwargs.get("beta", 1))
        return call.program.add(total, product)
    return product


def _mv(call: Call) -> Value:
    matrix, vector = call.args[-2:]
    return _product(call, matrix, vector)


def _product(call: Call, first: Any, second: Any) -> Value:
    """A matrix product, possibly batched, of a signal and a weight or of two signals."""
    return call.program.matmul(matrix(call, first), matrix(call, second), heads(call))


def _attention(call: Call) -> list[Value]:
    sides = [matrix(call, value) for value in call.args[:3]]
    made = call.program.attention(*sides, name=heads(call), scale=call.kwargs.get("scale"))
    return [made, *rest(call)]


RULES = table(
    ("convolution _convolution", _convolution),
    ("mm bmm matmul", _mm),
    ("addmm baddbmm addbmm addmv", _addmm),
    ("mv dot", _mv),
    (
        "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_attention_math "
        "_scaled_dot_product_flash_attention _scaled_dot_product_efficient_attention",
        _attention,
    ),
)  # fmt: skip
