"""Operators with weights: matrix products, convolutions, norms, recurrent layers, tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ncut.errors import ModelError
from ncut.extract.arrays import as_array, untransposed
from ncut.extract.chain import normalization_scale
from ncut.extract.onnx_graph.folding import dequantized
from ncut.extract.onnx_graph.node import Node, Rule
from ncut.extract.onnx_graph.shapes import window
from ncut.extract.onnx_graph.values import (
    Array,
    Constant,
    Operand,
    as_floats,
    checked,
    filled,
    stored,
    unrepeated,
)
from ncut.extract.program.einsum import einsum as sum_of_products
from ncut.extract.program.values import (
    Value,
    expanded,
    gathered,
    indexed,
    permuted,
    repeated_heads,
    reshaped,
    stacked,
    unsqueezed,
)

# --- products of matrices -----------------------------------------------------------------------


def linear(node: Node, value: Value, weight: Array, position: int) -> Value:
    """The node's input `position`, a matrix (n_in, n_out), applied along the last axis."""
    return node.program.linear(filled(value), weight, **_names(node, position))


def product(
    node: Node,
    first: Operand,
    second: Operand,
    where: tuple[int, int],
    weights: Array | None = None,
) -> Value:
    """`first @ second` with NumPy's semantics; one operand may be a constant.

    Parameters
    ----------
    where : tuple of int
        Positions of the operands among the node's inputs.
    weights : ndarray, optional
        The constant's values, if they differ from the input's.
    """
    if first.ndim < 1 or second.ndim < 1:
        raise ModelError("a product of matrices with a single number")
    if isinstance(first, Value) and isinstance(second, Value):
        return _of_signals(node, first, second)
    if isinstance(second, Constant) and isinstance(first, Value):
        values = node.weight(where[1]) if weights is None else weights
        return _applied(node, first, values, where[1], left=False)
    assert isinstance(second, Value)
    values = node.weight(where[0]) if weights is None else weights
    return _applied(node, second, values, where[0], left=True)


def _of_signals(node: Node, first: Value, second: Value) -> Value:
    vectors = first.ndim == 1, second.ndim == 1
    if vectors[0]:
        first = unsqueezed(first, 0)
    if vectors[1]:
        second = unsqueezed(second, 1)
    if first.shape[-1] != second.shape[-2]:
        raise ModelError(f"it multiplies shapes {first.shape} and {second.shape}")
    result = node.program.matmul(first, second, node.heads)
    if vectors[0]:
        result = indexed(result, -2, 0)
    return indexed(result, -1, 0) if vectors[1] else result


def _applied(node: Node, value: Value, weights: Array, position: int, *, left: bool) -> Value:
    """A constant matrix or a batch of them, multiplied with a value from the right or left."""
    checked(np.broadcast_shapes((*value.shape[:-2], 1, 1), (*weights.shape[:-2], 1, 1)))
    return node.program.product(
        filled(value), weights, left=left, quiet=True, **_names(node, position)
    )


def matmul(node: Node) -> Value:
    """MatMul."""
    return product(node, node.value(0), node.value(1), (0, 1))


def fused_matmul(node: Node) -> Value:
    """FusedMatMul, a contributed operator: MatMul with transposed operands and a factor."""
    values = [node.value(0), node.value(1)]
    for at, key in enumerate(("transA", "transB")):
        if node.attributes.get(key):
            values[at] = swapped(values[at])
    weights = next((v.values for v in values if isinstance(v, Constant)), None)
    made = product(node, values[0], values[1], (0, 1), weights)
    return node.program.gain(made, abs(float(node.attributes.get("alpha", 1.0))) or 1.0)


def swapped(value: Operand) -> Operand:
    """The value with its last two axes swapped."""
    if isinstance(value, Constant):
        return replace(value, values=value.values.swapaxes(-1, -2))
    order = [*range(value.ndim - 2), value.ndim - 1, value.ndim - 2]
    return permuted(value, order)


