"""Collects the layers of a chain while a model's operations are walked in order."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ncut.errors import ModelError
from ncut.extract.chain import ChainLayer
from ncut.types import LeftOut

ADVICE = (
    "Only chains of layers are read from a model: extract the weight matrices in order and pass "
    "them as a list of (fan_in, fan_out) arrays"
)


class ChainBuilder:
    """The chain read so far, and what the value at its end looks like.

    A batch norm that directly follows a layer scales that layer's outputs; one that comes
    after an activation, or before any layer, scales the inputs of the next layer. Dropout,
    pooling and flattening keep a value "directly following".

    Attributes
    ----------
    layers : list of ChainLayer
        The weight layers so far.
    left_out : list of LeftOut
        Scales that could not be folded.
    """

    def __init__(self) -> None:
        self.layers: list[ChainLayer] = []
        self.left_out: list[LeftOut] = []
        self._layout: Literal["unknown", "channels", "flat"] = "unknown"
        self._directly_after_layer = False
        self._scale: NDArray[np.floating] | None = None
        self._scale_name = ""

    def add(self, layer: ChainLayer) -> None:
        """Append a layer that reads the current value."""
        if not layer.weight.size:
            raise ModelError(f"its weights have shape {layer.weight.shape}: no neurons")
        if layer.kind == "linear" and self._layout == "channels":
            raise ModelError(
                "a linear layer reads channels that were not flattened, so it acts on image "
                f"columns; put torch.flatten(x, 1) before it. {ADVICE}"
            )
        if layer.kind == "conv" and self._layout == "flat":
            raise ModelError(f"a convolution reads a flattened value. {ADVICE}")
        if self._scale is not None:
            self._check_scale_fits(layer)
            layer = replace(layer, input_scale=self._scale)
            self._scale = None
        self.layers.append(layer)
        self._layout = "channels" if layer.kind == "conv" else "flat"
        self._directly_after_layer = True

    def scale(self, name: str, factors: NDArray[np.floating]) -> None:
        """Multiply each channel (or feature) of the current value by a factor."""
        if not factors.size:
            raise ModelError("it scales no channels")
        last = self.layers[-1] if self.layers else None
        if last and self._directly_after_layer and factors.size == last.n_out:
            if last.output_scale is not None:
                factors = factors * last.output_scale
            self.layers[-1] = replace(last, output_scale=factors)
            return
        if last and factors.size % last.n_out:
            raise ModelError(
                f"it scales {factors.size} values, but {last.name!r} before it gives {last.n_out}"
            )
        self._scale = factors if self._scale is None else _product(self._scale, factors)
        self._scale_name = name

    def activation(self, *, homogeneous: bool) -> None:
        """Apply a function that keeps each neuron in its place.

        `homogeneous`: multiplying a neuron's value by a positive factor before the function or
        after it is the same.
        """
        self._directly_after_layer = False
        if self.layers and not homogeneous:
            self.layers[-1] = replace(self.layers[-1], rescalable=False)

    def pool(self) -> None:
        """Pool over positions, or change their number, channel by channel."""
        if self._layout == "flat":
            raise ModelError(f"it pools over neurons, as its input has no positions. {ADVICE}")

    def flatten(self, n_features: int | None = None) -> None:
        """Lay the channels' positions side by side; `n_features` is the length asked for."""
        if self.layers and n_features is not None:
            n_out = self.layers[-1].n_out
            fits = n_features % n_out == 0 if self._layout == "channels" else n_features == n_out
            if not fits:
                raise ModelError(
                    f"it makes rows of {n_features} values from {n_out} outputs of "
                    f"{self.layers[-1].name!r}. {ADVICE}"
                )
        self._layout = "flat"

    def reduce_positions(self, axes: set[int], *, keepdim: bool) -> None:
        """Reduce the given axes, which must be all of the channels' positions."""
        if self._layout != "channels":
            raise ModelError(f"it reduces something else than a convolution's positions. {ADVICE}")
        ndim = self.layers[-1].weight.ndim
        if {axis % ndim for axis in axes} != set(range(2, ndim)):
            raise ModelError(f"it reduces other axes than the convolution's positions. {ADVICE}")
        if not keepdim:
            self._layout = "flat"

    def rearrange(self) -> None:
        """Give the model's input another shape, before any layer reads it."""
        if self.layers or self._scale is not None:
            raise ModelError(f"it rearranges neurons. {ADVICE}")
        self._layout = "unknown"

    def note(self, name: str, shape: tuple[int, ...], reason: str) -> None:
        """Record what is not in the graph."""
        self.left_out.append(LeftOut(name, shape, reason))

    def finish(self) -> None:
        """End the chain."""
        if self._scale is not None:
            self.note(self._scale_name, self._scale.shape, "no layer reads what it scales")
            self._scale = None

    def _check_scale_fits(self, layer: ChainLayer) -> None:
        assert self._scale is not None
        size = self._scale.size
        if layer.n_in % size or (layer.kind == "conv" and layer.n_in != size):
            raise ModelError(
                f"it reads {layer.n_in} values, but {self._scale_name!r} before it scales {size}"
            )


def _product(first: NDArray[np.floating], second: NDArray[np.floating]) -> NDArray[np.floating]:
    """Product of factors per channel and factors per feature (or of two of the same kind)."""
    short, long = sorted((first, second), key=len)
    if len(long) % len(short):
        raise ModelError(f"it scales {second.size} values, those before it {first.size}")
    return np.asarray(np.repeat(short, len(long) // len(short)) * long)
