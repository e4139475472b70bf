"""Follows the forward pass described by a configuration, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ncut.errors import InputError, ModelError
from ncut.extract.program.record import Program
from ncut.extract.program.values import Value, located
from ncut.extract.readers.keras.activations import ACTIVATIONS
from ncut.extract.readers.keras.attention import ATTENTION
from ncut.extract.readers.keras.calls import Call, Rule, checked
from ncut.extract.readers.keras.config import MAX_CALLS, Layer, Model, Tensor, among, in_order
from ncut.extract.readers.keras.dense import DENSE
from ncut.extract.readers.keras.merges import MERGES, operation
from ncut.extract.readers.keras.recurrent import RECURRENT
from ncut.extract.readers.keras.shapes import SHAPES
from ncut.extract.readers.keras.weights import Layout, Place
from ncut.extract.registry import DeclaredCall, rule_of

RULES: dict[str, Rule] = {
    **DENSE, **ACTIVATIONS, **SHAPES, **MERGES, **RECURRENT, **ATTENTION,
}  # fmt: skip

OPEN_SIZES = (64, 256, 1024)
"""Sizes to try for open axes of the input."""


class Following:
    """One pass through a model.

    Attributes
    ----------
    shapes : dict from str to tuple of int
        Shapes of the variables read so far.
    touched : set of str
        Their paths in the file.
    """

    def __init__(
        self, program: Program, layout: Layout, *, guess: bool, open_size: int, n_calls: int = 0
    ) -> None:
        self.program = program
        self.layout = layout
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.touched: set[str] = set()
        self._guess = guess
        self._open_size = open_size
        self._n_calls = n_calls
        self._now = ""
        program.where = lambda: self._now

    def whole(self, model: Model) -> list[Value]:
        """Follow the file's model from its inputs."""
        return self._model(model, None, (), "")

    def _model(
        self, model: Model, given: Sequence[Value] | None, place: Place, path: str
    ) -> list[Value]:
        if model.sequential:
            return self._sequential(model, given, place, path)
        values: dict[tuple[str, int], list[Value]] = {}
        names = [tensor.layer for tensor in model.inputs]
        if given is not None and len(given) != len(names):
            raise ModelError(f"model {path!r} has {len(names)} inputs, and is given {len(given)}")
        for layer in model.layers.values():
            if layer.nodes:
                continue
            if given is not None and layer.name in names:
                values[layer.name, 0] = [given[names.index(layer.name)]]
            elif layer.cls == "InputLayer":
                values[layer.name, 0] = [self._input(layer.name, _shape_of(layer))]
            else:
                continue  # a layer without calls
        for layer, at in in_order(model):
            node = layer.nodes[at]
            args = _resolved(node.args, values, layer)
            kwargs = {name: _resolved(value, values, layer) for name, value in node.kwargs.items()}
            values[layer.name, at] = self._call(layer, args, kwargs, place, path)
        return [_result(tensor, values, "the model") for tensor in model.outputs]

    def _sequential(
        self, model: Model, given: Sequence[Value] | None, place: Place, path: str
    ) -> list[Value]:
        signals = None if given is None else list(given)
        for layer in model.layers.values():
            if signals is None:
                shape = _shape_of(layer) or model.input_shape
                if shape is None and layer.model is not None:
                    shape = _first_shape(layer.model)
                name = layer.name if layer.cls == "InputLayer" else "input"
                signals = [self._input(name, shape)]
            if layer.cls != "InputLayer":
                signals = self._call(layer, signals, {}, place, path)
        if signals is None:
            raise ModelError("the model has no layers")
        return signals

    def _call(
        self,
        layer: Layer,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        place: Place,
        path: str,
    ) -> list[Value]:
        if not layer.is_operation:
            place = self.layout.within(place, layer.cls, layer.number, layer.name)
        path = f"{path}/{layer.name}" if path else layer.name
        return self._follow(layer, args, kwargs, place, path, "")

    def _follow(
        self,
        layer: Layer,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        place: Place,
        path: str,
        part: str,
    ) -> list[Value]:
        before, self._now = self._now, f"layer {path!r} ({layer.cls})"
        self._n_calls += 1
        if self._n_calls > MAX_CALLS:
            raise ModelError(f"the model calls its layers more than {MAX_CALLS} times")
        try:
            if layer.model is not None:
                inner_place = (*place, *part.split("/")) if part else place
                return self._model(layer.model, [*among([args, kwargs], Value)], inner_place, path)
            call = Call(
                layer, args, kwargs, self.program, self.layout, place, path, self.shapes,
                self.touched, self._inner, self._guess, part,
            )  # fmt: skip
            result = self._rule(call)(call)
            results = result if isinstance(result, list) else [result]
            for signal in results:
                checked(signal.shape)
            return results
        except (ModelError, InputError) as error:
            raise located(error, self._now) from error
        finally:
            self._now = before

    def _inner(
        self, call: Call, layer: Layer, part: str, path: str, signals: Sequence[Value]
    ) -> list[Value]:
        """Follow a layer wrapped by another layer."""
        whole = "/".join(filter(None, (call.part, part)))
        return self._follow(layer, signals, {}, call.place, path, whole)

    def _rule(self, call: Call) -> Rule:
        cls = call.layer.cls
        own = rule_of(cls, cls.rpartition(">")[2])
        if own is not None:
            declared = DeclaredCall(call.program, cls, call.signals, call.config, call)
            return lambda _: own(declared)
        rule = operation(call)
        if rule is None and not call.layer.is_operation:
            rule = RULES.get(cls)
        if rule is not None:
            return rule
        if self._guess:
            return _elementwise
        what = "runs code that the file holds, which is never executed" if cls == "Lambda" else (
            "is not known"
        )  # fmt: skip
        raise ModelError(
            f"class {cls!r} {what}. Declare what it does with ncut.register_operation({cls!r}, "
            "rule), or pass unknown='elementwise' to take it as a function of each entry alone"
        )

    def _input(self, name: str, shape: Any) -> Value:
        if not isinstance(shape, list | tuple) or not shape or isinstance(shape[0], list):
            raise ModelError(
                f"what input {name!r} looks like is not in the file: build the model with an "
                "Input(shape=...) and save it again"
            )
        sizes = [1]
        for size in shape[1:]:
            size = self._open_size if size is None else size
            if isinstance(size, bool) or not isinstance(size, int):
                raise ModelError(f"input {name!r} has shape {shape!r}")
            sizes.append(size)
        return self.program.input(name, checked(sizes))


