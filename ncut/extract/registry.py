"""User-declared rules for operations unknown to ncut."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from ncut.errors import InputError, ModelError
from ncut.extract.program.values import Value

if TYPE_CHECKING:
    from ncut.extract.program.record import Program

Rule: TypeAlias = Callable[[Any], Any]
"""Gets a reader's call of an operation; returns the result's `Value`, or a list of them."""

declared: dict[Any, Rule] = {}
"""Rules by target: an operation's name, a class of modules, or a function."""


def register_operation(
    target: Any, rule: Literal["elementwise", "positions"] | Callable[[Any], Any]
) -> None:
    """Declare the effect on neurons of an operation unknown to ncut.

    Parameters
    ----------
    target : str, type or callable
        The name of a torch operation as in the error message, such as `"mylib::swish"` or
        `"aten::erfcx"`; a class of torch modules; a function that torch can override; the name of
        an ONNX operator, with its domain if any, `"my.ops.Fancy"`; or the name of a class of
        Keras layers.
    rule : {"elementwise", "positions"} or callable
        `"elementwise"`: each entry of the result depends on the same entry of the arguments.
        `"positions"`: neurons keep their channels while positions are pooled, padded or moved.
        A callable gets a `Call` (`call.args`, `call.kwargs`, `call.signal(i)`, `call.shape`,
        `call.module`, and `call.program` with the methods `linear`, `convolution`, `activation`,
        `add`, `multiply`, ...) and returns the `Value` of the result, or a list of them. For ONNX
        and Keras, `call.args` are values and arrays, `call.kwargs` the attributes or the layer's
        configuration, `call.module` the node or the call itself, and `call.shape` is unknown.

    Raises
    ------
    InputError
        If the rule is neither a known word nor callable, or the target has an unsupported type.

    Examples
    --------
    >>> import ncut, torch
    >>> class Gate(torch.nn.Module):
    ...     def forward(self, x):
    ...         return my_cuda_kernel(x)
    >>> ncut.register_operation(Gate, "elementwise")
    """
    if not (isinstance(target, str) or callable(target)):
        raise InputError(
            "target: must be the name of an operation, a class of modules or a function, got "
            f"{target!r}"
        )
    if rule == "elementwise":
        declared[target] = _elementwise
    elif rule == "positions":
        declared[target] = _positions
    elif callable(rule):
        declared[target] = rule
    else:
        raise InputError(f"rule: must be 'elementwise', 'positions' or callable, got {rule!r}")


@dataclass(frozen=True, slots=True, eq=False)
class DeclaredCall:
    """An ONNX node or a Keras layer, as passed to user rules."""

    program: Program
    function: str  # the operator's or the layer's name
    args: Sequence[Any]  # signals, and arrays for constants
    kwargs: Mapping[str, Any]  # attributes, or a layer's configuration
    module: Any = None  # the reader's own record of the node or the layer
    shapes: Sequence[tuple[int, ...]] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the result, which is unknown."""
        raise ModelError("what shape its result has is not known; make it from call.signal()")

    def arg(self, position: int, keyword: str, default: Any = None) -> Any:
        """An argument by position, or an attribute."""
        if position < len(self.args):
            return self.args[position]
        return self.kwargs.get(keyword, default)

    def signal(self, position: int = 0, keyword: str = "") -> Value:
        """The signal of an argument; a signal without neurons if it is constant."""
        value = self.arg(position, keyword)
        return value if isinstance(value, Value) else Value(np.shape(value))

    def signals(self) -> list[Value]:
        """All signals among the arguments."""
        return [value for value in self.args if isinstance(value, Value)]


def table(*rows: tuple[str, Any]) -> dict[str, Any]:
    """Rules by name, from rows of space-separated names and their rule."""
    return {name: rule for names, rule in rows for name in names.split()}


def rule_of(*names: str) -> Callable[[Any], Any] | None:
    """The rule declared under the first name that has one."""
    return next((declared[name] for name in names if name in declared), None)


def _elementwise(call: Any) -> Any:
    signals = call.signals()
    if len(signals) == 1:
        return call.program.activation(signals[0], homogeneous=False)
    return call.program.combine(*signals)


def _positions(call: Any) -> Any:
    signal = call.signals()[0]
    return call.program.positions(signal, call.shapes[0] if call.shapes else signal.shape)
