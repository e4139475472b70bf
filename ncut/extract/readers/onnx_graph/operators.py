"""Operators without weights: arithmetic, activations, shapes, positions, reductions."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from functools import reduce as reduced

import numpy as np
from numpy.typing import ArrayLike

from ncut.errors import ModelError
from ncut.extract.program.values import (
    Value,
    broadcast_shape,
    concatenated,
    expanded,
    gathered,
    indexed,
    looked_up,
    parts,
    permuted,
    places_along,
    rearranged,
    reshaped,
    squeezed,
    taken_along,
    tiled,
    unsqueezed,
)
from ncut.extract.readers.onnx_graph import layers
from ncut.extract.readers.onnx_graph.folding import shape_of
from ncut.extract.readers.onnx_graph.layers import at_data
from ncut.extract.readers.onnx_graph.node import Node, Origin, Rule, as_signal, path_of
from ncut.extract.readers.onnx_graph.shapes import window
from ncut.extract.readers.onnx_graph.values import (
    Array,
    Constant,
    Operand,
    check_grown,
    checked,
)
from ncut.extract.registry import table

# --- each entry alone ---------------------------------------------------------------------------


def keep(node: Node) -> Operand:
    """Casts, dropout, quantization: the neurons are unchanged."""
    return node.value(0)


def dequantize(node: Node) -> Operand:
    """DequantizeLinear: keeps a signal's neurons; table rows get their scale and zero point."""
    signal = node.value(0)
    if not isinstance(signal, Value) or not node.program.awaits:
        return signal
    axis = node.axis(1)
    scale, zero = node.array(1, "scale"), node.optional(2, "zero point")
    shape = [-1 if at == axis else 1 for at in range(signal.ndim)]
    both = [None if x is None else x.reshape(shape if x.size > 1 else ()) for x in (scale, zero)]
    assert both[0] is not None
    return node.program.dequantize(
        signal, both[0], both[1], placed=node.parameters(1), ignored=node.parameters(2)
    )


def homogeneous(node: Node) -> Value:
    """An activation that commutes with positive factors."""
    node.ignore(1, "slope of an activation")
    return node.program.activation(node.signal(), homogeneous=True)


def activation(node: Node) -> Value:
    """Any other elementwise function of one or several inputs."""
    operands = node.operands()
    return node.program.combine(*operands) if node.signals() else Value(broadcast_shape(operands))


def unary(node: Node) -> Value:
    """An elementwise function of the first input, or of the first input plus a bias."""
    if node.operator == "BiasGelu":
        node.ignore(1, "bias")
    return node.program.activation(node.signal(), homogeneous=False)


def extremum(node: Node) -> Value:
    """Max and Min: a ReLU, or its mirror image, of one signal and zero."""
    operands = node.operands()
    return node.program.extremum(*operands) if node.signals() else Value(broadcast_shape(operands))


def triangle(node: Node) -> Operand:
    """Trilu: entries on the other side of a diagonal are 0."""
    value, k = node.value(0), node.ints(1, "k") or [0]
    if not isinstance(value, Value):
        return value
    return node.program.triangle(value, k[0], upper=node.setting("upper", True))


def add(node: Node) -> Value:
    """Add, Sub, Sum and Mean; constants act as biases."""
    node = _legacy(node)
    operands = node.operands()
    if len(node.signals()) == 1 and "table" in node.program.awaits:
        shift = sum(constant.values.astype(np.float64) for constant in node.constants())
        sign = 1 if node.operator == "Sub" else -1
        shifted = sign * np.asarray(shift)
        value = node.signals()[0]
        operands.append(node.program.dequantize(value, np.array(1.0), shifted, only="table"))
        operands.remove(value)
    elif node.operator == "Sub":
        operands[1] = node.program.negative(operands[1])
    total = node.program.add(*operands)
    if node.operator == "Mean" and len(node.inputs) > 1:
        return node.program.gain(total, 1 / len(node.inputs))
    return total


def power(node: Node) -> Value:
    """Pow: a square, or any other function of both inputs."""
    exponent = node.value(1)
    square = isinstance(exponent, Constant) and exponent.single == 2
    return node.program.squared(node.signal()) if square else activation(node)


