"""Helpers for the rules of several kinds of operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ncut.extract.program.values import Known, Operand, Value
from ncut.extract.program.weights import Weights
from ncut.extract.readers.traced.tensor import is_traced
from ncut.extract.readers.traced.tracing import Call


def operand(call: Call, given: Any) -> Operand:
    """An argument of an elementwise function: a traced tensor, a constant one or a number."""
    if is_traced(given):
        return call.tracing.signal_of(given)
    if not isinstance(given, torch.Tensor):
        return Known((), lambda: np.asarray(given))
    provenance, leaves = call.tracing.provenance, call.tracing.provenance.leaves(given)

    def values() -> Weights:
        real = given.abs() if given.is_complex() else given
        real = real if real.is_floating_point() else real.to(torch.float32)
        return provenance.factors(real, "its factors")

    name = call.tracing.weight(given).name if leaves else call.tracing.path
    return Known(tuple(given.shape), values, leaves, name)


def matrix(call: Call, given: Any) -> Operand:
    """An argument of a matrix product: a traced tensor or weights."""
    if is_traced(given):
        return call.tracing.signal_of(given)
    weight = call.tracing.weight(given)
    return Known(
        tuple(given.shape), lambda: weight.values, weight.parameters, weight.name, weight.module
    )


def heads(call: Call) -> str:
    """The name of the dimensions of a scalar product."""
    path = call.tracing.path
    return f"heads of {path}" if path else "heads"


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
    writers = call.program.wrote(call.signal())
    place = call.tracing.path or next(iter(writers), "")
    return f"choices of {place}" if place else "choices"


def rest(call: Call) -> list[Value]:
    """Further results, such as a norm's statistics, which carry no neurons."""
    return [Value(shape) for shape in call.shapes[1:]]


def listed(axes: Any) -> Sequence[int]:
    """One axis or several as a sequence."""
    return [axes] if isinstance(axes, int) else list(axes)
