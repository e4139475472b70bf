"""Constant folding: values of nodes with constant inputs, if affordable.

Other nodes with constant inputs (too large, or not in the tables) are followed like tensors that
depend on the data but carry no neurons.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from ncut.errors import ModelError
from ncut.extract.onnx_graph.node import Node
from ncut.extract.onnx_graph.tensors import DTYPES
from ncut.extract.onnx_graph.values import Array, Constant, affordable, as_floats

Arrays: TypeAlias = list[Any]
Fold: TypeAlias = Callable[[Node, Arrays], Any]

MAX_PRODUCTS = 2**36
"""Largest number of multiplications in a matrix product of two constants."""

REFERENCE = 2**16
"""Largest number of input entries of operators evaluated by the package onnx."""


def folded(node: Node) -> list[Constant] | None:
    """The values of a node's results, or None if they are unavailable."""
    arrays: Arrays = [
        value.values if isinstance(value, Constant) else None for value in node.inputs
    ]
    fold = FOLDS.get(node.operator)
    result = None
    if fold is not None:
        result = fold(node, arrays)
    elif node.operator in BY_REFERENCE:
        result = _by_reference(node, arrays)
    if result is None:
        return None
    results = result if isinstance(result, list) else [result]
    names = [name for value in node.constants() for name in value.parameters]
    about_shapes = node.operator in ("Shape", "Size")
    parameters = () if about_shapes else tuple(dict.fromkeys(names))
    of_shapes = any(value.of_shapes for value in node.constants())
    return [Constant(np.asarray(values), parameters, of_shapes) for values in results]


def _elementwise(function: Callable[..., Any]) -> Fold:
    def fold(node: Node, arrays: Arrays) -> Any:
        present = [_plain(array) for array in arrays if array is not None]
        n = math.prod(np.broadcast_shapes(*(array.shape for array in present)))
        if not affordable(n, present):
            return None
        with np.errstate(all="ignore"):
            return function(*present)

    return fold


def _plain(array: Array) -> Array:
    """The array in float32 if NumPy has no arithmetic for its short floating-point type."""
    return array.astype(np.float32) if array.dtype.kind == "V" else array


def _reduction(function: Callable[..., Any]) -> Callable[..., Any]:
    """Extend a function of two arrays to several."""

    def fold(*arrays: Array) -> Any:
        total = arrays[0]
        for array in arrays[1:]:
            total = function(total, array)
        return total

    return fold


def _divide(first: Array, second: Array) -> Array:
    if first.dtype.kind in "iu" and second.dtype.kind in "iu":
        # The format rounds toward zero.
        quotient = np.abs(first) // np.maximum(np.abs(second), 1)
        return np.asarray(quotient * np.sign(first) * np.sign(second)).astype(first.dtype)
    return np.asarray(first / second)


def _power(first: Array, second: Array) -> Array:
    if first.dtype.kind in "iu":
        return np.asarray(np.power(first.astype(np.float64), second)).astype(first.dtype)
    return np.asarray(np.power(first, second)).astype(first.dtype)


def _modulo(node: Node, arrays: Arrays) -> Any:
    function = np.fmod if node.attributes.get("fmod") else np.mod
    return _elementwise(function)(node, arrays)


def _clip(node: Node, arrays: Arrays) -> Any:
    low = node.attributes.get("min", arrays[1] if len(arrays) > 1 else None)
    high = node.attributes.get("max", arrays[2] if len(arrays) > 2 else None)
    if low is None and high is None:
        return arrays[0]
    return _elementwise(lambda x: np.clip(x, low, high).astype(x.dtype))(node, arrays[:1])


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


def _transpose(node: Node, arrays: Arrays) -> Any:
    return np.transpose(arrays[0], node.attributes.get("perm"))


def reshape_target(node: Node, shape: Sequence[int]) -> list[int]:
    """The target sizes of Reshape, with 0 and -1 resolved."""
    wanted = node.ints(1, "shape", "shape")
    if wanted is None:
        raise ModelError("its shape is missing")
    if not node.attributes.get("allowzero"):
        wanted = [shape[at] if size == 0 else size for at, size in enumerate(wanted)]
    if wanted.count(-1) == 1:
        rest = math.prod(size for size in wanted if size != -1)
        missing, left = divmod(math.prod(shape), rest) if rest else (0, 0)
        if left:
            raise ModelError(f"cannot reshape {tuple(shape)} to {tuple(wanted)}")
        wanted = [missing if size == -1 else size for size in wanted]
    if math.prod(wanted) != math.prod(shape) or any(size < 0 for size in wanted):
        raise ModelError(f"cannot reshape {tuple(shape)} to {tuple(wanted)}")
    return wanted


