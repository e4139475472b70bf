"""Chains of weight layers, from lists of arrays and state dicts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ncut.errors import InputError
from ncut.extract.arrays import SINGLE_MATRIX_HINT, as_array, is_tensor
from ncut.extract.program.record import Program
from ncut.extract.program.values import Value, expanded, reshaped, unsqueezed
from ncut.extract.readers.files import read_npy
from ncut.types import LeftOut


@dataclass(frozen=True, slots=True, eq=False)
class ChainLayer:
    """The weights of one layer of a chain, and their scale from a normalization.

    Attributes
    ----------
    name : str
        The layer's name in the model.
    weight : ndarray
        (fan_in, fan_out) for a linear layer, (out, in / groups, positions...) for a
        convolution.
    kind : {"linear", "conv"}
        Kind of the layer.
    groups : int
        Groups of the convolution.
    input_scale : ndarray of shape (c,), optional
        Factors of the inputs, one per input; for a linear layer that reads a flattened
        convolution also one per channel (fan_in a multiple of c).
    output_scale : ndarray of shape (n_out,), optional
        Factors of the outputs.
    parameters : tuple of str
        Names of the source parameters.
    rescalable : bool or None
        Whether the operations between this layer and the next commute with positive factors per
        neuron; None if unknown.
    """

    name: str
    weight: NDArray[np.floating]
    kind: Literal["linear", "conv"]
    groups: int = 1
    input_scale: NDArray[np.floating] | None = None
    output_scale: NDArray[np.floating] | None = None
    parameters: tuple[str, ...] = ()
    rescalable: bool | None = None

    @property
    def n_in(self) -> int:
        """Inputs of a linear layer, input channels of a convolution."""
        if self.kind == "linear":
            return int(self.weight.shape[0])
        return int(self.weight.shape[1]) * self.groups

    @property
    def n_out(self) -> int:
        """Outputs of a linear layer, output channels of a convolution."""
        return int(self.weight.shape[1 if self.kind == "linear" else 0])


def chain_program(
    layers: Sequence[ChainLayer], *, name: str = "", left_out: Iterable[LeftOut] = ()
) -> Program:
    """The program of a chain's forward pass.

    A layer's scales multiply its weights before any norm is taken. The edge between a channel and
    a fully connected neuron covers the channel's positions (flattened channel by channel).

    Raises
    ------
    InputError
        If there are no layers, or two successive ones do not fit.
    """
    prefix = f"{name}: " if name else ""
    if not layers:
        raise InputError(f"{prefix}no weights found")
    gap = first_gap(layers)
    if gap:
        raise InputError(f"{prefix}{gap}")
    program = Program()
    for item in left_out:
        program.leave_out(item.name, item.shape, item.reason)
    write_chain(program, layers)
    return program


def write_chain(
    program: Program, layers: Sequence[ChainLayer], *, channels_last: bool = False
) -> None:
    """Write a chain's forward pass; flattened images may have channels last."""
    signal = program.input("input", (1, layers[0].n_in))
    for layer in layers:
        signal = _follow(program, signal, layer, channels_last)
    program.output(signal)


