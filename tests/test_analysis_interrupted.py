"""Progress, threads and interruption of `ncut.analyze`."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest
from analyses import interrupted, run, sample
from samples import (
    random_chain,
)

import ncut
from ncut.nulls import compare


def contents(report: ncut.Report) -> dict[str, Any]:
    return dict(report.to_dict())


@pytest.mark.parametrize("solver", ["auto", "dense", "arpack"])
def test_threads_change_nothing(solver: str) -> None:
    model = random_chain(9, (120, 200, 90))
    one = run(model, threads=1, solver=solver)
    for threads in (2, 3):
        other = run(model, threads=threads, solver=solver)
        np.testing.assert_array_equal(other.shuffled_ncuts, one.shuffled_ncuts)
        assert contents(other) == contents(one)


def test_threads_change_nothing_for_a_large_network() -> None:
    # Large enough that "auto" takes the iterative solver.
    model = random_chain(11, (500, 450, 400), 0.1)
    reports = [run(model, threads=threads, shuffles=3) for threads in (1, 2, 3)]
    assert "krylov" in reports[0].solver
    for other in reports[1:]:
        np.testing.assert_array_equal(other.shuffled_ncuts, reports[0].shuffled_ncuts)
        np.testing.assert_array_equal(other.labels, reports[0].labels)
        np.testing.assert_array_equal(other.eigenvalues, reports[0].eigenvalues)


@pytest.mark.parametrize("threads", [1, 3])
def test_progress_is_reported_from_the_calling_thread(threads: int) -> None:
    calls: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        assert threading.current_thread() is threading.main_thread()
        calls.append((done, total))

    run(shuffles=8, threads=threads, progress=progress)
    done = [number for number, _ in calls]
    assert done == sorted(set(done))
    assert done[-1] == 8
    assert {total for _, total in calls} == {8}


@pytest.mark.parametrize("threads", [1, 3])
def test_interruption_keeps_finished_results(threads: int) -> None:
    def stop(done: int, total: int) -> None:
        if done >= 5:
            raise KeyboardInterrupt

    complete = run(shuffles=40)
    with pytest.raises(ncut.Interrupted) as caught:
        run(shuffles=40, threads=threads, progress=stop)
    report = caught.value.finished
    finished = report.shuffled_ncuts
    assert 5 <= finished.size < 40
    assert np.isin(finished, complete.shuffled_ncuts).all()
    assert report.ncut == complete.ncut
    np.testing.assert_array_equal(report.labels, complete.labels)
    assert report.p_value == compare(report.ncut, finished).p_value
    assert any(f"{finished.size} of 40 shuffles" in text for text in report.warnings)
    assert isinstance(caught.value, KeyboardInterrupt)


INTERRUPTED = """
import threading, signal, os
import numpy as np
import ncut

rng = np.random.default_rng(3)
model = [rng.random(shape) for shape in ((60, 80), (80, 50))]
ctrl_c = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
def progress(done, total):
    if done == 3:
        ctrl_c.start()
try:
    ncut.analyze(model, k=5, shuffles=100_000, threads=2, progress=progress)
except ncut.Interrupted as interrupted:
    assert interrupted.finished.shuffled_ncuts.size >= 3
    ctrl_c.join()
    assert threading.active_count() == 1, threading.enumerate()
    print("interrupted")
"""


@pytest.mark.skipif(
    os.name == "nt",
    reason="needs POSIX signals: run on Linux",
)
def test_ctrl_c_ends_the_analysis() -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "interrupted", done.stderr[-2000:]


def test_interruption_keeps_the_model() -> None:
    weights = sample()
    assert interrupted(3, weights, shuffles=20).source is weights
    assert run(weights, shuffles=0).source is weights
