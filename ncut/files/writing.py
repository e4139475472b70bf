"""Atomic writing of files: completely, or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ncut.errors import InputError, NcutError
from ncut.files.guard import describe, path_hint

FORGOTTEN_SECONDS = 3600
"""Age from which a partial file counts as left over from a killed process."""


def write_file(
    path: str | Path, write: Callable[[Path], object], *, into_pipes: bool = True
) -> None:
    """Write a file under a temporary name, then rename it.

    The old file survives a kill at any moment and a full disk. The temporary file is created in the
    same folder under an unguessable name, so that no link of that name is followed. File and folder
    are on disk when this returns. A link at `path` made by this user is followed.

    Parameters
    ----------
    path : str or Path
        The file.
    write : callable
        Called with the path to write to.
    into_pipes : bool
        Whether a pipe or device at `path` is written to directly instead of being replaced.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    with _named_errors(path):
        path = Path(path)  # refuses a number, which the system takes for an open file
        if into_pipes and _is_special(path):
            write(path)
            return
        target = _target(path)
        part = target.with_name(f".{target.name[:100]}.{secrets.token_hex(8)}.part")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
        os.close(os.open(part, flags, 0o666))
        try:
            write(part)
            _to_disk(part)
            if target.exists():
                part.chmod(stat.S_IMODE(target.stat().st_mode))
            os.replace(part, target)
            with contextlib.suppress(OSError):  # not every file system supports this for folders
                _to_disk(target.parent)
        finally:
            part.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 file; raise InputError if that is not possible."""
    write_file(path, lambda part: part.write_text(text, encoding="utf-8", newline="\n"))


def append_line(path: Path, line: bytes) -> None:
    """Add a line to a journal; raise InputError if that is not possible."""
    with _named_errors(path), path.open("ab") as file:
        file.write(line + b"\n")


def cut_file(path: Path, size: int) -> None:
    """Cut a journal to its first `size` bytes; raise InputError if that is not possible."""
    with _named_errors(path):
        os.truncate(path, size)


def remove_file(path: Path) -> None:
    """Remove a file if it is there; raise InputError if that is not possible."""
    with _named_errors(path):
        path.unlink(missing_ok=True)


def make_folder(path: str | Path) -> Path:
    """Create a folder if it does not exist; raise InputError if that is not possible."""
    with _named_errors(path):
        Path(path).mkdir(parents=True, exist_ok=True)
    return Path(path)


def remove_parts(folder: Path, older_than: float = FORGOTTEN_SECONDS) -> None:
    """Remove the partial files that killed processes left in a folder.

    Parameters
    ----------
    folder : Path
        The folder; it need not exist.
    older_than : float
        Minimum seconds since they were last written.
    """
    for part in folder.glob(".*.part"):
        with contextlib.suppress(OSError):  # belongs to another process, or already gone
            if part.lstat().st_mtime <= time.time() - older_than:
                part.unlink()


def write_json(data: Any, path: str | Path | None, indent: int | None, what: str) -> str:
    """Plain data as standard JSON in ASCII, written to a file if one is given.

    Raise InputError if a number is not finite, or the file cannot be written.
    """
    try:
        text = json.dumps(data, indent=indent, allow_nan=False)
    except ValueError as error:
        raise InputError(
            f"{what}: contains a NaN or infinite number, which JSON cannot represent"
        ) from error
    if path is not None:
        write_text(path, text + "\n")
    return text


def check_output(path: Path, source: Path | None = None) -> None:
    """Raise InputError if a later write would fail, or would overwrite an input.

    Parameters
    ----------
    path : Path
        The file to write.
    source : Path, optional
        The input file or folder.
    """
    with _named_errors(path):
        if source is not None and _overwrites(path, source):
            raise InputError(f"{path}: is part of the model being read; choose another name")
        if path.is_dir():
            raise InputError(f"{path}: is a folder; give a file name")
        if _is_special(path):
            return
        target = _target(path)
        if not target.parent.is_dir():
            raise InputError(f"{path}: the folder {target.parent} does not exist; make it first")
        for place in (target, target.parent) if target.exists() else (target.parent,):
            if not os.access(place, os.W_OK):
                raise InputError(f"{path}: cannot be written: no permission for {place}")


def reason(error: Exception) -> str:
    """The system's message for an error, without the file's name."""
    return (isinstance(error, OSError) and error.strerror) or str(error)


@contextlib.contextmanager
def _named_errors(path: str | Path) -> Iterator[None]:
    """Errors of the system, and of writing libraries, as an InputError that names the file."""
    try:
        yield
    except (NcutError, MemoryError, Warning):
        raise
    except Exception as error:
        text = reason(error) if isinstance(error, OSError | ValueError) else describe(error)
        raise InputError(f"{path}: cannot be written: {text}{path_hint(path)}") from error


def _is_special(path: str | Path) -> bool:
    """Check whether the path is a pipe or a device."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _target(path: Path) -> Path:
    """The target of a link made by this user or root; otherwise the path itself."""
    if not path.is_symlink():
        return path
    mine = not hasattr(os, "geteuid") or path.lstat().st_uid in (0, os.geteuid())
    return Path(os.path.realpath(path)) if mine else path


def _to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _overwrites(path: Path, source: Path) -> bool:
    if not (path.exists() and source.exists()):
        return False
    return path.samefile(source) or path.resolve().is_relative_to(source.resolve())
