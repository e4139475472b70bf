"""A layer of hidden neurons, and the changes that multiply each neuron by a factor."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ncut import kernels
from ncut.extract.readers.traced.plain import wide
from ncut.training.parameter_refs import ParameterRef, View

NORM = math.sqrt(2.0)
"""Approximately the norm of a neuron's weights at He's initialization."""

NEAR = 1e-6
"""Neurons whose norm is right up to rounding stay bitwise unchanged."""


@dataclass(frozen=True, slots=True, eq=False)
class Reader:
    """Weights that read the neurons of a layer.

    Attributes
    ----------
    view : View
        The operation's weight: (n_in, n_out), or a convolution's kernel.
    groups : int
        Groups of a convolution, 0 for a matrix.
    places : Tensor of int64, shape (n_in,), optional
        The neuron of each input; None if they are the neurons in order.
    width : int
        Number of adjacent columns of the parameter, (rows, columns), per neuron; 0 for any other
        arrangement.
    """

    view: View
    groups: int
    places: Tensor | None
    width: int

    def divided(self, weight: Tensor, factors: Tensor) -> Tensor:
        """A weight with the entries that read each neuron divided by its factor."""
        factors = factors.to(weight)
        if self.places is not None:
            factors = factors[self.places.to(weight.device)]
        if not self.groups:
            return weight / factors[:, None]
        ones = (1,) * (weight.ndim - 2)
        if self.groups == 1:
            return weight / factors.reshape(1, -1, *ones)
        parts = weight.reshape(self.groups, -1, *weight.shape[1:])
        return (parts / factors.reshape(self.groups, 1, -1, *ones)).reshape(weight.shape)


@dataclass(frozen=True, slots=True, eq=False)
class HiddenLayer:
    """A layer of hidden neurons that may be rescaled."""

    name: str
    n: int  # number of neurons
    writer: View  # the weights that write them, (n_in, n_out) or a kernel (out, in, positions...)
    matrix: bool  # whether `writer` is a matrix
    batch_norm: _BatchNorm | None  # the batch norm between the neurons and their activation
    reader: Reader

    def normalize_(self) -> None:
        if self._normalized_by_kernel():
            return
        factors = NORM / self.norms()
        near = (factors - 1).abs() < NEAR
        factors = torch.where(torch.isfinite(factors) & ~near, factors, 1.0)
        if bool((factors != 1).any()):
            for view, values in self.rescaled(factors, original_of):
                target = view.writable()
                assert target is not None
                target.copy_(values)

    def norms(self) -> Tensor:
        """Norm of the incoming weights and the bias of each neuron, a batch norm folded in."""
        weight = self.writer.of(self.writer.source.tensor())
        axes = 0 if self.matrix else tuple(range(1, weight.ndim))
        norms: Tensor = torch.linalg.vector_norm(wide(weight).double(), dim=axes)
        bias = self._bias()
        shift = None if bias is None else bias.source.tensor().double()
        if self.batch_norm is not None:
            batch_norm = self.batch_norm
            assert batch_norm.running_mean is not None
            assert batch_norm.running_var is not None
            scale = torch.rsqrt(batch_norm.running_var.double() + batch_norm.eps)
            scale = scale * ParameterRef(batch_norm, "weight").tensor()
            shift = scale * ((0 if shift is None else shift) - batch_norm.running_mean)
            shift = shift + ParameterRef(batch_norm, "bias").tensor()
            norms = norms * scale.abs()
        return norms if shift is None else torch.hypot(norms, shift)

    def rescaled(
        self, factors: Tensor, read: Callable[[View], Tensor]
    ) -> Iterator[tuple[View, Tensor]]:
        """The tensors to change, and their values with each neuron multiplied by its factor."""
        if self.batch_norm is not None:
            own = [vector_of(self.batch_norm, name) for name in ("weight", "bias")]
        else:
            weight = read(self.writer)
            by_output = factors.to(weight)
            if not self.matrix:
                by_output = by_output.reshape(-1, *(1,) * (weight.ndim - 1))
            yield self.writer, weight * by_output
            own = [self._bias()]
        for vector in own:
            if vector is not None:
                values = read(vector)
                yield vector, values * factors.to(values)
        yield self.reader.view, self.reader.divided(read(self.reader.view), factors)

    def _bias(self) -> View | None:
        return vector_of(self.writer.source.module, "bias")

    def _normalized_by_kernel(self) -> bool:
        """The same in one compiled call, for parameters with a suitable memory layout."""
        writer, reader = self.writer, self.reader
        straight = writer.kind == ("transpose" if self.matrix else "whole")
        if self.batch_norm is not None or not straight or reader.width == 0:
            return False
        incoming = writer.source.module._parameters.get(writer.source.name)
        outgoing = reader.view.source.module._parameters.get(reader.view.source.name)
        bias = writer.source.module._parameters.get("bias")
        if incoming is None or outgoing is None:
            return False
        if bias is None and ParameterRef(writer.source.module, "bias").exists:
            return False  # a pruned one
        tensors = [tensor for tensor in (incoming, outgoing, bias) if tensor is not None]
        if not all(t.is_contiguous() and t.device.type == "cpu" for t in tensors):
            return False
        if {tensor.dtype for tensor in tensors} not in ({torch.float32}, {torch.float64}):
            return False
        changed = kernels.normalize_neurons(
            incoming.detach().flatten(1).numpy(),
            None if bias is None else bias.detach().numpy(),
            outgoing.detach().flatten(1).numpy(),
            NORM,
        )
        if changed:
            for tensor in tensors:
                torch.autograd.graph.increment_version(tensor)
        return True


def vector_of(module: nn.Module, name: str) -> View | None:
    """A module's bias or scale."""
    source = ParameterRef(module, name)
    if not source.exists:
        return None
    return View(source, tuple(source.tensor().shape))


def original_of(view: View) -> Tensor:
    """The values of a parameter, including masked ones."""
    target = view.writable()
    assert target is not None
    return target.detach()
