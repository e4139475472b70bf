"""Finds the network's state dict in a checkpoint."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from ncut.errors import InputError, ModelError

CHECKPOINT_KEYS = ("state_dict", "model_state_dict", "model")

MAX_DEPTH = 8
"""Largest nesting depth of mappings searched."""

MAX_LISTED = 12
"""Largest number of keys listed in a message."""


def state_dict_of(
    content: Mapping[Any, Any], where: object, key: str | None = None
) -> Mapping[Any, Any]:
    """The state dict inside a checkpoint, or the mapping itself.

    Parameters
    ----------
    content : mapping
        A state dict, or mappings that hold some.
    where : object
        Source of the content, for messages.
    key : str, optional
        The key of the state dict, `"a/b"` if nested, or the prefix of its entries' names, such as
        `"model_ema"` for `model_ema.0.weight`. By default the mapping under one of the usual
        names, or the only mapping of arrays beside settings.

    Raises
    ------
    InputError
        If `key` is missing.
    ModelError
        If there are several state dicts and none has a usual name.
    """
    found = dict(_state_dicts(content, "", 0))
    if key is not None:
        return _under(content, found, key, where)
    if not found:
        return content
    for usual in CHECKPOINT_KEYS:
        inside = content.get(usual)
        if isinstance(inside, Mapping) and any(n.split("/")[0] == usual for n in found):
            _warn_of_others([name for name in found if name.split("/")[0] != usual], usual, where)
            return state_dict_of(inside, where)
    if len(found) > 1:
        raise ModelError(
            f"{where}: holds several state dicts, {_listing(found)}; choose one: key= in Python, "
            "--key on the command line"
        )
    return next(iter(found.values()))


def _under(
    content: Mapping[Any, Any], found: Mapping[str, Mapping[Any, Any]], key: str, where: object
) -> Mapping[Any, Any]:
    if key in found:
        return found[key]
    inside = content.get(key)
    if isinstance(inside, Mapping):
        return state_dict_of(inside, where)
    prefix = key if key.endswith(".") else f"{key}."
    places = [content] if not found else [*found.values()]
    for place in places:
        part = {
            name.removeprefix(prefix): value
            for name, value in place.items()
            if isinstance(name, str) and name.startswith(prefix)
        }
        if part:
            return part
    words = [*found, *dict.fromkeys(str(n).split(".")[0] for place in places for n in place)]
    near = difflib.get_close_matches(key, words, 1)
    hint = f"did you mean {near[0]!r}? It" if near else "it"
    raise InputError(f"key: no {key!r} in {where}; {hint} has {_listing(words)}")


def _listing(names: Any) -> str:
    names = [*names]
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return ", ".join(map(repr, names[:MAX_LISTED])) + more


def _state_dicts(
    content: Mapping[Any, Any], before: str, depth: int
) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """Nested mappings with arrays, by their path of keys, if the mapping itself has none.

    Optimizer states are excluded: their arrays have integer keys.
    """
    if depth > MAX_DEPTH or _has_arrays(content):
        return
    for key, value in content.items():
        if not isinstance(value, Mapping) or not isinstance(key, str):
            continue
        if _has_arrays(value):
            yield f"{before}{key}", value
        else:
            yield from _state_dicts(value, f"{before}{key}/", depth + 1)


def _has_arrays(content: Mapping[Any, Any]) -> bool:
    return any(getattr(value, "ndim", 0) for value in content.values())


def _warn_of_others(others: list[str], usual: str, where: object) -> None:
    if others:
        warnings.warn(
            f"{where}: read {usual!r}; there are also {_listing(others)}, which key= (--key) "
            "chooses",
            stacklevel=2,
        )
