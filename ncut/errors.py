"""Exceptions: an error a user can cause is an `NcutError` whose message says what to do."""

from __future__ import annotations

import importlib
from types import ModuleType


class NcutError(Exception):
    """Base of all errors that ncut raises on purpose."""


class InputError(NcutError, ValueError):
    """An argument has a value that cannot be used; the message names it and says what to do."""


class ModelError(NcutError, ValueError):
    """A model, or a file that should hold one, cannot be read as a graph of neurons."""


class MissingExtraError(NcutError, ImportError):
    """A feature needs an optional dependency that is not installed."""


def import_extra(module: str, extra: str) -> ModuleType:
    """Import an optional dependency, or say which extra of ncut brings it.

    Raises
    ------
    MissingExtraError
        If `module` is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"this needs the package {module.split('.')[0]!r}, which is not installed: "
            f"run  pip install 'ncut[{extra}]'"
        ) from error
