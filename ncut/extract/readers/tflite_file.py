"""Reads TensorFlow Lite flatbuffers: follows their operators to the record of a forward pass."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ncut.errors import ModelError, NcutError, import_extra
from ncut.extract.arrays import as_array
from ncut.extract.program.record import Lower, Made, Program
from ncut.extract.program.values import (
    Known,
    Operand,
    Value,
    concatenated,
    expanded,
    gathered,
    indexed,
    parts,
    permuted,
    rearranged,
    reshaped,
    stacked,
    swapped,
    tiled,
    unbound,
)
from ncut.extract.readers.lazy import Lazy
from ncut.extract.readers.tflite_tables import Array, Graph, Operator, Tensor
from ncut.extract.registry import Rule, table
from ncut.files import Budget, content_of, reading

WAY = "convert it to ONNX: python -m tf2onnx.convert --tflite FILE --output model.onnx"

_ACTIVATIONS = {1: True, 2: False, 3: False, 4: False, 5: False}
"""Activations fused with an operator, and whether they commute with positive factors."""


def read_tflite(
    path: Path, lower: Lower[Made], *, unknown: str = "error"
) -> tuple[Made, dict[str, tuple[int, ...]]]:
    """Follow the operators of a model of TensorFlow Lite.

    Weights of 8 and 16 bits are multiplied by their scales, per tensor or per channel. Sizes are
    the tensors' sizes in the file.

    Parameters
    ----------
    path : Path
        The file.
    lower : callable
        Gets the program; its result is returned. Its errors show that guessed sizes do not fit.
    unknown : {"error", "elementwise"}
        Treatment of operators without a rule.

    Raises
    ------
    ModelError
        If the file is damaged, has an unknown operator or control flow.
    MissingExtraError
        If the package tflite is not installed.

    Source: the format's schema, tensorflow/lite/schema/schema.fbs.
    """
    with reading(path, "TensorFlow Lite"):
        schema = import_extra("tflite", "tflite")
        content = content_of(path)
        try:
            graph = Graph(schema, content, Budget(path, content.size))
            following = _Following(graph, unknown == "elementwise")
            following.run()
        except NcutError:
            raise
        except Exception as error:  # flatbuffers checks nothing, and NumPy finds other faults
            raise ModelError(f"its tables are damaged, or of a newer schema: {error!r}") from error
        return lower(following.program), graph.parameters()


@dataclass(frozen=True, slots=True)
class Unread:
    """Numbers computed from constants alone, such as sizes: not evaluated."""

    shape: tuple[int, ...]


Computed: TypeAlias = Value | Array | Unread
"""A tensor while operators are followed: data-dependent, constant, or not evaluated."""


@dataclass(slots=True)
class _Following:
    """Follows the operators of a file."""

    graph: Graph
    guess: bool  # whether operators without a rule are treated as elementwise
    program: Program = field(default_factory=Program)
    known: dict[int, Computed] = field(default_factory=dict)  # tensors computed so far, by number
    # The source constant of each tensor that copies one in another type or shape.
    sources: dict[int, int] = field(default_factory=dict)
    _names: set[str] = field(default_factory=set)
    _place: str = ""

    def run(self) -> None:
        """Follow all operators."""
        self.program.where = lambda: self._place
        for number in self.graph.inputs:
            tensor = self.graph.tensors[number]
            self.known[number] = self.program.input(tensor.name, tensor.shape or (1,))
        for operator in self.graph.operators():
            self._place = f"{operator.kind} {operator.number}"
            made = self._made(operator)
            for number, value in zip(operator.outputs, made, strict=True):
                shape = self.graph.tensors[number].shape
                if isinstance(value, Value) and value.shape != shape:
                    value = reshaped(value, shape)
                self.known[number] = value
        self._place = ""
        for at, number in enumerate(self.graph.outputs):
            end = self.known.get(number)
            if isinstance(end, Value):
                self.program.output(end, "output" if at == 0 else f"output {at}")

    def _made(self, operator: Operator) -> Sequence[Computed]:
        inputs = [None if n < 0 else self._at(n) for n in operator.inputs]
        step = _Step(self, operator, inputs)
        if inputs and not step.data():
            if operator.kind not in COPIES or not isinstance(inputs[0], np.ndarray):
                return [Unread(self.graph.tensors[n].shape) for n in operator.outputs]
            source = operator.inputs[0]
            self.sources[operator.outputs[0]] = self.sources.get(source, source)
        rule = RULES.get(operator.kind)
        if rule is None:
            shapes = {self.graph.tensors[n].shape for n in operator.outputs}
            data = step.data()
            if not self.guess or any(value.shape not in shapes for value in data):
                raise ModelError(
                    f"{operator.kind!r} is not known; unknown='elementwise' takes it as a function "
                    f"of each entry, or {WAY}"
                )
            name = f"{operator.kind} {operator.number}"
            self.program.leave_out(name, (), "taken as a function of each entry")
            whole = data[0] if len(data) == 1 else self.program.combine(*data)
            return [self.program.activation(whole, homogeneous=False)] * len(operator.outputs)
        made = rule(step)
        return made if isinstance(made, list) else [made]

    def _at(self, number: int) -> Computed:
        """A tensor, computed before or constant."""
        if number not in self.known:
            tensor = self.graph.tensors[number]
            if tensor.values is None:
                raise ModelError(f"reads {tensor.name!r} before it is made")
            self.known[number] = np.asarray(tensor.values)
        return self.known[number]

    def called(self, operator: Operator, weight: int) -> dict[str, Any]:
        """Names of a layer and its weights."""
        name = self.graph.tensors[operator.outputs[0]].name
        while name in self._names:
            name = f"{name} {operator.number}"
        self._names.add(name)
        source = self.graph.tensors[self.sources.get(weight, weight)]
        if isinstance(source.values, Lazy) and source.values.formula:
            self.program.formulas[source.name] = source.values.formula
        return {"name": name, "module": name, "parameters": [source.name]}


@dataclass(frozen=True, slots=True)
class _Step:
    """An operator with its inputs."""

    following: _Following
    operator: Operator
    inputs: Sequence[Computed | None]

    @property
    def program(self) -> Program:
        """The program being written."""
        return self.following.program

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the first result in the file."""
        return self.following.graph.tensors[self.operator.outputs[0]].shape

    def tensor(self, at: int) -> Tensor:
        """An input's tensor in the file; for a copy, the source constant."""
        number = self.operator.inputs[at]
        return self.following.graph.tensors[self.following.sources.get(number, number)]

    def data(self) -> list[Value]:
        """The inputs that depend on the data."""
        return [value for value in self.inputs if isinstance(value, Value)]

    def value(self, at: int = 0) -> Value:
        """An input that must depend on the data."""
        value = self.inputs[at] if at < len(self.inputs) else None
        if not isinstance(value, Value):
            raise ModelError(f"its input {at} is a constant, or is not there")
        return value

    def numbers(self, at: int) -> Array:
        """An input that must be constant."""
        value = self.inputs[at] if at < len(self.inputs) else None
        if not isinstance(value, np.ndarray):
            raise ModelError(f"its input {at} depends on the data, or on what is not worked out")
        return value

    def weight(self, at: int) -> NDArray[np.floating]:
        """Weights; integers need a scale."""
        tensor = self.tensor(at)
        values = self.numbers(at)
        if values.dtype.kind != "f":
            raise ModelError(f"weights {tensor.name!r} are whole numbers without a scale")
        return as_array(values, tensor.name)

    def operand(self, at: int) -> Operand:
        """An input as an operand of elementwise functions."""
        found = self.inputs[at]
        if isinstance(found, Value):
            return found
        tensor = self.tensor(at)
        values = self.numbers(at)
        named = [tensor.name] if tensor.values is not None and values.dtype.kind == "f" else []
        return Known(values.shape, lambda: values.astype(np.float64), named, tensor.name)

    def operands(self) -> list[Operand]:
        """All inputs as operands."""
        return [self.operand(at) for at in range(len(self.inputs))]

    def matrix(self, at: int) -> Operand:
        """An input as an operand of a matrix product."""
        found = self.inputs[at]
        if isinstance(found, Value):
            return found
        weight, named = self.weight(at), self.named(at)
        return Known(weight.shape, lambda: weight, **named)

    def named(self, at: int) -> dict[str, Any]:
        """Names of the layer with the weights at an input."""
        return self.following.called(self.operator, self.operator.inputs[at])

    def option(self, table: str, name: str, default: Any = 0) -> Any:
        """An option."""
        return self.operator.option(table, name, default)

    @property
    def name(self) -> str:
        """The name of its first result."""
        return self.following.graph.tensors[self.operator.outputs[0]].name

    def biased(self, at: int) -> None:
        """Note a bias, or a constant added like a bias."""
        if at < len(self.inputs) and self.operator.inputs[at] >= 0:
            tensor = self.tensor(at)
            if tensor.values is not None:
                self.program.ignore([tensor.name], "added as a constant, like a bias")

    def activated(self, value: Value, table: str) -> Value:
        """The value after the operator's fused activation."""
        kind = self.option(table, "FusedActivationFunction")
        if kind not in _ACTIVATIONS:
            return value
        return self.program.activation(value, homogeneous=_ACTIVATIONS[kind])

    def convolved(self, at: int, kernel: Array, table: str, groups: int = 1) -> Value:
        """A kernel (out, in / groups, positions...), the second input, over the value at `at`."""
        value = self.value(at)
        made = self.program.convolution(
            value, kernel, self.shape, groups=groups, axis=value.ndim - 1, **self.named(1)
        )
        self.biased(3 if at else 2)
        return self.activated(made, table)


