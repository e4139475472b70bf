"""Which rule follows which module, function or operation of torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from ncut.extract.registry import declared
from ncut.extract.traced.tensor import flat, is_traced

Rule: TypeAlias = Callable[[Any], Any]
"""Gets a `Call`; returns the signal of the result, a list of them, or what the call returns."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of torch's own operations, and those that the user declared.

    Attributes
    ----------
    modules, functions, operations : mapping
        Rules by class, by function, by name in ATen.
    by_parts : callable
        The rule of a module that is known by what it holds.
    pointwise : callable
        The rule of an operation that has none of its own, if it is known to be pointwise.
    early : mapping from str to Rule
        Operations that are followed without working out shapes first.
    keeps_shape : set of str
        Operations whose result is like their first argument.
    batch_norms : set of str
        Batch norms, whose first result is like their first argument, and the others empty.
    guess : bool
        Whether an unknown operation is taken as a function of each entry alone.
    """

    modules: Mapping[Any, Rule]
    by_parts: Callable[[Any], Rule | None]
    functions: Mapping[Any, Any]
    operations: Mapping[str, Rule]
    pointwise: Callable[[Any], Rule | None]
    early: Mapping[str, Rule]
    keeps_shape: set[str]
    batch_norms: set[str]
    guess: bool = False

    def module(self, module: Any) -> Rule | None:
        """The rule of a module that is followed as a whole, by its class."""
        for cls in type(module).__mro__:
            if cls in declared:
                return _with_module(declared[cls], module)
            rule = self.modules.get(cls)
            if rule is not None:
                # A class that changes the forward pass is no longer what it inherits from.
                forward: Any = cls.forward  # type: ignore[attr-defined]
                if type(module).forward is forward and "forward" not in vars(module):
                    return _with_module(rule, module)
                return None
        rule = self.by_parts(module)
        return None if rule is None else _with_module(rule, module)

    def function(self, function: Any, args: Any, kwargs: Any) -> Rule | None:
        """The rule of a function that is followed as a whole."""
        try:
            if function in declared:
                traced = any(is_traced(value) for value in flat(args, kwargs))
                return declared[function] if traced else None
            rule = self.functions.get(function)
        except TypeError:  # not hashable
            return None
        return rule if rule and rule.applies(args, kwargs) else None

    def operation(self, operation: Any) -> Rule | None:
        """The rule of an operation of ATen or a custom library."""
        name = operation._schema.name
        if name in declared:
            return declared[name]
        rule = self.operations.get(name.removeprefix("aten::"))
        return rule or self.pointwise(operation)


def _with_module(rule: Rule, module: Any) -> Rule:
    def run(call: Any) -> Any:
        return rule(call.of(module))

    return run
