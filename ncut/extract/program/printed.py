"""Programs as text, one line per node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from ncut.extract.program.values import Node, Value
from ncut.extract.program.weights import Expression

HIDDEN = frozenset(["shape", "initial", "places", "why", "module", "parameters"])
"""Attributes that are not printed."""


def printed(nodes: Sequence[Node], formulas: Mapping[str, str]) -> str:
    """One line per node of a program, grouped by place in the model.

    A value is printed as `%` and a number, a value without neurons as `#`, weights and constants
    as their shapes, and the parameters that they are or are computed from; `formulas` tells how,
    by the names of weights.
    """
    numbers: dict[int, int] = {}
    lines: list[str] = []
    shown = [node for node in nodes if node.kind != "note"]
    for place, those in groupby(shown, key=lambda node: node.place):
        lines += [f"# {place}"] if place else []
        for node in those:
            lines.append("  " * bool(place) + _line(node, numbers, formulas))
    return "\n".join(lines)


def _line(node: Node, numbers: dict[int, int], formulas: Mapping[str, str]) -> str:
    given = ", ".join(
        [*(_named(value, numbers) for value in node.inputs), *_settings(node, formulas)]
    )
    called = f"{node.kind}({given})"
    if node.output is None:
        return called
    numbers[id(node.output)] = len(numbers) + 1
    return f"%{len(numbers)} {_shape(node.output.shape)} = {called}"


def _named(value: Value, numbers: dict[int, int]) -> str:
    number = numbers.get(id(value))
    return f"#{_shape(value.shape)}" if number is None else f"%{number}"


def _settings(node: Node, formulas: Mapping[str, str]) -> Iterator[str]:
    for key, value in node.attributes.items():
        if isinstance(value, np.ndarray | Expression):
            origin, array = _origin(node, value, formulas), np.asarray(value)
            shown = _shape(array.shape) if array.size > 1 else str(array)
            yield f"{key}={shown} of {origin}" if origin else f"{key}={shown}"
        elif not (key in HIDDEN or value is None or value is False or value in ("", ())):
            yield f"{key}={_setting(value)}"


def _origin(node: Node, value: Any, formulas: Mapping[str, str]) -> str:
    """The parameters of weights, or the computation of the weights from them."""
    known = value.formula if isinstance(value, Expression) else ""
    names = node.attributes.get("parameters") or (node.attributes.get("name", ""),)
    named = node.attributes.get("parameters") or formulas.keys() & set(names)
    return known or ", ".join(formulas.get(name, name) for name in names if named)


def _setting(value: Any) -> str:
    if isinstance(value, slice):
        return ":".join("" if part is None else str(part) for part in _parts(value))
    if isinstance(value, tuple):
        return _shape(value) if all(isinstance(part, int) for part in value) else "(...)"
    return repr(value) if isinstance(value, str) else str(value)


def _parts(value: slice) -> list[Any]:
    parts = [value.start, value.stop, value.step]
    return parts if value.step not in (None, 1) else parts[:2]


def _shape(shape: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, shape))})"
