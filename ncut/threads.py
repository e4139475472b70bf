"""Number of threads, and a limit on the threads of BLAS."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ncut.errors import InputError


def n_threads(threads: int | None) -> int:
    """The number of threads to use: the cores this process may run on, unless given."""
    if threads is None:
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1
    if isinstance(threads, bool) or not isinstance(threads, int | np.integer) or threads < 1:
        raise InputError(f"threads: must be a whole number of at least 1, got {threads!r}")
    return int(threads)


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Limit BLAS to one thread: ncut's threads fill the cores, and sums must not depend on BLAS's.

    The number of threads changes the order of BLAS's sums, and hence the last digits. BLAS has one
    limit for the whole process, so all calls share it: the first call sets it and the last to end
    restores it. Meanwhile, BLAS calls from the caller's other threads also run in one thread each;
    a limit that the caller sets meanwhile is kept.
    """
    _LIMIT.enter()
    try:
        yield
    finally:
        _LIMIT.leave()


class _Limit:
    """A limit of one thread for all BLAS libraries, in force while any call needs it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held_by_thread = threading.local()
        self._n_holders = 0
        self._before: dict[str, tuple[Any, int]] = {}
        self._libraries: list[Any] = []
        self._found_at = b""

    def enter(self) -> None:
        depth = self._depth()
        if not depth:
            with self._lock:
                if not self._n_holders:
                    self._find_libraries()
                for library in self._libraries:
                    n = library.num_threads
                    if n is not None and n != 1:
                        self._before[library.filepath] = library, n
                        _set_num_threads(library, 1)
                self._n_holders += 1
        self._held_by_thread.depth = depth + 1

    def leave(self) -> None:
        self._held_by_thread.depth = self._depth() - 1
        if not self._depth():
            with self._lock:
                self._n_holders -= 1
                if not self._n_holders:
                    self._restore()

    def after_fork(self) -> None:
        """Forget the threads that a forked process lacks."""
        self._lock = threading.Lock()
        others = self._n_holders - bool(self._depth())
        self._n_holders -= others
        if others and not self._n_holders:
            self._restore()

    def _find_libraries(self) -> None:
        now = _loaded_code()
        if not now or now != self._found_at:
            self._libraries = _blas_libraries()
            self._found_at = now

    def _depth(self) -> int:
        return getattr(self._held_by_thread, "depth", 0)

    def _restore(self) -> None:
        for library, n in self._before.values():
            if library.num_threads == 1:
                _set_num_threads(library, n)
        self._before.clear()


def _set_num_threads(library: Any, n: int) -> None:
    # From version 3.8 on, threadpoolctl lets one thread of the process set limits and ignores all
    # others; the next thread that sets a limit must be heard as well.
    clear = getattr(library, "clear_controlling_thread", None)
    if clear is not None:
        clear(force=True)
    library.set_num_threads(n)
    if clear is not None:
        clear(force=True)


def _loaded_code() -> bytes:
    """Linux's figure for the size of all loaded code; empty if unknown.

    Loading a library changes it. Listing the libraries takes milliseconds, more than the analysis
    of a small graph.
    """
    try:
        with open("/proc/self/status", "rb") as status:
            found = re.search(rb"^VmLib:\s*[1-9].*$", status.read(), re.MULTILINE)
    except OSError:
        return b""
    return found[0] if found else b""


def _blas_libraries() -> list[Any]:
    # SciPy has a separate BLAS, which must be loaded to be limited.
    import scipy.linalg  # noqa: F401
    import threadpoolctl

    controller: Any = threadpoolctl.ThreadpoolController
    return [one for one in controller().lib_controllers if one.user_api == "blas"]


_LIMIT = _Limit()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_LIMIT.after_fork)
