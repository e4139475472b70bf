"""A look at HDF5 files by a process of its own: HDF5 may never return from a damaged one, or die.

Run as a program it reads a line of JSON for each file, walks over all that the file holds, and
writes a word when it is through. What is wrong with a file is the reader's to tell; here it
matters only that there is an end, and how much memory it took.
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
"""Time of the processor for a file, beside a second for each `BYTES_A_SECOND`."""

BYTES_A_SECOND = 2**22

MAX_GROWTH, SMALL = 100, 2**24  # those of ncut.files.Budget: a reader refuses more

WALL_SECONDS = 300
"""Time by the clock, for a process that waits for something."""

DONE, FULL, LARGE = b"done\n", b"full\n", b"large\n"
"""What is answered: all is well; all is, but this process should be replaced; it took too much."""

MAX_STEPS = 400_000
"""Groups, arrays and attributes that are looked at."""


_ZIP_HEADER = 30  # bytes of a member's own header before its name


class Window(io.RawIOBase):
    """A part of a file, as a file."""

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
    """A member of an archive as a seekable file: in place where it is not compressed."""
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
    """The process that looks; it is started for the first file and ends with this one."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._lock = threading.Lock()
        atexit.register(self.close)

    def ends(self, path: Path, member: str | None = None) -> bool:
        """Whether HDF5 comes to the end of a file, or of a member of a zip archive.

        False also where it takes far more memory than what is stored there could fill.
        """
        with self._lock:
            process = self._running()
            if process is None:  # no interpreter to start, as in some embedded ones
                return True
            assert process.stdin is not None
            assert process.stdout is not None
            timer = threading.Timer(WALL_SECONDS, process.kill)
            timer.start()
            try:
                process.stdin.write(json.dumps([os.fspath(path), member]).encode() + b"\n")
                process.stdin.flush()
                answer = process.stdout.readline()
            except OSError:
                answer = b""
            finally:
                timer.cancel()
                timer.join()
            if answer != DONE:
                self.close()
            return answer in (DONE, FULL)

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return
        process.kill()
        with contextlib.suppress(OSError):  # a line that never got there
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


def _walk(file: Any, budget: int) -> None:
    """Touch what a reader may touch; errors are passed over, as the next thing may be looked at.

    Arrays in chunks are read, as HDF5 looks for these; of all together no more than `budget` bytes.
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
    """The most memory that this process had, in bytes; 0 where the system does not tell."""
    try:
        resource = importlib.import_module("resource")
    except ImportError:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit


def _allow(seconds: int) -> None:
    """Let the system end this process when it has used so much more of the processor."""
    with contextlib.suppress(ImportError):  # Windows has no such limit
        resource = importlib.import_module("resource")
        used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        limit = int(used) + 1 + seconds
        soft = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


def main() -> None:
    """Answer lines until there are no more."""
    importlib.import_module("h5py")  # its own memory is no file's
    first = _peak()
    for line in sys.stdin.buffer:
        path, member = json.loads(line)
        before = _peak()
        _look(path, member)
        with contextlib.suppress(OSError):
            before += 2 * (MAX_GROWTH * os.stat(path).st_size + SMALL) + SMALL
        # The system tells the peak of a process only, which hides smaller ones after it.
        good = DONE if _peak() < first + 4 * SMALL else FULL
        sys.stdout.buffer.write(LARGE if _peak() > before else good)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
else:
    PROBER = Prober()
