"""Operators with weights: matrix products, convolutions, norms, recurrent layers, tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ncut.errors import ModelError
from ncut.extract.arrays import as_array, untransposed
from ncut.extract.program.einsum import einsum as sum_of_products
from ncut.extract.program.record import commutes
from ncut.extract.program.values import (
    Known,
    Value,
    gathered,
    indexed,
    stacked,
    swapped,
    unsqueezed,
    with_heads,
    without_heads,
)
from ncut.extract.program.values import Operand as Side
from ncut.extract.readers.chain import normalization_scale
from ncut.extract.readers.onnx_graph.folding import dequantized
from ncut.extract.readers.onnx_graph.node import Node, Rule
from ncut.extract.readers.onnx_graph.shapes import window
from ncut.extract.readers.onnx_graph.values import (
    Array,
    Constant,
    Operand,
    as_floats,
    checked,
    filled,
)
from ncut.extract.registry import table

# --- products of matrices -----------------------------------------------------------------------


def product(node: Node, first: Side, second: Side) -> Value:
    """`first @ second` with NumPy's semantics; one operand may be weights."""
    checked(np.broadcast_shapes(*((*x.shape[:-2], 1, 1) for x in (first, second))))
    for value, other in ((first, second), (second, first)):
        if isinstance(value, Value) and isinstance(other, Known):
            filled(value)
    return node.program.matmul(first, second, node.heads)


def fused_matmul(node: Node) -> Value:
    """FusedMatMul, a contributed operator: MatMul with transposed operands and a factor."""
    made = product(node, *_turned(node))
    return node.program.gain(made, abs(node.setting("alpha", 1.0)) or 1.0)


def _turned(node: Node) -> list[Side]:
    """The first two inputs, transposed as the attributes tell."""
    return [
        swapped(node.matrix(at)) if node.attributes.get(key) else node.matrix(at)
        for at, key in enumerate(("transA", "transB"))
    ]


def gemm(node: Node) -> Value:
    """Gemm: alpha A' B' + beta C."""
    sides = _turned(node)
    for at, side in enumerate(sides):
        if side.ndim != 2:
            raise ModelError(f"its input {at} has {side.ndim} axes, expected 2")
    alpha, made = node.setting("alpha", 1.0), product(node, *sides)
    if alpha not in (0.0, 1.0):
        made = node.program.gain(made, abs(alpha))
    if node.has(2):
        node.ignore(2, "bias")
        third = node.value(2)
        if isinstance(third, Value):
            beta = abs(node.setting("beta", 1.0)) or 1.0
            made = node.program.add(made, node.program.gain(third, beta))
    return made


def _weights(node: Node, position: int, scale: int | None, zero: int, axis: int) -> Array:
    """The integers at an input `position`, with the scale and the zero point at other inputs."""
    factor = np.ones(1, np.float32)
    if scale is not None:
        factor = node.array(scale, "scale")
        node.place(scale, "the scale of quantized weights")
    values, shift = node.array(position, "weight"), node.optional(zero, "zero point")
    return dequantized(values, factor, shift, axis, 0)


def _quantized(node: Node, position: int, scale: int | None, zero: int, axis: int) -> Side:
    value = node.value(position)
    if isinstance(value, Value):
        return value
    return node.matrix(position, _weights(node, position, scale, zero, axis))


def integer_matmul(node: Node) -> Value:
    """MatMulInteger: the signal's and the weight's zero points are subtracted."""
    sides = [_quantized(node, at, None, 2 + at, 1 - 2 * at) for at in (0, 1)]
    return node.program.awaiting_scale(product(node, *sides))


def quantized_matmul(node: Node) -> Value:
    """QLinearMatMul (a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero)."""
    sides = [_quantized(node, at, at + 1, at + 2, -1 if at else -2) for at in (0, 3)]
    return product(node, *sides)


