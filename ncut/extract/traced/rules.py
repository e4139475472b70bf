"""Which rule follows which module, function or operation of torch, and how to declare more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

from ncut.errors import InputError
from ncut.extract.signal import Signal
from ncut.extract.traced.tracing import Call

Rule: TypeAlias = Callable[[Call], "Signal | list[Signal] | Any"]

_declared: dict[Any, Rule] = {}


class Rules:
    """The rules of torch's own operations, and those that the user declared.

    Attributes
    ----------
    guess : bool
        Whether an unknown operation is taken as a function of each entry alone.
    early : mapping from str to Rule
        Operations that are followed without working out shapes first.
    """

    def __init__(self, unknown: str = "error") -> None:
        from ncut.extract.traced import aten, functions, layers

        if unknown not in ("error", "elementwise"):
            raise InputError(f"unknown: must be 'error' or 'elementwise', got {unknown!r}")
        self.guess = unknown == "elementwise"
        self.early: Mapping[str, Rule] = aten.EARLY
        self._operations = aten.OPERATIONS
        self._functions = functions.FUNCTIONS
        self._modules = layers.MODULES
        self._pointwise = aten.pointwise

    def module(self, module: Any) -> Rule | None:
        """The rule of a module that is followed as a whole, by its class."""
        for cls in type(module).__mro__:
            if cls in _declared:
                return _with_module(_declared[cls], module)
            rule = self._modules.get(cls)
            if rule is not None:
                # A class that changes the forward pass is no longer what it inherits from.
                inherits = getattr(type(module).forward, "__func__", type(module).forward)
                if inherits is cls.forward and "forward" not in vars(module):
                    return _with_module(rule, module)
                return None
        return None

    def function(self, function: Any, args: Any, kwargs: Any) -> Rule | None:
        """The rule of a function that is followed as a whole."""
        try:
            rule = _declared.get(function) or self._functions.get(function)
        except TypeError:  # not hashable
            return None
        return rule if rule and rule.applies(args, kwargs) else None  # type: ignore[attr-defined]

    def operation(self, operation: Any) -> Rule | None:
        """The rule of an operation of ATen or a custom library."""
        name = operation._schema.name
        if name in _declared:
            return _declared[name]
        rule = self._operations.get(name.removeprefix("aten::"))
        return rule or self._pointwise(operation)


def register_operation(
    target: Any, rule: Literal["elementwise", "positions"] | Callable[[Call], Any]
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
        _declared[target] = _Declared(_elementwise)
    elif rule == "positions":
        _declared[target] = _Declared(_positions)
    elif callable(rule):
        _declared[target] = _Declared(rule)
    else:
        raise InputError(f"rule: must be 'elementwise', 'positions' or callable, got {rule!r}")


class _Declared:
    """A rule of the user's."""

    def __init__(self, rule: Callable[[Call], Any]) -> None:
        self._rule = rule

    def __call__(self, call: Call) -> Any:
        return self._rule(call)

    @staticmethod
    def applies(args: Any, kwargs: Any) -> bool:
        """Whether the rule is for a call with these arguments: where one of them is traced."""
        from ncut.extract.traced.tensor import flat, is_traced

        return any(is_traced(value) for value in flat(args, kwargs))


def _elementwise(call: Call) -> Signal:
    signals = call.signals()
    if len(signals) == 1:
        return call.wiring.activation(signals[0], homogeneous=False)
    return call.wiring.combine(*signals)


def _positions(call: Call) -> Signal:
    return call.wiring.positions(call.signals()[0], call.shape)


def _with_module(rule: Rule, module: Any) -> Rule:
    def run(call: Call) -> Any:
        return rule(call.of(module))

    return run
