"""Number of threads, and BLAS limited to one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from threadpoolctl import threadpool_info, threadpool_limits

import ncut
from ncut.errors import InputError
from ncut.threads import n_threads, single_threaded_blas


def test_a_number_is_used_unchanged() -> None:
    assert n_threads(1) == 1
    assert n_threads(77) == 77


def test_the_default_is_what_the_process_may_use() -> None:
    assert 1 <= n_threads(None) <= (os.cpu_count() or 1)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux: run there")
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


@pytest.fixture
def two_blas_threads() -> Iterator[None]:
    """BLAS with two threads on any machine and in any environment."""
    with threadpool_limits(2, "blas"):
        if set(blas_threads()) != {2}:
            pytest.skip("this BLAS has one thread only: run with a NumPy from PyPI")
        yield


def in_threads(n_threads: int, call: Callable[[int], Any], n_calls: int) -> list[Any]:
    with ThreadPoolExecutor(n_threads) as pool:
        return list(pool.map(call, range(n_calls)))


def small_graph(seed: int) -> sparse.csr_array:
    random = np.random.default_rng(seed)
    upper = np.triu(random.random((40, 40)) * (random.random((40, 40)) < 0.3), 1)
    return sparse.csr_array(upper + upper.T)


def test_concurrent_calls_give_the_numbers_of_serial_ones(two_blas_threads: None) -> None:
    def call(number: int) -> tuple[float, bytes, bytes]:
        seed = number % 20
        found = ncut.cluster(small_graph(seed), 4, seed=seed, threads=1, n_init=2)
        return found.ncut, found.eigenvalues.tobytes(), found.labels.tobytes()

    assert in_threads(16, call, 320) == 16 * [call(number) for number in range(20)]
    assert set(blas_threads()) == {2}


def test_concurrent_calls_on_larger_graphs_are_equal_too(two_blas_threads: None) -> None:
    random = np.random.default_rng(3)
    graph = ncut.graph([random.random((300, 260)), random.random((260, 240))])

    def call(number: int) -> tuple[float, bytes]:
        found = ncut.cluster(graph, 5, seed=number % 4, threads=1 + number % 2, n_init=2)
        return found.ncut, found.eigenvalues.tobytes()

    assert in_threads(4, call, 12) == [call(number % 4) for number in range(12)]
    assert set(blas_threads()) == {2}


def test_the_limit_lasts_until_the_last_call_is_done(two_blas_threads: None) -> None:
    inside, done = threading.Event(), threading.Event()

    def other() -> list[int]:
        with single_threaded_blas():
            inside.set()
            assert done.wait(30)
            return blas_threads()

    with ThreadPoolExecutor(1) as pool:
        with single_threaded_blas():
            later = pool.submit(other)
            assert inside.wait(30)
        assert set(blas_threads()) == {1}
        done.set()
        assert set(later.result()) == {1}
    assert set(blas_threads()) == {2}


def test_a_limit_that_the_caller_sets_meanwhile_stays(two_blas_threads: None) -> None:
    with single_threaded_blas():
        threadpool_limits(3, "blas")
        set_meanwhile = set(blas_threads())
    assert set(blas_threads()) == set_meanwhile


@pytest.mark.skipif(sys.platform != "linux", reason="needs shared libraries of Linux: run there")
def test_a_library_that_is_loaded_later_is_limited_too(tmp_path: Path) -> None:
    folder = Path(np.__file__).parents[1] / "numpy.libs"
    if not [*folder.glob("*openblas*")]:
        pytest.skip("this NumPy has no OpenBLAS of its own: run with a NumPy from PyPI")
    shutil.copytree(folder, tmp_path / "libs")
    code = (
        "import ctypes, pathlib, sys; from ncut.threads import single_threaded_blas\n"
        "from threadpoolctl import threadpool_info, threadpool_limits\n"
        "def blas():\n"
        "    return [x['num_threads'] for x in threadpool_info() if x['user_api'] == 'blas']\n"
        "with single_threaded_blas(): before = blas()\n"
        "(library,) = pathlib.Path(sys.argv[1]).glob('*openblas*'); ctypes.CDLL(str(library))\n"
        "threadpool_limits(2, 'blas')\n"
        "with single_threaded_blas(): assert blas() == [*before, 1], blas()\n"
        "assert set(blas()) == {2}, blas()\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, tmp_path / "libs"]
    subprocess.run(command, check=True, timeout=60)


def test_a_limit_of_the_callers_own_is_kept(two_blas_threads: None) -> None:
    with threadpool_limits(1, "blas"):
        found = in_threads(4, lambda seed: ncut.cluster(small_graph(seed), 3).ncut, 8)
        assert set(blas_threads()) == {1}
    assert set(blas_threads()) == {2}
    assert found == [ncut.cluster(small_graph(seed), 3).ncut for seed in range(8)]


def test_an_error_restores_the_limit(two_blas_threads: None) -> None:
    with pytest.raises(InputError), single_threaded_blas():
        raise InputError("no")
    assert set(blas_threads()) == {2}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork: run on Linux or macOS")
def test_a_forked_process_is_not_left_at_one_thread(two_blas_threads: None) -> None:
    # A process of its own, as pytest's has threads that a fork would lose.
    code = (
        "import os, sys, threading; from threadpoolctl import threadpool_info, threadpool_limits\n"
        "import scipy.linalg; from ncut.threads import single_threaded_blas\n"
        "threadpool_limits(2, 'blas'); inside, done = threading.Event(), threading.Event()\n"
        "def hold():\n"
        "    with single_threaded_blas(): inside.set(); done.wait()\n"
        "other = threading.Thread(target=hold); other.start(); inside.wait()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    with single_threaded_blas(): pass\n"
        "    found = {x['num_threads'] for x in threadpool_info() if x['user_api'] == 'blas'}\n"
        "    os._exit(0 if found == {2} else 1)\n"
        "status = os.waitpid(child, 0)[1]; done.set(); other.join(); sys.exit(status != 0)\n"
    )
    found = subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False, timeout=60)
    assert found.returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc: run on Linux")
def test_a_system_without_threads_left_changes_nothing() -> None:
    """A process whose memory has no room for the stacks of 64 more threads."""
    code = """
import resource
import numpy as np
from ncut import kernels

points = np.random.default_rng(1).random((300, 4), dtype=np.float32)

def labels(threads):
    settings = dict(n_init=80, max_iterations=9, tolerance=0.0, seed=3, stream=1)
    return kernels.kmeans(points, 5, **settings, threads=threads)[0]

alone = labels(1)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**26, resource.RLIM_INFINITY))
print(np.array_equal(labels(64), alone))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