def einsum(node: Node) -> Value:
    """Einsum."""
    known = [at for at, value in enumerate(node.inputs) if isinstance(value, Constant)]
    operands = [
        as_array(as_floats(v.values), "its weight") if isinstance(v, Constant) else v
        for v in (node.value(at) for at in range(len(node.inputs)))
    ]
    if len(known) == len(operands):
        raise ModelError("its operands do not depend on the data, and are too large to be summed")
    if 1 < len(known) < len(operands):
        raise ModelError("its operands are several arrays of weights; use one Einsum for each")
    return sum_of_products(
        node.program, node.setting("equation", ""), operands, heads=node.heads,
        **(node.layer_of(known[0]) if known else {"name": node.name}),
    )  # fmt: skip


# --- convolutions -------------------------------------------------------------------------------


def convolution(node: Node) -> Value:
    """Conv and ConvTranspose."""
    return _convolved(node, node.weight(1))


def _convolved(node: Node, weight: Array) -> Value:
    """A kernel, of the node's second input, applied to the first."""
    signal = node.signal()
    if weight.ndim < 3 or signal.ndim != weight.ndim:
        raise ModelError(f"it applies a kernel of shape {weight.shape} to {signal.shape}")
    groups = node.setting("group", 1)
    if groups < 1 or weight.shape[0] % groups:
        raise ModelError(f"its kernel of shape {weight.shape} has no {groups} groups")
    moves = window(node, signal.ndim - 2, weight.shape[2:])
    if moves.sizes != list(weight.shape[2:]):
        raise ModelError(f"its kernel has shape {weight.shape}, not positions {moves.sizes}")
    if node.operator == "ConvTranspose":
        more = list(node.attributes.get("output_padding") or [0] * (signal.ndim - 2))
        sizes = list(node.attributes.get("output_shape") or moves.before(signal.shape[2:], more))
        sizes = sizes[-(signal.ndim - 2) :]
        weight = untransposed(weight, groups)
    else:
        sizes = moves.after(signal.shape[2:])
    node.ignore(2, "bias")
    return node.program.convolution(
        filled(signal), weight, checked((signal.shape[0], weight.shape[0], *sizes)),
        groups=groups, **node.layer_of(1),
    )  # fmt: skip


def integer_convolution(node: Node) -> Value:
    """ConvInteger (x, w, x_zero, w_zero)."""
    made = _convolved(node.only(0, 1), _weights(node, 1, None, 3, 0))
    return node.program.awaiting_scale(made)


def quantized_convolution(node: Node) -> Value:
    """QLinearConv (x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, bias)."""
    return _convolved(node.only(0, 3), _weights(node, 3, 4, 5, 0))


# --- norms --------------------------------------------------------------------------------------


def along(node: Node, signal: Value, factors: Array, position: int, axis: int = 1) -> Value:
    """The node's input `position` as factors along one axis."""
    parameters = node.parameters(position)
    return node.program.scaled(signal, factors, axis, parameters=parameters, name=node.name)


def batch_norm(node: Node) -> list[Operand]:
    """BatchNormalization, with running statistics or the batch's."""
    signal = node.signal()
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
    epsilon = node.setting("epsilon", 1e-5)
    factors = normalization_scale(gamma, node.weight(4, "variance"), epsilon)
    for weight, variance in zip(node.parameters(1), node.parameters(4), strict=False):
        node.program.formulas[weight] = f"{weight} / sqrt({variance} + {epsilon:g})"
    node.place(4, "a factor of a layer's neurons")
    made = along(node, signal, factors, 1)
    return node.with_rest(made, *rest)


