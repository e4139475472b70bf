"""Operations with weights: matrix products, convolutions, attention, and norms."""

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
    operand,
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
    groups, transposed = int(call.arg(8, "groups")), bool(call.arg(6, "transposed"))

    def convert(values: Any) -> Any:
        return untransposed(values, groups) if transposed else values

    signal = call.signal()
    return call.program.convolution(
        signal, combined(convert, weight.values), call.shape, groups=groups,
        axis=0 if signal.ndim < tensor.ndim else 1,  # the first axis without a batch
        initial=initial_weight(weight.holder, convert), **weight.named,
    )  # fmt: skip


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


def _product(call: Call, first: Any, second: Any) -> Value:
    """A matrix product, possibly batched, of a signal and a weight or of two signals."""
    return call.program.matmul(matrix(call, first), matrix(call, second), heads(call))


def attention(call: Call) -> Value:
    """`F.scaled_dot_product_attention(query, key, value)`, and its operations."""
    sides = [matrix(call, call.arg(at, name)) for at, name in enumerate(("query", "key", "value"))]
    return call.program.attention(*sides, name=heads(call), scale=call.kwargs.get("scale"))


# --- norms --------------------------------------------------------------------------------------


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
    note_bias(call, call.arg(3, "bias"))
    return [norm_of_last_axes(call, "layer norm"), *rest(call)]


def norm_of_last_axes(call: Call, kind: str) -> Value:
    """Division by a spread that depends on the data, times a weight of the last axes."""
    signal, weight = call.program.normalization(call.signal(), kind), call.arg(2, "weight")
    return signal if weight is None else call.program.multiply(signal, operand(call, weight))


def _group_norm(call: Call) -> list[Value]:
    note_bias(call, call.arg(2, "bias"))
    made = normalized(call, call.signal(), "group norm", call.arg(1, "weight"), 1)
    return [made, *rest(call)]


RULES = table(
    ("convolution _convolution", _convolution),
    ("mm bmm matmul mv dot", lambda call: _product(call, *call.args[:2])),
    ("addmm baddbmm addbmm addmv", _addmm),
    (
        "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_attention_math "
        "_scaled_dot_product_flash_attention _scaled_dot_product_efficient_attention",
        lambda call: [attention(call), *rest(call)],
    ),
    (
        "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training "
        "_batch_norm_no_update _batch_norm_with_update cudnn_batch_norm",
        _batch_norm,
    ),
    ("native_layer_norm", _layer_norm),
    ("_fused_rms_norm rms_norm", lambda c: [norm_of_last_axes(c, "RMS norm"), *rest(c)]),
    ("native_group_norm", _group_norm),
)
