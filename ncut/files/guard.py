"""The guard for reading files, and the budget for their size in memory."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import traceback
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ncut.errors import ModelError, NcutError

MAX_GROWTH = 100
"""Largest ratio of a file's size in memory to its size on disk, beyond `SMALL`."""

SMALL = 2**24
"""Bytes that any file may take in memory, regardless of its size."""

READ_WHOLE = 2**26
"""Files up to this size are read; larger files are mapped, and must not be truncated."""

MAX_CAUSE = 20_000
"""Characters from which an error is not shown as the cause of another."""

MAX_FRAMES = 200
"""Frames from which an error is not shown as the cause of another."""

_PACKAGE = str(Path(__file__).parents[1]) + os.sep


@contextmanager
def reading(path: str | Path, kind: str, error: type[NcutError] = ModelError) -> Iterator[None]:
    """Read a file or folder inside this context, which names it in every error.

    Parameters
    ----------
    path : str or Path
        The file or folder.
    kind : str
        Its expected kind, for messages.
    error : type
        The class of the errors.

    Raises
    ------
    error
        For any exception of a reader except `MemoryError`, warnings and errors of ncut, with its
        place in ncut's code; and if the file changed while it was read.
    NcutError
        Errors of the readers, prefixed with the file's name if they lack it.
    """
    before = _state(path)
    changed = f"{path}: changed while it was read; read it again when it is written"
    try:
        yield
    except (MemoryError, Warning):
        raise
    except Exception as found:
        cause = _shown_cause(found)
        if before != _state(path):
            raise error(changed) from cause
        if not isinstance(found, NcutError):
            raise error(f"{path}: cannot be read as {kind}: {describe(found)}") from cause
        cause = _shown_cause(found.__cause__)
        if isinstance(found, ImportError) or str(NcutError(str(path))) in str(found):
            raise found from cause
        found.args = NcutError(f"{path}: {found}").args
        raise found from cause
    if before != _state(path):
        raise error(changed)


def describe(error: BaseException) -> str:
    """An unexpected error in one line: its message, its class, and the place in ncut's code."""
    text = str(error).strip().split("\n")[0]
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if frame.filename.startswith(_PACKAGE)]
    place = f" at {ours[-1].filename.removeprefix(_PACKAGE)}:{ours[-1].lineno}" if ours else ""
    return f"{text} ({type(error).__name__}{place})".lstrip()


def regular_file(path: str | Path, error: type[NcutError] = ModelError) -> Path:
    """The path, if it is a regular file; pipes and some devices would never end.

    Raises
    ------
    error
        If it does not exist, is not a regular file, or cannot be examined.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        raise error(f"{path}: no such file{path_hint(path)}") from None
    except (OSError, ValueError) as found:
        text = (isinstance(found, OSError) and found.strerror) or str(found)
        raise error(f"{path}: cannot be read: {text}") from None
    if stat.S_ISDIR(mode):
        raise error(f"{path}: is a folder, not a file")
    if not stat.S_ISREG(mode):
        raise error(f"{path}: is a pipe or a device, not a regular file")
    return Path(path)


def path_hint(path: str | Path) -> str:
    """The remedy for a path that is a URL or begins with `~`; else empty."""
    if str(path).startswith("~"):
        return "; '~' is not expanded, pass Path(...).expanduser()"
    if re.match(r"(?!hf:)[a-z][a-z0-9+.-]+:/", str(path)):
        return "; URLs are not read, download the file first"
    return ""


def content_of(path: Path) -> NDArray[np.uint8]:
    """The bytes of a file, read-only, shape (size,): read if small, else mapped."""
    with regular_file(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        content: NDArray[np.uint8]
        if size > READ_WHOLE:
            content = np.memmap(file, np.uint8, mode="r")
        else:
            content = np.fromfile(file, np.uint8)
            content.flags.writeable = False
    return content


class Budget:
    """Largest size of a file's content in memory: 100 times its bytes, and 16 MiB beyond.

    Parameters
    ----------
    path : Path
        The file, for messages.
    stored : int
        Its bytes.
    """

    def __init__(self, path: Path, stored: int) -> None:
        self._path = path
        self._stored = stored
        self._left = MAX_GROWTH * stored + SMALL

    def take(self, what: str, n_bytes: int) -> None:
        """Count bytes about to be allocated; raise ModelError if the total is too large."""
        self._left -= n_bytes
        if self._left < 0:
            raise ModelError(
                f"{self._path}: {what} would take {n_bytes:,} bytes, but the file stores "
                f"{self._stored:,}; weights do not expand so much"
            )

    def entry(self, info: zipfile.ZipInfo, what: str | None = None) -> None:
        """Count an archive's member; raise ModelError if it claims more bytes than the file has."""
        what = repr(info.filename) if what is None else what
        self.take(what, info.file_size)
        if info.compress_size > self._stored:  # zipfile would allocate them
            raise ModelError(
                f"{self._path}: {what} has {info.compress_size:,} bytes by its header, but the "
                f"file stores {self._stored:,}"
            )

    def member(self, archive: zipfile.ZipFile, name: str) -> bytes:
        """Content of an archive's member; raise ModelError if it would be too large."""
        info = archive.getinfo(name)
        self.entry(info)
        return archive.read(info)


def _shown_cause(cause: BaseException | None) -> BaseException | None:
    """The cause, unless a traceback would print control characters or pages of text.

    Only messages come from files, so the lines of code, which take milliseconds to find, are left.
    """
    if cause is None:
        return None
    text = "".join(traceback.TracebackException.from_exception(cause, limit=0).format())
    frames = 0
    inner: BaseException | None = cause
    while inner is not None and frames < MAX_FRAMES:
        frames += sum(1 for _ in traceback.walk_tb(inner.__traceback__))
        inner = inner.__cause__ or inner.__context__
    short = len(text) < MAX_CAUSE and frames < MAX_FRAMES
    return cause if short and text.replace("\n", "").isprintable() else None


def _state(path: str | Path) -> object:
    """Fingerprint that changes when a file, or a file in a folder, is written."""
    try:
        found = os.stat(path)
        if not stat.S_ISDIR(found.st_mode):
            return found.st_ino, found.st_size, found.st_mtime_ns
    except (OSError, ValueError):
        return None
    states: list[tuple[str, int, int, int]] = []
    with contextlib.suppress(OSError):  # closed, or written to just now
        for entry in os.scandir(path):
            if entry.is_file():
                found = entry.stat()
                states.append((entry.name, found.st_ino, found.st_size, found.st_mtime_ns))
    return sorted(states)