def _reshape(node: Node, arrays: Arrays) -> Any:
    # Reshaping materializes a broadcast view.
    if not affordable(arrays[0].size, arrays):
        return None
    return arrays[0].reshape(reshape_target(node, arrays[0].shape))


def flat_shape(node: Node, shape: Sequence[int]) -> tuple[int, int]:
    """The result shape of Flatten."""
    axis = int(node.attributes.get("axis", 1))
    axis = axis + len(shape) if axis < 0 else axis
    return math.prod(shape[:axis]), math.prod(shape[axis:])


def _flatten(node: Node, arrays: Arrays) -> Any:
    if not affordable(arrays[0].size, arrays):
        return None
    return arrays[0].reshape(flat_shape(node, arrays[0].shape))


def squeezed_axes(node: Node, shape: Sequence[int]) -> tuple[int, ...]:
    """The axes that Squeeze removes."""
    axes = node.ints(1, "axes")
    if axes is None:
        return tuple(axis for axis, size in enumerate(shape) if size == 1)
    return tuple(axis % len(shape) for axis in axes)


def _squeeze(node: Node, arrays: Arrays) -> Any:
    return arrays[0].squeeze(squeezed_axes(node, arrays[0].shape))


def new_axes(node: Node, ndim: int) -> list[int]:
    """The axes that Unsqueeze adds, in order."""
    axes = node.ints(1, "axes")
    if axes is None:
        raise ModelError("its axes are missing")
    total = ndim + len(axes)
    return sorted(axis % total for axis in axes)


def _unsqueeze(node: Node, arrays: Arrays) -> Any:
    array = arrays[0]
    for axis in new_axes(node, array.ndim):
        array = np.expand_dims(array, axis)
    return array


def _concat(node: Node, arrays: Arrays) -> Any:
    if not affordable(sum(array.size for array in arrays), arrays):
        return None
    return np.concatenate(arrays, axis=int(node.attributes.get("axis", 1)))