def _legacy(node: Node) -> Node:
    """The node with broadcastable operands, for old opsets with an `axis` of the second one."""
    axis = node.attributes.get("axis")
    if axis is None or not node.attributes.get("broadcast") or len(node.inputs) < 2:
        return node
    first, second = node.value(0), node.value(1)
    shape = second.shape + (1,) * max(first.ndim - int(axis) - second.ndim, 0)
    wide: Operand
    if isinstance(second, Constant):
        wide = replace(second, values=second.values.reshape(shape))
    else:
        wide = reshaped(second, shape)
    return node.with_inputs([first, wide])


def multiply(node: Node) -> Value:
    """Mul: by a factor, or of two signals; half of twice a GELU is a GELU."""
    node = _legacy(node)
    for at in (0, 1):
        value, other = node.value(at), node.value(1 - at)
        half = isinstance(other, Constant) and other.single == 0.5
        if isinstance(value, Value) and half and _is_gelu(node.made_by(at)):
            return value
    operands = node.operands()
    return node.program.multiply(*operands) if node.signals() else Value(broadcast_shape(operands))


def _is_gelu(origin: Origin | None) -> bool:
    """Check whether the origin is x (1 + erf(x / sqrt 2)), twice a GELU."""
    if origin is None or origin[0] != "Mul":
        return False
    for factor in origin[1]:
        if isinstance(factor, tuple) and factor[0] == "Add":
            terms = [term[0] for term in factor[1] if isinstance(term, tuple)]
            if "Erf" in terms or "Tanh" in terms:
                return True
    return False


def normalization(node: Node) -> Value:
    """Division by a spread, a norm or the neighbours' sum."""
    kinds = {"LRN": "local response norm", "LpNormalization": "unit norm"}
    return node.program.normalization(node.signal(), kinds.get(node.operator, "norm"))


# --- shapes -------------------------------------------------------------------------------------


def reshape(node: Node) -> Value:
    """Reshape; a size of 0 is the input's."""
    signal, wanted = node.signal(), node.ints(1, "shape", "shape")
    if wanted is None:
        raise ModelError("its shape is missing")
    if not node.attributes.get("allowzero"):
        wanted = [signal.shape[at] if size == 0 else size for at, size in enumerate(wanted)]
    made = reshaped(signal, wanted)
    checked(made.shape)
    return made


def flatten(node: Node) -> Value:
    """Flatten."""
    signal, axis = node.signal(), node.setting("axis", 1)
    axis = axis + signal.ndim if axis < 0 else axis
    sizes = math.prod(signal.shape[:axis]), math.prod(signal.shape[axis:])
    return reshaped(signal, checked(sizes))


def squeeze(node: Node) -> Value:
    """Squeeze."""
    signal, axes = node.signal(), node.ints(1, "axes")
    if axes is None:
        axes = [axis for axis, size in enumerate(signal.shape) if size == 1]
    return squeezed(signal, axes)


def unsqueeze(node: Node) -> Value:
    """Unsqueeze."""
    signal, axes = node.signal(), node.ints(1, "axes")
    if axes is None:
        raise ModelError("its axes are missing")
    total = signal.ndim + len(axes)
    return reduced(unsqueezed, sorted(axis % total for axis in axes), signal)


def transpose(node: Node) -> Value:
    """Transpose."""
    signal = node.signal()
    return permuted(signal, node.attributes.get("perm") or [*reversed(range(signal.ndim))])


def expand(node: Node) -> Value:
    """Expand."""
    signal, sizes = node.signal(), node.ints(1, "shape")
    assert sizes is not None
    return expanded(signal, checked(np.broadcast_shapes(signal.shape, tuple(sizes))))


def tile(node: Node) -> Value:
    """Tile."""
    signal, times = node.signal(), node.ints(1, "repeats")
    if times is None or len(times) != signal.ndim:
        raise ModelError(f"it repeats a tensor of shape {signal.shape} {times} times")
    checked([n * size for n, size in zip(times, signal.shape, strict=True)])
    for n, size in zip(times, signal.shape, strict=True):
        check_grown(size, n * size)
    return tiled(signal, times)


