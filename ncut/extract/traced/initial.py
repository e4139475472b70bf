"""Weights as a layer's `reset_parameters` makes them."""

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
    """A function that makes initial weights of a layer, None where there is no layer.

    It gets a seed, and gives None where the layer does not tell. `convert` brings torch's layout
    into that of the graph's operations.
    """
    if layer is None or not hasattr(layer, "reset_parameters"):
        return None

    def draw(number: int) -> NDArray[np.floating] | None:
        weight = _drawn(layer, number)
        return None if weight is None else convert(weight)

    return draw


def _drawn(layer: Any, number: int) -> NDArray[np.floating] | None:
    # A function that was put on the layer itself may hold on to that, and change it.
    if "reset_parameters" in vars(layer):
        return None
    try:
        fresh = _plain_copy(layer)
        # What is not set anew would be the trained weights.
        with torch.no_grad():
            fresh.weight.fill_(torch.nan)
        # The generator of the CPU alone: torch.manual_seed would set those of all devices.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(number)
            fresh.reset_parameters()
        weight = as_array(fresh.weight, "initial weight")
    except Exception:  # whatever a user's own layer does: it does not tell then
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
