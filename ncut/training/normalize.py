"""normalize_(): incoming weights of hidden neurons rescaled to one norm, the function unchanged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from ncut import kernels
from ncut.errors import InputError
from ncut.extract.layout import Edges, in_order
from ncut.training.live import Planned
from ncut.training.sources import View, wide

NORM = math.sqrt(2.0)
"""That of the weights of a neuron at He's initialization, roughly."""


def normalize_(model: nn.Module, *, example_inputs: Any = None) -> list[str]:
    """Give the incoming weights of every hidden neuron the norm sqrt(2), in place.

    A neuron with a positively homogeneous activation, such as ReLU, may have its incoming weights
    and its bias multiplied by a positive number if its outgoing weights are divided by it: what
    the network computes stays the same. Here that number makes the norm of its incoming weights
    and bias together sqrt(2). A neuron of a convolution is a channel. Where a batch norm follows,
    its scale and shift are multiplied instead, so that the norm is that of the weights with the
    batch norm folded in, as in the graph. Neurons whose incoming weights and bias are all zero,
    the last layer, and layers where it would change the function (other activations, residual
    sums, several readers) stay as they are.

    Not between a forward pass and its backward pass: it changes the weights in place.

    Parameters
    ----------
    model : torch.nn.Module
    example_inputs : optional
        See `ncut.graph`.

    Returns
    -------
    list of str
        Names of the layers of neurons that were normalized.

    Raises
    ------
    InputError
        If there is no such layer.

    Source: Filan et al. (2021), Clusterability in Neural Networks, appendix A.10, algorithm 2.

    Examples
    --------
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> normalize_(model)
    ['0']
    >>> weights = [model[0].weight, model[0].bias[:, None]]
    >>> [round(float(norm), 3) for norm in torch.cat(weights, dim=1).norm(dim=1)]
    [1.414, 1.414, 1.414]
    """
    normalization = Normalization(model, example_inputs=example_inputs)
    normalization.apply_()
    return normalization.layers


@dataclass(frozen=True, slots=True, eq=False)
class _Reader:
    """Weights that read the neurons of a layer.

    Attributes
    ----------
    view : View
        The operation's weight: (n_in, n_out), or a convolution's kernel.
    groups : int
        Of a convolution, 0 for a matrix.
    places : Tensor of int64, shape (n_in,), optional
        The neuron of each input; None if they are the neurons in order.
    width : int
        Columns of the parameter, (rows, columns), that each neuron has side by side; 0 if they
        lie otherwise.
    """

    view: View
    groups: int
    places: Tensor | None
    width: int

    def divide_(self, factors: Tensor) -> None:
        """Divide what reads each neuron by its factor."""
        parameter = self.view.source.parameter()
        assert parameter is not None
        weight = self.view.of(parameter)
        factors = factors.to(weight)
        if self.places is not None:
            factors = factors[self.places.to(weight.device)]
        if not self.groups:
            weight.div_(factors[:, None])
        elif self.groups == 1:
            weight.div_(factors.reshape(1, -1, *(1,) * (weight.ndim - 2)))
        else:
            parts = weight.reshape(self.groups, -1, *weight.shape[1:])
            parts.div_(factors.reshape(self.groups, 1, -1, *(1,) * (weight.ndim - 2)))


@dataclass(frozen=True, slots=True, eq=False)
class _Hidden:
    """A layer of hidden neurons that may be rescaled.

    Attributes
    ----------
    name : str
    writer : View
        The weights that write them, (n_in, n_out) or a kernel (out, in, positions...).
    matrix : bool
        Whether `writer` is a matrix.
    batch_norm : _BatchNorm, optional
        The one between them and their activation.
    reader : _Reader
    """

    name: str
    writer: View
    matrix: bool
    batch_norm: _BatchNorm | None
    reader: _Reader

    def normalize_(self) -> None:
        if not self._normalized_by_kernel():
            self._normalize()

    def _normalized_by_kernel(self) -> bool:
        """The same in one compiled call, for parameters that lie in memory as it needs them."""
        reader, width = self.reader, self.reader.width
        incoming = self.writer.source.module._parameters.get(self.writer.source.name)
        outgoing = reader.view.source.module._parameters.get(reader.view.source.name)
        bias = self.writer.source.module._parameters.get("bias")
        if self.batch_norm is not None or incoming is None or outgoing is None or width == 0:
            return False
        if self.matrix and not self.writer.is_transpose:
            return False
        kinds = {tensor.dtype for tensor in (incoming, outgoing, bias) if tensor is not None}
        if kinds not in ({torch.float32}, {torch.float64}) or incoming.device.type != "cpu":
            return False
        if not (incoming.is_contiguous() and outgoing.is_contiguous()):
            return False
        kernels.normalize_neurons(
            incoming.detach().flatten(1).numpy(),
            None if bias is None else bias.detach().numpy(),
            outgoing.detach().flatten(1).numpy(),
            NORM,
        )
        for tensor in (incoming, outgoing, bias):
            if tensor is not None:
                torch.autograd.graph.increment_version(tensor)
        return True

    def _normalize(self) -> None:
        weight = self.writer.of(self.writer.source.tensor())
        axes = 0 if self.matrix else tuple(range(1, weight.ndim))
        norms = torch.linalg.vector_norm(wide(weight), dim=axes)
        bias = self.writer.source.module._parameters.get("bias")
        shift = None if bias is None else wide(bias)
        batch_norm = self.batch_norm
        if batch_norm is not None:
            assert batch_norm.running_mean is not None
            assert batch_norm.running_var is not None
            scale = torch.rsqrt(wide(batch_norm.running_var) + batch_norm.eps)
            scale = scale * wide(batch_norm.weight)
            mean = wide(batch_norm.running_mean)
            shift = scale * ((0 if shift is None else shift) - mean) + wide(batch_norm.bias)
            norms = norms * scale.abs()
        if shift is not None:
            norms = torch.hypot(norms, shift)
        factors = torch.where(norms > 0, NORM / norms, 1.0)
        self._multiply_(factors)
        self.reader.divide_(factors)

    def _multiply_(self, factors: Tensor) -> None:
        if self.batch_norm is not None:
            self.batch_norm.weight.mul_(factors)
            self.batch_norm.bias.mul_(factors)
            return
        parameter = self.writer.source.parameter()
        assert parameter is not None
        weight = self.writer.of(parameter)
        if self.matrix:
            weight.mul_(factors)
        else:
            weight.mul_(factors.reshape(-1, *(1,) * (weight.ndim - 1)))
        bias = self.writer.source.module._parameters.get("bias")
        if bias is not None:
            bias.mul_(factors)


