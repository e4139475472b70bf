"""Rules for the effect of ATen's operations on neurons, by operation name.

torch decomposes composite operations before dispatch. A rule gets a `Call` and returns the
signal of the result, or a list of signals. Operations that torch tags as pointwise need no rule.
"""

from __future__ import annotations

from typing import Any

import torch

from ncut.extract.readers.traced.operations import (
    constants,
    norms,
    pointwise,
    positions,
    reductions,
    shapes,
    weights,
    writing,
)
from ncut.extract.readers.traced.rules import Rule

OPERATIONS: dict[str, Rule] = {
    **pointwise.RULES,
    **weights.RULES,
    **norms.RULES,
    **positions.RULES,
    **shapes.RULES,
    **writing.RULES,
    **reductions.RULES,
}
"""Rules by the operation's ATen name, without overload."""

EARLY: dict[str, Rule] = constants.EARLY
"""Operations whose results are not traced tensors."""

KEEPS_SHAPE = {
    *("relu", "relu_", "leaky_relu", "leaky_relu_", "gelu", "silu", "silu_", "mish", "elu", "elu_"),
    *("sigmoid", "sigmoid_", "tanh", "tanh_", "hardtanh", "hardtanh_", "hardswish", "hardswish_"),
    *("hardsigmoid", "hardsigmoid_"),
}
"""Operations whose result has the shape and dtype of their first argument."""

BATCH_NORMS = {"_native_batch_norm_legit_no_training", "native_batch_norm"}
"""Batch norms in evaluation mode give their result and two empty tensors."""


def by_tag(operation: Any) -> Rule | None:
    """The rule of an operation that torch tags as pointwise."""
    name = operation._schema.name.removeprefix("aten::")
    # Only the out-of-place variant of an operation is tagged.
    packet = getattr(torch.ops.aten, name.removesuffix("_"), None) if name.endswith("_") else None
    overload = operation._overloadname
    original = getattr(packet, overload, operation) if packet else operation
    return pointwise.entrywise if torch.Tag.pointwise in original.tags else None
