"""What rules of several kinds of operations need."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ncut.errors import ModelError
from ncut.extract.arrays import as_array
from ncut.extract.signal import Signal, compact
from ncut.extract.traced.tracing import Call


def scaled_by(call: Call, signal: Signal, other: Any, *, invert: bool) -> Signal:
    """The signal times (or over) a number or an array that does not depend on the data."""
    if not isinstance(other, torch.Tensor) or other.numel() == 1:
        name = call.tracing.parameter(other)
        call.wiring.place([name] if name else [], "a factor of all neurons of a layer")
        factor = abs(float(other))
        if factor == 0 and not name:
            return Signal(signal.shape)  # a state that is nothing at first
        usable = math.isfinite(factor) and factor > 0
        return call.wiring.gain(signal, 1 / factor if invert else factor) if usable else signal
    name = call.tracing.parameter(other)
    if not signal.terms:
        return signal
    factors = np.asarray(as_array(other, "its factors"), dtype=np.float64)
    if not name and not factors.any():
        return Signal(signal.shape)
    factors = factors.reshape((1,) * (signal.ndim - factors.ndim) + factors.shape)
    if any(n > 1 and not signal.varies(axis) for axis, n in enumerate(factors.shape)):
        factors = compact(Signal(signal.shape, (), factors)).factors  # type: ignore[assignment]
    if any(n > 1 and not signal.varies(axis) for axis, n in enumerate(factors.shape)):
        # Masks, and the angles of rotary embeddings: other factors at other positions.
        if name:
            call.wiring.leave_out(name, tuple(other.shape), "a factor that differs by position")
        return signal
    with np.errstate(divide="ignore"):
        factors = 1 / factors if invert else factors
    call.wiring.place([name] if name else [], "a factor of a layer's neurons")
    return call.wiring.scale(signal, factors, name)


def note_bias(call: Call, bias: Any) -> None:
    """Record a bias, if it is a parameter."""
    name = call.tracing.parameter(bias)
    if name:
        call.wiring.ignore([name], "bias")


def normalized(call: Call, signal: Signal, gamma: Any, name: str, axis: int, kind: str) -> Signal:
    """Division by a spread that depends on the data, times gamma."""
    signal = call.wiring.normalization(signal, kind)
    return signal if gamma is None else along(call, signal, gamma, axis, name)


def along(call: Call, signal: Signal, factors: Any, axis: int, name: str) -> Signal:
    """Factors along one axis."""
    n = signal.shape[axis]
    if n != np.size(factors):
        raise ModelError(f"it scales {np.size(factors)} values, but gets {n}")
    if signal.terms and n > 1 and not signal.varies(axis):
        call.wiring.leave_out(name, (n,), "a factor that differs by position")
        return signal
    call.wiring.place([name] if name else [], "a factor of a layer's neurons")
    shape = [n if at == axis else 1 for at in range(signal.ndim)]
    return call.wiring.scale(signal, np.reshape(factors, shape), name)


def chosen(call: Call, signal: Signal, axis: int) -> Signal:
    """Neurons along an axis that are chosen by the data, as those of a router."""
    path = call.tracing.path
    return call.wiring.choose(signal, axis, call.shape, f"choices of {path}" if path else "choices")


def rest(call: Call) -> list[Signal]:
    """Further results, such as a norm's statistics, which carry no neurons."""
    return [Signal(shape) for shape in call.shapes[1:]]


def unsqueezed(signal: Signal, axis: int) -> Signal:
    """The signal with a new axis of length 1."""
    shape = (*signal.shape[:axis], 1, *signal.shape[axis:])
    return signal.map(shape, lambda a: np.expand_dims(a, axis))


def listed(axes: Any) -> Sequence[int]:
    """One axis or several as a sequence."""
    return [axes] if isinstance(axes, int) else list(axes)


def table(*rows: tuple[str, Any]) -> dict[str, Any]:
    """Rules by name, from rows of names with spaces between them and their rule."""
    return {name: rule for names, rule in rows for name in names.split()}
