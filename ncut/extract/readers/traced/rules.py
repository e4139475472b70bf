"""Rules for modules, functions and operations of torch, and user-declared rules.

torch decomposes composite operations before dispatch. A rule gets a `Call`; it returns the signal
of the result, a list of signals, or for modules and functions what the call returns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ncut.extract.readers.traced.functions import ALWAYS, FUNCTIONS
from ncut.extract.readers.traced.layers import MODULES, are_experts, experts
from ncut.extract.readers.traced.operations import (
    constants,
    pointwise,
    positions,
    shapes,
    weights,
    writing,
)
from ncut.extract.readers.traced.tensor import flat, is_traced
from ncut.extract.registry import Rule, declared

OPERATIONS: dict[str, Rule] = {
    **pointwise.RULES,
    **weights.RULES,
    **positions.RULES,
    **shapes.RULES,
    **writing.RULES,
}
"""Rules by the operation's ATen name, without overload."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of torch's operations, and user-declared rules."""

    guess: bool = False  # whether unknown operations are treated as elementwise

    def module(self, module: Any) -> Rule | None:
        """The rule of a module that is followed as a whole, by its class or its parts."""
        classes: tuple[Any, ...] = type(module).__mro__
        for cls in classes:
            if cls in declared:
                return _with_module(declared[cls], module)
            if cls in MODULES:
                # A class that overrides the forward pass does not inherit the rule.
                inherits = type(module).forward is cls.forward and "forward" not in vars(module)
                return _with_module(MODULES[cls], module) if inherits else None
        return _with_module(experts, module) if are_experts(module) else None

    def function(self, function: Any, args: Any, kwargs: Any) -> Rule | None:
        """The rule of a function that is followed as a whole."""
        try:
            if function in ALWAYS and function not in declared:
                return ALWAYS[function]
            rule = declared.get(function) or FUNCTIONS.get(function)
        except TypeError:  # not hashable
            return None
        return rule if rule and any(map(is_traced, flat(args, kwargs))) else None

    def early(self, name: str) -> Rule | None:
        """The rule of an operation that is followed without prior shape inference."""
        return constants.EARLY.get(name)

    def operation(self, operation: Any) -> Rule | None:
        """The rule of an operation of ATen or a custom library; torch tags pointwise ones."""
        full = operation._schema.name
        name = full.removeprefix("aten::")
        rule = declared.get(full) or OPERATIONS.get(name)
        if rule is not None:
            return rule
        # Only the out-of-place variant of an operation is tagged.
        packet = getattr(torch.ops.aten, name[:-1], None) if name.endswith("_") else None
        original = getattr(packet, operation._overloadname, operation) if packet else operation
        return pointwise.entrywise if torch.Tag.pointwise in original.tags else None


def _with_module(rule: Rule, module: Any) -> Rule:
    return lambda call: rule(call.of(module))
