"""Number of threads, and a limit on the threads of BLAS."""

from __future__ import annotations

import os
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
    """Keep BLAS to one thread: ours already fill the cores, and the sums must not depend on them.

    The number of threads changes the order of BLAS's sums, hence the last digits. BLAS knows one
    limit for the whole process, so all calls share it: the first to come in sets it, the last to
    go out takes it back, and none does while another is at work. Products of the caller's own
    threads run in one thread each meanwhile; a limit that the caller sets meanwhile stays.
    """
    _LIMIT.enter()
    try:
        yield
    finally:
        _LIMIT.leave()


class _Limit:
    """A limit of one thread for all BLAS libraries that is there as long as somebody needs it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held_by_thread = threading.local()
        self._n_holders = 0
        self._before: dict[str, tuple[Any, int]] = {}

    def enter(self) -> None:
        depth = self._depth()
        if not depth:
            with self._lock:
                if not self._n_holders:
                    self._libraries = _blas_libraries()
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
        """Forget the threads that a forked process does not have."""
        self._lock = threading.Lock()
        others = self._n_holders - bool(self._depth())
        self._n_holders -= others
        if others and not self._n_holders:
            self._restore()

    def _depth(self) -> int:
        return getattr(self._held_by_thread, "depth", 0)

    def _restore(self) -> None:
        for library, n in self._before.values():
            if library.num_threads == 1:
                _set_num_threads(library, n)
        self._before.clear()


def _set_num_threads(library: Any, n: int) -> None:
    # From version 3.8 on, threadpoolctl lets one thread of the process set limits and ignores all
    # others; whoever limits next is to be heard as well.
    clear = getattr(library, "clear_controlling_thread", None)
    if clear is not None:
        clear(force=True)
    library.set_num_threads(n)
    if clear is not None:
        clear(force=True)


def _blas_libraries() -> list[Any]:
    # SciPy brings a BLAS of its own, which must be loaded to be limited.
    import scipy.linalg  # noqa: F401
    import threadpoolctl

    controller: Any = threadpoolctl.ThreadpoolController
    return [one for one in controller().lib_controllers if one.user_api == "blas"]


_LIMIT = _Limit()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_LIMIT.after_fork)
