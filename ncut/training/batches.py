"""A batch in two parts: split the arguments of a forward pass, and join the outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ncut.errors import InputError


def batch_size(arguments: Sequence[Any]) -> int:
    """The length of the first tensor with axes, also inside tuples, lists and mappings; 0: none."""
    for value in arguments:
        if isinstance(value, Tensor) and value.ndim:
            return len(value)
        inner = [*value.values()] if isinstance(value, Mapping) else value
        if isinstance(inner, list | tuple):
            found = batch_size(inner)
            if found:
                return found
    return 0


def part_of(value: Any, n: int, part: slice) -> Any:
    """The part of a batch of n examples, also inside tuples, lists and mappings."""
    if isinstance(value, Tensor):
        return value[part] if value.ndim and len(value) == n else value
    if isinstance(value, Mapping):
        return {name: part_of(item, n, part) for name, item in value.items()}
    if isinstance(value, tuple | list):
        items = [part_of(item, n, part) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


def joined(first: Any, last: Any, n_first: int, n_last: int) -> Any:
    """The outputs for two parts of a batch, joined."""
    if isinstance(first, Tensor):
        if first.ndim and len(first) == n_first and len(last) == n_last:
            return torch.cat([first, last])
        if first.ndim == 0 and first.is_floating_point():
            return (n_first * first + n_last * last) / (n_first + n_last)
    if isinstance(first, Mapping):
        items = {
            name: joined(first[name], last[name], n_first, n_last)
            for name in first
            if not _is_state(first[name])
        }
        return items if type(first) is dict else type(first)(**items)
    if isinstance(first, tuple | list):
        pairs = [joined(a, b, n_first, n_last) for a, b in zip(first, last, strict=True)]
        return type(first)(*pairs) if hasattr(first, "_fields") else type(first)(pairs)
    if first is None or (not isinstance(first, Tensor) and first == last):
        return first
    raise InputError(
        f"model: its output, a {type(first).__name__}, cannot be put together from those for two "
        "parts of a batch; call `apart` and the model yourself, and add the losses"
    )


def _is_state(value: Any) -> bool:
    """Return whether an output is an opaque object, such as a cache of keys and values."""
    plain = (Tensor, Mapping, tuple, list, str, int, float, type(None))
    return not isinstance(value, plain)
