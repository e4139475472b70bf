"""Helpers for the rules of several kinds of operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ncut.extract.program.values import Value
from ncut.extract.program.weights import Weights
from ncut.extract.traced.tensor import is_traced
from ncut.extract.traced.tracing import Call


def scaled_by(call: Call, signal: Value, other: Any, *, invert: bool) -> Value:
    """The signal multiplied or divided by a number or tensor that is constant."""
    if not isinstance(other, torch.Tensor):
        return call.program.scaled(signal, np.asarray(other), invert=invert)
    if not other.is_floating_point():
        other = other.abs() if other.is_complex() else other.to(torch.float32)
    factors, named = constant(call, other)
    return call.program.scaled(signal, factors, invert=invert, **named)


def constant(call: Call, tensor: torch.Tensor) -> tuple[Weights, dict[str, Any]]:
    """A tensor that does not depend on the data; the names of its parameters and its layer."""
    provenance = call.tracing.provenance
    leaves = provenance.leaves(tensor)
    name = call.tracing.weight(tensor).name if leaves else call.tracing.path
    return provenance.factors(tensor, "its factors"), {"parameters": leaves, "name": name}


def times_number(call: Call, signal: Value, number: Any) -> Value:
    """The signal times a number, perhaps 1."""
    return signal if number == 1 else call.program.scaled(signal, np.asarray(float(number)))


def is_known(call: Call, tensor: Any) -> bool:
    """Check whether a tensor of indices or a mask depends on no input of the model."""
    return not is_traced(tensor) and not call.tracing.provenance.inputs(tensor)


def note_bias(call: Call, bias: Any) -> None:
    """Record a bias, if it is a parameter."""
    name = call.tracing.parameter(bias)
    if name:
        call.program.ignore([name], "bias")


def chosen(call: Call, signal: Value, axis: int) -> Value:
    """Entries along an axis that the data choose, such as a router's neurons."""
    return call.program.picked(signal, axis, call.shape, choices(call))


def choices(call: Call) -> str:
    """The name of neurons among which the data choose."""
    writers = call.program.wrote(call.signal(0, "self"))
    place = call.tracing.path or next(iter(writers), "")
    return f"choices of {place}" if place else "choices"


def rest(call: Call) -> list[Value]:
    """Further results, such as a norm's statistics, which carry no neurons."""
    return [Value(shape) for shape in call.shapes[1:]]


def listed(axes: Any) -> Sequence[int]:
    """One axis or several as a sequence."""
    return [axes] if isinstance(axes, int) else list(axes)


def table(*rows: tuple[str, Any]) -> dict[str, Any]:
    """Rules by name, from rows of space-separated names and their rule."""
    return {name: rule for names, rule in rows for name in names.split()}
