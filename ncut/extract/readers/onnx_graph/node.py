"""`Node`: one node of a followed graph, with its inputs as values, attributes and names."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar

import numpy as np

from ncut.errors import ModelError
from ncut.extract.arrays import as_array
from ncut.extract.program.record import Program
from ncut.extract.program.values import Known, Value, broadcast_shape
from ncut.extract.program.values import Operand as Side
from ncut.extract.readers.onnx_graph.values import (
    Array,
    Constant,
    Operand,
    affordable,
    as_floats,
    checked,
    filled,
    unrepeated,
)

T = TypeVar("T", bool, int, float, str)


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """A node to follow."""

    program: Program
    operator: str  # the operator's name
    name: str  # the node's name, or its first result's
    named: bool  # whether the node itself has a name
    inputs: Sequence[Operand | None]  # None for omitted inputs
    attributes: Mapping[str, Any]  # the node's attributes as Python values
    n_outputs: int  # number of requested results
    opset: int  # the opset version
    # The operator that made an input, and recursively the origins of its inputs.
    made_by: Callable[[int], Origin | None]

    def has(self, position: int) -> bool:
        """Check whether an input is given."""
        return position < len(self.inputs) and self.inputs[position] is not None

    def value(self, position: int = 0) -> Operand:
        """A required input."""
        found = self.inputs[position] if position < len(self.inputs) else None
        if found is None:
            raise ModelError(f"its input {position} is missing")
        return found

    def signal(self, position: int = 0) -> Value:
        """The signal of an input; without neurons for constants."""
        return as_signal(self.value(position))

    def array(self, position: int, what: str) -> Array:
        """The values of an input that must be constant."""
        found = self.value(position)
        if isinstance(found, Value):
            raise ModelError(f"its {what} depends on the data")
        if not affordable(found.values.size, [found.values]):
            raise ModelError(f"its {what} of shape {found.shape} is one value again and again")
        return found.values

    def optional(self, position: int, what: str) -> Array | None:
        """Like `array`; None if the input is not given."""
        return self.array(position, what) if self.has(position) else None

    def ints(self, position: int, attribute: str, what: str = "") -> list[int] | None:
        """Integers that newer opsets take as an input, older opsets as an attribute."""
        if attribute in self.attributes:
            found = self.attributes[attribute]
            return [int(x) for x in (found if isinstance(found, list | tuple) else [found])]
        values = self.optional(position, what or attribute) if position >= 0 else None
        return None if values is None else [int(x) for x in np.ravel(values)]

    def number(self, position: int, attribute: str) -> float | None:
        """A number that newer opsets take as an input; NaN if it depends on the data."""
        if self.attributes.get(attribute) is not None or not self.has(position):
            return self.attributes.get(attribute)
        found = self.value(position)
        return found.single if isinstance(found, Constant) else math.nan

    def setting(self, attribute: str, default: T) -> T:
        """An attribute, of the default's type."""
        return type(default)(self.attributes.get(attribute, default))

    def axis(self, default: int) -> int:
        """The attribute `axis`, an axis of the first input."""
        return self.value(0).axis(self.setting("axis", default))

    def signals(self) -> list[Value]:
        """The signals among the inputs."""
        return [value for value in self.inputs if isinstance(value, Value)]

    def constants(self) -> list[Constant]:
        """The constants among the inputs."""
        return [value for value in self.inputs if isinstance(value, Constant)]

    def weight(self, position: int, what: str = "weight") -> Array:
        """Weights as floating-point numbers."""
        return as_array(as_floats(self.array(position, what)), f"its {what}")

    def operand(self, position: int) -> Side:
        """An input as an operand of elementwise functions; broadcast constants stay compact."""
        found = self.value(position)
        if isinstance(found, Value):
            return found
        name = self.layer(position)
        values = unrepeated(found.values)
        return Known(checked(found.shape), lambda: values, found.parameters, name, name)

    def operands(self) -> list[Side]:
        """All inputs that are given as operands, of which the results have no negative size."""
        checked(broadcast_shape([v for v in self.inputs if v is not None]))  # type: ignore[misc]
        return [self.operand(at) for at in range(len(self.inputs)) if self.has(at)]

    def matrix(self, position: int, values: Array | None = None) -> Side:
        """An input as an operand of a matrix product; `values` in place of a constant's."""
        found = self.value(position)
        if isinstance(found, Value):
            return filled(found)
        weights, name = self.weight(position) if values is None else values, self.layer(position)
        return Known(weights.shape, lambda: weights, found.parameters, name, name)

    def parameters(self, position: int) -> tuple[str, ...]:
        """The source initializers of an input."""
        found = self.inputs[position] if position < len(self.inputs) else None
        return found.parameters if isinstance(found, Constant) else ()

    def place(self, position: int, role: str) -> None:
        """Record that an input is in the graph."""
        self.program.place(self.parameters(position), role)

    def ignore(self, position: int, role: str) -> None:
        """Record that an input has no edges."""
        self.program.ignore(self.parameters(position), role)

    def layer(self, position: int) -> str:
        """The layer's name: its weight's name in torch, or its node's name."""
        parameters = self.parameters(position)
        for parameter in parameters:
            if parameter.endswith(".weight") and len(parameter) > len(".weight"):
                return parameter.removesuffix(".weight")
        if self.named:
            return path_of(self.name, self.operator)
        return parameters[0] if parameters else self.name

    @property
    def heads(self) -> str:
        """The name of the dimensions of a scalar product of two signals."""
        path = path_of(self.name, self.operator) if self.named else ""
        return f"heads of {path}" if path else "heads"

    def layer_of(self, position: int) -> dict[str, Any]:
        """Names of the layer with the weights at an input, for a program."""
        name = self.layer(position)
        return {"name": name, "module": name, "parameters": self.parameters(position)}

    def only(self, *positions: int) -> Node:
        """The node with some of its inputs."""
        return self.with_inputs([self.value(position) for position in positions])

    def with_inputs(self, inputs: Sequence[Operand | None]) -> Node:
        """The node with other inputs."""
        return replace(self, inputs=inputs)

    def with_rest(self, first: Operand, *shapes: Sequence[int]) -> list[Operand]:
        """Results; only the first carries neurons."""
        rest: list[Operand] = [Value(checked(shape)) for shape in shapes]
        return [first, *rest][: max(self.n_outputs, 1)]


Origin: TypeAlias = tuple[str, list[Any]]
"""An operator, and for each of its inputs the input's origin or constant."""

Rule: TypeAlias = Callable[[Node], "Operand | list[Operand]"]


def as_signal(value: Operand) -> Value:
    """A value as a signal; without neurons for a constant."""
    return value if isinstance(value, Value) else Value(checked(value.shape))


def path_of(name: str, operator: str) -> str:
    """A node's name, or its module's if a torch exporter wrote the path."""
    parts = [part for part in name.split("/") if part]
    if not name.startswith("/") or len(parts) < 2 or not parts[-1].startswith(operator):
        return name
    path = parts[0]
    for part in parts[1:-1]:
        # Items of a module list repeat the list's name.
        before = path.rpartition(".")[2]
        path = (
            path.removesuffix(before) + part if part.startswith(f"{before}.") else f"{path}.{part}"
        )
    return path
