"""normalize_(): incoming weights of hidden neurons rescaled to one norm, the function unchanged."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from ncut import kernels
from ncut.errors import InputError
from ncut.extract.layout import Edges, in_order
from ncut.extract.traced.inputs import Inputs, given, guesses
from ncut.training.live import Planned
from ncut.training.sources import Factors, Source, View, wide

NORM = math.sqrt(2.0)
"""That of the weights of a neuron at He's initialization, roughly."""

NEAR = 1e-6
"""Neurons whose norm is right to rounding stay as they are, bit for bit."""

SAME = 1e-3
"""Largest difference of outputs, relative to the largest output, that counts as rounding."""


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

    def divided(self, weight: Tensor, factors: Tensor) -> Tensor:
        """A weight with what reads each neuron divided by its factor."""
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
class _Hidden:
    """A layer of hidden neurons that may be rescaled.

    Attributes
    ----------
    name : str
    n : int
        How many they are.
    writer : View
        The weights that write them, (n_in, n_out) or a kernel (out, in, positions...).
    matrix : bool
        Whether `writer` is a matrix.
    batch_norm : _BatchNorm, optional
        The one between them and their activation.
    reader : _Reader
    """

    name: str
    n: int
    writer: View
    matrix: bool
    batch_norm: _BatchNorm | None
    reader: _Reader

    def normalize_(self) -> None:
        if self._normalized_by_kernel():
            return
        factors = NORM / self.norms()
        near = (factors - 1).abs() < NEAR
        factors = torch.where(torch.isfinite(factors) & ~near, factors, 1.0)
        if bool((factors != 1).any()):
            for view, values in self.rescaled(factors, _original):
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
            scale = scale * Source(batch_norm, "weight").tensor()
            shift = scale * ((0 if shift is None else shift) - batch_norm.running_mean)
            shift = shift + Source(batch_norm, "bias").tensor()
            norms = norms * scale.abs()
        return norms if shift is None else torch.hypot(norms, shift)

    def rescaled(
        self, factors: Tensor, read: Callable[[View], Tensor]
    ) -> Iterator[tuple[View, Tensor]]:
        """What to change, and its values with each neuron multiplied by its factor."""
        if self.batch_norm is not None:
            own = [_vector(self.batch_norm, name) for name in ("weight", "bias")]
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
        return _vector(self.writer.source.module, "bias")

    def _normalized_by_kernel(self) -> bool:
        """The same in one compiled call, for parameters that lie in memory as it needs them."""
        writer, reader = self.writer, self.reader
        straight = writer.is_transpose if self.matrix else writer.is_whole
        if self.batch_norm is not None or not straight or reader.width == 0:
            return False
        incoming = writer.source.module._parameters.get(writer.source.name)
        outgoing = reader.view.source.module._parameters.get(reader.view.source.name)
        bias = writer.source.module._parameters.get("bias")
        if incoming is None or outgoing is None:
            return False
        if bias is None and Source(writer.source.module, "bias").exists:
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


class Normalization:
    """The layers of a model that `normalize_` rescales, found once.

    Which layers may be rescaled is read from the model's operations and then tried: with random
    factors the outputs for random inputs must stay what they are.

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

        Layers that are normal already are not touched, so that two forward passes before one
        backward pass do not change weights that the first needs.
        """
        for hidden in self._hidden:
            hidden.normalize_()


def _vector(module: nn.Module, name: str) -> View | None:
    """A module's bias or scale."""
    source = Source(module, name)
    if not source.exists:
        return None
    return View(source, tuple(source.tensor().shape), "whole")


def _original(view: View) -> Tensor:
    """The values of a parameter, those under a mask included."""
    target = view.writable()
    assert target is not None
    return target.detach()


def _hidden_layers(planned: Planned) -> Iterator[_Hidden]:
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


def _hidden(planned: Planned, written: int, read: int, name: str) -> _Hidden | None:
    """A layer, if it is written and read by modules whose biases are known."""
    edges, reading = planned.layout.edges[written], planned.layout.edges[read]
    writer, reader = planned.weight(written), planned.weight(read)
    if writer is None or reader is None:
        return None
    module = writer.source.module
    if not isinstance(module, nn.Linear | _ConvNd) or writer.source.name != "weight":
        return None
    n = planned.layout.layers[edges.target].size
    known, batch_norm = _batch_norm_between(planned.columns(written), n)
    ends = [writer, reader, _vector(module, "bias")]
    if batch_norm is not None:
        ends += [_vector(batch_norm, name) for name in ("weight", "bias")]
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
        width = repeats if reader.is_transpose else 0
    else:
        width = repeats * math.prod(reader.shape[2:]) if groups == 1 and reader.is_whole else 0
    read_by = _Reader(reader, groups, places, width)
    return _Hidden(name, n, writer, edges.operation.kind != "conv", batch_norm, read_by)


