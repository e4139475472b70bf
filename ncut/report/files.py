"""Files that results are written to: checked before the work, written after it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ncut.errors import InputError


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 file; raise InputError if that is not possible."""
    try:
        Path(path).write_text(text, encoding="utf-8", newline="\n")
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be written: {reason(error)}") from error


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file under another name, then give it its own: killed in between, nothing is lost."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_json(data: Any, path: str | Path | None, indent: int | None, what: str) -> str:
    """Plain data as standard JSON in ASCII, written to a file if one is given.

    Raise InputError if a number is not finite, or the file cannot be written.
    """
    try:
        text = json.dumps(data, indent=indent, allow_nan=False)
    except ValueError as error:
        raise InputError(
            f"{what}: holds a NaN or infinite number, which JSON cannot carry"
        ) from error
    if path is not None:
        write_text(path, text + "\n")
    return text


def check_output(path: Path, source: Path | None = None) -> None:
    """Raise InputError if a file could not be written later, or would overwrite an input.

    Parameters
    ----------
    path : Path
        The file to write.
    source : Path, optional
        The file or folder that is read.
    """
    if source is not None and _overwrites(path, source):
        raise InputError(f"{path}: is part of the model that is read; choose another name")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give the name of a file")
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist; make it first")
    target = path if path.exists() else path.parent
    if not os.access(target, os.W_OK):
        raise InputError(f"{path}: cannot be written: no permission for {target}")


def reason(error: Exception) -> str:
    """What the system says about an error, without the file's name."""
    return (isinstance(error, OSError) and error.strerror) or str(error)


def _overwrites(path: Path, source: Path) -> bool:
    if not (path.exists() and source.exists()):
        return False
    return path.samefile(source) or path.resolve().is_relative_to(source.resolve())
