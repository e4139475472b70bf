"""Runs ONNX files in onnxruntime with one neuron changed at a time.

See `ncut.extract.perturbation`. Each reader's input is cut: the incoming value becomes an output
of the modified file, and the reader reads a new input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from ncut.errors import ModelError, import_extra
from ncut.extract.perturbation import Mode, Read, Reader, Watch, compared
from ncut.extract.program.values import Value
from ncut.extract.readers.onnx_graph.model import Following, with_tensors
from ncut.graphs import NeuronGraph
from ncut.types import Check

LEAKY = frozenset(
    [
        *("Relu", "Gelu", "FastGelu", "QuickGelu", "Elu", "Celu", "Selu", "Mish", "HardSwish"),
        *("Swish", "Softplus", "Clip"),
    ]
)
BOUNDED = frozenset(["Sigmoid", "Tanh", "HardSigmoid", "Erf", "Softsign"])
SHARES = frozenset(["Softmax"])
SPREADS = frozenset(
    [
        *("Attention", "MultiHeadAttention", "GroupQueryAttention", "SkipLayerNormalization"),
        *("SkipSimplifiedLayerNormalization", "EmbedLayerNormalization", "LpNormalization"),
        "MeanVarianceNormalization",
    ]
)
"""Operators that couple all channels and have no replacement."""

READERS = ("linear", "convolution")


def checked(following: Following, graph: NeuronGraph, *, n: int = 40, seed: int = 0) -> Check:
    """Run a file's graph with one neuron changed at a time, and compare with the neuron graph.

    Parameters
    ----------
    following : Following
        The forward pass that was followed.
    graph : NeuronGraph
        Its graph, with residual="readers" and scope="all".
    n : int
        Number of vertices to change.
    seed : int
        Seed of the random numbers.

    Raises
    ------
    ModelError
        If onnxruntime cannot run the file.
    MissingExtraError
        If onnxruntime is not installed.
    """
    try:
        watch = OnnxWatch(following, graph, seed)
        return compared(watch, graph, n=n, seed=seed).summary
    except ModelError:
        raise
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise ModelError(
            f"check: {following.model.path}: onnxruntime cannot run it: {reason}"
        ) from error


class OnnxWatch(Watch):
    """Readers (nodes), their inputs, and replacement inputs."""

    exact = False

    def __init__(self, following: Following, graph: Any, seed: int) -> None:
        super().__init__(graph)
        self._runtime = import_extra("onnxruntime", "check")
        self._proto = with_tensors(following.model.path)
        self._helper, self._following = import_extra("onnx", "onnx").helper, following
        self._cuts: dict[tuple[str, int], tuple[int, int, str, int]] = {}
        self._sessions: dict[tuple[bool, bool], Any] = {}
        for position, layer in enumerate(graph.layers):
            for name in layer.read_by:
                self.add(position, name)
        self._find_cuts()
        for name in [name for name in self.n_calls if name not in self.calls]:
            del self.n_calls[name]
        self.by_call = {key: r for key, r in self.by_call.items() if key in self._cuts}
        self._inputs = _drawn(following, self._proto, seed)

    def run(self, instead: Read, mode: Mode = "plain") -> Read:
        """The inputs of all readers, some of them replaced."""
        which = (bool(instead), mode == "gates")
        if which not in self._sessions:
            options = self._runtime.SessionOptions()
            options.graph_optimization_level = self._runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.log_severity_level = 4
            self._sessions[which] = self._runtime.InferenceSession(
                self._changed(*which).SerializeToString(), options,
                providers=["CPUExecutionProvider"],
            )  # fmt: skip
        given = {f"ncut given {number}": instead[key] for number, key in enumerate(self._cuts)
                 if key in instead}  # fmt: skip
        names = [f"ncut read {number}" for number in range(len(self._cuts))]
        found = self._sessions[which].run(names, {**self._inputs, **given})
        return dict(zip(self._cuts, found, strict=True))

    def axis(self, reader: Reader, ndim: int) -> int:
        """The axis of the channels."""
        return self._cuts[reader.key][3] % ndim

    def _find_cuts(self) -> None:
        """Find the node inputs of the program's readers; nodes in functions are excluded."""
        values = self._following.values
        at_place = {self._following.called(p): at for at, p in enumerate(self._proto.graph.node)}
        for node in self._following.program.nodes:
            name = node.attributes.get("module", "")
            if node.kind not in READERS or name not in self.n_calls:
                continue
            if node.kind == "linear" and node.attributes["weight"].ndim > 2:
                continue  # batched matrices, whose neurons lie along several axes
            call = self.calls.get(name, 0)
            self.calls[name] = call + 1
            at = at_place.get(node.place)
            if at is None or (name, call) not in self.by_call:
                continue
            for position, given in enumerate(self._proto.graph.node[at].input):
                if given and values.get(given) is node.inputs[0]:
                    axis = int(node.attributes["axis"])
                    self._cuts[name, call] = (at, position, given, axis)
                    break

    def _changed(self, cut: bool, shares: bool) -> Any:
        """The file with the readers' inputs as outputs and, if `cut`, replaced by new inputs."""
        proto = type(self._proto)()
        proto.CopyFrom(self._proto)
        make = self._helper
        for number, (at, position, name, _) in enumerate(self._cuts.values()):
            read, given = f"ncut read {number}", f"ncut given {number}"
            if cut:
                proto.graph.node[at].input[position] = given
                proto.graph.input.append(make.make_tensor_value_info(given, 1, None))
            proto.graph.node.append(make.make_node("Identity", [name], [read]))
            proto.graph.output.append(make.make_tensor_value_info(read, 1, None))
        nodes = [made for node in proto.graph.node for made in self._inert(node, shares)]
        del proto.graph.node[:]
        proto.graph.node.extend(nodes)
        return proto

    def _inert(self, node: Any, shares: bool) -> list[Any]:
        """A node, or the replacement of a node that hides changes or spreads them."""
        kind = node.op_type
        if kind in SPREADS:
            raise ModelError(f"check: the operator {kind} has no stand-in; leave check out")
        steps = _Steps(self._helper, node)
        if kind in LEAKY:
            return steps.end("LeakyRelu", [node.input[0]], alpha=0.5)
        if kind in BOUNDED or (kind in SHARES and (shares or not self._is_last(node))):
            bounded = steps.add("Mul", [steps.add("Sin", [node.input[0]]), steps.number(0.3)])
            return steps.end("Add", [bounded, steps.number(1.0)])
        if kind in ("Sqrt", *SHARES):
            nothing = steps.add("Mul", [node.input[0], steps.number(0.0)])
            return steps.end("Add", [nothing, steps.number(1.0)])
        if kind in ("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"):
            return self._by_channel(steps, node, node.input[1:3])
        if kind in ("InstanceNormalization", "GroupNormalization"):
            value = self._following.values.get(node.input[0])
            channels = [1, -1, *[1] * (value.ndim - 2)] if isinstance(value, Value) else None
            return self._by_channel(steps, node, node.input[1:3], channels)
        return [node]

    def _by_channel(
        self, steps: _Steps, node: Any, factors: Any, shape: list[int] | None = None
    ) -> list[Any]:
        """The norm reduced to its scale and bias."""
        wide = [steps.add("Reshape", [f, steps.ints(shape)]) if shape else f for f in factors if f]
        if len(wide) < 2:
            return steps.end("Mul", [node.input[0], *wide])
        return steps.end("Add", [steps.add("Mul", [node.input[0], wide[0]]), wide[1]])

    def _is_last(self, node: Any) -> bool:
        axis = next((a.i for a in node.attribute if a.name == "axis"), -1)
        value = self._following.values.get(node.input[0])
        return axis == -1 or (isinstance(value, Value) and axis == value.ndim - 1)