def gemm(node: Node) -> Value:
    """Gemm: alpha A' B' + beta C."""
    values = [node.value(0), node.value(1)]
    for at, key in enumerate(("transA", "transB")):
        if values[at].ndim != 2:
            raise ModelError(f"its input {at} has {values[at].ndim} axes, expected 2")
        if node.attributes.get(key):
            values[at] = swapped(values[at])
    alpha = float(node.attributes.get("alpha", 1.0))
    weights = None
    for at, value in enumerate(values):
        if isinstance(value, Constant):
            weights = node.weight(at)
            weights = weights.T if node.attributes.get(("transA", "transB")[at]) else weights
    made = product(node, values[0], values[1], (0, 1), weights)
    if alpha not in (0.0, 1.0):
        made = node.program.gain(made, abs(alpha))
    if node.has(2):
        node.ignore(2, "bias")
        third = node.value(2)
        if isinstance(third, Value):
            beta = abs(float(node.attributes.get("beta", 1.0)))
            made = node.program.add(made, node.program.gain(third, beta or 1.0))
    return made


def integer_matmul(node: Node) -> Value:
    """MatMulInteger: the signal's and the weight's zero points are subtracted."""
    first, second = node.value(0), node.value(1)
    weights = None
    for at, value in enumerate((first, second)):
        if isinstance(value, Constant):
            zero = node.optional(2 + at, "zero point")
            weights = dequantized(value.values, np.ones(1, np.float32), zero, 1 - 2 * at, 0)
    return node.program.awaiting_scale(product(node, first, second, (0, 1), weights))


def quantized_matmul(node: Node) -> Value:
    """QLinearMatMul (a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero)."""
    values = [node.value(0), node.value(3)]
    weights = None
    for at, value in zip((0, 3), values, strict=True):
        if isinstance(value, Constant):
            scale = node.array(at + 1, "scale")
            weights = dequantized(
                value.values, scale, node.optional(at + 2, "zero"), -1 if at else -2, 0
            )
            node.place(at + 1, "the scale of quantized weights")
    return product(node, values[0], values[1], (0, 3), weights)


def einsum(node: Node) -> Value:
    """Einsum of one or two operands."""
    known = [at for at, value in enumerate(node.inputs) if isinstance(value, Constant)]
    operands = [
        as_array(as_floats(v.values), "its weight") if isinstance(v, Constant) else v
        for v in (node.value(at) for at in range(len(node.inputs)))
    ]
    if len(known) == len(operands):
        raise ModelError("its operands do not depend on the data, and are too large to be summed")
    return sum_of_products(
        node.program, str(node.attributes.get("equation", "")), operands, heads=node.heads,
        **(_names(node, known[0]) if known else {"name": node.name}),
    )  # fmt: skip


def _names(node: Node, position: int) -> dict[str, Any]:
    """Names of the weights at the node's input `position`."""
    name = node.layer(position)
    return {"name": name, "module": name, "parameters": node.parameters(position)}


# --- convolutions -------------------------------------------------------------------------------


def convolution(node: Node) -> Value:
    """Conv, or ConvTranspose if `transposed`."""
    return _convolved(node, node.signal(0), node.weight(1), 1)


def _convolved(node: Node, signal: Value, weight: Array, position: int) -> Value:
    if weight.ndim < 3 or signal.ndim != weight.ndim:
        raise ModelError(f"it applies a kernel of shape {weight.shape} to {signal.shape}")
    groups = int(node.attributes.get("group", 1))
    transposed = node.operator == "ConvTranspose"
    if groups < 1 or weight.shape[0] % groups:
        raise ModelError(f"its kernel of shape {weight.shape} has no {groups} groups")
    moves = window(node, signal.ndim - 2, weight.shape[2:])
    if moves.sizes != list(weight.shape[2:]):
        raise ModelError(f"its kernel has shape {weight.shape}, not positions {moves.sizes}")
    if transposed:
        more = list(node.attributes.get("output_padding") or [0] * (signal.ndim - 2))
        sizes = list(node.attributes.get("output_shape") or moves.before(signal.shape[2:], more))
        sizes = sizes[-(signal.ndim - 2) :]
        weight = untransposed(weight, groups)
    else:
        sizes = moves.after(signal.shape[2:])
    name = node.layer(position)
    node.ignore(2, "bias")
    return node.program.convolution(
        filled(signal), weight, checked((signal.shape[0], weight.shape[0], *sizes)),
        name=name, module=name, groups=groups, parameters=node.parameters(position),
    )  # fmt: skip


