"""Exceptions. An error that a user can cause is an `NcutError` whose message says what to do."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any, Generic, TypeVar

T = TypeVar("T")

MAX_MESSAGE = 1500
"""Longest message, in characters; longer messages lose their middle."""


class NcutError(Exception):
    """Base of all errors that ncut raises on purpose.

    Messages quote names from files: control characters become question marks, since a terminal
    would act on them, and at most `MAX_MESSAGE` characters are kept.
    """

    def __init__(self, *arguments: object) -> None:
        super().__init__(*(_tidy(a) if isinstance(a, str) else a for a in arguments))


class InputError(NcutError, ValueError):
    """An argument has a value that cannot be used; the message names it and says what to do."""


class UnknownArgumentError(InputError, TypeError):
    """A function has no argument of this name; the message suggests the closest one."""


class Interrupted(KeyboardInterrupt, Generic[T]):
    """Ctrl-C during long work.

    Attributes
    ----------
    finished : object
        The partial result: a report with fewer shuffles, a profile, a verdict of fewer analyses, an
        ablation of fewer clusters.
    """

    def __init__(self, finished: T, how_far: str) -> None:
        super().__init__(f"stopped after {how_far}")
        self.finished = finished


class ShuffleError(InputError):
    """A shuffled network cannot be measured; the message names it and says what to do.

    Attributes
    ----------
    finished : object
        The results of the other shuffles so far, as `Interrupted` has them.
    """

    finished: Any = None


class ModelError(NcutError, ValueError):
    """A model, or a file that should hold one, cannot be read as a graph of neurons."""


class MissingExtraError(NcutError, ImportError):
    """A feature needs an optional dependency that is not installed."""


def printable(text: str) -> str:
    """The text with control characters replaced by question marks."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _tidy(message: str) -> str:
    """The message with printable lines and a limited length."""
    if len(message) > MAX_MESSAGE:
        half = (MAX_MESSAGE - 5) // 2
        message = f"{message[:half]} ... {message[-half:]}"
    return "\n".join(map(printable, message.split("\n")))


def import_extra(module: str, extra: str) -> ModuleType:
    """Import an optional dependency, or name the extra of ncut that installs it.

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
