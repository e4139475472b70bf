"""Messages of commands on standard error: files, warnings, progress."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import ClassVar

import typer

from ncut.errors import InputError


class Level(Enum):
    """Amount of messages."""

    QUIET = "quiet"
    NORMAL = "normal"
    VERBOSE = "verbose"


_LEVEL = [Level.NORMAL]


def level() -> Level:
    """Return the amount of messages that the user requested."""
    return _LEVEL[0]


def set_level(value: Level) -> None:
    """Set the amount of messages for the rest of the command."""
    _LEVEL[0] = value


def wrote(*paths: Path | None) -> None:
    """Name the written files, without None and standard output."""
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


class AsciiFallback:
    """Error handler of an output's encoding: a spelling in ASCII for what the encoding lacks."""

    SPELLINGS: ClassVar = str.maketrans(
        {"±": "+/-", "–": "-", "—": "-", "−": "-", "…": "...", "×": "x", "²": "^2"}
        | {"↑": "^", "↓": "v", "→": "->", "▲": "^", "▼": "v", "·": "."}
    )

    def __init__(self) -> None:
        self.used = False

    def __call__(self, error: UnicodeError) -> tuple[str, int]:
        if not isinstance(error, UnicodeEncodeError):
            raise error
        self.used = True
        lacking = error.object[error.start : error.end]
        spelled = lacking.translate(self.SPELLINGS)
        return "".join(sign if sign.isascii() else "?" for sign in spelled), error.end

    def note(self) -> None:
        """Report the replaced characters, if any, and the remedy on standard error."""
        if self.used and level() is not Level.QUIET:
            typer.echo(
                f"ncut: the output's encoding ({sys.stdout.encoding}) lacks some characters; they "
                "were spelled in ASCII; PYTHONIOENCODING=utf-8 keeps them",
                err=True,
            )
