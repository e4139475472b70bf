"""A numerical test that rescaling a layer's neurons does not change a model's outputs."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from ncut.errors import InputError
from ncut.extract.readers.traced.inputs import Inputs, given, guesses
from ncut.extract.readers.traced.module import tensors_in
from ncut.extract.readers.traced.plain import wide
from ncut.training.live_graph import Planned
from ncut.training.neurons import HiddenLayer
from ncut.training.parameter_refs import ParameterRef, View

SAME = 1e-3
"""Largest difference of outputs, relative to the largest output, attributed to rounding."""


class RescalingCheck:
    """A copy of a model for runs on random inputs, with random vector parameters."""

    def __init__(self, planned: Planned, example_inputs: Any) -> None:
        self._model = planned.copied.model.eval()
        self._copies = planned.copied.modules
        # The first name of shared parameters; a change of it changes all of them.
        names = {id(tensor): name for name, tensor in self._model.named_parameters()}
        self._parameters = {
            (id(module), name): (names[id(tensor)], tensor)
            for module in self._model.modules()
            for name, tensor in module._parameters.items()
            if tensor is not None
        }
        generator = torch.Generator().manual_seed(0)
        self._base: dict[str, Tensor] = {}
        # Biases that are zero, as at initialization, must not go undetected.
        tensors = [*self._model.named_parameters(), *self._model.named_buffers()]
        for name, tensor in tensors:
            centred = "bias" in name or name.endswith("running_mean")
            vector = tensor.numel() == max(tensor.shape, default=1) and tensor.is_floating_point()
            if vector and not name.endswith("running_var"):
                noise = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
                self._base[name] = 0.3 * noise + (0.0 if centred else 1.0)
        inputs = guesses(self._model) if example_inputs is None else [given(example_inputs)]
        self._inputs, self._expected = self._first_that_fits(inputs, generator)

    def harmless(self, layers: Sequence[HiddenLayer]) -> bool:
        """Return whether rescaling the neurons of these layers preserves the outputs."""
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

    def _named(self, source: ParameterRef) -> tuple[str, Tensor]:
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
        found = [tensor for tensor in tensors_in(made) if tensor.is_floating_point()]
        if not found:
            raise InputError("it returns no tensor of floats that could be compared")
        return found


def _random(value: Any, generator: torch.Generator) -> Any:
    if isinstance(value, Tensor) and value.is_floating_point():
        return torch.randn(value.shape, generator=generator, dtype=wide(value).dtype)
    return value
