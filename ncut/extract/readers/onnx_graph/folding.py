"""Constant folding: values of nodes with constant inputs, if affordable.

The package onnx evaluates standard operators one at a time, within a budget of entries. Other
nodes with constant inputs (too large, or not in the tables) are followed like tensors that depend
on the data but carry no neurons.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from ncut.errors import ModelError
from ncut.extract.readers.onnx_graph.node import Node
from ncut.extract.readers.onnx_graph.tensors import DTYPES
from ncut.extract.readers.onnx_graph.values import Array, Constant, affordable, as_floats

Arrays: TypeAlias = list[Any]

MAX_PRODUCTS = 2**36
"""Largest number of multiplications in a matrix product of two constants."""

UNKNOWN = 2**62
"""More entries than are ever affordable."""

MAX_SLOW = 2**16
"""Largest number of input entries of operators that the package onnx evaluates in Python loops."""


def folded(node: Node) -> list[Constant] | None:
    """The values of a node's results, or None if they are unavailable."""
    arrays: Arrays = [
        value.values if isinstance(value, Constant) else None for value in node.inputs
    ]
    own = OWN.get(node.operator)
    result = _evaluated(node, arrays) if own is None else own(node, arrays)
    if result is None:
        return None
    results = result if isinstance(result, list) else [result]
    names = [name for value in node.constants() for name in value.parameters]
    about_shapes = node.operator in ("Shape", "Size")
    parameters = () if about_shapes else tuple(dict.fromkeys(names))
    of_shapes = any(value.of_shapes for value in node.constants())
    return [Constant(np.asarray(values), parameters, of_shapes) for values in results]


def _evaluated(node: Node, arrays: Arrays) -> Arrays | None:
    """The results of a standard operator, evaluated by the package onnx."""
    n = sum(array.size for array in arrays if array is not None)
    if node.operator not in FAST and (node.operator not in SLOW or n > MAX_SLOW):
        return None
    if node.operator == "Softmax" and node.opset < 13:
        return None  # sums over all axes from its own on; the package knows the last axis only
    from onnx import GraphProto, ValueInfoProto
    from onnx.helper import make_node
    from onnx.reference import ReferenceEvaluator

    # NumPy has no arithmetic for short floating-point types.
    given = {f"x{at}": _plain(x) for at, x in enumerate(arrays) if x is not None}
    names = [f"x{at}" if x is not None else "" for at, x in enumerate(arrays)]
    outputs = [f"y{at}" for at in range(max(node.n_outputs, 1))]
    attributes = {key: value for key, value in node.attributes.items() if value is not None}
    try:
        if not affordable(_n_results(node, list(given.values()), n), arrays):
            return None
        # Of a graph, since a node alone is evaluated by the newest opset whatever `opsets` says.
        graph = GraphProto(
            node=[make_node(node.operator, names, outputs, **attributes)],
            input=[ValueInfoProto(name=name) for name in given],
            output=[ValueInfoProto(name=name) for name in outputs],
        )
        with np.errstate(all="ignore"):
            evaluator = ReferenceEvaluator(graph, opsets={"": node.opset})
            return list(evaluator.run(None, given))
    except Exception:
        # In any case it is a constant without neurons; only its values are unknown.
        return None


