"""without(): a model in which some weights have no effect."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ncut.extract.modules import is_module, unwrapped
from ncut.extract.references import Key
from ncut.functional.modules import uncompiled

if TYPE_CHECKING:
    from torch import Tensor, nn


@contextmanager
def without(model: Any, removed: Mapping[Key, NDArray[np.bool_]]) -> Iterator[Any]:
    """The model with some weights at zero.

    Parameters
    ----------
    model : torch.nn.Module, sequence or mapping of weight arrays
        A module is returned itself: its weights are zero in place until the block ends, also by an
        exception, and are then restored; compiled code runs uncompiled meanwhile. For arrays, a
        list or dict in which the affected arrays are copies.
    removed : mapping from key to ndarray of bool
        Which entries of which tensors, by the keys of `ncut.extract.references`.

    Yields
    ------
    torch.nn.Module, list or dict
    """
    chosen = {key: flags for key, flags in removed.items() if flags.any()}
    if not is_module(model):
        arrays: Any = dict(model) if isinstance(model, Mapping) else list(model)
        for key, flags in chosen.items():
            arrays[key] = _zeroed(arrays[key], flags)
        yield arrays
        return
    inner = unwrapped(model)
    with ExitStack() as stack:
        stack.enter_context(uncompiled())
        for (path, name), flags in chosen.items():
            stack.enter_context(_zero(inner.get_submodule(path), name, flags))
        yield model


@contextmanager
def watched(model: Any, keys: Sequence[Key]) -> Iterator[list[bool]]:
    """A list that becomes non-empty when a module that holds one of the tensors runs."""
    ran: list[bool] = []
    inner = unwrapped(model)
    handles = [
        inner.get_submodule(path).register_forward_pre_hook(lambda *_: ran.append(True))
        for path in {"", *(path for path, _ in keys)}
    ]
    try:
        yield ran
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _zero(module: nn.Module, name: str, flags: NDArray[np.bool_]) -> Iterator[None]:
    import torch

    from ncut.extract.readers.traced.plain import computed

    if name in computed(module):
        with _zero_computed(module, name, flags):
            yield
        return
    parameter = module._parameters[name]
    assert parameter is not None
    at = torch.from_numpy(flags).to(parameter.device)
    with torch.no_grad():
        before = parameter[at].clone()
        parameter[at] = 0
    try:
        yield
    finally:
        with torch.no_grad():
            parameter[at] = before


@contextmanager
def _zero_computed(module: nn.Module, name: str, flags: NDArray[np.bool_]) -> Iterator[None]:
    """A weight that is computed before each use; its result is changed."""
    import torch
    from torch.nn.utils import parametrize

    keep = torch.from_numpy(~flags)
    if parametrize.is_parametrized(module, name):
        steps: Any = module.parametrizations[name]  # type: ignore[index]
        steps.append(_keeping(keep))
        try:
            yield
        finally:
            del steps[len(steps) - 1]
        return

    def multiply(*_: Any) -> None:
        value: Tensor = getattr(module, name)
        setattr(module, name, value * keep.to(value))

    before = getattr(module, name)
    multiply()
    handle = module.register_forward_pre_hook(multiply)
    try:
        yield
    finally:
        handle.remove()
        setattr(module, name, before)


def _keeping(keep: Tensor) -> nn.Module:
    from torch import nn

    class Keep(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return weight * keep.to(weight)

    return Keep()


def _zeroed(values: Any, flags: NDArray[np.bool_]) -> Any:
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(values, torch.Tensor):
        made = values.detach().clone()
        made[torch.from_numpy(flags).to(made.device)] = 0
        return made
    array = np.array(values)
    array[flags] = 0
    return array
