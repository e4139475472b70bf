"""Parses a model's configuration into its layers and their calls.

Both encodings of calls are read: nested lists `[layer, node, tensor, kwargs]` (Keras 2), and
tensors with a history among `args` and `kwargs` (Keras 3).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any, TypeVar

from ncut.errors import ModelError

T = TypeVar("T")

MAX_DEPTH = 32
"""Largest nesting depth of models."""

MAX_CALLS = 20_000
"""Largest number of layer calls in a model; a nested model's count at each call."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A result of a layer call."""

    layer: str
    node: int
    index: int


@dataclass(frozen=True, slots=True)
class Node:
    """The arguments of one call: values, lists of values, and `Tensor`s."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


@dataclass(slots=True)
class Layer:
    """A layer of a model."""

    # Its name, its class, and the Python module of the class, if known.
    name: str
    cls: str
    module: str
    config: Mapping[str, Any]
    # The file's information on the shape of its input
    build: Mapping[str, Any] = field(default_factory=dict)
    number: int = 0  # number of preceding layers of its class in the model
    nodes: list[Node] = field(default_factory=list)  # its calls
    model: Model | None = None  # the nested model, if the layer is one

    @property
    def is_operation(self) -> bool:
        """Check whether it is a function, which has no variables, not a layer."""
        if self.module or self.cls == "InputLayer":
            return ".ops" in self.module
        # HDF5 files omit the module; functions lack a setting that all layers have.
        return not {"trainable", "dtype", "layers"} & self.config.keys()


@dataclass(slots=True)
class Model:
    """A sequential or functional model."""

    layers: dict[str, Layer]  # the layers by name, in order
    # Its inputs and outputs; both empty for a sequential model
    inputs: list[Tensor]
    outputs: list[Tensor]
    sequential: bool  # whether each layer reads the previous layer
    input_shape: Any = None  # the shape of its input, if stored outside an input layer


def parsed(config: Any) -> Model:
    """Parse a model's configuration from a file.

    Raises
    ------
    ModelError
        If it does not describe a sequential or functional model.
    """
    layer = parsed_layer(config)
    if layer.model is None:
        raise ModelError(
            f"{layer.cls!r} is a model (or layer) whose forward pass is code that the file does "
            "not hold. Save a functional or sequential model, or choose weights from the file: "
            "layers=[...]"
        )
    return layer.model


def parsed_layer(content: Any, depth: int = 0) -> Layer:
    """Parse one layer of a configuration."""
    if depth > MAX_DEPTH:
        raise ModelError(f"its models are nested too deep: more than {MAX_DEPTH} levels")
    if not isinstance(content, Mapping) or not isinstance(content.get("class_name"), str):
        raise ModelError(f"its configuration has no 'class_name': {str(content)[:80]!r}")
    cls = content["class_name"]
    config = content.get("config")
    if isinstance(config, list) and cls == "Sequential":
        config = {"layers": config}  # format of early versions
    if not isinstance(config, Mapping):
        raise ModelError(f"the configuration of {cls!r} is not known: {str(config)[:80]!r}")
    name = content.get("name", config.get("name"))
    build = content.get("build_config")
    layer = Layer(
        name=str(name if name is not None else cls),
        cls=cls.rpartition(">")[2],
        module=str(content.get("module") or ""),
        config=config,
        build=build if isinstance(build, Mapping) else {},
    )
    if isinstance(config.get("layers"), list) and not layer.is_operation:
        layer.model = _model(layer, depth + 1)
    return layer


def _model(layer: Layer, depth: int) -> Model:
    config = layer.config
    layers: dict[str, Layer] = {}
    counts: dict[str, int] = {}
    contents = []
    for content in config["layers"]:
        inner = parsed_layer(content, depth)
        contents.append(content)
        if not inner.is_operation:
            inner.number = counts.get(inner.cls, 0)
            counts[inner.cls] = inner.number + 1
        if inner.name in layers:
            if "input_layers" in config:
                raise ModelError(f"two layers of {layer.name!r} have the name {inner.name!r}")
            inner.name = f"{inner.name}_{len(layers)}"
        layers[inner.name] = inner
    if "input_layers" not in config:
        shape = config.get("build_input_shape", layer.build.get("input_shape"))
        return Model(layers, [], [], True, shape)
    for inner, content in zip(layers.values(), contents, strict=True):
        nodes = content.get("inbound_nodes", [])
        if not isinstance(nodes, list):
            raise ModelError(f"the calls of layer {inner.name!r} are not a list")
        inner.nodes = [_node(node, layers) for node in nodes]
    model = Model(
        layers,
        [*_tensors(_listed(config["input_layers"]), layers)],
        [*_tensors(_listed(config.get("output_layers")), layers)],
        False,
    )
    _renumber(model)
    return model


def _node(node: Any, layers: Mapping[str, Layer]) -> Node:
    if isinstance(node, Mapping):
        args, kwargs = node.get("args", []), node.get("kwargs") or {}
        if not isinstance(args, list) or not isinstance(kwargs, Mapping):
            raise ModelError("the arguments of a call are not understood")
        kwargs = {str(name): _value(value, layers, False) for name, value in kwargs.items()}
        return Node(tuple(_value(value, layers, False) for value in args), kwargs)
    found: dict[str, Any] = {}
    tensors = _from_lists(node, layers, found)
    args = (tensors,) if isinstance(tensors, list) and len(tensors) != 1 else _listed(tensors)
    return Node(tuple(args), found)


def _from_lists(value: Any, layers: Mapping[str, Layer], kwargs: dict[str, Any]) -> Any:
    """Tensors of a Keras 2 node; each of them holds the keyword arguments."""
    if _is_reference(value):
        more = value[3] if len(value) > 3 and isinstance(value[3], Mapping) else {}
        for name, content in more.items():
            kwargs.setdefault(str(name), _value(content, layers, True))
        if value[0] == "_CONSTANT_VALUE":
            return value[2]
        return Tensor(value[0], value[1], value[2])
    if isinstance(value, list):
        return [_from_lists(item, layers, kwargs) for item in value]
    if isinstance(value, Mapping):
        return [_from_lists(item, layers, kwargs) for item in value.values()]
    return value


def _value(value: Any, layers: Mapping[str, Layer], lists: bool) -> Any:
    """Parse an argument, including tensors nested in it."""
    if isinstance(value, Mapping):
        content = value.get("config")
        if value.get("class_name") == "__keras_tensor__" and isinstance(content, Mapping):
            history = content.get("keras_history")
            if not _is_reference(history):
                raise ModelError("a tensor in its configuration has no history")
            return Tensor(*history[:3])  # type: ignore[index]
        if value.get("class_name") in ("__numpy__", "__tensor__") and isinstance(content, Mapping):
            return content.get("value")
        return {str(key): _value(item, layers, lists) for key, item in value.items()}
    if isinstance(value, list):
        if lists and _is_reference(value) and value[0] in layers:
            return Tensor(*value[:3])
        return [_value(item, layers, lists) for item in value]
    return value


def _is_reference(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) >= 3
        and isinstance(value[0], str)
        and isinstance(value[1], int)
        and (isinstance(value[2], int) or value[0] == "_CONSTANT_VALUE")
    )


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    if isinstance(value, Mapping):
        return [*value.values()]
    return value if isinstance(value, list) and not _is_reference(value) else [value]


def _tensors(values: Sequence[Any], layers: Mapping[str, Layer]) -> Iterator[Tensor]:
    for value in values:
        if _is_reference(value):
            yield Tensor(*value[:3])
        elif isinstance(value, list | Mapping):
            yield from _tensors(_listed(value), layers)
        else:
            raise ModelError(f"an input or output of the model is not understood: {value!r}")


def among(value: Any, kind: type[T]) -> Iterator[T]:
    """The values of a type among arguments, in order."""
    if isinstance(value, kind):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from among(item, kind)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from among(item, kind)


def _renumber(model: Model) -> None:
    """Number the calls of nested models from 0.

    Keras 2 counts the call that created a model as the first.
    """
    nodes = [node for layer in model.layers.values() for node in layer.nodes]
    used = [tensor for node in nodes for tensor in among([node.args, node.kwargs], Tensor)]
    lowest: dict[str, int] = {}
    for tensor in [*used, *model.outputs]:
        lowest[tensor.layer] = min(lowest.get(tensor.layer, tensor.node), tensor.node)
    later = {n for n, layer in model.layers.items() if layer.model and lowest.get(n, 0) > 0}

    def change(value: Any) -> Any:
        if isinstance(value, Tensor):
            before = value.layer in later
            return Tensor(value.layer, value.node - 1, value.index) if before else value
        if isinstance(value, Mapping):
            return {name: change(item) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [change(item) for item in value]
        return value

    if not later:
        return
    for layer in model.layers.values():
        layer.nodes = [Node(tuple(change(n.args)), change(n.kwargs)) for n in layer.nodes]
    model.outputs = change(model.outputs)


def in_order(model: Model) -> list[tuple[Layer, int]]:
    """The calls of a functional model, in topological order.

    Raises
    ------
    ModelError
        If a call reads a missing tensor, or the calls form a cycle.
    """
    calls = [(layer, at) for layer in model.layers.values() for at in range(len(layer.nodes))]
    position = {(layer.name, at): number for number, (layer, at) in enumerate(calls)}
    sources = {layer.name for layer in model.layers.values() if not layer.nodes}
    needed: dict[int, list[int]] = {}
    for number, (layer, at) in enumerate(calls):
        node = layer.nodes[at]
        read = {(t.layer, t.node) for t in among([node.args, node.kwargs], Tensor)}
        for key in read:
            if key not in position and key[0] not in sources:
                raise ModelError(f"layer {layer.name!r} reads {key[0]!r}, which gives nothing")
        needed[number] = [position[key] for key in read if key in position]
    sorter = TopologicalSorter(needed)
    try:
        sorter.prepare()
    except CycleError as error:
        stuck = calls[error.args[1][0]][0].name
        raise ModelError(f"its layers read each other in a circle, at {stuck!r}") from error
    ready, order = sorted(sorter.get_ready()), []
    while ready:
        number = heapq.heappop(ready)
        order.append(calls[number])
        sorter.done(number)
        for later in sorter.get_ready():
            heapq.heappush(ready, later)
    return order
