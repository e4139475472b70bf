"""Recognizes and unwraps torch modules without importing torch."""

from __future__ import annotations

import sys
from typing import Any

from ncut.errors import import_extra


def is_module(model: Any) -> bool:
    """Check whether `model` is a torch module."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(model, torch.nn.Module)


def unwrapped(module: Any) -> Any:
    """The module inside a data-parallel or compiled wrapper, which renames its parts."""
    torch = import_extra("torch", "torch")
    if isinstance(module, torch.nn.DataParallel | torch.nn.parallel.DistributedDataParallel):
        return unwrapped(module.module)
    compiled = getattr(module, "_orig_mod", None)
    return module if compiled is None else unwrapped(compiled)