def integer_convolution(node: Node) -> Value:
    """ConvInteger (x, w, x_zero, w_zero)."""
    one = np.ones(1, np.float32)
    weight = dequantized(node.array(1, "weight"), one, node.optional(3, "zero point"), 0, 0)
    made = _convolved(node.with_inputs(node.inputs[:2]), node.signal(0), weight, 1)
    return node.program.awaiting_scale(made)


def quantized_convolution(node: Node) -> Value:
    """QLinearConv (x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, bias)."""
    scale, zero = node.array(4, "scale"), node.optional(5, "zero point")
    weight = dequantized(node.array(3, "weight"), scale, zero, 0, 0)
    node.place(4, "the scale of quantized weights")
    inner = node.with_inputs([node.value(0), node.value(3)])
    return _convolved(inner, node.signal(0), weight, 1)


# --- norms --------------------------------------------------------------------------------------


def along(node: Node, signal: Value, factors: Array, position: int, axis: int = 1) -> Value:
    """The node's input `position` as factors along one axis."""
    parameters = node.parameters(position)
    return node.program.along(signal, factors, axis, parameters=parameters, name=node.name)


def batch_norm(node: Node) -> list[Operand]:
    """BatchNormalization, with running statistics or the batch's."""
    signal = node.signal(0)
    if signal.ndim < 2:
        raise ModelError(f"it normalizes a tensor of shape {signal.shape}")
    gamma = node.weight(1, "scale")
    node.ignore(2, "bias")
    node.ignore(3, "running mean")
    rest = [gamma.shape] * 4
    if node.attributes.get("training_mode"):
        kind = "norm by batch statistics"
        made = along(node, node.program.normalization(signal, kind), gamma, 1)
        return node.with_rest(made, *rest)
    factors = normalization_scale(
        gamma, node.weight(4, "variance"), float(node.attributes.get("epsilon", 1e-5))
    )
    node.place(4, "a factor of a layer's neurons")
    made = along(node, signal, factors, 1)
    return node.with_rest(made, *rest)


