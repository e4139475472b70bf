"""Where the arrays that a graph is made of come from: which tensors of a model, looked up anew.

A model is read once, from a copy that shares its memory. Weights are known again by where they
lie in memory, factors of channels (a batch norm's scale, say) by what the reading makes of
marked ones.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize, prune

from ncut.errors import InputError

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
        if masked is not None and f"{name}_mask" in module._buffers:
            mask = module._buffers[f"{name}_mask"]
            return masked if mask is None else masked * mask.to(masked.dtype)
        for hook in module._forward_pre_hooks.values():
            if getattr(hook, "name", None) == name and hasattr(hook, "compute_weight"):
                made: Tensor = hook.compute_weight(module)  # weight norm, computed by a hook
                return made
        value: Tensor = getattr(module, name)
        return value

    def parameter(self) -> Tensor | None:
        """What to change in place to scale the tensor's rows and columns; None if nothing will."""
        for name in (self.name, f"{self.name}_orig"):
            parameter = self.module._parameters.get(name)
            if parameter is not None:
                return parameter
        return None


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """How an array lies in the memory of a source's tensor.

    Attributes
    ----------
    source : Source
    shape, strides : tuple of int
        Of the array, in entries.
    offset : int
        Of its first entry.
    whole : tuple of int
        Shape of the tensor.
    """

    source: Source
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    whole: tuple[int, ...]

    @property
    def is_whole(self) -> bool:
        """Whether the array is the tensor."""
        return self.shape == self.whole and self.strides == contiguous_strides(self.whole)

    @property
    def is_transpose(self) -> bool:
        """Whether the array is the tensor's transpose, a matrix."""
        turned = len(self.shape) == 2 and self.shape == self.whole[::-1]
        return turned and self.strides == contiguous_strides(self.whole)[::-1]

    def of(self, tensor: Tensor) -> Tensor:
        """The same part of another tensor of the shape `whole`."""
        if self.is_whole:
            return tensor
        if self.is_transpose:
            return tensor.T
        return tensor.contiguous().as_strided(self.shape, self.strides, self.offset)

    def tensor(self) -> Tensor:
        """The array as a live tensor, in float32 at least."""
        return self.of(wide(self.source.tensor()))


@dataclass(frozen=True, slots=True, eq=False)
class Factors:
    """Magnitudes of factors of a graph's rows or columns.

    Attributes
    ----------
    constant : ndarray of float64, shape (n,)
    scales : tuple of Source
        Where live factors come from: a parameter, or a batch norm (by the name "weight").
    index : ndarray of int64, shape (n,)
        Which entry of all the scales one after the other multiplies each, -1 for none.
    """

    constant: NDArray[np.float64]
    scales: tuple[Source, ...] = ()
    index: NDArray[np.int64] | None = None

    def tensor(self, like: Tensor) -> Tensor:
        """The factors as a live tensor of the type of `like`."""
        constant = torch.as_tensor(self.constant, dtype=like.dtype, device=like.device)
        if self.index is None:
            return constant
        live = torch.cat([_scale(scale) for scale in self.scales]).to(like)
        index = torch.as_tensor(self.index, device=like.device)
        return constant * torch.where(index >= 0, live[index.clamp_min(0)], 1.0)


