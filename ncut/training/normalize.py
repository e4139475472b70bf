"""normalize_(): rescales incoming weights of hidden neurons to one norm, same function."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from ncut.arguments import suggests_names
from ncut.errors import InputError
from ncut.extract.assembly.layout import Edges, in_order
from ncut.training.live_graph import Planned
from ncut.training.neurons import HiddenLayer, Reader, vector_of
from ncut.training.parameter_refs import Factors, ParameterRef
from ncut.training.rescaling_check import RescalingCheck


@suggests_names()
def normalize_(model: nn.Module, *, example_inputs: Any = None) -> list[str]:
    """Give the incoming weights of every hidden neuron the norm sqrt(2), in place.

    A neuron with a positively homogeneous activation, such as ReLU, may have its incoming weights
    and its bias multiplied by a positive number if its outgoing weights are divided by it: the
    network's function stays the same. The number is chosen such that the joint norm of incoming
    weights and bias is sqrt(2). A neuron of a convolution is a channel. If a batch norm follows,
    its scale and shift are multiplied instead, so that the norm applies to the weights with the
    batch norm folded in, as in the graph. Neurons whose incoming weights and bias are all zero,
    the last layer, and layers where rescaling would change the function (other activations,
    residual sums, several readers) are unchanged.

    Do not call it between a forward pass and its backward pass: it changes weights in place.

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


class Normalization:
    """The layers of a model that `normalize_` rescales, found once.

    The rescalable layers are determined from the model's operations and then verified: random
    factors must not change the outputs for random inputs.

    Attributes
    ----------
    layers : list of str
        Names of the layers of neurons, in the order of the forward pass.
    """

    def __init__(self, model: nn.Module, *, example_inputs: Any = None) -> None:
        planned = Planned(model, scope="all", residual="readers", example_inputs=example_inputs)
        self._hidden = _harmless(planned, [*_hidden_layers(planned)], example_inputs)
        if not self._hidden:
            raise InputError(
                "model: has no layer of neurons that can be rescaled without changing what it "
                "computes; that takes an activation such as ReLU, and one layer that reads it"
            )
        self.layers = [hidden.name for hidden in self._hidden]

    @torch.no_grad()
    def apply_(self) -> None:
        """Normalize, layer by layer in the order of the forward pass.

        Layers already normalized are not touched, so that a second forward pass before the backward
        pass does not change weights that the first needs.
        """
        for hidden in self._hidden:
            hidden.normalize_()


def _hidden_layers(planned: Planned) -> Iterator[HiddenLayer]:
    layout = planned.layout
    for position, layer in enumerate(layout.layers):
        if layer.rescalable is not True:
            continue
        written = [n for n, edges in enumerate(layout.edges) if edges.target == position]
        read = [n for n, edges in enumerate(layout.edges) if edges.source == position]
        if len(written) == 1 and read and _one_operation(layout.edges, read):
            hidden = _hidden(planned, written[0], read[0], layer.name)
            if hidden is not None:
                yield hidden


def _one_operation(edges: Sequence[Edges], numbers: Sequence[int]) -> bool:
    return len({id(edges[number].operation) for number in numbers}) == 1


def _hidden(planned: Planned, written: int, read: int, name: str) -> HiddenLayer | None:
    """A layer, if the modules that write and read it have known biases."""
    edges, reading = planned.layout.edges[written], planned.layout.edges[read]
    writer, reader = planned.view(written), planned.view(read)
    if writer is None or reader is None:
        return None
    module = writer.source.module
    if not isinstance(module, nn.Linear | _ConvNd) or writer.source.name != "weight":
        return None
    n = planned.layout.layers[edges.target].size
    known, batch_norm = _batch_norm_between(planned.columns(written), n)
    ends = [writer, reader, vector_of(module, "bias")]
    if batch_norm is not None:
        ends += [vector_of(batch_norm, name) for name in ("weight", "bias")]
    writable = all(end is None or end.writable() is not None for end in ends)
    if not known or not writable or not np.array_equal(edges.units, np.arange(n)[:, None]):
        return None
    places, repeats = None, 1
    if reading.places is not None:
        if reading.places.shape[1] != 1 or (reading.places < 0).any():
            return None
        places = torch.as_tensor(reading.places[:, 0])
        repeats = len(places) // n if in_order(reading.places[:, 0], n) else 0
    groups = reading.operation.groups if reading.operation.kind == "conv" else 0
    if groups == 0:
        width = repeats if reader.kind == "transpose" else 0
    else:
        straight = groups == 1 and reader.kind == "whole"
        width = repeats * math.prod(reader.shape[2:]) if straight else 0
    read_by = Reader(reader, groups, places, width)
    return HiddenLayer(name, n, writer, edges.operation.kind != "conv", batch_norm, read_by)


def _batch_norm_between(columns: Factors | None, n: int) -> tuple[bool, _BatchNorm | None]:
    """The batch norm whose scale is a layer's factors; False if the factors differ from it."""
    if columns is None:
        return True, None
    found = columns.batch_norm()
    known = found is not None and found.num_features == n and ParameterRef(found, "bias").exists
    return (True, found) if known else (False, None)


@torch.no_grad()
def _harmless(
    planned: Planned, hidden: list[HiddenLayer], example_inputs: Any
) -> list[HiddenLayer]:
    """The layers whose rescaling does not change the outputs for random inputs."""
    if not hidden:
        return []
    check = RescalingCheck(planned, example_inputs)
    if check.harmless(hidden):
        return hidden
    return [layer for layer in hidden if check.harmless([layer])]
