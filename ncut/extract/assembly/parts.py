"""Parts of a model: selects the weights of one part, by name or by role."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import product

from ncut.errors import InputError
from ncut.extract.assembly.layout import Layout
from ncut.extract.lowering.wiring import Operation, Wiring
from ncut.extract.program.record import WRITES, Program
from ncut.extract.program.values import Node

MAX_LISTED = 12
"""Largest number of parts listed in a message."""

_CALL = re.compile(r" \(call \d+\)$")
_MOVES = ("reshape", "permute", "expand", "index", "concatenate")


def part_of(layout: Layout, wiring: Wiring, part: str) -> Layout:
    """The layers and edges of one part of a model.

    Parameters
    ----------
    layout : Layout
        The layout of the whole model.
    wiring : Wiring
        The record of its forward pass.
    part : str
        `"mlp"`, `"attention"`, or the dotted name of a module or parameter, or consecutive
        components of it (`"layer.3"` of `"encoder.layer.3.output"`), each of which may be a
        pattern such as `*` or `[0-3]`. `"mlp"` or `"attention"` may follow the name of a module.

    Raises
    ------
    InputError
        If the model has no such part, or the graph has no edges of it.
    """
    if not isinstance(part, str):
        raise InputError(f"part: must be a name, got {part!r}")
    weighted = [operation for operation in wiring.operations if operation.weight is not None]
    named = {operation: _names(operation) for operation in weighted}
    program = wiring.program
    assert program is not None
    steps = _steps(part)
    wanted = {o for o, names in named.items() if steps and any(_has(n, steps) for n in names)}
    if steps and steps[-1] in ROLES and (len(steps) == 1 or not wanted):
        inside = {o for o in weighted if any(_has(name, steps[:-1]) for name in named[o])}
        wanted = inside & _of_role(program, steps[-1], weighted) or wanted
    if not wanted:
        raise InputError(f"part: {_missing(part, program, weighted)}")
    edges = [each for each in layout.edges if each.operation in wanted]
    if not edges:
        name = next(operation.name for operation in weighted if operation in wanted)
        raise InputError(
            f"part: {part!r} is {name!r} and has no edges in the graph; scope='all' keeps what "
            "scope='paper' leaves out of a convolutional network"
        )
    used = sorted({end for each in edges for end in (each.source, each.target)})
    at = {layer: number for number, layer in enumerate(used)}
    return replace(
        layout,
        layers=[layout.layers[layer] for layer in used],
        edges=[replace(e, source=at[e.source], target=at[e.target]) for e in edges],
        outside={operation for operation in weighted if operation not in wanted},
    )


def _steps(name: str) -> list[str]:
    """The components of a name in torch, ONNX or Keras."""
    return [step for step in re.split(r"[./]", name) if step]


def _names(operation: Operation) -> list[list[str]]:
    """An operation's names: its layer's, its module's and its parameters'."""
    name = _CALL.sub("", operation.name)
    return [_steps(n) for n in dict.fromkeys((name, operation.module, *operation.parameters))]


def _has(name: Sequence[str], steps: Sequence[str]) -> bool:
    """Check whether a name has consecutive components `steps`."""
    return any(
        all(map(fnmatchcase, name[start : start + len(steps)], steps))
        for start in range(len(name) - len(steps) + 1)
    )


def _missing(part: str, program: Program, weighted: Sequence[Operation]) -> str:
    """A message that lists the existing parts."""
    modules: dict[str, int] = {}
    for operation in weighted:
        steps = _steps(operation.module)
        for end in range(1, len(steps) + 1):
            name = ".".join(steps[:end])
            modules[name] = modules.get(name, 0) + 1
    roles = [role for role in ROLES if _of_role(program, role, weighted)]
    near = difflib.get_close_matches(part, [*roles, *modules], 1)
    several = sorted((name for name, n in modules.items() if n > 1), key=lambda n: n.count("."))
    listed = [*roles, *several][:MAX_LISTED]
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"no weights of {part!r}{hint} There are {', '.join(map(repr, listed or modules))}"


# --- roles of weights ---------------------------------------------------------------------------


@dataclass(slots=True)
class _Flow:
    """Writer and readers of each value of a program."""

    program: Program
    maker: dict[int, Node] = field(default_factory=dict)
    readers: dict[int, list[Node]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for node in self.program.nodes:
            if node.output is not None:
                self.maker[id(node.output)] = node
            for value in node.inputs:
                self.readers.setdefault(id(value), []).append(node)

    def is_residual(self, node: Node) -> bool:
        """Check whether a sum adds a branch to the branch's own input."""
        sums = node.kind == "add" or (node.kind == "pointwise" and len(node.inputs) > 1)
        return sums and any(self._branches(value) for value in node.inputs)

    def _branches(self, value: object) -> bool:
        while len(self.readers.get(id(value), ())) < 2:
            maker = self.maker.get(id(value))
            if maker is None or maker.kind not in _MOVES or len(maker.inputs) != 1:
                return False
            value = maker.inputs[0]
        return True

    def ahead(self, start: Node, ends: Callable[[Node], bool]) -> Iterator[Node]:
        """Nodes downstream of a node, up to and including nodes that satisfy `ends`."""
        return self._walk(start, ends, lambda n: self.readers.get(id(n.output), []))

    def behind(self, start: Node, ends: Callable[[Node], bool]) -> Iterator[Node]:
        """Nodes upstream of a node, up to and including nodes that satisfy `ends`."""
        return self._walk(
            start, ends, lambda n: [self.maker[id(v)] for v in n.inputs if id(v) in self.maker]
        )

    @staticmethod
    def _walk(
        start: Node, ends: Callable[[Node], bool], onward: Callable[[Node], list[Node]]
    ) -> Iterator[Node]:
        seen: set[int] = set()
        todo = [*onward(start)]
        while todo:
            node = todo.pop()
            if id(node) not in seen:
                seen.add(id(node))
                yield node
                if not ends(node):
                    todo += onward(node)