def wide(tensor: Tensor) -> Tensor:
    """The tensor in float32 at least."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


class Copy:
    """A copy of a model that shares its weights, to be read with marked factors.

    Attributes
    ----------
    model : nn.Module
        The copy: on the CPU, in float32 at least, pruning and parametrizations made permanent.
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
    def has_scales(self) -> bool:
        """Whether there is anything to mark."""
        return bool(self._vectors)

    def view(self, array: NDArray[Any]) -> View | None:
        """Where an array that was read from the copy comes from; None if it was computed."""
        address = int(array.__array_interface__["data"][0])
        for start, end, source, shape in self._places:
            if start <= address < end and array.size:
                offset = (address - start) // array.itemsize
                strides = tuple(s // array.itemsize for s in array.strides)
                strides = tuple(
                    1 if n == 1 else s for n, s in zip(array.shape, strides, strict=True)
                )
                return View(source, array.shape, strides, offset, shape)
        return None

    def marked(self) -> Iterator[None]:
        """Give all scales the value 1, then every entry a value of its own, in either order."""
        n = int(self._starts[-1])
        ones, numbers = np.zeros(n), np.arange(1.0, n + 1)
        if n >= MOST:
            numbers = ones
        for marks in (ones, numbers, numbers[::-1]):
            for (_, made, name), start in zip(self._vectors, self._starts, strict=False):
                tensor = getattr(made, name)
                values = 1.0 + STEP * marks[start : start + tensor.numel()]
                new = torch.as_tensor(values, dtype=tensor.dtype).reshape(tensor.shape)
                made._parameters[name] = nn.Parameter(new, requires_grad=False)
            yield

    def factors(
        self,
        actual: NDArray[Any],
        plain: NDArray[Any],
        forwards: NDArray[Any],
        backwards: NDArray[Any],
    ) -> Factors:
        """Factors from what readings made of them, before and after each way of marking.

        Products of several scales are no multiple of one mark: they are kept as they are.
        """
        n = int(self._starts[-1])
        with np.errstate(divide="ignore", invalid="ignore"):
            first, second = ((m / plain - 1.0) / STEP for m in (forwards, backwards))
        number = np.rint(np.nan_to_num(first)).astype(np.int64)
        found = (np.abs(first - number) < 1e-3) & (number >= 1) & (number <= n)
        found &= np.abs(second - (n + 1 - number)) < 1e-3
        if not found.any():
            return Factors(actual)
        index = np.where(found, number - 1, -1)
        used = np.unique(np.searchsorted(self._starts, index[found], side="right") - 1)
        constant, shifted = np.where(found, plain, actual), np.full(index.shape, -1, dtype=np.int64)
        total = 0
        for vector in used:
            start, end = int(self._starts[vector]), int(self._starts[vector + 1])
            here = (index >= start) & (index < end)
            shifted[here] = index[here] - start + total
            spread = _spread(self._vectors[vector][0])
            if spread is not None:
                constant[here] *= spread.detach().double().cpu().numpy()[index[here] - start]
            total += end - start
        scales = tuple(Source(*self._vectors[v][::2]) for v in used)
        return Factors(constant, scales, shifted)

    def _memory(self) -> Iterator[tuple[int, int, Source, tuple[int, ...]]]:
        """First and last address of each tensor, and its shape."""
        seen = set()
        for own, made in self._pairs:
            attributes = {k: v for k, v in vars(made).items() if isinstance(v, Tensor)}
            for name, tensor in {**made._parameters, **made._buffers, **attributes}.items():
                if tensor is None or tensor.layout != torch.strided or not tensor.is_contiguous():
                    continue
                start = tensor.data_ptr()
                if tensor.numel() and start not in seen:
                    seen.add(start)
                    end = start + tensor.numel() * tensor.element_size()
                    yield start, end, Source(own, name), tuple(tensor.shape)

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
    gamma = scale.module._parameters.get("weight")
    return 1.0 / spread if gamma is None else wide(gamma).abs() / spread


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
    if parametrize.is_parametrized(module):
        parametrizations: Any = module.parametrizations
        for name in [*parametrizations]:
            parametrize.remove_parametrizations(module, name, leave_parametrized=True)
    for hook in [*module._forward_pre_hooks.values()]:
        if isinstance(hook, prune.BasePruningMethod):
            prune.remove(module, hook._tensor_name)  # type: ignore[no-untyped-call]
        elif hasattr(hook, "compute_weight") and hasattr(hook, "name"):
            nn.utils.remove_weight_norm(module, hook.name)


def contiguous_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides of a contiguous array, in entries; 1 along axes of length 1."""
    strides, size = [], 1
    for n in reversed(shape):
        strides.append(1 if n == 1 else size)
        size *= n
    return tuple(reversed(strides))
