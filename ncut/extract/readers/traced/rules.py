"""Registry of rules for torch modules, functions and operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from ncut.extract.readers.traced.tensor import flat, is_traced
from ncut.extract.registry import declared

Rule: TypeAlias = Callable[[Any], Any]
"""Gets a `Call`; returns the result's signal, a list of signals, or the call's return value."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of torch's operations, and user-declared rules.

    Attributes
    ----------
    modules, functions, operations : mapping
        Rules by class, by function, by name in ATen.
    by_parts : callable
        The rule of a module recognized by its parts.
    pointwise : callable
        The rule of an operation without an entry, if it is known to be pointwise.
    early : mapping from str to Rule
        Operations followed without prior shape inference.
    keeps_shape : set of str
        Operations whose result has the shape and dtype of their first argument.
    batch_norms : set of str
        Batch norms; their first result is like their first argument, the others are empty.
    guess : bool
        Whether unknown operations are treated as elementwise.
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
                # A class that overrides the forward pass does not inherit the rule.
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