# --- rules --------------------------------------------------------------------------------------


def _convolution(step: _Step) -> Value:
    kernel, shape = step.weight(1), step.value().shape
    deep = step.operator.kind == "CONV_3D"
    # (positions..., in, out) and (out, positions..., in)
    kernel = np.moveaxis(kernel, (-1, -2), (0, 1)) if deep else np.moveaxis(kernel, -1, 1)
    if kernel.ndim != len(shape) or shape[-1] % kernel.shape[1]:
        raise ModelError(f"kernel of shape {kernel.shape} on values of {shape}")
    groups = shape[-1] // kernel.shape[1]
    return step.convolved(0, kernel, "Conv3DOptions" if deep else "Conv2DOptions", groups)


def _depthwise(step: _Step) -> Value:
    kernel, n = step.weight(1), step.value().shape[-1]
    if kernel.ndim != 4 or kernel.shape[0] != 1 or kernel.shape[3] % n:
        raise ModelError(f"depthwise kernel of shape {kernel.shape} on {n} channels")
    # (1, positions..., channels times multiplier)
    return step.convolved(0, kernel.transpose(3, 0, 1, 2), "DepthwiseConv2DOptions", n)


def _dense(step: _Step) -> Value:
    value, other = step.value(), step.matrix(1)
    step.biased(2)
    if other.ndim != 2 or not other.shape[1]:
        raise ModelError(f"weights of shape {other.shape}")
    if value.shape[-1:] != other.shape[1:]:
        value = reshaped(value, (-(-math.prod(value.shape) // other.shape[1]), other.shape[1]))
    made = step.program.matmul(value, swapped(other))
    return step.activated(reshaped(made, step.shape), "FullyConnectedOptions")


def _products(step: _Step) -> Value:
    """BATCH_MATMUL of two values, or a value and weights."""
    turn = [step.option("BatchMatMulOptions", f"Adj{side}", False) for side in "XY"]
    first, second = (
        swapped(step.matrix(at)) if turned else step.matrix(at) for at, turned in enumerate(turn)
    )
    return step.program.matmul(first, second)


def _difference(step: _Step) -> Value:
    first, second = step.operands()
    made = step.program.add(first, step.program.negative(second))
    return step.activated(made, "SubOptions")


def _combined(step: _Step) -> Value:
    data = step.data()
    made = step.program.combine(*data) if len(data) > 1 else data[0]
    return step.program.activation(expanded(made, step.shape), homogeneous=False)


def _pointwise(homogeneous: bool) -> Rule:
    def rule(step: _Step) -> Value:
        for at in range(1, len(step.inputs)):
            step.program.ignore([step.tensor(at).name], "slopes of an activation")
        return step.program.activation(step.value(), homogeneous=homogeneous)

    return rule


def _same(step: _Step) -> Computed:
    value = step.inputs[0]
    if value is None:
        raise ModelError("reads nothing")
    return value


def _cast(step: _Step) -> Computed:
    value = _same(step)
    return value if not isinstance(value, np.ndarray) else value.astype(np.float64)


def _reshaped(step: _Step) -> Computed:
    value = _same(step)
    if isinstance(value, np.ndarray):
        return value.reshape(step.shape)
    return reshaped(step.value(), step.shape)


def _permuted(step: _Step) -> Computed:
    value, order = _same(step), step.numbers(1).ravel().tolist()
    if isinstance(value, np.ndarray):
        return value.transpose(order)
    return permuted(step.value(), order)


def _joined(step: _Step) -> Value:
    pack = step.operator.kind == "PACK"
    axis = step.option("PackOptions" if pack else "ConcatenationOptions", "Axis")
    given = [value for value in step.inputs if value is not None]
    others = [value if isinstance(value, Value) else Value(value.shape) for value in given]
    made = (stacked if pack else concatenated)(others, axis % len(step.shape))
    return made if pack else step.activated(made, "ConcatenationOptions")


def _split(step: _Step) -> list[Value]:
    """SPLIT (axis, value) and SPLIT_V (value, sizes, axis)."""
    sized = step.operator.kind == "SPLIT_V"
    value = step.value(0 if sized else 1)
    axis = value.axis(int(step.numbers(2 if sized else 0).ravel()[0]))
    tensors = step.following.graph.tensors
    return parts(value, axis, [tensors[number].shape[axis] for number in step.operator.outputs])


def _slice(step: _Step) -> Value:
    value = step.value()
    for axis, (begin, size) in enumerate(zip(step.numbers(1), step.shape, strict=True)):
        value = indexed(value, axis, slice(int(begin), int(begin) + size))
    return value


def _strided(step: _Step) -> Value:
    masks = {name: step.option("StridedSliceOptions", f"{name}Mask")
             for name in ("Begin", "End", "Ellipsis", "NewAxis", "ShrinkAxis")}  # fmt: skip
    if masks["Ellipsis"] or masks["NewAxis"]:
        raise ModelError("slices with an ellipsis or a new axis are not read")
    value = step.value()
    ends = [step.numbers(at).ravel().tolist() for at in (1, 2, 3)]
    axis = 0
    for number, (begin, end, stride) in enumerate(zip(*ends, strict=True)):
        bit = 1 << number
        if masks["ShrinkAxis"] & bit:
            value = indexed(value, axis, int(begin))
            continue
        low = None if masks["Begin"] & bit else int(begin)
        high = None if masks["End"] & bit else int(end)
        value = indexed(value, axis, slice(low, high, int(stride)))
        axis += 1
    return value


def _gathered(step: _Step) -> Value:
    """Rows of a table by index, or entries of a value."""
    table, index = step.inputs[0], step.inputs[1]
    if isinstance(index, Value) and not isinstance(table, Value):
        if step.numbers(0).ndim != 2:
            raise ModelError(f"a table of shape {step.numbers(0).shape}")
        return step.program.embedding(step.weight(0), step.shape, **step.named(0))
    value = step.value()
    axis = value.axis(step.option("GatherOptions", "Axis"))
    if step.option("GatherOptions", "BatchDims"):
        raise ModelError("a gather of batches is not read")
    if isinstance(index, Value):
        return gathered(value, [axis], step.shape)
    return indexed(value, axis, step.numbers(1).astype(np.int64))


def _pool(step: _Step) -> Value:
    made = step.program.positions(step.value(), step.shape, axis=step.value().ndim - 1)
    pools = ("AVERAGE_POOL_2D", "MAX_POOL_2D", "L2_POOL_2D")
    return step.activated(made, "Pool2DOptions") if step.operator.kind in pools else made


def _reduced(step: _Step) -> Value:
    kind = step.operator.kind.removeprefix("REDUCE_").lower()
    keep = bool(step.option("ReducerOptions", "KeepDims", False))
    axes = [int(axis) for axis in step.numbers(1).ravel()]
    return step.program.reduce(step.value(), axes, keepdim=keep, kind=kind, name=step.name)


def _padded(step: _Step) -> Value:
    value = step.value()
    mirrored = step.operator.kind == "MIRROR_PAD"
    pairs = step.numbers(1).reshape(-1, 2).tolist()
    of_image = value.ndim > 3 and not any(pairs[-1])
    channels = value.ndim - 1 if of_image else None
    for axis, (before, after) in enumerate(pairs):
        n = value.shape[axis]
        if not (before or after):
            continue
        if min(before, after) < 0 or n + before + after != step.shape[axis]:
            raise ModelError(f"pads an axis of {n} by {before} and {after}")
        index = None
        if mirrored:
            kind = step.option("MirrorPadOptions", "Mode")
            index = np.pad(np.arange(n), (before, after), mode="symmetric" if kind else "reflect")
        value = step.program.pad(value, axis, before, after, index=index, channels=channels)
    return value


def _blocks(step: _Step) -> Value:
    """SPACE_TO_DEPTH and DEPTH_TO_SPACE: blocks of positions to channels and back."""
    batch, height, width, n = step.value().shape
    if step.operator.kind == "SPACE_TO_DEPTH":
        b = step.option("SpaceToDepthOptions", "BlockSize")
        split = (batch, height // b, b, width // b, b, n)
    else:
        b = step.option("DepthToSpaceOptions", "BlockSize")
        split = (batch, height, width, b, b, n // (b * b))
    return rearranged(step.value(), split, [0, 1, 3, 2, 4, 5], step.shape)


def _largest(step: _Step) -> Value:
    step.program.chosen(step.value(), int(step.numbers(1).ravel()[0]), step.name)
    return Value(step.shape)


COPIES = {
    *("QUANTIZE", "DEQUANTIZE", "DENSIFY", "CAST", "RESHAPE", "SQUEEZE", "EXPAND_DIMS"),
    "TRANSPOSE",
}
"""Operators that are evaluated on constants."""

RULES: Mapping[str, Rule] = table(
    ("CONV_2D CONV_3D", _convolution),
    ("DEPTHWISE_CONV_2D", _depthwise),
    (
        "TRANSPOSE_CONV",  # (out, positions..., in)
        lambda s: s.convolved(2, np.moveaxis(s.weight(1), -1, 1), "TransposeConvOptions"),
    ),
    ("FULLY_CONNECTED", _dense),
    ("BATCH_MATMUL", _products),
    ("GATHER", _gathered),
    # (numbers, table)
    ("EMBEDDING_LOOKUP", lambda s: s.program.embedding(s.weight(1), s.shape, **s.named(1))),
    ("ADD", lambda s: s.activated(s.program.add(*s.operands()), "AddOptions")),
    ("SUB", _difference),
    ("ADD_N", lambda s: s.program.add(*s.operands())),
    ("MUL", lambda s: s.activated(s.program.multiply(*s.operands()), "MulOptions")),
    ("DIV", lambda s: s.activated(s.program.divide(*s.operands()), "DivOptions")),
    ("NEG", lambda s: s.program.scaled(s.value(), np.array(-1.0))),
    ("MAXIMUM MINIMUM", lambda s: s.program.extremum(*s.operands())),
    ("SELECT SELECT_V2", lambda s: s.program.choice(*s.operands())),
    (
        "SQUARED_DIFFERENCE POW FLOOR_DIV FLOOR_MOD ATAN2 EQUAL NOT_EQUAL LESS LESS_EQUAL GREATER "
        "GREATER_EQUAL LOGICAL_AND LOGICAL_OR LOGICAL_NOT",
        _combined,
    ),
    ("RELU LEAKY_RELU PRELU ABS", _pointwise(True)),
    (
        "RELU6 RELU_N1_TO_1 RELU_0_TO_1 LOGISTIC TANH HARD_SWISH ELU EXP LOG SQRT RSQRT SQUARE "
        "SIN COS FLOOR CEIL ROUND SIGN GELU",
        _pointwise(False),
    ),
    ("SOFTMAX LOG_SOFTMAX", lambda s: s.program.softmax(s.value(), -1)),
    ("L2_NORMALIZATION", lambda s: s.program.normalization(s.value())),
    ("QUANTIZE DEQUANTIZE DENSIFY", _same),
    ("CAST", _cast),
    ("SHAPE", lambda s: np.array(s.value().shape, dtype=np.int64)),
    ("RESHAPE SQUEEZE EXPAND_DIMS", _reshaped),
    ("TRANSPOSE", _permuted),
    ("CONCATENATION PACK", _joined),
    ("UNPACK", lambda s: unbound(s.value(), s.option("UnpackOptions", "Axis"))),
    ("SPLIT SPLIT_V", _split),
    ("SLICE", _slice),
    ("STRIDED_SLICE", _strided),
    ("TILE", lambda s: tiled(s.value(), [int(n) for n in s.numbers(1).ravel()])),
    ("BROADCAST_TO", lambda s: expanded(s.value(), s.shape)),
    (
        "AVERAGE_POOL_2D MAX_POOL_2D L2_POOL_2D RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR "
        "SPACE_TO_BATCH_ND BATCH_TO_SPACE_ND",
        _pool,
    ),
    ("PAD PADV2 MIRROR_PAD", _padded),
    ("SPACE_TO_DEPTH DEPTH_TO_SPACE", _blocks),
    ("MEAN SUM REDUCE_MAX REDUCE_MIN REDUCE_PROD", _reduced),
    ("ARG_MAX ARG_MIN", _largest),
)
"""Rules by operator."""
