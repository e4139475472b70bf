"""Copies of torch modules in which computed weights are plain parameters."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from ncut.errors import InputError


def plain_copy(model: nn.Module, why: str, *, hooks: bool = False) -> nn.Module:
    """A copy in evaluation mode that shares the model's memory, whose weights are parameters.

    Computed weights (pruning, weight norm, parametrizations) become parameters of the copy with
    their current values. The copy is on the CPU, in float32 or wider; tensors that already are
    share the model's memory.

    Parameters
    ----------
    model : torch.nn.Module
    why : str
        The purpose of the copy, for the error.
    hooks : bool
        Whether to keep hooks that compute no weights.

    Raises
    ------
    InputError
        If the model cannot be copied.
    """
    memo: dict[int, Any] = {}
    for module in model.modules():
        for space in (module._parameters, module._buffers, vars(module)):
            for value in space.values():
                if isinstance(value, Tensor) and id(value) not in memo:
                    memo[id(value)] = _shared(value)
    try:
        plain = copy.deepcopy(model, memo).eval()
    except Exception as error:
        raise InputError(f"model: cannot be copied, which {why} needs: {error}") from error
    for module in plain.modules():
        _make_plain(module)
        if not hooks:
            module._forward_pre_hooks.clear()
            module._forward_hooks.clear()
    return plain


def computed(module: nn.Module) -> list[str]:
    """Names of the weights that a module computes from others before it uses them."""
    parts: Any = module.parametrizations if parametrize.is_parametrized(module) else ()
    names = [*parts]
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, prune.BasePruningMethod):
            names.append(hook._tensor_name)
        elif isinstance(hook, SpectralNorm | WeightNorm):
            names.append(hook.name)
    return list(dict.fromkeys(names))


def wide(tensor: Tensor) -> Tensor:
    """The tensor in float32 at least."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _shared(tensor: Tensor) -> Tensor:
    made = tensor.detach().cpu()
    made = wide(made) if made.is_floating_point() else made
    return nn.Parameter(made, False) if isinstance(tensor, nn.Parameter) else made


def _make_plain(module: nn.Module) -> None:
    """Replace a module's computed weights by parameters of the same name."""
    names = computed(module)
    is_parametrized = parametrize.is_parametrized(module)
    for key, hook in [*module._forward_pre_hooks.items()]:
        if getattr(hook, "name", getattr(hook, "_tensor_name", None)) in names:
            hook(module, ())
            del module._forward_pre_hooks[key]
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        values = {name: getattr(module, name).detach().clone() for name in names}
    if is_parametrized:
        # The class was created for one module, but copies share it.
        module.__class__ = type(module).__bases__[0]
        del module._modules["parametrizations"]
    for name, value in values.items():
        for space in (module._buffers, vars(module)):
            space.pop(name, None)
        module._parameters[name] = nn.Parameter(value, requires_grad=False)
