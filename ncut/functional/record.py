"""The activations of a torch module's neurons in one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ncut.errors import InputError
from ncut.extract.modules import is_module, unwrapped
from ncut.functional.arguments import check_unshared
from ncut.functional.modules import hooked, part, reading
from ncut.types import Layer

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ncut.functional.modules import Read


def record(model: Any, layers: Sequence[Layer], inputs: Any) -> list[NDArray[np.floating]]:
    """Run a torch module once, in evaluation mode, and record its neurons' activations.

    Parameters
    ----------
    model : torch.nn.Module
        The module; it is not changed, and its mode is restored.
    layers : sequence of Layer
        The layers of the model's graph.
    inputs : Tensor or tuple of Tensor
        The argument, or the arguments, of the forward pass.

    Returns
    -------
    list of ndarray, each of shape (n_examples, size)
        The input of each layer's first reader, or the output of a layer without readers. Channels
        are averaged over their positions; further axes of a linear layer's input are examples.
        float64 for 64-bit values, else float32.

    Raises
    ------
    InputError
        If the model is not a torch module, the inputs are neither a tensor nor a tuple, or a module
        is not called exactly once.
    """
    if not is_module(model):
        raise InputError(
            f"inputs: {type(model).__name__} cannot be run; pass a torch.nn.Module, or the "
            "activations of each layer, activations=[...]"
        )
    import torch

    if not isinstance(inputs, torch.Tensor | tuple):
        raise InputError(
            "inputs: must be a tensor, a batch of examples, or a tuple of the arguments of a "
            f"forward pass, got {type(inputs).__name__}"
        )
    module = unwrapped(model)
    notes = [_Note(layer.name) for layer in layers]
    reads: dict[str, Read] = {}
    writes: dict[str, Read] = {}
    for layer, note in zip(layers, notes, strict=True):
        if layer.read_by:
            check_unshared(layer.read_by[0], layer, layers)
            reads[layer.read_by[0]] = note.taking(_input_neurons(module, layer))
        else:
            writes[layer.name] = note.taking(_output_neurons(module, layer))
    with hooked(module, reads, writes), torch.no_grad(), _evaluating(module):
        module(*(inputs if isinstance(inputs, tuple) else (inputs,)))
    return [note.taken() for note in notes]


class _Note:
    """The activations of one layer, recorded once."""

    def __init__(self, layer: str) -> None:
        self.layer = layer
        self.values: list[NDArray[np.floating]] = []

    def taking(self, neurons: Callable[[Tensor], Tensor]) -> Read:
        """Record the result of `neurons` for a value of the model, without changing the value."""

        def read(value: Tensor) -> None:
            if self.values:
                raise InputError(
                    f"model: the module at the values of layer {self.layer!r} is called more than "
                    "once; use a separate module for each call"
                )
            try:
                found = neurons(value.detach().double()).cpu().numpy()
            except RuntimeError as error:
                raise InputError(
                    f"inputs: do not fit the model: values of shape {tuple(value.shape)} at layer "
                    f"{self.layer!r}"
                ) from error
            # The values' type determines their precision.
            self.values.append(found if value.dtype.itemsize == 8 else found.astype(np.float32))

        return read

    def taken(self) -> NDArray[np.floating]:
        if not self.values:
            raise InputError(f"model: its forward pass does not use layer {self.layer!r}")
        return self.values[0]


def _input_neurons(module: nn.Module, layer: Layer) -> Callable[[Tensor], Tensor]:
    """Finds a layer's neurons, (n_examples, size), in the input of its first reader."""
    name = layer.read_by[0]
    where = reading(part(module, name), name, layer.size)
    if where.axis < -1:
        return lambda value: _over_positions(value, -1 - where.axis)
    return lambda value: value.reshape(-1, layer.size, where.positions).mean(2)


def _output_neurons(module: nn.Module, layer: Layer) -> Callable[[Tensor], Tensor]:
    """Finds a layer's neurons, (n_examples, size), in the output of its module."""
    from torch import nn

    writer = part(module, layer.name)
    if isinstance(writer, nn.Linear):
        return lambda value: value.reshape(-1, value.shape[-1])
    if isinstance(writer, nn.modules.conv._ConvNd):
        return lambda value: _over_positions(value, len(writer.kernel_size))
    raise InputError(
        f"model: {layer.name!r} is a {type(writer).__name__}; the position of neurons in its "
        "output is known only for linear layers and convolutions"
    )


def _over_positions(value: Tensor, n_axes: int) -> Tensor:
    """(n_examples, channels) from (examples, channels, positions...), or from a single example."""
    means = value.flatten(-n_axes).mean(-1)
    return means.reshape(-1, means.shape[-1])


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode; each submodule's mode is restored afterwards."""
    modes = [(one, one.training) for one in module.modules()]
    try:
        module.eval()
        yield
    finally:
        for one, mode in modes:
            one.training = mode
