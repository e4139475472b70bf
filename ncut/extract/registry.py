"""Rules for operations of torch that ncut does not know, declared by its users."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from ncut.errors import InputError

declared: dict[Any, Callable[[Any], Any]] = {}
"""The rules by what they are for: an operation's name, a class of modules, a function."""


def register_operation(
    target: Any, rule: Literal["elementwise", "positions"] | Callable[[Any], Any]
) -> None:
    """Declare what an operation that ncut does not know does to neurons.

    Parameters
    ----------
    target : str, type or callable
        The name of an operation as the error gives it, such as `"mylib::swish"` or
        `"aten::erfcx"`; a class of modules; or a function that torch can override.
    rule : {"elementwise", "positions"} or callable
        `"elementwise"`: each entry of the result depends on the same entry of the arguments.
        `"positions"`: neurons keep their channels while positions are pooled, padded or moved.
        A callable gets a `Call` (`call.args`, `call.kwargs`, `call.signal(i)`, `call.shape`,
        `call.module`, and `call.wiring` with the methods `linear`, `convolution`, `activation`,
        `add`, `multiply`, ...) and returns the `Signal` of the result, or a list of them.

    Raises
    ------
    InputError
        If the rule is neither a known word nor callable, or the target is of another kind.

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


def _elementwise(call: Any) -> Any:
    signals = call.signals()
    if len(signals) == 1:
        return call.wiring.activation(signals[0], homogeneous=False)
    return call.wiring.combine(*signals)


def _positions(call: Any) -> Any:
    signal = call.signals()[0]
    return call.wiring.positions(signal, call.shapes[0] if call.shapes else signal.shape)