def _n_results(node: Node, arrays: Arrays, n: int) -> int:
    """A bound on the number of entries of the results."""
    first = arrays[0]
    if node.operator == "Tile":
        return int(first.size * math.prod(_sizes(arrays[1])))
    if node.operator == "Range":
        return int(max(math.ceil((arrays[1] - first) / arrays[2]), 0))
    if node.operator == "Gather":
        axis = int(node.attributes.get("axis", 0))
        return int(arrays[1].size * (first.size // max(first.shape[axis], 1)))
    if node.operator == "GatherND":
        return int(arrays[1].size * first.size)
    if node.operator == "NonZero":
        return int(n * max(first.ndim, 1))
    if node.operator == "Pad":
        widths = node.ints(1, "pads") or node.ints(-1, "paddings") or []
        ends = zip(first.shape, widths, widths[first.ndim :], strict=False)
        several = len(widths) == 2 * first.ndim and min(widths, default=0) >= 0
        return int(math.prod(size + a + b for size, a, b in ends)) if several else UNKNOWN
    if node.operator in ("MatMul", "Gemm"):
        inner = first.shape[0 if node.attributes.get("transA") else -1]
        found = first.size // max(inner, 1) * (arrays[1].size // max(inner, 1))
        return int(found) if found * inner <= MAX_PRODUCTS else UNKNOWN
    if node.operator in ELEMENTWISE:
        return math.prod(np.broadcast_shapes(*(array.shape for array in arrays)))
    return n


def _plain(array: Array) -> Array:
    """The array in float32 if NumPy has no arithmetic for its short floating-point type."""
    return array.astype(np.float32) if array.dtype.kind == "V" else array


def _cast(node: Node, arrays: Arrays) -> Any:
    array = arrays[0]
    number = node.attributes.get("to")
    if number not in DTYPES or array.dtype.kind in "OSU" or not affordable(array.size, arrays):
        return None
    dtype = DTYPES[number][0]
    with np.errstate(all="ignore"):
        return array if array.dtype == dtype else array.astype(dtype)


def _cast_like(node: Node, arrays: Arrays) -> Any:
    return arrays[0].astype(arrays[1].dtype) if affordable(arrays[0].size, arrays) else None


def _same(node: Node, arrays: Arrays) -> Any:
    return arrays[0]


def _shape(node: Node, arrays: Arrays) -> Any:
    return shape_of(node, arrays[0].shape)


def shape_of(node: Node, shape: Sequence[int]) -> Array:
    """The result of Shape."""
    start, end = node.attributes.get("start", 0), node.attributes.get("end")
    return np.array(shape[start:end], dtype=np.int64)


def _size(node: Node, arrays: Arrays) -> Any:
    return np.array(arrays[0].size, dtype=np.int64)


def _constant_of_shape(node: Node, arrays: Arrays) -> Any:
    fill = node.attributes.get("value")
    fill = np.zeros(1, dtype=np.float32) if fill is None else np.ravel(fill)
    return np.broadcast_to(fill[0], _sizes(arrays[0]))


def _expand(node: Node, arrays: Arrays) -> Any:
    shape = np.broadcast_shapes(arrays[0].shape, _sizes(arrays[1]))
    return np.broadcast_to(arrays[0], shape)


def _sizes(array: Array) -> tuple[int, ...]:
    sizes = tuple(int(size) for size in np.ravel(array))
    if math.prod(sizes) > 2**60 or any(size < 0 for size in sizes):
        raise ModelError(f"it would make a tensor of shape {sizes}")
    return sizes


def dequantized(values: Array, scale: Array, zero: Array | None, axis: int, block: int) -> Array:
    """(values - zero) * scale, for all, along one axis, or for each block of an axis."""

    def spread(array: Array) -> Array:
        if array.ndim == 0 or array.size == 1:
            return array.reshape(())
        if block:
            wide = np.repeat(array, block, axis=axis)
            part: Array = wide[(slice(None),) * axis + (slice(0, values.shape[axis]),)]
            return part
        return array.reshape([array.size if at == axis else 1 for at in range(values.ndim)])

    axis = axis % max(values.ndim, 1)
    wide = as_floats(values).astype(np.float32)
    if zero is not None and np.any(zero):
        wide = wide - spread(as_floats(zero))
    return np.asarray(wide * spread(_plain(scale)).astype(np.float32))


def _dequantize(node: Node, arrays: Arrays) -> Any:
    if not affordable(arrays[0].size, arrays):
        return None
    zero = arrays[2] if len(arrays) > 2 else None
    axis, block = node.attributes.get("axis", 1), node.attributes.get("block_size", 0)
    return dequantized(arrays[0], arrays[1], zero, int(axis), int(block))


OWN: dict[str, Callable[[Node, Arrays], Any]] = {
    **dict.fromkeys(("Identity", "Dropout"), _same),
    "Cast": _cast,
    "CastLike": _cast_like,
    "Shape": _shape,
    "Size": _size,
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "DequantizeLinear": _dequantize,
}
"""Operators whose results are views, sizes, or of types that NumPy lacks."""


def _names(names: str) -> frozenset[str]:
    return frozenset(names.split())


ELEMENTWISE = _names(
    "Add Sub Mul Div Pow Mod Sum Max Min Sqrt Reciprocal Neg Abs Exp Log Sin Cos Tanh Floor "
    "Ceil Round Sign Relu Where Equal Less LessOrEqual Greater GreaterOrEqual And Or Not IsNaN "
    "Clip"
)
"""Functions of each entry, whose operands broadcast."""

FAST = ELEMENTWISE | _names(
    "Transpose Reshape Flatten Squeeze Unsqueeze Concat Split Slice Gather Tile Range Pad "
    "MatMul Gemm ReduceSum ReduceMean ReduceMax ReduceMin ReduceProd ReduceSumSquare ReduceL2 "
    "ReduceL1 NonZero Trilu QuantizeLinear"
)
"""Operators that the package onnx evaluates in a few calls of NumPy."""

SLOW = _names(
    "Acos Acosh Asin Asinh Atan Atanh Cosh Sinh Tan Erf Sigmoid Softmax Softplus Softsign "
    "LeakyRelu Elu HardSigmoid Xor BitwiseAnd BitwiseOr BitwiseXor BitwiseNot BitShift IsInf "
    "CumSum ArgMax ArgMin TopK Mean ReduceLogSumExp ReduceLogSum GatherElements GatherND "
    "ScatterND ScatterElements ReverseSequence BatchNormalization LayerNormalization "
    "DepthToSpace SpaceToDepth"
)
"""Further operators, whose results and inputs have about the same number of entries."""