def _elementwise(call: Call) -> Value:
    """The rule of layers treated as elementwise."""
    signals = call.signals
    if not signals:
        raise ModelError("it is called with no tensor")
    what = call.layer.cls
    call.program.leave_out(call.path, (), f"unknown layer of class {what!r}, taken as element-wise")
    return call.program.combine(*signals)


def _shape_of(layer: Layer) -> Any:
    """The shape of a first layer's input, batch first, in any version's format."""
    for name in ("batch_shape", "batch_input_shape"):
        if isinstance(layer.config.get(name), list):
            return layer.config[name]
    if isinstance(layer.config.get("shape"), list):
        return [None, *layer.config["shape"]]
    return layer.build.get("input_shape")


def _first_shape(model: Model) -> Any:
    first = next(iter(model.layers.values()), None)
    return None if first is None else _shape_of(first) or model.input_shape


def _resolved(value: Any, values: Mapping[tuple[str, int], list[Value]], layer: Layer) -> Any:
    """Arguments with tensors replaced by signals."""
    if isinstance(value, Tensor):
        return _result(value, values, f"layer {layer.name!r}")
    if isinstance(value, Mapping):
        return {name: _resolved(item, values, layer) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_resolved(item, values, layer) for item in value]
    return value


def _result(tensor: Tensor, values: Mapping[tuple[str, int], list[Value]], reader: str) -> Value:
    results = values.get((tensor.layer, tensor.node), [])
    if not 0 <= tensor.index < len(results):
        raise ModelError(
            f"{reader} reads result {tensor.index} of call {tensor.node} of {tensor.layer!r}, "
            "which does not exist"
        )
    return results[tensor.index]
