"""Where the arrays that a graph is made of come from: which tensors of a model, looked up anew.

A model is read once, from a copy that shares its memory. Weights are known again by where they
lie in memory, factors of channels (a batch norm's scale, say) by what the reading makes of
marked ones.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from ncut.errors import InputError
from ncut.training.placed import constant

STEP = 2.0**-22
"""Marks are multiples of this above 1: exact in float32."""

MOST = 2**21
"""Entries of scales that marks can tell apart; those of larger models count as constants."""


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A tensor of a module, which may be replaced, pruned or parametrized meanwhile."""

    module: nn.Module
    name: str

    def tensor(self) -> Tensor:
        """The tensor as the next forward pass will use it, differentiable."""
        module, name = self.module, self.name
        parameter = module._parameters.get(name)
        if parameter is not None:
            return parameter
        masked = module._parameters.get(f"{name}_orig")
        mask = module._buffers.get(f"{name}_mask")
        if masked is not None and mask is not None:
            return masked * mask.to(masked.dtype)
        for hook in _computing_hooks(module):
            if hook.name == name:
                return _computed(hook, module)
        value: Tensor = getattr(module, name)
        return value

    def parameter(self) -> Tensor | None:
        """What to change in place to scale the tensor's rows and columns; None if nothing will."""
        parameters = self.module._parameters
        if parameters.get(self.name) is not None:
            return parameters[self.name]
        pruned = self.module._buffers.get(f"{self.name}_mask") is not None
        return parameters.get(f"{self.name}_orig") if pruned else None

    @property
    def exists(self) -> bool:
        """Whether there is such a tensor."""
        return getattr(self.module, self.name, None) is not None


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """How an array lies in the memory of a source's tensor.

    Attributes
    ----------
    source : Source
    shape : tuple of int
        Of the array.
    kind : {"whole", "transpose", "part"}
        Whether it is the tensor, its transpose, or some part of its entries.
    strides : tuple of int
        Of a part, in entries of the contiguous tensor.
    offset : int
        Of a part's first entry.
    """

    source: Source
    shape: tuple[int, ...]
    kind: Literal["whole", "transpose", "part"]
    strides: tuple[int, ...] = ()
    offset: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether the array is the tensor."""
        return self.kind == "whole"

    @property
    def is_transpose(self) -> bool:
        """Whether the array is the tensor's transpose, a matrix."""
        return self.kind == "transpose"

    def of(self, tensor: Tensor) -> Tensor:
        """The same part of another tensor of the source's shape; a view of it if it can be."""
        if self.kind == "whole":
            return tensor
        if self.kind == "transpose":
            return tensor.T
        return tensor.contiguous().as_strided(self.shape, self.strides, self.offset)

    def tensor(self) -> Tensor:
        """The array as a live tensor, in float32 at least."""
        return self.of(wide(self.source.tensor()))

    def writable(self) -> Tensor | None:
        """The array as a view of a parameter, to be changed in place; None if there is none."""
        parameter = self.source.parameter()
        if parameter is None or (self.kind == "part" and not parameter.is_contiguous()):
            return None
        return self.of(parameter)


@dataclass(frozen=True, slots=True, eq=False)
class Factors:
    """Magnitudes of factors of a graph's rows or columns.

    Attributes
    ----------
    constant : ndarray of float64, shape (n,)
    scales : tuple of (Source, ndarray of int64, shape (n,))
        Live factors: a parameter, or a batch norm (by the name "weight"), and which of its entries
        multiplies each, -1 for none.
    """

    constant: NDArray[np.float64]
    scales: tuple[tuple[Source, NDArray[np.int64]], ...] = ()

    def tensor(self, like: Tensor) -> Tensor:
        """The factors as a live tensor of the type of `like`."""
        found = constant(self.constant, like.device, like.dtype)
        for scale, numbers in self.scales:
            index = constant(numbers, like.device)
            live = _scale(scale).to(like)
            found = found * live[index.clamp_min(0)].masked_fill(index < 0, 1.0)
        return found


