"""Initial weights, drawn by a layer's `reset_parameters`."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.utils import parametrize

from ncut.extract.arrays import as_array


def initial_weight(
    layer: nn.Module | None, convert: Callable[[NDArray[np.floating]], NDArray[np.floating]]
) -> Callable[[int], NDArray[np.floating] | None] | None:
    """A function that draws initial weights of a layer; None if there is no layer.

    The function gets a seed, and returns None if the layer cannot be reinitialized. `convert`
    maps torch's layout to that of the graph's operations.
    """
    if layer is None or not hasattr(layer, "reset_parameters"):
        return None

    def draw(number: int) -> NDArray[np.floating] | None:
        weight = _drawn(layer, number)
        return None if weight is None else convert(weight)

    return draw


def _drawn(layer: Any, number: int) -> NDArray[np.floating] | None:
    # A function attached to the layer may reference the layer, and change it.
    if "reset_parameters" in vars(layer):
        return None
    try:
        fresh = _plain_copy(layer)
        # Entries that are not reset would be trained weights.
        with torch.no_grad():
            fresh.weight.fill_(torch.nan)
        # Only the CPU generator: torch.manual_seed would seed all devices.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(number)
            fresh.reset_parameters()
        weight = as_array(fresh.weight, "initial weight")
    except Exception:  # a user's layer may raise anything: no initial weights then
        return None
    if not np.isfinite(weight).all():
        return None
    return weight


def _plain_copy(layer: Any) -> Any:
    """A copy of a layer on the CPU, without masks, parametrizations of its weight and hooks."""
    # Masked weights cannot be copied, as they are computed; hooks may hold anything.
    known: dict[int, Any] = {}
    for name, value in vars(layer).items():
        if isinstance(value, torch.Tensor):
            known[id(value)] = value.detach().clone()
        elif name.endswith("_hooks"):
            known[id(value)] = type(value)()
    fresh = copy.deepcopy(layer, known).cpu()
    if parametrize.is_parametrized(fresh, "weight"):
        parametrize.remove_parametrizations(fresh, "weight", leave_parametrized=True)
    if "weight_orig" in fresh._parameters:
        del fresh.weight
        fresh.weight = fresh._parameters.pop("weight_orig")
    return fresh