def _attention(program: Program) -> list[Node]:
    """Layers that write queries, keys and values, and layers that read attention's result.

    Attention is a product of two values, multiplied with a third.
    """
    flow = _Flow(program)
    products = [node for node in program.nodes if node.kind == "matmul"]

    def ends(node: Node) -> bool:
        return node.kind in WRITES or flow.is_residual(node)

    scores = [n for n in products if any(m.kind == "matmul" for m in flow.ahead(n, ends))]
    mixes = {id(m) for n in scores for m in flow.ahead(n, ends) if m.kind == "matmul"}
    found: dict[int, Node] = {}
    for node in products:
        if node in scores or id(node) in mixes:
            for near in (*flow.ahead(node, ends), *flow.behind(node, ends)):
                if near.kind in WRITES and near.kind not in ("input", "embed"):
                    found[id(near)] = near
    return [*found.values()]


def _mlp(program: Program) -> list[Node]:
    """Layers connected through private hidden neurons.

    In a model with attention only layers that lead to a residual sum count, not classifier heads.
    """
    flow = _Flow(program)
    attention = _attention(program)
    others = {id(node) for node in attention}
    layers = [node for node in program.nodes if _is_dense(node) and id(node) not in others]

    def ends(node: Node) -> bool:
        return node.kind in (*WRITES, "matmul", "softmax") or flow.is_residual(node)

    members = {id(layer): {id(layer)} for layer in layers}
    closed: set[int] = set()
    for layer in layers:
        near = [*flow.ahead(layer, ends)]
        active = any(node.kind in ("pointwise", "multiply") for node in near)
        for node in near:
            if active and id(node) in members and node is not layer:
                joined = members[id(layer)] | members[id(node)]
                members.update(product(joined, [joined]))
            elif flow.is_residual(node):
                closed.add(id(layer))
    return [
        layer
        for layer in layers
        if len(members[id(layer)]) > 1 and (not attention or members[id(layer)] & closed)
    ]


def _is_dense(node: Node) -> bool:
    if node.kind == "convolution":
        return set(node.attributes["weight"].shape[2:]) <= {1}
    return node.kind == "linear"


ROLES: Mapping[str, Callable[[Program], list[Node]]] = {"mlp": _mlp, "attention": _attention}
"""Parts identified by role."""


def _of_role(program: Program, role: str, weighted: Sequence[Operation]) -> set[Operation]:
    names, several = set(), set()
    for node in ROLES[role](program):
        names.add(node.attributes.get("name"))
        if node.kind == "linear" and node.attributes["weight"].ndim > 2:
            several |= {*node.attributes.get("parameters", ())}
    return {
        operation
        for operation in weighted
        if _CALL.sub("", operation.name) in names or several.intersection(operation.parameters)
    }