def instance_norm(node: Node) -> Value:
    """InstanceNormalization and GroupNormalization."""
    kind = "group norm" if node.operator == "GroupNormalization" else "instance norm"
    signal, gamma = node.program.normalization(node.signal(), kind), node.weight(1, "scale")
    node.ignore(2, "bias")
    if gamma.size != signal.shape[1] and gamma.size and signal.shape[1] % gamma.size == 0:
        gamma = np.repeat(gamma, signal.shape[1] // gamma.size)  # one per group, in opset 18
    return along(node, signal, gamma, 1)


def layer_norm(node: Node) -> list[Operand]:
    """LayerNormalization and RMSNormalization."""
    kind = "layer norm" if node.operator == "LayerNormalization" else "RMS norm"
    signal = node.program.normalization(node.signal(), kind)
    node.ignore(2, "bias")
    made = node.program.multiply(signal, node.operand(1)) if node.has(1) else signal
    axis = node.axis(-1)
    shape = [*signal.shape[:axis], *[1] * (signal.ndim - axis)]
    return node.with_rest(made, shape, shape)


def skip_layer_norm(node: Node) -> list[Operand]:
    """SkipLayerNormalization (input, skip, gamma, beta, bias), a contributed operator."""
    total = node.program.add(node.signal(), node.signal(1))
    simplified = node.operator.startswith("SkipSimplified")
    kind = "RMS norm" if simplified else "layer norm"
    made = node.program.multiply(node.program.normalization(total, kind), node.operand(2))
    for position in (3,) if simplified else (3, 4):
        node.ignore(position, "bias")
    results: list[Operand] = [made, Value(()), Value(()), total]
    return results[: max(node.n_outputs, 1)]


# --- recurrent layers and tables ----------------------------------------------------------------


def recurrent(node: Node) -> list[Operand]:
    """RNN, LSTM and GRU, both directions: (time, batch, features) by default."""
    return _recurrent(node, node.weight(1), node.weight(2), node.operator)


def _recurrent(node: Node, weight: Array, hidden: Array, kind: str) -> list[Operand]:
    signal = filled(node.signal())
    if signal.ndim != 3 or weight.ndim != 3 or hidden.ndim != 3:
        raise ModelError(f"it reads a tensor of shape {signal.shape}, expected 3 axes")
    n_hidden = hidden.shape[-1]
    if not n_hidden or weight.shape[:2] != hidden.shape[:2] or weight.shape[1] % n_hidden:
        raise ModelError(f"its weights have shapes {weight.shape} and {hidden.shape}")
    node.ignore(3, "bias")
    node.ignore(7, "peepholes, from a unit's own state")
    time = 1 if node.attributes.get("layout") else 0
    name, parameters = node.layer(1), node.parameters(1) + node.parameters(2)
    outputs = []
    for at in range(len(weight)):
        called = name if at == 0 else f"{name} (reverse)"
        state, cell = (_first_state(node, position, at, time) for position in (5, 6))
        outputs.append(
            node.program.recurrence(
                signal, weight[at], hidden[at], n_hidden=n_hidden, name=called, module=called,
                parameters=parameters, kind=kind, state=state, cell=cell,
            )
        )  # fmt: skip
    # (time, directions, batch, hidden), or (batch, time, directions, hidden) by layout.
    sequence = stacked(outputs, 2 if time else 1)
    last = [indexed(output, time, -1) for output in outputs]
    state = stacked(last, 1 if time else 0)
    results: list[Operand] = [sequence, state, state]
    return results[: max(node.n_outputs, 1)]


def _first_state(node: Node, position: int, direction: int, time: int) -> Value | None:
    """One direction's first state, broadcastable to the sequence; None if it is constant."""
    state = node.inputs[position] if node.has(position) else None
    if not isinstance(state, Value):
        return None
    return unsqueezed(indexed(state, 1 if time else 0, direction), time)


def gather(node: Node) -> Value:
    """Gather: rows of a table, or entries of a signal along an axis."""
    data, indices = node.value(0), node.value(1)
    axis = node.setting("axis", 0)
    if isinstance(data, Constant):
        if data.values.dtype.kind in "OSU" or data.ndim != 2 or axis % data.ndim:
            sizes = list(data.shape)
            sizes[axis : axis + 1 or None] = indices.shape
            return Value(checked(sizes))
        shape = checked((*indices.shape, data.shape[1]))
        made = node.program.embedding(node.weight(0, "table"), shape, **node.layer_of(0))
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
    sides = [node.signal(at) for at in range(3)]
    flat = sides[0].ndim == 3
    if flat:
        n_query = node.setting("q_num_heads", 1)
        n_key = node.setting("kv_num_heads", n_query)
        sides = [with_heads(*pair) for pair in zip(sides, (n_query, n_key, n_key), strict=True)]
    made = node.program.attention(*sides, name=node.heads)
    made = without_heads(made) if flat else made
    return node.with_rest(made, node.signal(1).shape, node.signal(2).shape, sides[0].shape[:3])


def multi_head_attention(node: Node) -> list[Operand]:
    """MultiHeadAttention and GroupQueryAttention, contributed operators.

    Source: ContribOperators.md of ONNX Runtime.
    """
    query = node.signal()
    n_query = node.setting("num_heads", 1)
    n_key = node.setting("kv_num_heads", n_query)
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
        with_heads(side, n) if side.ndim == 3 else side
        for side, n in zip(sides, (n_query, n_key, n_key), strict=True)
    ]
    made = node.program.attention(*heads, name=node.heads)
    return node.with_rest(without_heads(made), *(side.shape for side in heads[1:]))


