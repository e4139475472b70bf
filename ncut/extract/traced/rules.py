"""Which rule follows which module, function or operation of torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from ncut.extract.registry import declared
from ncut.extract.signal import Signal
from ncut.extract.traced.tensor import flat, is_traced
from ncut.extract.traced.tracing import Call

Rule: TypeAlias = Callable[[Call], "Signal | list[Signal] | Any"]


class Rules:
    """The rules of torch's own operations, and those that the user declared.

    Attributes
    ----------
    guess : bool
        Whether an unknown operation is taken as a function of each entry alone.
    early : mapping from str to Rule
        Operations that are followed without working out shapes first.
    keeps_shape : set of str
        Operations whose result is like their first argument.
    batch_norms : set of str
        Batch norms, whose first result is like their first argument, and the others empty.
    """

    def __init__(self, unknown: str = "error") -> None:
        from ncut.extract.traced import aten, functions, layers

        self.guess = unknown == "elementwise"
        self.early: Mapping[str, Rule] = aten.EARLY
        self.keeps_shape = aten.KEEPS_SHAPE
        self.batch_norms = aten.BATCH_NORMS
        self._operations = aten.OPERATIONS
        self._functions = functions.FUNCTIONS
        self._modules = layers.MODULES
        self._pointwise = aten.pointwise

    def module(self, module: Any) -> Rule | None:
        """The rule of a module that is followed as a whole, by its class."""
        for cls in type(module).__mro__:
            if cls in declared:
                return _with_module(declared[cls], module)
            rule = self._modules.get(cls)
            if rule is not None:
                # A class that changes the forward pass is no longer what it inherits from.
                forward: Any = cls.forward  # type: ignore[attr-defined]
                if type(module).forward is forward and "forward" not in vars(module):
                    return _with_module(rule, module)
                return None
        return None

    def function(self, function: Any, args: Any, kwargs: Any) -> Rule | None:
        """The rule of a function that is followed as a whole."""
        try:
            if function in declared:
                traced = any(is_traced(value) for value in flat(args, kwargs))
                return declared[function] if traced else None
            rule = self._functions.get(function)
        except TypeError:  # not hashable
            return None
        return rule if rule and rule.applies(args, kwargs) else None

    def operation(self, operation: Any) -> Rule | None:
        """The rule of an operation of ATen or a custom library."""
        name = operation._schema.name
        if name in declared:
            return declared[name]
        rule = self._operations.get(name.removeprefix("aten::"))
        return rule or self._pointwise(operation)


def _with_module(rule: Rule, module: Any) -> Rule:
    def run(call: Call) -> Any:
        return rule(call.of(module))

    return run
