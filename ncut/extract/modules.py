"""Whether something is a torch module, and the module inside its wrappers; torch stays lazy."""

from __future__ import annotations

import sys
from typing import Any

from ncut.errors import import_extra


def is_module(model: Any) -> bool:
    """Whether `model` is a torch module."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(model, torch.nn.Module)


def unwrapped(module: Any) -> Any:
    """The module inside a data-parallel or compiled wrapper, whose parts have their own names."""
    torch = import_extra("torch", "torch")
    if isinstance(module, torch.nn.DataParallel | torch.nn.parallel.DistributedDataParallel):
        return unwrapped(module.module)
    compiled = getattr(module, "_orig_mod", None)
    return module if compiled is None else unwrapped(compiled)
