"""Messages of commands beside their results, on standard error: files, warnings, progress."""

from __future__ import annotations

from enum import Enum
from pathlib import Path

import typer

from ncut.errors import InputError


class Level(Enum):
    """Amount of messages."""

    QUIET = "quiet"
    NORMAL = "normal"
    VERBOSE = "verbose"


_LEVEL = [Level.NORMAL]


def level() -> Level:
    """Return the amount of messages that the user asked for."""
    return _LEVEL[0]


def set_level(value: Level) -> None:
    """Set that, for the rest of the command."""
    _LEVEL[0] = value


def wrote(*paths: Path | None) -> None:
    """Say which files were written; those that are None or standard output were not."""
    if level() is not Level.QUIET:
        for path in paths:
            if path and path != Path("-"):
                typer.echo(f"ncut: wrote {one_line(path)}", err=True)


def check_page(path: Path | None, option: str = "--html") -> None:
    """Raise InputError if a page's name does not end in .html or .htm."""
    if path is not None and path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{option}: must be a file that ends in .html, got {str(path)!r}")


def one_line(message: object) -> str:
    """A message without line breaks and control characters."""
    from ncut.errors import printable

    return printable(" ".join(str(message).split()))
