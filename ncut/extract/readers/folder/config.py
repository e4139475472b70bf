"""`config.json`: a transformer's settings, validated on access."""

from __future__ import annotations

import json
from collections.abc import ItemsView, Mapping, Sequence
from pathlib import Path
from typing import Any

from ncut.errors import ModelError

MAX_BYTES = 2**26
"""Largest JSON file read, in bytes."""


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises
    ------
    ModelError
        If the file is missing, too long, not JSON, nested too deep, or not an object.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ModelError(f"{path}: {size} bytes are too many for a file of settings")
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from error
    except RecursionError as error:
        raise ModelError(f"{path}: nested too deep for a file of settings") from error
    except ValueError as error:
        raise ModelError(f"{path}: not a JSON file: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: must hold an object of settings, has {_kind(content)}")
    return content


class Config:
    """Settings of a model, or of a part of it.

    Attributes
    ----------
    where : str
        The file, for messages.
    """

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self._values = values
        self.where = where

    def __contains__(self, key: str) -> bool:
        return self._values.get(key) is not None

    def items(self) -> ItemsView[str, Any]:
        """All settings."""
        return self._values.items()

    def size(self, *keys: str, default: int | None = None) -> int:
        """A positive integer under the first existing key."""
        for key in keys:
            value = self._values.get(key)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise self._wrong(key, value, "a positive whole number")
            return value
        if default is None:
            raise ModelError(f"{self.where}: has no {keys[0]!r}, which this kind of model needs")
        return default

    def number(self, key: str, default: float) -> float:
        """A number."""
        value = self._values.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(key, value, "a number")
        return float(value)

    def flag(self, key: str, *, default: bool) -> bool:
        """A boolean."""
        value = self._values.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self._wrong(key, value, "true or false")
        return value

    def word(self, *keys: str, default: str = "") -> str:
        """A string under the first existing key."""
        for key in keys:
            value = self._values.get(key)
            if value is None:
                continue
            if not isinstance(value, str):
                raise self._wrong(key, value, "a string")
            return value
        return default

    def words(self, key: str) -> Sequence[str]:
        """A list of strings; empty if missing."""
        value = self._values.get(key)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
            raise self._wrong(key, value, "a list of strings")
        return value

    def part(self, key: str) -> Config:
        """The settings of a part of the model."""
        value = self._values.get(key)
        if value is None:
            value = {}
        if not isinstance(value, dict):
            raise self._wrong(key, value, "an object")
        return Config(value, f"{self.where}, {key}")

    def _wrong(self, key: str, value: Any, expected: str) -> ModelError:
        return ModelError(f"{self.where}: {key!r} must be {expected}, is {_kind(value)}")


def _kind(value: Any) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