def concat(node: Node) -> Value:
    """Concat; constants among the parts carry no neurons."""
    signals = [as_signal(value) for value in node.inputs if value is not None]
    axis = node.axis(1)
    for position in range(len(node.inputs)):
        node.ignore(position, "constant entries beside a layer's")
    filled = [signal for signal in signals if signal.shape[axis]] or signals[:1]
    checked([*signals[0].shape[:axis], sum(s.shape[axis] for s in signals)])
    return concatenated(filled, axis)


def split(node: Node) -> list[Operand]:
    """Split."""
    signal, sizes, axis = node.signal(), node.ints(1, "split"), node.axis(0)
    length = signal.shape[axis]
    if sizes is None:
        n = node.setting("num_outputs", node.n_outputs)
        if n != node.n_outputs:
            raise ModelError(f"it names {node.n_outputs} outputs, but num_outputs is {n}")
        step = -(-length // max(n, 1))
        sizes = [min(step, max(length - at * step, 0)) for at in range(n)]
    return [*parts(signal, axis, sizes)]


def take_slice(node: Node) -> Value:
    """Slice, of both its versions."""
    signal, starts, ends = node.signal(), node.ints(1, "starts"), node.ints(2, "ends")
    if starts is None or ends is None:
        raise ModelError("its starts or ends are missing")
    axes = node.ints(3, "axes") or list(range(len(starts)))
    steps = node.ints(4, "steps") or [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis, n = axis % signal.ndim, signal.shape[axis]
        start = start + n if start < 0 else start
        end = end + n if end < 0 else end
        if step < 0:
            part = slice(min(start, n - 1), end if end >= 0 else None, step)
        else:
            part = slice(max(start, 0), max(end, 0), step)
        signal = indexed(signal, axis, part)
    return signal


def _choices(node: Node) -> str:
    return f"choices of {path_of(node.name, node.operator)}" if node.named else "choices"


def gather_elements(node: Node) -> Value:
    """GatherElements: entries selected along an axis, separately at each position."""
    data, indices, axis = node.signal(), node.value(1), node.axis(0)
    if isinstance(indices, Constant):
        known = node.array(1, "indices").astype(np.int64)
        return taken_along(data, axis, known % max(data.shape[axis], 1))
    return node.program.picked(data, axis, checked(indices.shape), _choices(node))


def gather_nd(node: Node) -> Value:
    """GatherND: entries or slices at multi-axis positions."""
    data, indices = node.signal(), node.value(1)
    batch = node.setting("batch_dims", 0)
    n = batch + indices.shape[-1]
    shape = checked((*indices.shape[:-1], *data.shape[n:]))
    if isinstance(indices, Constant):
        known = np.moveaxis(node.array(1, "indices").astype(np.int64), -1, 0)
        examples = np.indices(known.shape[1:], sparse=True)[:batch]
        return looked_up(data, [*examples, *known], shape)
    return gathered(data, [*range(n)], shape, at=0)


def scatter(node: Node) -> Value:
    """Entries replaced or added to, at possibly known positions."""
    value, indices, source = node.signal(), node.value(1), node.signal(2)
    axis = None if node.operator == "ScatterND" else node.axis(0)
    places = None
    if isinstance(indices, Constant):
        known = node.array(1, "indices").astype(np.int64)
        places = partial(_places_of, value.shape, axis, known)
    elif axis is not None and _is_zero(node.value(0)):
        back = node.program.put_back(indices, source, axis)
        if back is not None:
            return back
        if isinstance(node.value(2), Constant):
            return Value(value.shape, number="classes")
    why = "it writes values into a part of a tensor; build the tensor with Concat instead"
    added = node.setting("reduction", "none") == "add"
    return node.program.scatter(value, source, axis=axis, added=added, places=places, why=why)


def _is_zero(value: Operand) -> bool:
    return isinstance(value, Constant) and not value.values.any()


def _places_of(shape: tuple[int, ...], axis: int | None, indices: Array) -> Array:
    """Flat positions of the written entries."""
    if axis is not None:
        return places_along(shape, axis, indices % shape[axis])
    found: Array = np.arange(math.prod(shape)).reshape(shape)[tuple(np.moveaxis(indices, -1, 0))]
    return found


def depth_to_space(node: Node) -> Value:
    """DepthToSpace, in both orders."""
    signal, n = node.signal(), int(node.attributes["blocksize"])
    batch, channels, height, width = signal.shape
    depth = channels // max(n * n, 1)
    if node.setting("mode", "DCR") == "CRD":
        split, order = (batch, depth, n, n, height, width), [0, 1, 4, 2, 5, 3]
    else:
        split, order = (batch, n, n, depth, height, width), [0, 3, 4, 1, 5, 2]
    return rearranged(signal, split, order, checked((batch, depth, height * n, width * n)))


def space_to_depth(node: Node) -> Value:
    """SpaceToDepth."""
    signal, n = node.signal(), int(node.attributes["blocksize"])
    batch, channels, height, width = signal.shape
    high, wide = height // max(n, 1), width // max(n, 1)
    shape = checked((batch, channels * n * n, high, wide))
    return rearranged(signal, (batch, channels, high, n, wide, n), [0, 3, 5, 1, 2, 4], shape)


# --- positions ----------------------------------------------------------------------------------


def pool(node: Node) -> list[Operand]:
    """Pooling over windows, and indices of the maxima."""
    signal = node.signal()
    sizes = window(node, signal.ndim - 2).after(signal.shape[2:])
    made = node.program.positions(signal, checked((*signal.shape[:2], *sizes)))
    return node.with_rest(made, made.shape)


def global_pool(node: Node) -> Value:
    """Pooling over all positions."""
    signal = node.signal()
    return node.program.positions(signal, (*signal.shape[:2], *[1] * (signal.ndim - 2)))


def resize(node: Node) -> Value:
    """Resize and Upsample."""
    signal, scales = node.signal(), node.attributes.get("scales")
    if scales is None:
        old = len(node.inputs) == 2 or node.operator == "Upsample"
        scales = node.optional(1 if old else 2, "scales")
    sizes = node.optional(3, "sizes")
    axes = [signal.axis(int(a)) for a in node.attributes.get("axes") or range(signal.ndim)]
    wanted = list(signal.shape)
    if sizes is not None and sizes.size:
        for axis, n in zip(axes, np.ravel(sizes), strict=True):
            wanted[axis] = int(n)
    elif scales is not None and np.size(scales):
        for axis, factor in zip(axes, np.ravel(np.asarray(scales)), strict=True):
            wanted[axis] = math.floor(signal.shape[axis] * float(factor))
    else:
        raise ModelError("its sizes or scales are missing")
    nearest = node.setting("mode", "nearest") == "nearest"
    return node.program.positions(signal, checked(wanted), nearest=nearest)


def pad(node: Node) -> Value:
    """Padding; padded channels carry no neurons."""
    signal, mode = node.signal(), node.setting("mode", "constant")
    widths = node.ints(1, "pads") or node.ints(-1, "paddings") or []
    axes = [signal.axis(axis) for axis in node.ints(3, "axes") or range(signal.ndim)]
    if len(widths) != 2 * len(axes):
        raise ModelError(f"it pads a tensor of shape {signal.shape} by {widths}")
    fill = node.number(2, "value") if mode == "constant" else None
    for at, axis in enumerate(axes):
        before, after = widths[at], widths[at + len(axes)]
        if before or after:
            n = signal.shape[axis]
            check_grown(n, max(before, 0) + n + max(after, 0))
            index = None if mode == "constant" else _mirrored(n, before, after, mode)
            signal = node.program.pad(signal, axis, before, after, fill=fill or 0.0, index=index)
    return signal


def _mirrored(n: int, before: int, after: int, mode: str) -> Array:
    """Entries that padding repeats."""
    if mode not in ("reflect", "edge", "wrap"):
        raise ModelError(f"it pads by the mode {mode!r}, which is not known")
    widths = (max(before, 0), max(after, 0))
    index = np.pad(np.arange(n), widths, mode=mode)  # type: ignore[call-overload]
    taken: Array = index[max(-before, 0) : len(index) - max(-after, 0)]
    return taken


def grid_sample(node: Node) -> Value:
    """GridSample: values at positions given by a grid."""
    signal, grid = node.signal(), node.value(1)
    if isinstance(grid, Value):
        node.program.places(grid, path_of(node.name, node.operator) if node.named else "")
    return node.program.positions(signal, checked((*signal.shape[:2], *grid.shape[1:-1])))


# --- reductions ---------------------------------------------------------------------------------


def reduce(node: Node) -> Value:
    """Sums, means, maxima and other reductions over axes."""
    signal, axes = node.signal(), node.ints(1, "axes")
    if not axes:
        if node.attributes.get("noop_with_empty_axes"):
            return signal
        axes = list(range(signal.ndim))
    kind, keepdim = node.operator.removeprefix("Reduce"), node.setting("keepdims", True)
    if kind in ("L2", "SumSquare"):
        made = node.program.distance(signal, axes, keepdim, node.name)
        if made is not None:
            return made
    kind = "norm" if kind in ("L1", "L2", "SumSquare") else kind.lower()
    return node.program.reduce(signal, axes, keepdim=keepdim, kind=kind, name=node.name)


def chosen(node: Node) -> Value:
    """ArgMax and ArgMin: indices, which carry no neurons."""
    signal, axis = node.signal(), node.axis(0)
    node.program.chosen(signal, axis, _choices(node))
    kept = (1,) if node.setting("keepdims", 1) else ()
    return Value((*signal.shape[:axis], *kept, *signal.shape[axis + 1 :]))


def largest(node: Node) -> list[Operand]:
    """TopK: the largest entries along an axis, and their positions."""
    signal, axis, k = node.signal(), node.axis(-1), node.ints(1, "k") or [1]
    shape = checked((*signal.shape[:axis], k[0], *signal.shape[axis + 1 :]))
    return [*node.program.largest(signal, axis, shape, _choices(node))]


def cumulative(node: Node) -> Value:
    """CumSum; neurons along other axes are unchanged."""
    signal, axis = node.signal(), node.ints(1, "axis") or [0]
    return node.program.ordered("cumsum", signal, axis[0], signal.shape, _choices(node))


# --- results without neurons --------------------------------------------------------------------


def without_neurons(node: Node) -> Value:
    """Random numbers, and constants too large to fold."""
    sizes = node.attributes.get("shape")
    sizes = node.value(0).shape if sizes is None else sizes
    drawn = node.operator.startswith("Random") or node.operator == "Bernoulli"
    return Value(checked(sizes), number="drawn" if drawn else "")


def one_hot(node: Node) -> Value:
    """OneHot of indices that depend on the data."""
    depth, sizes = node.ints(1, "depth") or [1], node.value(0).shape
    axis = node.setting("axis", -1) % (len(sizes) + 1)
    return Value(checked([*sizes[:axis], depth[0], *sizes[axis:]]), number="classes")


def refused(message: str) -> Rule:
    """The rule of operators that no graph can represent."""

    def rule(node: Node) -> Value:
        raise ModelError(message)

    return rule


# --- operators of trained pipelines -------------------------------------------------------------


def feature_scaler(node: Node) -> Value:
    """Scaler: a factor for each feature."""
    signal = node.signal()
    factors = np.ravel(np.asarray(node.attributes.get("scale") or [1.0], dtype=np.float64))
    if factors.size not in (1, signal.shape[-1]):
        raise ModelError(f"it scales {factors.size} values, but gets {signal.shape[-1]}")
    if factors.size == 1:
        return node.program.gain(signal, abs(float(factors[0])) or 1.0)
    return node.program.scaled(signal, factors)


def feature_extractor(node: Node) -> Value:
    """ArrayFeatureExtractor: entries of the last axis."""
    data, indices = node.value(0), node.value(1)
    if isinstance(data, Value) and data.ndim and isinstance(indices, Constant):
        return indexed(data, -1, np.ravel(indices.values).astype(np.int64))
    if isinstance(data, Value) and data.ndim:
        return at_data(data, data.ndim - 1, (math.prod(indices.shape),))
    return Value(checked((*(data.shape[:-1] or (1,)), math.prod(indices.shape))))


def _numbers(values: ArrayLike) -> Constant:
    """A constant that is derived from a shape."""
    return Constant(np.array(values, dtype=np.int64), (), True)


RULES: dict[str, Rule] = {
    **layers.RULES,
    **table(
        ("Relu LeakyRelu PRelu Abs", homogeneous),
        (
            "Sigmoid Tanh Elu Selu Celu Gelu FastGelu QuickGelu BiasGelu Mish HardSigmoid "
            "HardSwish Swish Softplus Softsign Exp Log Sqrt Reciprocal Erf Sin Cos Tan "
            "Asin Acos Atan Sinh Cosh Asinh Acosh Atanh Sign Floor Ceil Round Not IsNaN IsInf "
            "BitwiseNot Shrink Binarizer Normalizer",
            unary,
        ),
        (
            "Mod Equal Less LessOrEqual Greater GreaterOrEqual And Or Xor BitwiseAnd BitwiseOr "
            "BitwiseXor BitShift",
            activation,
        ),
        (
            "Softmax LogSoftmax Hardmax",
            lambda n: n.program.softmax(n.signal(), n.axis(-1 if n.opset >= 13 else 1)),
        ),
        (
            "Clip",  # a ReLU without an upper bound
            lambda n: n.program.bounded(n.signal(), n.number(1, "min"), n.number(2, "max")),
        ),
        ("Max Min", extremum),
        (
            "ThresholdedRelu",
            lambda n: n.program.activation(n.signal(), homogeneous=n.setting("alpha", 1.0) == 0),
        ),
        ("Where", lambda n: n.program.choice(*n.operands())),
        ("Trilu", triangle),
        ("Add Sub Sum Mean", add),
        ("Pow", power),
        ("Mul", multiply),
        ("Div", lambda n: n.program.divide(*_legacy(n).operands())),
        ("Identity Cast CastLike QuantizeLinear ReverseSequence Imputer ZipMap", keep),
        ("Neg", lambda n: n.program.gain(n.signal(), -1)),
        ("DequantizeLinear", dequantize),
        ("Dropout", lambda n: n.with_rest(n.value(0), n.value(0).shape)),
        ("DynamicQuantizeLinear", lambda n: n.with_rest(n.value(0), (), ())),
        ("LRN MeanVarianceNormalization LpNormalization", normalization),
        ("Reshape", reshape),
        ("Flatten", flatten),
        ("Squeeze", squeeze),
        ("Unsqueeze", unsqueeze),
        ("Transpose", transpose),
        ("Shape", lambda n: _numbers(shape_of(n, n.signal().shape))),
        ("Size", lambda n: _numbers(n.signal().size)),
        ("Expand", expand),
        ("Tile", tile),
        ("Concat", concat),
        ("Split", split),
        ("Slice", take_slice),
        ("GatherElements", gather_elements),
        ("GatherND", gather_nd),
        ("ScatterND ScatterElements Scatter", scatter),
        ("DepthToSpace", depth_to_space),
        ("SpaceToDepth", space_to_depth),
        ("MaxPool AveragePool LpPool", pool),
        ("GlobalAveragePool GlobalMaxPool GlobalLpPool", global_pool),
        ("Resize Upsample", resize),
        ("Pad", pad),
        ("GridSample", grid_sample),
        (
            "ReduceSum ReduceMean ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceLogSum "
            "ReduceLogSumExp ReduceSumSquare",
            reduce,
        ),
        ("ArgMax ArgMin", chosen),
        ("TopK", largest),
        ("CumSum", cumulative),
        (
            "RandomNormal RandomUniform RandomNormalLike RandomUniformLike Bernoulli EyeLike "
            "LabelEncoder",
            without_neurons,
        ),
        (
            "ConstantOfShape Range NonZero Compress Unique NonMaxSuppression",
            refused("the shape of its result depends on the data"),
        ),
        (
            "If Loop Scan SequenceMap",
            refused(
                "its graph chooses what to do while it runs, by values that depend on the data; "
                "export the model without loops and branches, or pass the weights of a chain in it "
                "as a list"
            ),
        ),
        ("OneHot", one_hot),
        ("Scaler", feature_scaler),
        ("ArrayFeatureExtractor", feature_extractor),
        # Of quantized values, whose scales and zero points follow them.
        ("QLinearAdd", lambda n: add(n.only(0, 3))),
        ("QLinearMul", lambda n: multiply(n.only(0, 3))),
        ("QLinearSigmoid", lambda n: unary(n.only(0))),
        ("QLinearLeakyRelu", lambda n: homogeneous(n.only(0))),
        ("QLinearGlobalAveragePool", lambda n: global_pool(n.only(0))),
        ("QLinearAveragePool", lambda n: pool(n.only(0))),
    ),
}
"""Operators by name, from ONNX and common other domains."""