def _batch_norm_between(columns: Factors | None, n: int) -> tuple[bool, _BatchNorm | None]:
    """The batch norm whose scale are a layer's factors; False if they are something else."""
    if columns is None:
        return True, None
    if len(columns.scales) != 1 or not np.allclose(columns.constant, 1.0, rtol=1e-5):
        return False, None
    (scale, index), *_ = columns.scales
    found = scale.module
    straight = np.array_equal(index, np.arange(n)) and scale.exists
    if not isinstance(found, _BatchNorm) or not straight or not Source(found, "bias").exists:
        return False, None
    return True, found


class _Trial:
    """A copy of a model that is run on random inputs, with random vectors of parameters."""

    def __init__(self, planned: Planned, example_inputs: Any) -> None:
        self._model = planned.copied.model.eval()
        self._copies = planned.copied.modules
        # Of parameters that are shared the first name; a change of it is one of all.
        names = {id(tensor): name for name, tensor in self._model.named_parameters()}
        self._parameters = {
            (id(module), name): (names[id(tensor)], tensor)
            for module in self._model.modules()
            for name, tensor in module._parameters.items()
            if tensor is not None
        }
        generator = torch.Generator().manual_seed(0)
        self._base: dict[str, Tensor] = {}
        # Biases that are zero now, as they begin, must not hide that they are there.
        tensors = [*self._model.named_parameters(), *self._model.named_buffers()]
        for name, tensor in tensors:
            centred = "bias" in name or name.endswith("running_mean")
            vector = tensor.numel() == max(tensor.shape, default=1) and tensor.is_floating_point()
            if vector and not name.endswith("running_var"):
                noise = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
                self._base[name] = 0.3 * noise + (0.0 if centred else 1.0)
        inputs = guesses(self._model) if example_inputs is None else [given(example_inputs)]
        self._inputs, self._expected = self._first_that_fits(inputs, generator)

    def harmless(self, layers: Sequence[_Hidden]) -> bool:
        """Whether the outputs stay the same with the neurons of these layers rescaled."""
        generator = torch.Generator().manual_seed(1)
        changed = dict(self._base)
        touched: set[str] = set()

        def read(view: View) -> Tensor:
            name, tensor = self._named(view.source)
            if name not in touched:
                touched.add(name)
                changed[name] = self._base.get(name, tensor).detach().clone()
            return view.of(changed[name])

        for layer in layers:
            factors = 0.5 + 1.5 * torch.rand(layer.n, generator=generator)
            for view, values in layer.rescaled(factors, read):
                view.of(changed[self._named(view.source)[0]]).copy_(values)
        found = self._run(changed, self._inputs)
        return all(
            float((ours - theirs).abs().max()) <= SAME * float(theirs.abs().max())
            for ours, theirs in zip(found, self._expected, strict=True)
            if theirs.numel()
        )

    def _named(self, source: Source) -> tuple[str, Tensor]:
        return self._parameters[id(self._copies[id(source.module)]), source.name]

    def _first_that_fits(
        self, inputs: Iterable[Inputs], generator: torch.Generator
    ) -> tuple[Inputs, list[Tensor]]:
        failure: Exception | None = None
        for each in inputs:
            drawn = Inputs(
                tuple(_random(value, generator) for value in each.args),
                {name: _random(value, generator) for name, value in each.kwargs.items()},
            )
            try:
                return drawn, self._run(self._base, drawn)
            except Exception as error:
                failure = failure or error
        raise InputError(
            f"model: could not be run on random inputs ({failure}); pass example_inputs="
        ) from failure

    def _run(self, tensors: dict[str, Tensor], inputs: Inputs) -> list[Tensor]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = functional_call(self._model, tensors, inputs.args, dict(inputs.kwargs))
        return [found for found in _tensors(made) if found.is_floating_point()]


def _random(value: Any, generator: torch.Generator) -> Any:
    if isinstance(value, Tensor) and value.is_floating_point():
        return torch.randn(value.shape, generator=generator, dtype=wide(value).dtype)
    return value


def _tensors(result: Any) -> Iterator[Tensor]:
    """The tensors in what a forward pass returned."""
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, Mapping):
        for value in result.values():
            yield from _tensors(value)
    elif isinstance(result, list | tuple):
        for value in result:
            yield from _tensors(value)


@torch.no_grad()
def _harmless(planned: Planned, hidden: list[_Hidden], example_inputs: Any) -> list[_Hidden]:
    """Those of the layers whose rescaling leaves the outputs for random inputs as they are."""
    if not hidden:
        return []
    trial = _Trial(planned, example_inputs)
    if trial.harmless(hidden):
        return hidden
    return [layer for layer in hidden if trial.harmless([layer])]
