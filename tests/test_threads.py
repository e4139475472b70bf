"""How many threads are used, and that BLAS is kept to one."""

from __future__ import annotations

import os
from typing import Any

import pytest
from threadpoolctl import threadpool_info

from ncut.errors import InputError
from ncut.threads import n_threads, single_threaded_blas


def test_a_number_is_taken_as_it_is() -> None:
    assert n_threads(1) == 1
    assert n_threads(77) == 77


def test_the_default_is_what_the_process_may_use() -> None:
    assert 1 <= n_threads(None) <= (os.cpu_count() or 1)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_the_default_respects_the_affinity() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert n_threads(None) == 1
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.parametrize("threads", [0, -1, 1.0, "2", True, []])
def test_other_values_are_refused(threads: Any) -> None:
    with pytest.raises(InputError, match=r"^threads: "):
        n_threads(threads)


def blas_threads() -> list[int]:
    libraries = threadpool_info()
    return [library["num_threads"] for library in libraries if library["user_api"] == "blas"]


def test_blas_is_limited_inside_and_restored_after() -> None:
    with single_threaded_blas():
        before = blas_threads()  # SciPy's is loaded now
        assert before
        assert set(before) == {1}
    after = blas_threads()
    with single_threaded_blas():
        assert set(blas_threads()) == {1}
    assert blas_threads() == after
