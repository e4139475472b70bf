"""How many threads, and keeping BLAS from starting its own beside them."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
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


def single_threaded_blas() -> AbstractContextManager[Any]:
    """Keep BLAS to one thread: ours already fill the cores, and the sums must not depend on them.

    The number of threads changes the order of BLAS's sums, hence the last digits.
    """
    # SciPy brings a BLAS of its own, which must be loaded to be limited.
    import scipy.linalg  # noqa: F401
    import threadpoolctl

    limit: Any = threadpoolctl.threadpool_limits
    limits: AbstractContextManager[Any] = limit(limits=1, user_api="blas")
    return limits
