"""`Call`: one call of a layer, the argument of the rules."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ncut.errors import ModelError
from ncut.extract.program.record import Program
from ncut.extract.program.values import Value
from ncut.extract.readers.keras.config import Layer, among
from ncut.extract.readers.keras.weights import Layout, Named, Place

Rule: TypeAlias = Callable[["Call"], "Value | list[Value]"]

MAX_ENTRIES = 2**28
"""Entries of the largest tensor."""

# Variables without edges.
_BIASES = {
    **{"bias": "bias", "beta": "bias", "moving_mean": "mean that a norm takes off"},
    **{"moving_variance": "spread that a norm divides by", "mean": "mean that is taken off"},
    **{"count": "count of examples", "variance": "spread that is divided by"},
}


@dataclass(slots=True)
class Call:
    """A layer, its arguments, and the location of its variables."""

    layer: Layer
    # Arguments; tensors are `Value`s
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    program: Program
    # Location of its variables in the file
    layout: Layout
    place: Place
    path: str  # its name, prefixed by the names of the enclosing models
    shapes: dict[str, tuple[int, ...]]  # shapes of all variables read so far, by name
    touched: set[str]
    # Follows another layer, such as a wrapped layer: (layer, part of this one, path, inputs).
    follow: Callable[..., list[Value]]
    guess: bool  # whether unknown functions are treated as elementwise
    part: str = ""

    @property
    def config(self) -> Mapping[str, Any]:
        """The layer's settings."""
        return self.layer.config

    @property
    def signals(self) -> list[Value]:
        """All tensors among the arguments."""
        relevant = [value for name, value in self.kwargs.items() if "mask" not in name]
        return [*among([self.args, *relevant], Value)]

    @property
    def signal(self) -> Value:
        """The first tensor among the arguments."""
        signals = self.signals
        if not signals:
            raise ModelError("it is called with no tensor")
        return signals[0]

    def argument(self, at: int, name: str, default: Any = None) -> Any:
        """An argument by position or name."""
        return self.args[at] if at < len(self.args) else self.kwargs.get(name, default)

    def whole(self, name: str, default: int | None = None) -> int:
        """An integer setting."""
        value = self.config.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise ModelError(f"{name} is {value!r}, not a whole number")
        return value

    def sizes(self, name: str, n: int, default: Any = None) -> tuple[int, ...]:
        """A setting with one integer per position axis."""
        value = self.config.get(name)
        value = default if value is None else value
        values = [value] * n if isinstance(value, int) else value
        if not isinstance(values, list | tuple) or len(values) != n:
            raise ModelError(f"{name} is {value!r}; expected {n} whole numbers")
        for size in values:
            if isinstance(size, bool) or not isinstance(size, int) or not 0 < size < 2**31:
                raise ModelError(f"{name} is {value!r}; expected {n} whole numbers from 1")
        return tuple(values)

    @property
    def channels(self) -> int:
        """The axis of channels."""
        return 1 if self.config.get("data_format") == "channels_first" else -1

    @property
    def axes(self) -> list[int]:
        """The axes of positions of the first tensor."""
        return self.position_axes(self.signal.ndim)

    def position_axes(self, ndim: int) -> list[int]:
        """The axes of positions of a tensor."""
        if ndim < 3:
            raise ModelError(f"it reads a tensor of {ndim} axes, which has no positions")
        axes = [*range(1, ndim)]
        axes.pop(0 if self.channels == 1 else -1)
        return axes

    # --- variables --------------------------------------------------------------------------

    def weights(self, *order: str, part: str = "") -> dict[str, NDArray[np.floating]]:
        """The variables of the layer, or of a part of it, in the order of their creation.

        Variables without edges are recorded as ignored. `a|b` are two names of one variable.
        """
        found = {}
        for name, variable in self._variables(part, order).items():
            full = self.parameter(name, part)
            self.shapes[full] = variable.shape
            self.touched.add(variable.path)
            if name in _BIASES:
                self.program.ignore([full], _BIASES[name])
            if name not in ("bias", "beta", "moving_mean", "count"):
                if self.layout.tree.is_integer(variable.path) and name != "variance":
                    raise ModelError(
                        f"its {name} is quantized to whole numbers; save the model before "
                        "quantize() instead"
                    )
                found[name] = self._with_low_rank(name, part, self.layout.tree.array(variable.path))
        return found

    def _with_low_rank(
        self, name: str, part: str, values: NDArray[np.floating]
    ) -> NDArray[np.floating]:
        """A kernel plus its low-rank update, which an `.h5` file stores separately."""
        factors = [f"lora_{name}_{side}" for side in "ab"]
        if not isinstance(self.layout, Named):
            return values
        found = self._variables(part, factors)
        if len(found) < len(factors):
            return values
        arrays = []
        for factor in factors:
            full = self.parameter(factor, part)
            self.shapes[full] = found[factor].shape
            self.touched.add(found[factor].path)
            self.program.place([full], "a low-rank update of a kernel")
            arrays.append(self.layout.tree.array(found[factor].path))
        rank = arrays[1].shape[0]
        alpha = self.config.get("lora_alpha")
        scale = (rank if alpha is None else alpha) / (self.config.get("lora_rank") or rank)
        return np.asarray(values + float(scale) * (arrays[0] @ arrays[1]))

    def weight(self, name: str, *rest: str, part: str = "") -> NDArray[np.floating]:
        """A required variable, the first in creation order."""
        found = self.weights(name, *rest, part=part)
        own = name.partition("|")[0]
        if own not in found:
            raise ModelError(f"the file holds no {own!r} of it")
        return found[own]

    def parameter(self, name: str, part: str = "") -> str:
        """The name of a variable."""
        return f"{self.named(part)}.{name}"

    def layer_of(self, *variables: str, part: str = "") -> dict[str, Any]:
        """Names of a layer of the graph with variables of this one, for a program."""
        parameters = [self.parameter(name, part) for name in variables]
        return {"name": self.named(part), "module": self.named(part), "parameters": parameters}

    def named(self, part: str = "") -> str:
        """The name of the layer or of a part of it."""
        return f"{self.path}/{part}" if part else self.path

    def _variables(self, part: str, order: Sequence[str]) -> Mapping[str, Any]:
        whole = "/".join(filter(None, (self.part, part)))
        return self.layout.variables(self.place, whole, order)


def checked(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape, if a tensor may have it; raises otherwise."""
    if any(size <= 0 for size in shape):
        raise ModelError(f"its result would have shape {tuple(shape)}: its input is too small")
    if math.prod(shape) > MAX_ENTRIES:
        raise ModelError(f"its result would have shape {tuple(shape)}: too large")
    return tuple(shape)
