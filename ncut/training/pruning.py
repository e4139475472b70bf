"""Gradual magnitude pruning: each layer loses its smallest weights during training.

Source: Zhu and Gupta (2017), To prune, or not to prune: exploring the efficacy of pruning for
model compression, equation 1; Filan et al. (2021), appendix A.2, for the default sparsities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils import prune

from ncut.arguments import suggests_names
from ncut.errors import InputError
from ncut.training.arguments import whole

KINDS = (nn.Linear, _ConvNd)
"""Modules whose weights are pruned; the second class includes transposed convolutions."""


class _Weight(NamedTuple):
    """A parameter, and the modules that use it: several if it is tied."""

    name: str
    modules: tuple[nn.Module, ...]


class PolynomialPruning:
    """Prune the smallest weights of each layer, an increasing share during training.

    In step t of the training, counted from 0, the pruned share of each layer's weights is

        s_t = s_f + (s_i - s_f) (1 - (t - t_0) / (t_1 - t_0))^3,    t_0 <= t <= t_1,

    nothing before t_0 and s_f after t_1. Masks are renewed in the steps t_0, t_0 + every, ... and
    in t_1. A renewal leaves exactly round(s_t * number of weights) weights of a layer pruned: first
    the weights pruned before, then the weights of smallest magnitude; of equal magnitudes the first
    in row-major order. Pruned weights stay pruned, so a layer with a larger initial share keeps its
    share.

    Call `step` once in each training step, before the forward pass. The first call is t = 0: with n
    steps of training choose `end_step` below n, and well below n for further training with the
    final masks.

    Parameters
    ----------
    model : torch.nn.Module
        Pruned in place, on any device and in any type. It may already be pruned with
        `torch.nn.utils.prune`.
    end_step : int
        t_1, the first step with the final sparsity in each layer; at least `begin_step`.
    initial_sparsity, final_sparsity : float, default 0.5 and 0.9
        s_i and s_f: 0 <= s_i <= s_f < 1.
    begin_step : int, default 0
        t_0, the first step with pruned weights.
    every : int, default 10
        Steps between renewals of the masks.
    layers : str or sequence of str, optional
        Names of modules as in `model.named_modules()`, or patterns for them ("features.*"). By
        default all linear layers and (transposed) convolutions. Biases are never pruned, and
        neither are the weights inside `torch.nn.MultiheadAttention`, which uses them without
        calling their modules.

    Raises
    ------
    InputError
        If an argument has an impossible value; if a name matches no layer that can be pruned; if a
        layer computes its weight from other tensors (such as weight norm) or has none yet (lazy
        modules); if a weight is shared with a module that is not pruned.

    Notes
    -----
    The masks are those of `torch.nn.utils.prune` and are installed immediately, with nothing
    pruned: the module has a parameter `weight_orig`, a buffer `weight_mask` and, as a plain
    tensor, their product `weight`, recomputed before each forward pass. Models of all stages thus
    have the same `state_dict` keys. To resume, wrap the new model first and then load its
    `state_dict` and this object's.

    `weight_orig` is the same parameter object as `weight` before: an existing optimizer keeps
    training it. Filan et al. start pruning with a new optimizer. The order of parameters changes,
    by which optimizers store their state; an optimizer's `state_dict` saved before (after) this
    call must be loaded into an optimizer made before (after) it. Pruned weights get no gradient.
    An optimizer's momentum and weight decay may still move masked entries of `weight_orig`,
    without any effect.

    `copy.deepcopy` of a model works after `step` renewed its masks and after a forward pass under
    `torch.no_grad()`, but not after one with gradients: torch does not copy tensors with a history.

    Modules that share one weight (tied weights) get the same mask.

    A renewal takes time linear in the number of weights, about that of a selection by rank.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    >>> optimizer = torch.optim.Adam(model.parameters())
    >>> pruning = PolynomialPruning(model, end_step=80)
    >>> for _ in range(100):
    ...     pruning.step()
    ...     optimizer.zero_grad()
    ...     model(torch.randn(32, 8)).square().mean().backward()
    ...     optimizer.step()
    >>> pruning.sparsity, pruning.sparsities
    (0.9, {'0': 0.8984375, '2': 0.90625})
    >>> pruning.remove()

    Source: Zhu and Gupta (2017), equation 1.
    """

    @suggests_names()
    def __init__(
        self,
        model: nn.Module,
        *,
        end_step: int,
        initial_sparsity: float = 0.5,
        final_sparsity: float = 0.9,
        begin_step: int = 0,
        every: int = 10,
        layers: str | Sequence[str] | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise InputError(f"model: must be a torch.nn.Module, got {type(model).__name__}")
        self.begin_step = whole("begin_step", begin_step, 0)
        self.end_step = whole("end_step", end_step, self.begin_step)
        self.every = whole("every", every, 1)
        self.initial_sparsity = _share("initial_sparsity", initial_sparsity)
        self.final_sparsity = _share("final_sparsity", final_sparsity)
        if self.initial_sparsity > self.final_sparsity:
            raise InputError(
                f"initial_sparsity: must not be above final_sparsity ({final_sparsity}), as "
                f"pruned weights do not come back; got {initial_sparsity}"
            )
        self._layers = _chosen(model, layers)
        self._weights = _weights(model, self._layers)
        self._n_steps = 0
        for module in self._layers.values():
            _install(module)

    @property
    def sparsity(self) -> float:
        """Scheduled share of each layer in the current step.

        Between renewals the layers have the share of the last renewal.
        """
        return self.sparsity_at(self._n_steps - 1)

    @property
    def sparsities(self) -> dict[str, float]:
        """Share of pruned weights, by the name of the layer."""
        return {name: _pruned_share(module) for name, module in self._layers.items()}

    def sparsity_at(self, step: int) -> float:
        """Scheduled share of each layer in a step, counted from 0."""
        if step < self.begin_step:
            return 0.0
        if step >= self.end_step:
            return self.final_sparsity
        left = 1 - (step - self.begin_step) / (self.end_step - self.begin_step)
        return self.final_sparsity + (self.initial_sparsity - self.final_sparsity) * left**3

    @torch.no_grad()
    def step(self) -> None:
        """Begin the next training step: renew the masks if it is time to.

        Raises
        ------
        InputError
            If weights that could be pruned are nan.
        """
        if self._is_due(self._n_steps):
            sparsity = self.sparsity_at(self._n_steps)
            for weight in self._weights:
                _renew(weight, sparsity)
        self._n_steps += 1

    def remove(self) -> None:
        """Make the masks permanent: `weight` is a parameter again, with zeros where it was pruned.

        Call it after the training: nothing keeps the zeros afterwards.
        """
        for module in self._layers.values():
            if _is_masked(module):
                prune.remove(module, "weight")  # type: ignore[no-untyped-call]

    def state_dict(self) -> dict[str, int]:
        """The number of steps begun; the masks are in the model's `state_dict`."""
        return {"n_steps": self._n_steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a `state_dict`; the masks are in the model's `state_dict`.

        Raises
        ------
        InputError
            If it is not a `state_dict` of this class.
        """
        if set(state) != {"n_steps"}:
            raise InputError(f"state: must have the key 'n_steps' alone, got {sorted(state)}")
        self._n_steps = whole("state['n_steps']", state["n_steps"], 0)

    def __repr__(self) -> str:
        return (
            f"PolynomialPruning({len(self._layers)} layers, sparsity {self.initial_sparsity:g} to "
            f"{self.final_sparsity:g} in steps {self.begin_step} to {self.end_step}, "
            f"step {self._n_steps})"
        )

    def _is_due(self, step: int) -> bool:
        """Return whether masks are renewed in a step."""
        if not self.begin_step <= step <= self.end_step:
            return False
        return step == self.end_step or (step - self.begin_step) % self.every == 0


# --- selection of weights -----------------------------------------------------------------------


def _chosen(model: nn.Module, layers: str | Sequence[str] | None) -> dict[str, nn.Module]:
    """The modules to prune, in the model's order."""
    found = {name: module for name, module in model.named_modules() if _can_be_pruned(module)}
    if not found:
        raise InputError("model: has no linear layer or convolution to prune")
    if layers is None:
        return found
    patterns = (layers,) if isinstance(layers, str) else tuple(layers)
    if not patterns:
        raise InputError("layers: is empty, name a layer or leave it out to prune all")
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise InputError(f"layers: must hold names of modules, got {pattern!r}")
        if not any(fnmatchcase(name, pattern) for name in found):
            raise InputError(
                f"layers: {pattern!r} matches no linear layer or convolution; the model has "
                + ", ".join(map(repr, found))
            )
    return {
        name: module
        for name, module in found.items()
        if any(fnmatchcase(name, pattern) for pattern in patterns)
    }


def _can_be_pruned(module: nn.Module) -> bool:
    # This module is never called: attention reads its weight, so no hook would mask it.
    return isinstance(module, KINDS) and not isinstance(module, NonDynamicallyQuantizableLinear)


def _weights(model: nn.Module, layers: Mapping[str, nn.Module]) -> list[_Weight]:
    """The distinct parameters of some layers."""
    weights: dict[int, _Weight] = {}
    for name, module in layers.items():
        key = id(_parameter(name, module))
        first = weights.get(key, _Weight(name, ()))
        weights[key] = first._replace(modules=(*first.modules, module))
    for name, module in model.named_modules():
        if name in layers:
            continue
        for parameter in module.parameters(recurse=False):
            if id(parameter) in weights:
                raise InputError(
                    f"layers: {weights[id(parameter)].name!r} shares its weight with {name!r}, "
                    "which is not to be pruned or cannot be; choose layers so that both are "
                    "pruned, or neither"
                )
    return list(weights.values())


def _parameter(name: str, module: nn.Module) -> nn.Parameter:
    """A layer's weight parameter, masked or not."""
    key = "weight_orig" if _is_masked(module) else "weight"
    parameter = dict(module.named_parameters(recurse=False)).get(key)
    if parameter is None:
        raise InputError(
            f"layers: {name!r} computes its weight from other parameters, as weight norm and "
            "spectral norm do; make that permanent first, or choose layers without it"
        )
    if isinstance(parameter, UninitializedParameter):
        raise InputError(f"layers: {name!r} has no weight yet, call the model once before")
    return parameter


# --- masks --------------------------------------------------------------------------------------


def _is_masked(module: nn.Module) -> bool:
    """Return whether `torch.nn.utils.prune` holds a mask for a module's weight."""
    return any(
        isinstance(hook, prune.BasePruningMethod) and hook._tensor_name == "weight"
        for hook in module._forward_pre_hooks.values()
    )


@torch.no_grad()
def _install(module: nn.Module) -> None:
    """Give a module a mask that lets all weights pass, unless it has one."""
    if not _is_masked(module):
        weight: Tensor = module.get_parameter("weight")
        prune.custom_from_mask(module, "weight", torch.ones_like(weight))  # type: ignore[no-untyped-call]


def _renew(weight: _Weight, sparsity: float) -> None:
    """Prune a parameter to a sparsity, in all modules that use it."""
    for module in weight.modules:
        _install(module)  # a mask may have been removed by other means
    masks = [module.get_buffer("weight_mask") for module in weight.modules]
    values = weight.modules[0].get_parameter("weight_orig")
    kept = masks[0] != 0
    for mask in masks[1:]:
        kept &= mask != 0
    n_more = round(sparsity * kept.numel()) - (kept.numel() - int(kept.count_nonzero()))
    if n_more > 0:
        kept = _without_smallest(values, kept, n_more, weight.name)
    for module, mask in zip(weight.modules, masks, strict=True):
        mask.copy_(kept)
        # Without a history, so that the module can be copied.
        module.weight = values * mask.to(values.dtype)


def _without_smallest(values: Tensor, kept: Tensor, n: int, name: str) -> Tensor:
    """A mask without its n smallest magnitudes, of equal magnitudes the first."""
    magnitudes = values.abs().masked_fill_(~kept, -1).ravel()
    candidates = magnitudes[kept.ravel()]
    if candidates.isnan().any():
        raise InputError(f"model: layer {name!r} has weights that are nan, so none is smallest")
    # On a CPU as fast as kthvalue, which on a GPU uses a single block.
    threshold = candidates.topk(n, largest=False, sorted=False).values.max()
    n_ties = n - int((candidates < threshold).count_nonzero())
    result = magnitudes > threshold
    result[(magnitudes == threshold).nonzero().ravel()[n_ties:]] = True
    return result.view_as(kept)


def _pruned_share(module: nn.Module) -> float:
    masked = _is_masked(module)
    values = module.get_buffer("weight_mask") if masked else module.get_parameter("weight")
    return int((values == 0).count_nonzero()) / max(values.numel(), 1)


# --- arguments ----------------------------------------------------------------------------------


def _share(name: str, value: float) -> float:
    real = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not real or not 0 <= value < 1:
        raise InputError(f"{name}: must be a share of at least 0 and below 1, got {value!r}")
    return float(value)