def fused_convolution(node: Node) -> Value:
    """FusedConv: a convolution, an optional sum, and an activation."""
    made = convolution(node)
    if node.has(3):
        made = node.program.add(made, node.signal(3))
    kind = node.setting("activation", "")
    return node.program.activation(made, homogeneous=commutes(kind)) if kind else made


def matmul_by_bits(node: Node) -> Value:
    """MatMulNBits: low-bit weights in blocks along their rows, with a scale per block."""
    bits, block = node.setting("bits", 4), node.setting("block_size", 32)
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
    return product(node, node.signal(), node.matrix(1, np.ascontiguousarray(weight.T)))


def _unpacked(packed: Array, bits: int) -> Array:
    """Unpack low-bit numbers from bytes, lowest bits first."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    values: Array = (packed[..., None] >> shifts) & (2**bits - 1)
    return values.reshape(*packed.shape[:-1], -1)


def dynamic_matmul(node: Node) -> Value:
    """DynamicQuantizeMatMul (a, b, b_scale, b_zero, bias)."""
    node.ignore(4, "bias")
    return product(node, node.signal(), node.matrix(1, _weights(node, 1, 2, 3, -1)))


def dynamic_recurrent(node: Node) -> list[Operand]:
    """DynamicQuantizeLSTM: weights (directions, inputs, gates), scales and zero points last."""
    arrays = []
    for at, scale in ((1, 8), (2, 10)):
        wide = as_floats(node.array(at, "weight"))
        scales, zero = node.array(scale, "scale"), node.optional(scale + 1, "zero point")
        if zero is not None:
            wide = wide - _by_direction(as_floats(zero))
        wide = wide * _by_direction(np.asarray(scales, np.float32))
        node.place(scale, "the scale of quantized weights")
        arrays.append(np.ascontiguousarray(wide.swapaxes(1, 2)))
    return _recurrent(node, arrays[0], arrays[1], "LSTM")


def _by_direction(numbers: Array) -> Array:
    """Numbers per direction or per gate, broadcastable to (directions, inputs, gates)."""
    return numbers.reshape(()) if numbers.size == 1 else numbers.reshape(len(numbers), 1, -1)


RULES: dict[str, Rule] = table(
    ("MatMul", lambda node: product(node, node.matrix(0), node.matrix(1))),
    ("Gemm", gemm),
    ("MatMulInteger", integer_matmul),
    ("QLinearMatMul", quantized_matmul),
    ("FusedMatMul", fused_matmul),
    ("MatMulNBits", matmul_by_bits),
    ("DynamicQuantizeMatMul", dynamic_matmul),
    ("Einsum", einsum),
    ("Conv ConvTranspose", convolution),
    ("ConvInteger", integer_convolution),
    ("QLinearConv", quantized_convolution),
    ("FusedConv", fused_convolution),
    ("BatchNormalization", batch_norm),
    ("InstanceNormalization GroupNormalization", instance_norm),
    ("LayerNormalization RMSNormalization SimplifiedLayerNormalization", layer_norm),
    ("SkipLayerNormalization SkipSimplifiedLayerNormalization", skip_layer_norm),
    ("RNN LSTM GRU", recurrent),
    ("DynamicQuantizeLSTM", dynamic_recurrent),
    ("Gather", gather),
    ("Attention", attention),
    ("MultiHeadAttention GroupQueryAttention", multi_head_attention),
)
"""Operators with weights, by name."""