class _Steps:
    """Nodes that replace one node."""

    def __init__(self, helper: Any, node: Any) -> None:
        self._helper, self._node, self._made = helper, node, list[Any]()

    def add(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        """Add a step; return the name of its result."""
        name = f"ncut {len(self._made)} {self._node.output[0]}"
        self._made.append(self._helper.make_node(kind, inputs, [name], **attributes))
        return name

    def end(self, kind: str, inputs: list[str], **attributes: Any) -> list[Any]:
        """All steps; the last one makes the replaced node's result."""
        outputs = [self._node.output[0]]
        return [*self._made, self._helper.make_node(kind, inputs, outputs, **attributes)]

    def number(self, value: float) -> str:
        """A constant number."""
        return self.add("Constant", [], value=self._helper.make_tensor("", 1, [], [value]))

    def ints(self, values: list[int]) -> str:
        """A constant list of integers."""
        tensor = self._helper.make_tensor("", 7, [len(values)], values)
        return self.add("Constant", [], value=tensor)


def _drawn(following: Following, proto: Any, seed: int) -> Mapping[str, Any]:
    """Random values for the file's inputs."""
    rng = np.random.default_rng(seed)
    made: dict[str, Any] = {}
    kinds: dict[int, Callable[[tuple[int, ...]], Any]] = {
        1: lambda shape: rng.standard_normal(shape).astype(np.float32),
        9: lambda shape: np.ones(shape, dtype=np.bool_),
        **{
            kind: partial(np.zeros, dtype=dtype)
            for kind, dtype in ((2, "u1"), (3, "i1"), (5, "i2"), (6, "i4"), (7, "i8"))
        },
    }
    known = {value.name for value in proto.graph.initializer}
    for value in proto.graph.input:
        if value.name in known:
            continue
        found = following.values[value.name]
        kind = value.type.tensor_type.elem_type
        if kind not in kinds:
            raise ModelError(f"check: input {value.name!r} is of a type that is not drawn")
        made[value.name] = found.values if hasattr(found, "values") else kinds[kind](found.shape)
    return made
