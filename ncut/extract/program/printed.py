"""Programs as text, one line per node."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from ncut.extract.program.values import Node, Value
from ncut.extract.program.weights import Expression

HIDDEN = frozenset(["shape", "initial", "places", "why", "module", "parameters"])
"""Attributes that are not printed."""


def printed(nodes: Sequence[Node]) -> str:
    """One line per node of a program, grouped by place in the model.

    A value is printed as `%` and a number, a value without neurons as `#`, weights and constants
    as their parameters and shapes.
    """
    numbers: dict[int, int] = {}
    lines: list[str] = []
    shown = [node for node in nodes if node.kind != "note"]
    for place, those in groupby(shown, key=lambda node: node.place):
        lines += [f"# {place}"] if place else []
        for node in those:
            lines.append("  " * bool(place) + _line(node, numbers))
    return "\n".join(lines)


def _line(node: Node, numbers: dict[int, int]) -> str:
    given = ", ".join([*(_named(value, numbers) for value in node.inputs), *_settings(node)])
    called = f"{node.kind}({given})"
    if node.output is None:
        return called
    numbers[id(node.output)] = len(numbers) + 1
    return f"%{len(numbers)} {_shape(node.output.shape)} = {called}"


def _named(value: Value, numbers: dict[int, int]) -> str:
    number = numbers.get(id(value))
    return f"#{_shape(value.shape)}" if number is None else f"%{number}"


def _settings(node: Node) -> Iterator[str]:
    parameters = node.attributes.get("parameters", ())
    for key, value in node.attributes.items():
        if isinstance(value, np.ndarray | Expression):
            origin = " of " + ", ".join(parameters) if parameters else ""
            array = np.asarray(value)
            yield f"{key}={_shape(array.shape)}{origin}" if array.size > 1 else f"{key}={array}"
        elif not (key in HIDDEN or value is None or value is False or value in ("", ())):
            yield f"{key}={_setting(value)}"


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
