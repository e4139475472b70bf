"""Loads an ONNX file as a checked, ordered graph, and follows the graph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import numpy as np

from ncut.errors import InputError, ModelError, import_extra
from ncut.extract.program.record import Program
from ncut.extract.program.values import Value, located
from ncut.extract.readers.onnx_graph.folding import folded
from ncut.extract.readers.onnx_graph.node import Node, Origin
from ncut.extract.readers.onnx_graph.operators import RULES
from ncut.extract.readers.onnx_graph.shapes import Declared, declared
from ncut.extract.readers.onnx_graph.tensors import FLOATING, Array, Tensors
from ncut.extract.readers.onnx_graph.values import MAX_AXIS, Constant, Operand, as_floats, checked
from ncut.extract.registry import DeclaredCall, rule_of

MAX_NODES = 2**20
"""Largest number of nodes followed; a function's nodes count at each call."""

MAX_DEPTH = 32
"""Largest nesting depth of function calls and branches."""

DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "org.pytorch.aten", "ai.onnx.contrib")

_DATA = (1, 10, 11, 16, 2, 3)  # types of inputs that hold values; others hold row indices


class UnknownOperatorError(ModelError):
    """An operator without a rule."""

    located = True


@dataclass(slots=True, eq=False)
class Stored:
    """A constant of the file, decoded on first use."""

    name: str
    shape: tuple[int, ...]  # the declared shape
    floating: bool  # whether it holds floating-point numbers
    decode: Any  # returns its values
    _constant: Constant | None = None

    def constant(self) -> Constant:
        """Its values and its name."""
        if self._constant is None:
            self._constant = Constant(self.decode(), (self.name,))
        return self._constant


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """A graph of the file, with its nodes in topological order."""

    inputs: list[Declared]  # its inputs without values in the file
    outputs: list[str]  # names of its results
    nodes: list[Any]  # the nodes upstream of the results
    sources: dict[str, Stored]  # its initializers