def wide(tensor: Tensor) -> Tensor:
    """The tensor in float32 at least."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


class Copy:
    """A copy of a model that shares its weights, to be read with marked factors.

    Attributes
    ----------
    model : nn.Module
        The copy: on the CPU, in float32 at least, without hooks, pruning and parametrizations
        made permanent.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = _copied(model)
        self._pairs = [*zip(model.modules(), self.model.modules(), strict=True)]
        for _, made in self._pairs:
            _make_permanent(made)
        self._places = [*self._memory()]
        self._vectors = [*self._scales()]
        sizes = [getattr(made, name).numel() for _, made, name in self._vectors]
        self._starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)

    @property
    def modules(self) -> dict[int, nn.Module]:
        """The copy of each module, by the id of the module."""
        return {id(own): made for own, made in self._pairs}

    @property
    def has_scales(self) -> bool:
        """Whether there is anything to mark."""
        return bool(self._vectors)

    def view(self, array: NDArray[Any]) -> View | None:
        """Where an array that was read from the copy comes from; None if it was computed."""
        if not array.size:
            return None
        address = int(array.__array_interface__["data"][0])
        strides = _strides(array.shape, [s // array.itemsize for s in array.strides])
        for source, tensor in self._places:
            start = tensor.data_ptr()
            if not start <= address < start + tensor.numel() * tensor.element_size():
                continue
            shape, ours = tuple(tensor.shape), _strides(tensor.shape, tensor.stride())
            if address == start and (array.shape, strides) == (shape, ours):
                return View(source, array.shape, "whole")
            turned = address == start and len(shape) == 2
            if turned and (array.shape, strides) == (shape[::-1], ours[::-1]):
                return View(source, array.shape, "transpose")
            if tensor.is_contiguous():
                offset = (address - start) // array.itemsize
                return View(source, array.shape, "part", strides, offset)
        return None

    def marked(self) -> Iterator[NDArray[np.bool_]]:
        """Give the scales marks, entry by entry, all others the value 1; which have marks.

        None first; then so that of any two there is a time when the one has marks, not the other.
        """
        n_vectors = len(self._vectors)
        numbers = np.arange(n_vectors)
        n_bits = max(n_vectors - 1, 1).bit_length()
        bits = [(numbers >> bit) & 1 == 1 for bit in range(n_bits)]
        ways = [np.zeros(n_vectors, dtype=bool)]
        if int(self._starts[-1]) < MOST:
            ways += [way for bit in bits for way in (bit, ~bit)]
        for way in ways:
            for vector, (_, made, name) in enumerate(self._vectors):
                tensor = getattr(made, name)
                marks = np.arange(1.0, tensor.numel() + 1) + self._starts[vector]
                values = 1.0 + STEP * marks * way[vector]
                new = torch.as_tensor(values, dtype=tensor.dtype).reshape(tensor.shape)
                made._parameters[name] = nn.Parameter(new, requires_grad=False)
            yield way

    def factors(
        self,
        actual: NDArray[Any],
        plain: NDArray[Any],
        marked: Sequence[tuple[NDArray[np.bool_], NDArray[Any]]],
    ) -> Factors:
        """Factors from what the readings made of them: as they are, without marks, with each.

        Entries that are no products of up to three scales are kept as they are.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = [np.nan_to_num(values / plain, nan=1.0, posinf=1.0) for _, values in marked]
        ways = [way for way, _ in marked]
        numbers = [np.rint((ratio - 1.0) / STEP).astype(np.int64) - 1 for ratio in ratios]
        vectors = [np.searchsorted(self._starts, found, side="right") - 1 for found in numbers]
        # Vectors of which some entry may be a mark, where they have marks.
        seen = {
            int(v)
            for way, found, number in zip(ways, vectors, numbers, strict=True)
            for v in np.unique(found[(number >= 0) & (number < self._starts[-1])])
            if way[v]
        }
        open_entries = np.any([ratio != 1.0 for ratio in ratios], axis=0)
        constant = np.where(open_entries, actual, plain).astype(np.float64)
        scales: dict[int, NDArray[np.int64]] = {}
        singles = [(v,) for v in sorted(seen)]
        pairs = itertools.combinations(sorted(seen), 2)
        triples = itertools.combinations(sorted(seen), 3)
        for chosen in itertools.chain(singles, pairs, triples):
            if not open_entries.any():
                break
            index = {v: self._alone(v, chosen, ways, numbers, vectors) for v in chosen}
            fits = open_entries & np.all([at >= 0 for at in index.values()], axis=0)
            for way, ratio in zip(ways, ratios, strict=True):
                expected = np.ones_like(ratio)
                for v, at in index.items():
                    if way[v]:
                        expected *= 1.0 + STEP * (at + 1 + self._starts[v])
                fits &= np.abs(ratio - expected) < STEP / 1e3
            constant[fits] = plain[fits]
            for v, at in index.items():
                scales.setdefault(v, np.full(plain.shape, -1, dtype=np.int64))[fits] = at[fits]
                spread = _spread(self._vectors[v][0])
                if spread is not None:
                    constant[fits] *= spread.detach().double().cpu().numpy()[at[fits]]
            open_entries &= ~fits
        live = {v: at for v, at in scales.items() if (at >= 0).any()}
        return Factors(
            constant,
            tuple((Source(*self._vectors[v][::2]), at) for v, at in live.items()),
        )

    def _alone(
        self,
        vector: int,
        chosen: Sequence[int],
        ways: Sequence[NDArray[np.bool_]],
        numbers: Sequence[NDArray[np.int64]],
        vectors: Sequence[NDArray[np.int64]],
    ) -> NDArray[np.int64]:
        """Entries of one vector, from a reading in which it has marks and the others have none."""
        for way, number, found in zip(ways, numbers, vectors, strict=True):
            if way[vector] and not any(way[other] for other in chosen if other != vector):
                return np.where(found == vector, number - self._starts[vector], -1)
        return np.full(numbers[0].shape, -1, dtype=np.int64)

    def _memory(self) -> Iterator[tuple[Source, Tensor]]:
        """The tensors that arrays may be parts of."""
        seen = set()
        for own, made in self._pairs:
            attributes = {k: v for k, v in vars(made).items() if isinstance(v, Tensor)}
            for name, tensor in {**made._parameters, **made._buffers, **attributes}.items():
                if tensor is None or tensor.layout != torch.strided or not tensor.numel():
                    continue
                if tensor.data_ptr() not in seen:
                    seen.add(tensor.data_ptr())
                    yield Source(own, name), tensor

    def _scales(self) -> Iterator[tuple[nn.Module, nn.Module, str]]:
        """Parameters that may be factors of channels: vectors that are no biases."""
        seen = set()
        for own, made in self._pairs:
            if (
                isinstance(made, _BatchNorm)
                and made.weight is None
                and made.running_var is not None
            ):
                made.affine = True
                made._parameters["weight"] = nn.Parameter(torch.ones_like(made.running_var))
            for name, tensor in made._parameters.items():
                vector = tensor is not None and tensor.numel() == max(tensor.shape, default=1)
                if not vector or "bias" in name or tensor is None or not tensor.is_floating_point():
                    continue
                if tensor.data_ptr() not in seen:
                    seen.add(tensor.data_ptr())
                    yield own, made, name


def _scale(scale: Source) -> Tensor:
    """Magnitudes of a live scale, shape (n,)."""
    spread = _spread(scale.module)
    if spread is None:
        return wide(scale.tensor()).abs().reshape(-1)
    return wide(scale.tensor()).abs() / spread if scale.exists else 1.0 / spread


def _spread(module: nn.Module) -> Tensor | None:
    """sqrt(running_var + eps) of a batch norm."""
    if isinstance(module, _BatchNorm) and module.running_var is not None:
        return torch.sqrt(wide(module.running_var) + module.eps)
    return None


def _copied(model: nn.Module) -> nn.Module:
    memo: dict[int, Any] = {}
    for module in model.modules():
        for space in (module._parameters, module._buffers, vars(module)):
            for value in space.values():
                if isinstance(value, Tensor) and id(value) not in memo:
                    memo[id(value)] = _shared(value)
    try:
        return copy.deepcopy(model, memo)
    except Exception as error:
        raise InputError(
            f"model: cannot be copied, which reading it for training needs: {error}"
        ) from error


def _shared(tensor: Tensor) -> Tensor:
    """The tensor on the CPU in float32 at least, in the same memory where it is that already."""
    made = tensor.detach().cpu()
    made = wide(made) if made.is_floating_point() else made
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(made, requires_grad=False)
    return made


def _make_permanent(module: nn.Module) -> None:
    """Replace what a hook or a parametrization computes by a parameter of the same name."""
    values: dict[str, Tensor] = {}
    if parametrize.is_parametrized(module):
        parametrizations: Any = module.parametrizations
        values = {name: getattr(module, name).detach() for name in [*parametrizations]}
        # The class was made for the one module, but copies share it.
        module.__class__ = type(module).__bases__[0]
        del module._modules["parametrizations"]
    for hook in [*module._forward_pre_hooks.values()]:
        if isinstance(hook, prune.BasePruningMethod):
            prune.remove(module, hook._tensor_name)  # type: ignore[no-untyped-call]
        elif isinstance(hook, WeightNorm | SpectralNorm):
            values[hook.name] = _computed(hook, module).detach()
    module._forward_pre_hooks.clear()
    module._forward_hooks.clear()
    for name, value in values.items():
        for space in (module._buffers, vars(module)):
            space.pop(name, None)
        module._parameters[name] = nn.Parameter(value, requires_grad=False)


def _computing_hooks(module: nn.Module) -> list[Any]:
    """Hooks of the older weight norm and spectral norm."""
    return [
        hook
        for hook in module._forward_pre_hooks.values()
        if isinstance(hook, WeightNorm | SpectralNorm)
    ]


def _computed(hook: Any, module: nn.Module) -> Tensor:
    made: Tensor = (
        hook.compute_weight(module)
        if isinstance(hook, WeightNorm)
        else hook.compute_weight(module, do_power_iteration=False)
    )
    return made


def _strides(shape: Sequence[int], strides: Sequence[int]) -> tuple[int, ...]:
    """Strides with those along axes of length 1, which mean nothing, set to 1."""
    return tuple(1 if n == 1 else stride for n, stride in zip(shape, strides, strict=True))