def _follow(program: Program, signal: Value, layer: ChainLayer, channels_last: bool) -> Value:
    """The result of a layer on a signal, as (1, channels or features)."""
    n_before = signal.shape[1]
    if layer.kind == "linear" and layer.n_in != n_before:
        sizes = (n_before, layer.n_in // n_before)
        wide = unsqueezed(signal, 1 if channels_last else 2)
        channels = expanded(wide, (1, *(sizes[::-1] if channels_last else sizes)))
        signal = reshaped(channels, (1, layer.n_in))
    if layer.input_scale is not None:
        repeats = layer.n_in // layer.input_scale.size
        signal = program.scaled(signal, np.repeat(layer.input_scale, repeats))
    name, parameters = layer.name, layer.parameters
    if layer.kind == "conv":
        signal = program.convolution(
            signal, layer.weight, (1, layer.n_out),
            name=name, groups=layer.groups, parameters=parameters, module=name,
        )  # fmt: skip
    else:
        signal = program.linear(signal, layer.weight, name=name, parameters=parameters, module=name)
    if layer.output_scale is not None:
        signal = program.scaled(signal, layer.output_scale)
    return program.activation(signal, homogeneous=layer.rescalable)


def first_gap(layers: Sequence[ChainLayer]) -> str | None:
    """A message on the first gap in a sequence of layers; None if it is a chain."""
    for layer in layers:
        if not layer.weight.size:
            return f"layer {layer.name!r} has weights of shape {layer.weight.shape}: no neurons"
    for before, after in pairwise(layers):
        if before.kind == "linear" and after.kind == "conv":
            return (
                f"convolution {after.name!r} follows the fully connected {before.name!r}; "
                "only the other order is understood"
            )
        flattened = before.kind == "conv" and after.kind == "linear"
        if after.n_in != before.n_out and not (flattened and after.n_in % before.n_out == 0):
            return (
                f"layer {after.name!r} reads {after.n_in} values, but {before.name!r} before it "
                f"gives {before.n_out}{' channels' if before.kind == 'conv' else ''}"
            )
    return None


def with_depthwise_groups(layers: Iterable[ChainLayer]) -> list[ChainLayer]:
    """Set the groups of convolutions with one input channel per group.

    A weight array does not store its groups. One input channel after a layer of several channels
    means that each group reads one channel.
    """
    result: list[ChainLayer] = []
    for layer in layers:
        channels = result[-1].n_out if result else 1
        one_each = layer.kind == "conv" and layer.weight.shape[1] == 1 and channels > 1
        if one_each and layer.n_out % channels == 0:
            layer = replace(layer, groups=channels)
        result.append(layer)
    return result


def normalization_scale(
    gamma: NDArray[np.floating] | None, variance: NDArray[np.floating], eps: float
) -> NDArray[np.float64]:
    """Factor gamma / sqrt(variance + eps) of a batch norm, per channel, shape (c,)."""
    # A negative variance gives NaN, which the graph reports by layer.
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = 1.0 / np.sqrt(variance.astype(np.float64) + eps)
    return scale if gamma is None else scale * gamma


def read_sequence(model: Any) -> list[ChainLayer]:
    """The layers of a sequence of weight arrays."""
    if isinstance(model, np.ndarray) or is_tensor(model):
        raise InputError(_single_array(tuple(model.shape)))
    if not isinstance(model, Sequence) or isinstance(model, bytes):
        raise InputError(
            f"model: cannot read type {type(model).__name__}; pass a torch.nn.Module (not its "
            "class), a path, a list of (fan_in, fan_out) weight matrices, a dict of named weights, "
            "a fitted MLP of scikit-learn, a scipy sparse adjacency matrix, a networkx graph or a "
            "NeuronGraph"
        )
    chain: list[ChainLayer] = []
    for number, values in enumerate(model):
        what = f"model: weights {number}"
        if isinstance(values, str | Path):
            what += f" ({values})"
            values = read_npy(Path(values))
        weight = as_array(values, what)
        if not 2 <= weight.ndim <= 5:
            raise InputError(
                f"{what} have shape {weight.shape}; expected a (fan_in, fan_out) "
                "matrix, or a convolution (out, in, positions...). Leave biases out"
            )
        chain.append(ChainLayer(f"w{number}", weight, "linear" if weight.ndim == 2 else "conv"))
    return with_depthwise_groups(chain)


def _single_array(shape: tuple[int, ...]) -> str:
    if len(shape) == 2 and shape[0] == shape[1]:
        return (
            f"model: a dense square array {shape} may be weights or an adjacency matrix; pass "
            "scipy.sparse.csr_array(adjacency) if it is an adjacency matrix, or the list of all "
            "the weight matrices of the chain"
        )
    return (
        f"model: a single array of shape {shape}; pass the weight matrices of the chain as a "
        f"list, [w0, w1, ...]; {SINGLE_MATRIX_HINT}"
    )