class Normalization:
    """The layers of a model that `normalize_` rescales, found once.

    Attributes
    ----------
    layers : list of str
        Names of the layers of neurons, in the order of the forward pass.
    """

    def __init__(self, model: nn.Module, *, example_inputs: Any = None) -> None:
        planned = Planned(model, scope="all", residual="readers", example_inputs=example_inputs)
        self._hidden = [*_hidden_layers(planned)]
        if not self._hidden:
            raise InputError(
                "model: has no layer of neurons that can be rescaled without changing what it "
                "computes; that takes an activation such as ReLU, and one layer that reads it"
            )
        self.layers = [hidden.name for hidden in self._hidden]
        self._versions: list[int] = []

    @torch.no_grad()
    def apply_(self) -> None:
        """Normalize, layer by layer in the order of the forward pass."""
        for hidden in self._hidden:
            hidden.normalize_()
        self._versions = self._current()

    def apply_if_changed_(self) -> None:
        """The same if the weights were changed in place since the last time.

        So two forward passes before one backward pass do not change weights that the first needs.
        """
        if self._versions != self._current():
            self.apply_()

    def _current(self) -> list[int]:
        sources = [hidden.writer.source for hidden in self._hidden]
        sources.append(self._hidden[-1].reader.view.source)
        parameters = [source.parameter() for source in sources]
        return [-1 if p is None else p._version for p in parameters]


def _hidden_layers(planned: Planned) -> Sequence[_Hidden]:
    layout = planned.layout
    found = []
    for position, layer in enumerate(layout.layers):
        if layer.rescalable is not True:
            continue
        written = [n for n, edges in enumerate(layout.edges) if edges.target == position]
        read = [n for n, edges in enumerate(layout.edges) if edges.source == position]
        if len(written) == 1 and read and _one_operation(layout.edges, read):
            hidden = _hidden(planned, written[0], read[0], layer.name)
            if hidden is not None:
                found.append(hidden)
    return found


def _one_operation(edges: Sequence[Edges], numbers: Sequence[int]) -> bool:
    return len({id(edges[number].operation) for number in numbers}) == 1


def _hidden(planned: Planned, written: int, read: int, name: str) -> _Hidden | None:
    """A layer, if it is written and read by modules whose biases are known."""
    edges, reading = planned.layout.edges[written], planned.layout.edges[read]
    writer, reader = planned.weight(written), planned.weight(read)
    if writer is None or reader is None:
        return None
    module = writer.source.module
    if not isinstance(module, nn.Linear | _ConvNd) or writer.source.name != "weight":
        return None
    if writer.source.parameter() is None or reader.source.parameter() is None:
        return None
    n = planned.layout.layers[edges.target].size
    columns = planned.columns(written)
    batch_norm = None
    if not np.array_equal(edges.units, np.arange(n)[:, None]):
        return None
    if columns is not None:
        scales = columns.scales
        straight = columns.index is not None and np.array_equal(columns.index, np.arange(n))
        if not straight or len(scales) != 1 or not isinstance(scales[0].module, _BatchNorm):
            return None
        batch_norm = scales[0].module
        if batch_norm.weight is None or not np.allclose(columns.constant, 1.0, rtol=1e-5):
            return None
    places, repeats = None, 1
    if reading.places is not None:
        if reading.places.shape[1] != 1:
            return None
        places = torch.as_tensor(reading.places[:, 0])
        repeats = len(places) // n if in_order(reading.places[:, 0], n) else 0
    groups = reading.operation.groups if reading.operation.kind == "conv" else 0
    if groups == 0:
        width = repeats if reader.is_transpose else 0
    else:
        width = repeats * math.prod(reader.shape[2:]) if groups == 1 and reader.is_whole else 0
    read_by = _Reader(reader, groups, places, width)
    return _Hidden(name, writer, edges.operation.kind != "conv", batch_norm, read_by)