def instance_norm(node: Node) -> Value:
    """InstanceNormalization and GroupNormalization."""
    kind = "group norm" if node.operator == "GroupNormalization" else "instance norm"
    signal, gamma = node.program.normalization(node.signal(0), kind), node.weight(1, "scale")
    node.ignore(2, "bias")
    if gamma.size != signal.shape[1] and gamma.size and signal.shape[1] % gamma.size == 0:
        gamma = np.repeat(gamma, signal.shape[1] // gamma.size)  # one per group, in opset 18
    return along(node, signal, gamma, 1)


def layer_norm(node: Node) -> list[Operand]:
    """LayerNormalization and RMSNormalization."""
    kind = "layer norm" if node.operator == "LayerNormalization" else "RMS norm"
    signal = node.program.normalization(node.signal(0), kind)
    node.ignore(2, "bias")
    made = scaled(node, signal, 1, invert=False) if node.has(1) else signal
    axis = signal.axis(int(node.attributes.get("axis", -1)))
    shape = [*signal.shape[:axis], *[1] * (signal.ndim - axis)]
    return node.with_rest(made, shape, shape)


def skip_layer_norm(node: Node) -> list[Operand]:
    """SkipLayerNormalization (input, skip, gamma, beta, bias), a contributed operator."""
    total = node.program.add(node.signal(0), node.signal(1))
    simplified = node.operator.startswith("SkipSimplified")
    kind = "RMS norm" if simplified else "layer norm"
    made = scaled(node, node.program.normalization(total, kind), 2, invert=False)
    for position in (3,) if simplified else (3, 4):
        node.ignore(position, "bias")
    results: list[Operand] = [made, Value(()), Value(()), total]
    return results[: max(node.n_outputs, 1)]


def scaled(node: Node, signal: Value, position: int, *, invert: bool) -> Value:
    """The signal multiplied or divided by a constant input."""
    constant = node.value(position)
    assert isinstance(constant, Constant)
    shape = checked(np.broadcast_shapes(signal.shape, constant.shape))
    values = unrepeated(constant.values)
    if stored(constant.values) == 1:
        # A broadcast scalar, which need not be materialized.
        values, signal = np.reshape(values, ()), expanded(signal, shape)
    return node.program.scaled(signal, values, parameters=constant.parameters, invert=invert,
        name=node.layer(position),
    )  # fmt: skip


# --- recurrent layers and tables ----------------------------------------------------------------


def recurrent(node: Node) -> list[Operand]:
    """RNN, LSTM and GRU, both directions: (time, batch, features) by default."""
    return _recurrent(node, node.weight(1), node.weight(2), node.operator)


def _recurrent(node: Node, weight: Array, hidden: Array, kind: str) -> list[Operand]:
    signal = filled(node.signal(0))
    if signal.ndim != 3 or weight.ndim != 3 or hidden.ndim != 3:
        raise ModelError(f"it reads a tensor of shape {signal.shape}, expected 3 axes")
    n_hidden = hidden.shape[-1]
    if not n_hidden or weight.shape[:2] != hidden.shape[:2] or weight.shape[1] % n_hidden:
        raise ModelError(f"its weights have shapes {weight.shape} and {hidden.shape}")
    node.ignore(3, "bias")
    node.ignore(7, "peepholes, from a unit's own state")
    time = 1 if node.attributes.get("layout") else 0
    name = node.layer(1)
    parameters = node.parameters(1) + node.parameters(2)
    first = [
        node.signal(at) if node.has(at) and isinstance(node.value(at), Value) else None
        for at in (5, 6)
    ]
    outputs = []
    for at in range(len(weight)):
        called = name if at == 0 else f"{name} (reverse)"
        outputs.append(
            node.program.recurrence(
                signal, weight[at], hidden[at], n_hidden=n_hidden,
                name=called, module=called, parameters=parameters, kind=kind,
                state=_first_state(first[0], at, time), cell=_first_state(first[1], at, time),
            )
        )  # fmt: skip
    # (time, directions, batch, hidden), or (batch, time, directions, hidden) by layout.
    sequence = stacked(outputs, 2 if time else 1)
    last = [indexed(output, time, -1) for output in outputs]
    state = stacked(last, 1 if time else 0)
    results: list[Operand] = [sequence, state, state]
    return results[: max(node.n_outputs, 1)]


def _first_state(state: Value | None, direction: int, time: int) -> Value | None:
    """One direction's first state, broadcastable to the sequence."""
    if state is None:
        return None
    return unsqueezed(indexed(state, 1 if time else 0, direction), time)


def gather(node: Node) -> Value:
    """Gather: rows of a table, or entries of a signal along an axis."""
    data, indices = node.value(0), node.value(1)
    axis = int(node.attributes.get("axis", 0))
    if isinstance(data, Constant):
        if data.values.dtype.kind in "OSU" or data.ndim != 2 or axis % data.ndim:
            sizes = list(data.shape)
            sizes[axis : axis + 1 or None] = indices.shape
            return Value(checked(sizes))
        name = node.layer(0)
        made = node.program.embedding(
            node.weight(0, "table"), checked((*indices.shape, data.shape[1])),
            name=name, module=name, parameters=node.parameters(0),
        )  # fmt: skip
        integers = data.values.dtype.kind in "iu"
        return node.program.awaiting_scale(made, "table") if integers else made
    axis = data.axis(axis)
    if isinstance(indices, Constant):
        positions = np.asarray(indices.values)
        if positions.dtype.kind not in "iu":
            raise ModelError("its indices are no whole numbers")
        if positions.ndim == 0:
            return indexed(data, axis, int(positions))
        checked(positions.shape)
        return indexed(data, axis, positions.astype(np.int64))
    return at_data(data, axis, indices.shape)


def at_data(data: Value, axis: int, shape: Sequence[int]) -> Value:
    """Entries along an axis, selected by the data: positions, but no neurons."""
    return gathered(data, [axis], checked((*data.shape[:axis], *shape, *data.shape[axis + 1 :])))


def attention(node: Node) -> list[Operand]:
    """Attention (newer opsets): (batch, heads, time, dims), or (batch, time, heads x dims)."""
    query, key, value = (node.signal(at) for at in range(3))
    flat = query.ndim == 3
    if flat:
        n_query = int(node.attributes.get("q_num_heads", 1))
        n_key = int(node.attributes.get("kv_num_heads", n_query))
        query, key, value = (
            _with_heads(signal, n) for signal, n in ((query, n_query), (key, n_key), (value, n_key))
        )
    key, value = (repeated_heads(signal, query.shape[1], 1) for signal in (key, value))
    made = node.program.attention(query, key, value, name=node.heads)
    if flat:
        batch, heads, time, dims = made.shape
        made = reshaped(permuted(made, [0, 2, 1, 3]), (batch, time, heads * dims))
    return node.with_rest(made, node.signal(1).shape, node.signal(2).shape, query.shape[:3])


def multi_head_attention(node: Node) -> list[Operand]:
    """MultiHeadAttention and GroupQueryAttention, contributed operators.

    Source: ContribOperators.md of ONNX Runtime.
    """
    query = node.signal(0)
    n_query = int(node.attributes.get("num_heads", 1))
    n_key = int(node.attributes.get("kv_num_heads", n_query))
    if query.ndim != 3:
        raise ModelError(f"its queries have the shape {query.shape}; packed ones are not known")
    given = [node.signal(at) if node.has(at) else None for at in (1, 2)]
    if given[0] is None:  # queries, keys and values concatenated
        dims = query.shape[-1] // max(n_query + 2 * n_key, 1)
        ends = [0, n_query * dims, (n_query + n_key) * dims, (n_query + 2 * n_key) * dims]
        sides = [indexed(query, 2, slice(*ends[at : at + 2])) for at in range(3)]
    else:
        sides = [query, given[0], given[0] if given[1] is None else given[1]]
    node.ignore(3, "bias")
    heads = [
        _with_heads(side, n) if side.ndim == 3 else side
        for side, n in zip(sides, (n_query, n_key, n_key), strict=True)
    ]
    heads[1:] = [repeated_heads(side, n_query, 1) for side in heads[1:]]
    made = node.program.attention(*heads, name=node.heads)
    batch, n, time, dims = made.shape
    flat = reshaped(permuted(made, [0, 2, 1, 3]), (batch, time, n * dims))
    present = (batch, n_key, heads[1].shape[2], dims)
    return node.with_rest(flat, present, present)


def fused_convolution(node: Node) -> Value:
    """FusedConv: a convolution, an optional sum, and an activation."""
    made = convolution(node)
    if node.has(3):
        made = node.program.add(made, node.signal(3))
    kind = str(node.attributes.get("activation", ""))
    if not kind:
        return made
    return node.program.activation(made, homogeneous=kind in ("Relu", "LeakyRelu"))


def matmul_by_bits(node: Node) -> Value:
    """MatMulNBits: low-bit weights in blocks along their rows, with a scale per block."""
    bits, block = int(node.attributes.get("bits", 4)), int(node.attributes.get("block_size", 32))
    n_in, n_out = int(node.attributes["K"]), int(node.attributes["N"])
    if bits not in (2, 4, 8) or node.has(4):
        raise ModelError(f"its weights of {bits} bits, or their order, are not known")
    scales = np.asarray(node.weight(2, "scales"), np.float32).reshape(n_out, -1, 1)
    n_blocks = scales.shape[1]
    values = _unpacked(node.array(1, "weight").reshape(n_out, -1), bits)
    values = values.reshape(n_out, n_blocks, block).astype(np.float32)
    zero: Array = np.full((n_out, n_blocks), 2 ** (bits - 1), np.float32)
    if node.has(3):
        stored_zero = node.array(3, "zero points").reshape(n_out, -1)
        packed = stored_zero.dtype == np.uint8
        zero = _unpacked(stored_zero, bits)[:, :n_blocks] if packed else as_floats(stored_zero)
        node.ignore(3, "zero point")
    weight = ((values - zero[..., None]) * scales).reshape(n_out, -1)[:, :n_in]
    node.place(2, "the scale of quantized weights")
    node.ignore(5, "bias")
    return linear(node, node.signal(0), np.ascontiguousarray(weight.T), 1)


def _unpacked(packed: Array, bits: int) -> Array:
    """Unpack low-bit numbers from bytes, lowest bits first."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    values: Array = (packed[..., None] >> shifts) & (2**bits - 1)
    return values.reshape(*packed.shape[:-1], -1)


def dynamic_matmul(node: Node) -> Value:
    """DynamicQuantizeMatMul (a, b, b_scale, b_zero, bias)."""
    scale, zero = node.array(2, "scale"), node.optional(3, "zero point")
    weight = dequantized(node.array(1, "weight"), scale, zero, -1, 0)
    node.place(2, "the scale of quantized weights")
    node.ignore(4, "bias")
    return linear(node, node.signal(0), weight, 1)


def dynamic_recurrent(node: Node) -> list[Operand]:
    """DynamicQuantizeLSTM: weights (directions, inputs, gates), scales and zero points last."""
    arrays = []
    for at, scale in ((1, 8), (2, 10)):
        values = node.array(at, "weight")
        scales, zero = node.array(scale, "scale"), node.optional(scale + 1, "zero point")
        wide = as_floats(values)
        if zero is not None:
            wide = wide - _by_direction(as_floats(zero))
        wide = wide * _by_direction(np.asarray(scales, np.float32))
        node.place(scale, "the scale of quantized weights")
        arrays.append(np.ascontiguousarray(wide.swapaxes(1, 2)))
    return _recurrent(node, arrays[0], arrays[1], "LSTM")


def _by_direction(numbers: Array) -> Array:
    """Numbers per direction or per gate, broadcastable to (directions, inputs, gates)."""
    return numbers.reshape(()) if numbers.size == 1 else numbers.reshape(len(numbers), 1, -1)


def _with_heads(signal: Value, n: int) -> Value:
    batch, time, width = signal.shape
    return permuted(reshaped(signal, (batch, time, n, width // max(n, 1))), [0, 2, 1, 3])


RULES: dict[str, Rule] = {
    "MatMul": matmul,
    "Gemm": gemm,
    "MatMulInteger": integer_matmul,
    "QLinearMatMul": quantized_matmul,
    "Einsum": einsum,
    "Conv": convolution,
    "ConvTranspose": convolution,
    "ConvInteger": integer_convolution,
    "QLinearConv": quantized_convolution,
    "BatchNormalization": batch_norm,
    "InstanceNormalization": instance_norm,
    "GroupNormalization": instance_norm,
    "LayerNormalization": layer_norm,
    "RMSNormalization": layer_norm,
    "SimplifiedLayerNormalization": layer_norm,
    "SkipLayerNormalization": skip_layer_norm,
    "SkipSimplifiedLayerNormalization": skip_layer_norm,
    "FusedMatMul": fused_matmul,
    "RNN": recurrent,
    "LSTM": recurrent,
    "GRU": recurrent,
    "Gather": gather,
    "Attention": attention,
    "MultiHeadAttention": multi_head_attention,
    "GroupQueryAttention": multi_head_attention,
    "FusedConv": fused_convolution,
    "MatMulNBits": matmul_by_bits,
    "DynamicQuantizeMatMul": dynamic_matmul,
    "DynamicQuantizeLSTM": dynamic_recurrent,
}
"""Operators with weights, by name."""
