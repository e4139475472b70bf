"""Probes HDF5 files in a separate process, as HDF5 may hang or crash on a damaged file.

Run as a program, it reads a line of JSON for each file, walks over the file's content, and writes
a word when done. The reader reports a file's faults; the probe checks only termination and
memory use.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import io
import json
import math
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

CPU_SECONDS = 10
"""CPU seconds per file, plus one second for each `BYTES_A_SECOND` bytes."""

BYTES_A_SECOND = 2**22

MAX_GROWTH, SMALL = 100, 2**24  # limits of ncut.files.Budget: a reader refuses more

WALL_SECONDS = 300
"""Limit for a process that is blocked, in seconds in which this process is not stopped itself."""

DONE, FULL, LARGE = b"done\n", b"full\n", b"large\n"
"""Answers: success; success, but replace this process; too much memory."""

MAX_STEPS = 400_000
"""Largest number of groups, arrays and attributes visited."""


_ZIP_HEADER = 30  # bytes of a member's local header before its name


class Window(io.RawIOBase):
    """A byte range of a file, as a file."""

    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        self._file, self._start, self._size = file, start, size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(origin + offset, 0)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        n = max(min(len(view), self._size - self._at), 0)
        self._file.seek(self._start + self._at)
        data = self._file.read(n)
        view[: len(data)] = data
        self._at += len(data)
        return len(data)


@contextlib.contextmanager
def member_of(
    path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo
) -> Iterator[io.BufferedIOBase]:
    """A member of an archive as a seekable file, in place if it is not compressed."""
    if info.compress_type != zipfile.ZIP_STORED:
        yield io.BytesIO(archive.read(info))
        return
    with path.open("rb") as file:
        file.seek(info.header_offset)
        header = file.read(_ZIP_HEADER)
        if len(header) < _ZIP_HEADER or not header.startswith(b"PK\x03\x04"):
            raise zipfile.BadZipFile(f"no header of {info.filename!r}")
        lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        start = info.header_offset + _ZIP_HEADER + lengths
        if start + info.file_size > os.fstat(file.fileno()).st_size:
            raise zipfile.BadZipFile(f"{info.filename!r} is cut short")
        yield io.BufferedReader(Window(file, start, info.file_size))


class Prober:
    """The probing process, started for the first file; it exits with the parent process."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._lock = threading.Lock()
        atexit.register(self.close)

    def ends(self, path: Path, member: str | None = None) -> bool:
        """Check whether HDF5 terminates on a file, or on a member of a zip archive.

        False also if it uses far more memory than the stored content could fill.
        """
        with self._lock:
            process = self._running()
            if process is None:  # no interpreter to start, e.g. in an embedded Python
                return True
            assert process.stdin is not None
            assert process.stdout is not None
            answered = threading.Event()
            watch = threading.Thread(target=_kill_unless, args=(answered, process), daemon=True)
            watch.start()
            try:
                process.stdin.write(json.dumps([os.fspath(path), member]).encode() + b"\n")
                process.stdin.flush()
                answer = process.stdout.readline()
            except OSError:
                answer = b""
            finally:
                answered.set()
                watch.join()
            if answer != DONE:
                self.close()
            return answer in (DONE, FULL)

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return
        process.kill()
        with contextlib.suppress(OSError):  # an undelivered line
            process.communicate()

    def _running(self) -> subprocess.Popen[bytes] | None:
        if self._process is not None and self._owner == os.getpid():
            if self._process.poll() is None:
                return self._process
            self.close()
        if not sys.executable:
            return None
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            )
        except OSError:
            return None
        self._owner = os.getpid()
        return self._process


def _kill_unless(answered: threading.Event, process: subprocess.Popen[bytes]) -> None:
    """Kill a process that gives no answer; seconds in which all are stopped do not count."""
    for _ in range(WALL_SECONDS):
        if answered.wait(1):
            return
    process.kill()


def _walk(file: Any, budget: int) -> None:
    """Access everything that a reader may access, and continue after errors.

    Chunked arrays are read, as HDF5 then looks up the chunks; at most `budget` bytes in total.
    """
    h5py: Any = importlib.import_module("h5py")
    np = importlib.import_module("numpy")
    waiting, seen, steps = [file], set(), 0
    while waiting and steps < MAX_STEPS:
        item = waiting.pop()
        with contextlib.suppress(Exception):
            address = h5py.h5o.get_info(item.id).addr
            if address in seen:
                continue
            seen.add(address)
        names: list[str] = []
        with contextlib.suppress(Exception):
            names.extend(item.attrs)
        for name in {*names, "model_config", "layer_names", "weight_names", "dtype"}:
            steps += 1
            with contextlib.suppress(Exception):
                if name in item.attrs:
                    item.attrs[name]
        if isinstance(item, h5py.Dataset):
            steps += 1
            with contextlib.suppress(Exception):
                item.id.get_storage_size()
                n_bytes = math.prod(item.shape) * item.dtype.itemsize
                if item.chunks and n_bytes <= budget:
                    budget -= n_bytes
                    item.read_direct(np.empty(item.shape, item.dtype))
            continue
        children: list[str] = []
        with contextlib.suppress(Exception):
            children.extend(item)
        for name in children:
            steps += 1
            with contextlib.suppress(Exception):
                link = item.get(name, getlink=True)
                if isinstance(link, h5py.HardLink):
                    waiting.append(item[name])


def _look(path: str, member: str | None) -> None:
    h5py: Any = importlib.import_module("h5py")
    with contextlib.suppress(Exception), contextlib.ExitStack() as stack:
        stored = os.stat(path).st_size
        _allow(CPU_SECONDS + stored // BYTES_A_SECOND)
        source: Any = path
        if member is not None:
            archive = stack.enter_context(zipfile.ZipFile(path))
            info = archive.getinfo(member)
            source = stack.enter_context(member_of(Path(path), archive, info))
        _walk(stack.enter_context(h5py.File(source, "r")), MAX_GROWTH * stored + SMALL)


def _peak() -> int:
    """Peak memory of this process in bytes; 0 if the system does not report it."""
    try:
        resource = importlib.import_module("resource")
    except ImportError:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit


def _allow(seconds: int) -> None:
    """Let the system kill this process after `seconds` more CPU seconds."""
    with contextlib.suppress(ImportError):  # not available on Windows
        resource = importlib.import_module("resource")
        used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        limit = int(used) + 1 + seconds
        soft = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


def main() -> None:
    """Answer lines until the end of input."""
    importlib.import_module("h5py")  # its memory is not charged to a file
    first = _peak()
    for line in sys.stdin.buffer:
        path, member = json.loads(line)
        before = _peak()
        _look(path, member)
        with contextlib.suppress(OSError):
            before += 2 * (MAX_GROWTH * os.stat(path).st_size + SMALL) + SMALL
        # The system reports only the peak of a process, which hides later, smaller peaks.
        good = DONE if _peak() < first + 4 * SMALL else FULL
        sys.stdout.buffer.write(LARGE if _peak() > before else good)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
else:
    PROBER = Prober()