def split_sizes(node: Node, length: int) -> list[int]:
    """The sizes of the parts of Split."""
    sizes = node.ints(1, "split")
    if sizes is None:
        n = int(node.attributes.get("num_outputs", node.n_outputs))
        if n != node.n_outputs:
            raise ModelError(f"it names {node.n_outputs} outputs, but num_outputs is {n}")
        step = -(-length // max(n, 1))
        sizes = [min(step, max(length - at * step, 0)) for at in range(n)]
    if sum(sizes) != length or any(size < 0 for size in sizes):
        raise ModelError(f"it splits an axis of length {length} into {sizes}")
    return sizes


def _split(node: Node, arrays: Arrays) -> Any:
    array, axis = arrays[0], int(node.attributes.get("axis", 0))
    sizes = split_sizes(node, array.shape[axis])
    return np.split(array, np.cumsum(sizes)[:-1], axis=axis)


def slices(node: Node, shape: Sequence[int]) -> list[tuple[int, slice]]:
    """Axes and slices of Slice, of both its versions."""
    starts, ends = node.ints(1, "starts"), node.ints(2, "ends")
    if starts is None or ends is None:
        raise ModelError("its starts or ends are missing")
    axes = node.ints(3, "axes") or list(range(len(starts)))
    steps = node.ints(4, "steps") or [1] * len(starts)
    found = []
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis, n = axis % len(shape), shape[axis]
        start = start + n if start < 0 else start
        end = end + n if end < 0 else end
        if step < 0:
            found.append((axis, slice(min(start, n - 1), end if end >= 0 else None, step)))
        else:
            found.append((axis, slice(max(start, 0), max(end, 0), step)))
    return found


def _slice(node: Node, arrays: Arrays) -> Any:
    array = arrays[0]
    for axis, part in slices(node, array.shape):
        array = array[(slice(None),) * axis + (part,)]
    return array


def _gather(node: Node, arrays: Arrays) -> Any:
    array, indices = arrays
    axis = int(node.attributes.get("axis", 0))
    rest = array.size // max(array.shape[axis], 1)
    if not affordable(indices.size * rest, arrays):
        return None
    return np.take(array, np.where(indices < 0, indices + array.shape[axis], indices), axis=axis)


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


def _tile(node: Node, arrays: Arrays) -> Any:
    repeats = _sizes(arrays[1])
    if not affordable(arrays[0].size * math.prod(repeats), arrays):
        return None
    return np.tile(arrays[0], repeats)


def _range(node: Node, arrays: Arrays) -> Any:
    start, limit, delta = (array.item() for array in arrays)
    if not delta or not affordable(max(math.ceil((limit - start) / delta), 0), []):
        return None
    return np.arange(start, limit, delta, dtype=arrays[0].dtype)


def _pad(node: Node, arrays: Arrays) -> Any:
    widths = node.ints(1, "pads") or node.ints(-1, "paddings") or []
    array = arrays[0]
    constant = node.attributes.get("mode", "constant") in ("constant", b"constant")
    if len(widths) != 2 * array.ndim or min(widths, default=0) < 0 or not constant:
        return None
    n = array.ndim
    sizes = [array.shape[at] + widths[at] + widths[at + n] for at in range(n)]
    if not affordable(math.prod(sizes), arrays):
        return None
    fill = node.attributes.get("value", 0)
    if len(arrays) > 2 and arrays[2] is not None:
        fill = arrays[2].item()
    pairs = [(widths[at], widths[at + n]) for at in range(n)]
    return np.pad(array, pairs, constant_values=fill)


def _matmul(node: Node, arrays: Arrays) -> Any:
    first, second = (_plain(array) for array in arrays)
    inner = first.shape[-1]
    n = first.size // max(inner, 1) * (second.shape[-1] if second.ndim > 1 else 1)
    n = max(n, second.size)
    if not affordable(n, arrays) or n * inner > MAX_PRODUCTS:
        return None
    with np.errstate(all="ignore"):
        return first @ second


def _gemm(node: Node, arrays: Arrays) -> Any:
    first, second = (_plain(array) for array in arrays[:2])
    first = first.T if node.attributes.get("transA") else first
    second = second.T if node.attributes.get("transB") else second
    product = _matmul(node, [first, second])
    if product is None:
        return None
    product = product * node.attributes.get("alpha", 1.0)
    if len(arrays) > 2 and arrays[2] is not None:
        product = product + arrays[2] * node.attributes.get("beta", 1.0)
    return product


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


def _quantize(node: Node, arrays: Arrays) -> Any:
    """Quantize by rounding, as visible in a weight after dequantization."""
    values, scale = _plain(arrays[0]), _plain(arrays[1])
    zero = arrays[2] if len(arrays) > 2 and arrays[2] is not None else np.zeros(1, np.uint8)
    if zero.dtype.kind not in "iu" or not affordable(values.size, arrays):
        return None
    axis, limits = int(node.attributes.get("axis", 1)), np.iinfo(zero.dtype)
    sizes = [-1 if at == axis % max(values.ndim, 1) else 1 for at in range(values.ndim)]
    scale, shift = (x.reshape(() if x.size == 1 else sizes) for x in (scale, zero))
    with np.errstate(all="ignore"):
        rounded = np.round(values / scale) + shift.astype(np.float32)
    return np.clip(rounded, limits.min, limits.max).astype(zero.dtype)


def _reduce(function: Callable[..., Any]) -> Fold:
    def fold(node: Node, arrays: Arrays) -> Any:
        array = _plain(arrays[0])
        if not affordable(array.size, arrays):
            return None
        axes = node.ints(1, "axes")
        if not axes:
            if node.attributes.get("noop_with_empty_axes"):
                return array
            axes = list(range(array.ndim))
        keep = bool(node.attributes.get("keepdims", 1))
        with np.errstate(all="ignore"):
            result = function(array, axis=tuple(axes), keepdims=keep)
        return np.asarray(result, dtype=array.dtype)

    return fold


def _nonzero(node: Node, arrays: Arrays) -> Any:
    if not affordable(arrays[0].size * max(arrays[0].ndim, 1), arrays):
        return None
    return np.array(np.nonzero(arrays[0]), dtype=np.int64)


def _trilu(node: Node, arrays: Arrays) -> Any:
    if not affordable(arrays[0].size, arrays):
        return None
    k = arrays[1].item() if len(arrays) > 1 and arrays[1] is not None else 0
    return (np.triu if node.attributes.get("upper", 1) else np.tril)(arrays[0], k)


def _by_reference(node: Node, arrays: Arrays) -> Any:
    """A small node, evaluated by the package onnx."""
    if sum(array.size for array in arrays if array is not None) > REFERENCE:
        return None
    import onnx
    from onnx.reference import ReferenceEvaluator

    names = [f"x{at}" if array is not None else "" for at, array in enumerate(arrays)]
    known = {name: array for name, array in zip(names, arrays, strict=True) if name}
    outputs = [f"y{at}" for at in range(max(node.n_outputs, 1))]
    attributes = {key: value for key, value in node.attributes.items() if value is not None}
    try:
        made = onnx.helper.make_node(node.operator, names, outputs, **attributes)
        infos = [
            onnx.helper.make_tensor_value_info(
                name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
            for name, array in known.items()
        ]
        ends = [onnx.helper.make_tensor_value_info(name, 0, None) for name in outputs]
        graph = onnx.helper.make_graph([made], "folded", infos, ends)
        opset = onnx.helper.make_opsetid("", node.opset)
        model = onnx.helper.make_model(graph, opset_imports=[opset])
        with np.errstate(all="ignore"):
            return list(ReferenceEvaluator(model).run(None, known))
    except Exception:
        # In any case it is a constant without neurons; only its values are unknown.
        return None


def _table(*rows: tuple[str, Fold]) -> dict[str, Fold]:
    return {name: rule for names, rule in rows for name in names.split()}


FOLDS: dict[str, Fold] = _table(
    ("Identity Dropout", _same),
    ("Add", _elementwise(np.add)),
    ("Sub", _elementwise(np.subtract)),
    ("Mul", _elementwise(np.multiply)),
    ("Div", _elementwise(_divide)),
    ("Pow", _elementwise(_power)),
    ("Mod", _modulo),
    ("Sum", _elementwise(_reduction(np.add))),
    ("Max", _elementwise(_reduction(np.maximum))),
    ("Min", _elementwise(_reduction(np.minimum))),
    ("Sqrt", _elementwise(np.sqrt)),
    ("Reciprocal", _elementwise(np.reciprocal)),
    ("Neg", _elementwise(np.negative)),
    ("Abs", _elementwise(np.abs)),
    ("Exp", _elementwise(np.exp)),
    ("Log", _elementwise(np.log)),
    ("Sin", _elementwise(np.sin)),
    ("Cos", _elementwise(np.cos)),
    ("Tanh", _elementwise(np.tanh)),
    ("Floor", _elementwise(np.floor)),
    ("Ceil", _elementwise(np.ceil)),
    ("Round", _elementwise(np.round)),
    ("Sign", _elementwise(np.sign)),
    ("Relu", _elementwise(lambda x: np.maximum(x, 0))),
    ("Where", _elementwise(np.where)),
    ("Equal", _elementwise(np.equal)),
    ("Less", _elementwise(np.less)),
    ("LessOrEqual", _elementwise(np.less_equal)),
    ("Greater", _elementwise(np.greater)),
    ("GreaterOrEqual", _elementwise(np.greater_equal)),
    ("And", _elementwise(np.logical_and)),
    ("Or", _elementwise(np.logical_or)),
    ("Not", _elementwise(np.logical_not)),
    ("IsNaN", _elementwise(np.isnan)),
    ("Clip", _clip),
    ("Cast", _cast),
    ("CastLike", _cast_like),
    ("Transpose", _transpose),
    ("Reshape", _reshape),
    ("Flatten", _flatten),
    ("Squeeze", _squeeze),
    ("Unsqueeze", _unsqueeze),
    ("Concat", _concat),
    ("Split", _split),
    ("Slice", _slice),
    ("Gather", _gather),
    ("Shape", _shape),
    ("Size", _size),
    ("ConstantOfShape", _constant_of_shape),
    ("Expand", _expand),
    ("Tile", _tile),
    ("Range", _range),
    ("Pad", _pad),
    ("MatMul", _matmul),
    ("Gemm", _gemm),
    ("QuantizeLinear", _quantize),
    ("DequantizeLinear", _dequantize),
    ("ReduceSum", _reduce(np.sum)),
    ("ReduceMean", _reduce(np.mean)),
    ("ReduceMax", _reduce(np.max)),
    ("ReduceMin", _reduce(np.min)),
    ("ReduceProd", _reduce(np.prod)),
    ("ReduceSumSquare", _reduce(lambda x, **how: np.square(x).sum(**how))),
    ("ReduceL2", _reduce(lambda x, **how: np.sqrt(np.square(x).sum(**how)))),
    ("ReduceL1", _reduce(lambda x, **how: np.abs(x).sum(**how))),
    ("NonZero", _nonzero),
    ("Trilu", _trilu),
)
"""Operators by name."""

BY_REFERENCE = frozenset(
    [
        *("Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Cosh", "Sinh", "Tan", "Erf"),
        *("Sigmoid", "Softmax", "Softplus", "Softsign", "LeakyRelu", "Elu", "HardSigmoid"),
        *("Xor", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot", "BitShift", "IsInf"),
        *("CumSum", "ArgMax", "ArgMin", "TopK", "Mean", "ReduceLogSumExp", "ReduceLogSum"),
        *("GatherElements", "GatherND", "ScatterND", "ScatterElements", "ReverseSequence"),
        *("BatchNormalization", "LayerNormalization", "DepthToSpace", "SpaceToDepth"),
    ]
)
"""Operators whose results and inputs have about the same number of entries."""