@dataclass(slots=True)
class Model:
    """A model's file."""

    path: Path
    graph: Graph  # the main graph
    functions: dict[tuple[str, str], Any]  # functions defined in the file, by domain and name
    opset: int  # opset version
    tensors: Tensors
    used: dict[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def parameters(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the floating-point initializers."""
        sources = self.graph.sources.values()
        return {source.name: source.shape for source in sources if source.floating}


def with_tensors(path: Path) -> Any:
    """The file's content as an onnx protobuf, including tensors in external files."""
    return import_extra("onnx", "onnx").load_model(str(path))


def load(path: Path) -> Model:
    """Read and check a model's file, without decoding weights.

    Raises
    ------
    ModelError
        If the file is missing or not an ONNX model, or its graph is invalid.
    MissingExtraError
        If the package onnx is not installed.
    """
    onnx = import_extra("onnx", "onnx")
    try:
        proto = onnx.load_model(str(path), format="protobuf", load_external_data=False)
    except Exception as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise ModelError(
            f"{path}: cannot be read as ONNX (truncated, or another kind of file?): {reason}"
        ) from error
    if not proto.HasField("graph") or not proto.graph.node:
        raise ModelError(f"{path}: holds no ONNX graph (truncated, or another kind of file?)")
    tensors = Tensors(path)
    opsets = {entry.domain: int(entry.version) for entry in proto.opset_import}
    functions = {(f.domain, f.name): f for f in proto.functions}
    return Model(
        path, _main_graph(proto.graph, tensors), functions,
        opsets.get("", opsets.get("ai.onnx", 18)), tensors,
    )  # fmt: skip


def _main_graph(proto: Any, tensors: Tensors) -> Graph:
    path = tensors.path
    sources = sources_of(proto, tensors)
    inputs = [declared(value, path) for value in proto.input if value.name not in sources]
    known = {value.name for value in inputs} | set(sources)
    outputs = [value.name for value in proto.output]
    if not outputs:
        raise ModelError(f"{path}: its graph has no results")
    nodes = in_order(proto.node, known, outputs, str(path))
    return Graph(inputs, outputs, nodes, sources)


def sources_of(proto: Any, tensors: Tensors) -> dict[str, Stored]:
    """The initializers of a graph."""
    sources: dict[str, Stored] = {}
    for tensor in proto.initializer:
        shape = tensors.shape(tensor)
        floating = tensor.data_type in FLOATING
        sources[tensor.name] = Stored(tensor.name, shape, floating, partial(tensors.array, tensor))
    for sparse in proto.sparse_initializer:
        name, shape = sparse.values.name, tensors.shape(sparse)
        floating = sparse.values.data_type in FLOATING
        sources[name] = Stored(name, shape, floating, partial(tensors.sparse, sparse))
    return sources


def in_order(
    nodes: Sequence[Any], known: Iterable[str], outputs: Sequence[str], where: str
) -> list[Any]:
    """The nodes upstream of the outputs, in topological order.

    Raises
    ------
    ModelError
        If two nodes make the same result, a result has no node, or results depend on themselves.
    """
    known = set(known)
    made: dict[str, int] = {}
    for at, node in enumerate(nodes):
        for name in node.output:
            if name and (name in made or name in known):
                raise ModelError(f"{where}: {_called(node)} makes {name!r}, which is made already")
            made[name] = at
    for output in outputs:
        if output not in made and output not in known:
            raise ModelError(f"{where}: nothing makes the result {output!r}")
    needed: dict[int, list[int]] = {}
    waiting = [made[output] for output in outputs if output in made]
    while waiting:
        at = waiting.pop()
        if at not in needed:
            needed[at] = _needed(nodes[at], made, known, where)
            waiting += needed[at]
    # Keep the file's order if it is topological, as it reflects how the model was written.
    if all(other < at for at, others in needed.items() for other in others):
        return [nodes[at] for at in sorted(needed)]
    try:
        return [nodes[at] for at in TopologicalSorter(needed).static_order()]
    except CycleError as error:
        raise ModelError(
            f"{where}: {_called(nodes[error.args[1][0]])} depends on its own result; a graph of "
            "ONNX has no cycles"
        ) from error


def _needed(node: Any, made: Mapping[str, int], known: set[str], where: str) -> list[int]:
    found = []
    for name in dict.fromkeys(_reads(node)):
        if name in made:
            found.append(made[name])
        elif name and name not in known and name in node.input:
            raise ModelError(f"{where}: {_called(node)} reads {name!r}, which nothing makes")
    return found


def _reads(node: Any) -> Iterator[str]:
    """Names that a node reads, including reads of its subgraphs from the outer scope."""
    yield from node.input
    for attribute in node.attribute:
        if attribute.HasField("g"):
            own = {name for inner in attribute.g.node for name in inner.output}
            for inner in attribute.g.node:
                yield from (name for name in _reads(inner) if name not in own)
            yield from (v.name for v in attribute.g.output if v.name not in own)


def _called(node: Any) -> str:
    name = node.name or next((output for output in node.output if output), "")
    return f"node {name!r} (operator {node.op_type})"


class Following:
    """Follows the forward pass of a model.

    Attributes
    ----------
    model : Model
        The file.
    program : Program
        The record.
    unknown : str
        Treatment of operators without a rule.
    values : dict from str to Value or Constant
        The main graph's tensors by name.
    """

    def __init__(self, model: Model, program: Program, unknown: str) -> None:
        self.model = model
        self.program = program
        self.unknown = unknown
        self._now: Any = None
        program.where = lambda: self.called(self._now) if self._now else ""
        self.values: dict[str, Operand] = {}
        self._n_nodes = 0
        self._made_by: dict[str, Any] = {}

    def run(
        self, shapes: Mapping[str, tuple[int, ...]], known: Mapping[str, Array] | None = None
    ) -> None:
        """Follow the main graph on inputs of given shapes, some with known values."""
        graph, values = self.model.graph, self.values
        n_data = len(graph.inputs)
        for value in graph.inputs:
            if known is not None and value.name in known:
                values[value.name] = Constant(known[value.name], ())
                continue
            shape = self._input_shape(value.name, shapes[value.name])
            data = value.element in _DATA or self._reads_numbers(value.name)
            if data and "past" not in value.name and 0 not in shape:
                name = "input" if n_data == 1 else value.name
                values[value.name] = self.program.input(name, shape)
            else:
                values[value.name] = Value(shape)
        self._follow(graph.nodes, values, graph.sources, 0)
        for number, name in enumerate(graph.outputs):
            found = self._value(name, values, graph.sources)
            if isinstance(found, Value) and 0 not in found.shape:
                self.program.output(found, "output" if number == 0 else f"output {number}")

    def called(self, proto: Any) -> str:
        """Name of a node for messages."""
        return f"{self.model.path}: {_called(proto)}"

    def _input_shape(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        try:
            checked(shape)
            if int(np.prod(shape[1:], dtype=object)) > 2 * MAX_AXIS:
                raise ModelError("it is too large")
        except ModelError as error:
            raise ModelError(
                f"{self.model.path}: input {name!r} has the shape {shape}: {error}"
            ) from error
        return shape

    def _reads_numbers(self, name: str) -> bool:
        """Check whether weights read an integer input directly, like features."""
        sources = self.model.graph.sources
        names = {name}
        for node in self.model.graph.nodes:
            if node.op_type in ("Cast", "Identity", "Flatten") and node.input[0] in names:
                names.update(node.output)
            weighted = node.op_type in ("MatMul", "Gemm", "Conv") and len(node.input) > 1
            if weighted and node.input[0] in names and node.input[1] in sources:
                return True
        return False

    # --- nodes ------------------------------------------------------------------------------

    def _follow(
        self, nodes: Sequence[Any], values: dict[str, Operand], sources: Mapping[str, Stored],
        depth: int, given: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """Follow nodes in order; `given` are attributes of the enclosing function."""
        if depth > MAX_DEPTH:
            raise ModelError(f"{self.model.path}: functions or branches nest too deeply")
        for node in nodes:
            self._n_nodes += 1
            if self._n_nodes > MAX_NODES:
                raise ModelError(f"{self.model.path}: more than {MAX_NODES} nodes to follow")
            self._now = node
            try:
                results = self._results(node, values, sources, depth, given)
            except Exception as error:
                raise explained(f"{self.model.path}: {_called(node)}", error) from error
            values.update(
                (name, value) for name, value in zip(node.output, results, strict=False) if name
            )

    def _results(
        self, proto: Any, values: dict[str, Operand], sources: Mapping[str, Stored], depth: int,
        given: Mapping[str, Any] | None,
    ) -> Sequence[Operand]:  # fmt: skip
        inputs = [self._value(name, values, sources) if name else None for name in proto.input]
        attributes = self._attributes(proto, given)
        if proto.op_type == "Constant" and proto.domain in DOMAINS:
            return [self._constant(proto, attributes)]
        function = self.model.functions.get((proto.domain, proto.op_type))
        if function is not None:
            return self._called_function(function, inputs, attributes, depth)
        node = Node(
            self.program, proto.op_type,
            proto.name or next((name for name in proto.output if name), proto.op_type),
            bool(proto.name), inputs, attributes, len(proto.output), self.model.opset,
            lambda position: self._origin(proto.input[position], 3),
        )  # fmt: skip
        if proto.op_type == "If" and isinstance(inputs[0], Constant):
            return self._branch(proto, inputs[0], values, sources, depth, given)
        for name in proto.output:
            self._made_by[name] = proto
        all_known = not any(isinstance(value, Value) for value in inputs)
        if all_known and inputs and not _is_table(node):
            constants = folded(node) if proto.domain in DOMAINS else None
            if constants is not None:
                return constants
            inputs = [value if value is None or _keeps(node, at) else Value(checked(value.shape))
                      for at, value in enumerate(inputs)]  # fmt: skip
            node = node.with_inputs(inputs)
        return self._followed(proto, node)

    def _followed(self, proto: Any, node: Node) -> Sequence[Operand]:
        own = rule_of(f"{proto.domain}.{proto.op_type}".lstrip("."), proto.op_type)
        if own is not None:
            args = [v if v is None or isinstance(v, Value) else v.values for v in node.inputs]
            made = own(DeclaredCall(self.program, proto.op_type, args, node.attributes, node))
            return made if isinstance(made, list) else [made]
        rule = RULES.get(proto.op_type) if proto.domain in DOMAINS else None
        if rule is None:
            return self._guessed(proto, node)
        made = rule(node)
        results = made if isinstance(made, list) else [made]
        for constant in node.constants():
            self.program.ignore(constant.parameters, f"a constant of {proto.op_type}")
        return results

    def _guessed(self, proto: Any, node: Node) -> Sequence[Operand]:
        """An unknown operator, treated as elementwise."""
        domain = f"{proto.domain}." if proto.domain else ""
        if self.unknown != "elementwise":
            raise UnknownOperatorError(
                f"{self.model.path}: {_called(proto)}: the operator {domain}{proto.op_type} is "
                "not known. Declare what it does with ncut.register_operation("
                f"{domain + proto.op_type!r}, rule), or pass unknown='elementwise' to take it as a "
                "function of each entry alone"
            )
        signals = node.signals()
        shapes = [v.shape for v in node.inputs if v is not None and len(v.shape)]
        try:
            shape = checked(np.broadcast_shapes(*shapes))
        except ValueError as error:
            raise ModelError(
                f"its inputs have shapes {shapes}, so that it is not a function of each entry"
            ) from error
        made = self.program.combine(*signals, Value(shape)) if signals else Value(shape)
        for constant in node.constants():
            for parameter in constant.parameters:
                reason = f"a constant of the unknown operator {proto.op_type}"
                self.program.leave_out(parameter, constant.shape, reason)
        self.program.leave_out(
            f"{domain}{proto.op_type}", (),
            f"unknown operator in node {node.name!r}, taken as element-wise",
        )  # fmt: skip
        return [made] * max(len(proto.output), 1)

    # --- origins, functions and branches ----------------------------------------------------

    @staticmethod
    def _value(name: str, values: Mapping[str, Operand], sources: Mapping[str, Stored]) -> Operand:
        if name in values:
            return values[name]
        if name in sources:
            return sources[name].constant()
        raise ModelError(f"it reads {name!r}, which nothing makes")

    def _attributes(self, proto: Any, given: Mapping[str, Any] | None) -> dict[str, Any]:
        attributes: dict[str, Any] = {}
        for attribute in proto.attribute:
            if attribute.ref_attr_name:
                if given is not None and attribute.ref_attr_name in given:
                    attributes[attribute.name] = given[attribute.ref_attr_name]
                continue
            attributes[attribute.name] = self._attribute(attribute)
        return attributes

    def _attribute(self, attribute: Any) -> Any:
        kind = attribute.type
        simple = {1: "f", 2: "i"}
        lists = {6: "floats", 7: "ints"}
        if kind in simple:
            return getattr(attribute, simple[kind])
        if kind in lists:
            return list(getattr(attribute, lists[kind]))
        if kind == 3:
            return attribute.s.decode("utf-8", "replace")
        if kind == 8:
            return [s.decode("utf-8", "replace") for s in attribute.strings]
        if kind == 4:
            return self.model.tensors.array(attribute.t)
        if kind == 11:
            return self.model.tensors.sparse(attribute.sparse_tensor)
        return None

    def _constant(self, proto: Any, attributes: Mapping[str, Any]) -> Constant:
        value = next((value for value in attributes.values() if value is not None), None)
        if value is None:
            raise ModelError("it has no value")
        values: Array = np.asarray(value)
        if values.dtype == np.float64 and "value" not in attributes:
            values = values.astype(np.float32)
        name = next((name for name in proto.output if name), proto.name)
        self.model.used[name] = values.shape
        return Constant(values, (name,))

    def _origin(self, name: str, depth: int) -> Origin | None:
        """The operators of the nodes that made a value."""
        proto = self._made_by.get(name)
        if proto is None or not depth:
            return None
        return proto.op_type, [self._origin(source, depth - 1) for source in proto.input]

    def _called_function(
        self,
        function: Any,
        inputs: Sequence[Operand | None],
        attributes: dict[str, Any],
        depth: int,
    ) -> list[Operand]:
        """A function defined in the file, followed on given inputs."""
        given = {a.name: self._attribute(a) for a in function.attribute_proto} | attributes
        values = {
            name: value
            for name, value in zip(function.input, inputs, strict=False)
            if value is not None
        }
        known = set(function.input)
        where = f"{self.model.path}: function {function.name!r}"
        nodes = in_order(function.node, known, list(function.output), where)
        self._follow(nodes, values, {}, depth + 1, given)
        return [self._value(name, values, {}) for name in function.output]

    def _branch(
        self, proto: Any, condition: Constant, values: dict[str, Operand],
        sources: Mapping[str, Stored], depth: int, given: Mapping[str, Any] | None,
    ) -> list[Operand]:  # fmt: skip
        """The selected branch of an If with a known condition."""
        wanted = "then_branch" if bool(np.ravel(condition.values)[0]) else "else_branch"
        graph = next((a.g for a in proto.attribute if a.name == wanted), None)
        if graph is None:
            raise ModelError(f"it has no {wanted}")
        own = sources_of(graph, self.model.tensors)
        around = {**sources, **own}
        outputs = [value.name for value in graph.output]
        known = set(values) | set(around)
        where = f"{self.model.path}: {_called(proto)}"
        inner = dict(values)
        self._follow(in_order(graph.node, known, outputs, where), inner, around, depth + 1, given)
        return [self._value(name, inner, around) for name in outputs]


def explained(place: str, error: Exception) -> ModelError | InputError:
    """An error with its place; unchanged if it names one."""
    if isinstance(error, MemoryError):
        error = ModelError("needs more memory than there is")
    elif not isinstance(error, ModelError | InputError):
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        error = ModelError(f"its inputs or attributes do not fit: {reason}")
    return located(error, place)


def _is_table(node: Node) -> bool:
    """Check whether a node selects rows of a weight table by position indices.

    The indices come from the shape of the data, or were precomputed by a torch exporter.
    """
    if node.operator != "Gather" or len(node.inputs) < 2:
        return False
    table, indices = node.inputs[:2]
    return (
        isinstance(table, Constant)
        and isinstance(indices, Constant)
        and (indices.of_shapes or table.parameters[:1] == (f"{node.layer(0)}.weight",))
        and bool(table.parameters)
        and indices.values.dtype.kind in "iu"
        and table.ndim == 2
        and not table.of_shapes
        and as_floats(table.values[:0]).dtype.kind in "fV"
        and indices.ndim > 0
    )


def _keeps(node: Node, position: int) -> bool:
    """Check whether an input (a shape, indices) stays constant in a node that cannot be folded."""
    return position > 0 and node.operator not in ("Add", "Mul", "Sub", "Div", "Concat", "MatMul")
