"""Einstein sums of values and weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ncut.errors import ModelError
from ncut.extract.program.record import Program
from ncut.extract.program.values import Value, permuted, reshaped

Operand: TypeAlias = Value | NDArray[Any]


def einsum(
    program: Program,
    equation: str,
    operands: Sequence[Operand],
    *,
    heads: str = "heads",
    **named: Any,
) -> Value:
    """`numpy.einsum(equation, *operands)`.

    Parameters
    ----------
    heads : str
        Name of the dimensions of a scalar product of two values.
    **named
        Names of the weights; see `Program`.

    Raises
    ------
    ModelError
        If the equation is invalid, does not fit, or takes a diagonal.
    """
    labels, right = _labels(equation, [len(operand.shape) for operand in operands])
    while len(operands) > 2:
        # The sum of the first two keeps the axes that the others and the result have.
        later = set[str]().union(right, *labels[2:])
        kept = [label for label in dict.fromkeys([*labels[0], *labels[1]]) if label in later]
        made = _summed_by(program, operands[:2], labels[:2], kept, heads, named)
        operands, labels = [made, *operands[2:]], [kept, *labels[2:]]
    return _summed_by(program, operands, labels, right, heads, named)


def _summed_by(
    program: Program,
    operands: Sequence[Operand],
    labels: Sequence[list[str]],
    right: Sequence[str],
    heads: str,
    named: dict[str, Any],
) -> Value:
    """The sum of one or two operands with labelled axes, one of them a value."""
    if len(operands) == 2 and not isinstance(operands[0], Value):
        operands, labels = operands[::-1], labels[::-1]
    others = [set[str]().union(right, *(ls for ls in labels if ls is not own)) for own in labels]
    labels = [*labels]
    alone: list[Operand] = []
    for at, operand in enumerate(operands):
        axes = [axis for axis, label in enumerate(labels[at]) if label not in others[at]]
        alone.append(_summed(program, operand, axes, str(named.get("name", ""))))
        labels[at] = [label for label in labels[at] if label in others[at]]
    if len(alone) == 1:
        return permuted(alone[0], [labels[0].index(label) for label in right])  # type: ignore[arg-type]
    made, order = _of_two(program, alone, labels, right, heads, named)
    return permuted(made, [order.index(label) for label in right])


def _of_two(
    program: Program,
    operands: Sequence[Operand],
    labels: Sequence[Sequence[str]],
    right: Sequence[str],
    heads: str,
    named: dict[str, Any],
) -> tuple[Value, list[str]]:
    """The sum, and the labels of its axes."""
    sums = [c for c in labels[0] if c in labels[1] and c not in right]
    shared = [c for c in labels[0] if c in labels[1] and c in right]
    own = [[c for c in side if c not in (*sums, *shared)] for side in labels]
    first = _turned(operands[0], labels[0], [*shared, *own[0], *sums])
    second = _turned(operands[1], labels[1], [*shared, *sums, *own[1]])
    assert isinstance(first, Value)
    n, m = len(shared), len(sums)
    inner, other = first.shape[first.ndim - m :], second.shape[n : n + m]
    outer, new = first.shape[n : first.ndim - m], second.shape[n + m :]
    if math.prod(inner) != math.prod(other):
        raise ModelError("its equation sums axes of different lengths")
    batch = np.broadcast_shapes(first.shape[:n], second.shape[:n])
    # Axes of the first operand alone are not merged if the second operand is weights.
    kept = outer if isinstance(second, np.ndarray) and not shared else (math.prod(outer),)
    first = reshaped(first, (*first.shape[:n], *kept, math.prod(inner)))
    shape = (*second.shape[:n], math.prod(inner), math.prod(new))
    if isinstance(second, Value):
        second = reshaped(second, shape)
        whole = program.matmul(first, second, heads) if sums else program.multiply(first, second)
    elif sums:
        whole = program.product(first, second.reshape(shape), quiet=True, **named)
    else:
        named = {key: value for key, value in named.items() if key != "module"}
        whole = program.scaled(first, second.reshape(shape), **named)
    return reshaped(whole, (*batch, *outer, *new)), [*shared, *own[0], *own[1]]


def _summed(program: Program, operand: Operand, axes: list[int], name: str) -> Operand:
    if not axes:
        return operand
    if isinstance(operand, Value):
        return program.reduce(operand, axes, keepdim=False, name=name)
    return np.asarray(operand.sum(axis=tuple(axes)))


def _turned(operand: Operand, labels: Sequence[str], wanted: Sequence[str]) -> Operand:
    order = [labels.index(label) for label in wanted]
    return permuted(operand, order) if isinstance(operand, Value) else operand.transpose(order)


def _labels(equation: str, ndims: Sequence[int]) -> tuple[list[list[str]], list[str]]:
    """Labels of the axes of operands and result; axes of an ellipsis are labelled by numbers."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    parts = left.split(",")
    if len(parts) != len(ndims) or "->" in right:
        raise ModelError(f"its equation {equation!r} is not for {len(ndims)} operands")
    if not arrow:
        right = "".join(sorted(c for c in set(left) - {","} if left.count(c) == 1))
    n_more = max(
        (n - len(p) + 3 for p, n in zip(parts, ndims, strict=True) if "..." in p), default=0
    )
    sides = []
    for side in (*parts, right):
        before, dots, after = side.partition("...")
        sides.append([*before, *(map(str, range(n_more)) if dots else ()), *after])
    if any(len(set(side)) < len(side) for side in sides):
        raise ModelError(f"its equation {equation!r} takes a diagonal, which is not known")
    for axes, n in zip(sides, ndims, strict=False):
        if len(axes) != n:
            raise ModelError(f"its equation {equation!r} does not fit an operand of {n} axes")
    return sides[:-1], sides[-1]
