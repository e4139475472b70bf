"""Scans that are killed, and scans whose workers are."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from joblib.externals.loky import get_reusable_executor
from scan_samples import write_model

import ncut
from ncut.scans import backends, on_ray, store

SHUFFLES = 30
OPTIONS = {"k": 3, "shuffles": SHUFFLES}

SCAN = f"""
import sys, ncut
def told(counts):
    print(counts.done + counts.shuffles_done, flush=True)
if __name__ == "__main__":
    ncut.scan(sys.argv[1], sys.argv[2], jobs=2, k=3, shuffles={SHUFFLES}, progress=told)
"""

DIE_OF = """
import os, signal, sys

def die_of(event, arguments):
    if event == "open" and str(arguments[0]).endswith("deadly.npz"):
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(die_of)
"""


@pytest.fixture
def three(models):
    """The folder of models without the broken one."""
    (models / "broken.npz").unlink()
    return models


@pytest.fixture
def fresh_workers():
    """Worker processes are kept between scans, with the environment they were started in."""
    get_reusable_executor().shutdown(wait=True)
    yield
    get_reusable_executor().shutdown(wait=True)


@pytest.fixture
def deadly(three, tmp_path, monkeypatch):
    """A model that kills every worker process which is started from now on and opens it."""
    write_model(three / "deadly.npz", 9)
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(DIE_OF)
    monkeypatch.setenv("PYTHONPATH", str(site))
    return three / "deadly.npz"


def assert_same_as_analyses(found, models):
    for path in models.glob("step-*.npz"):
        assert found.report(path) == ncut.analyze(path, **OPTIONS)


def children(pid):
    """Process numbers of all descendants."""
    own = [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]
    return [*own, *(found for child in own for found in children(child))]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc; run on Linux")
@pytest.mark.parametrize("after", [0, 3, 25, 60])
def test_a_killed_scan_loses_only_shuffles_in_progress(three, tmp_path, after):
    out = tmp_path / "out"
    with subprocess.Popen(
        [sys.executable, "-c", SCAN, three, out],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        told = 0
        for line in process.stdout:
            told = int(line)
            if told >= after:
                break
        os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    n_rows = len([*(out / "models").glob("*.parquet")])
    counted = []
    found = ncut.scan(
        three,
        out,
        backend="threading",
        progress=lambda counts: counted.append(counts.done + counts.shuffles_done),
        **OPTIONS,
    )
    # What had been told of is there when it goes on: in rows or in journals.
    assert n_rows * (1 + SHUFFLES) + counted[0] >= told
    assert counted[-1] == (3 - n_rows) * (1 + SHUFFLES)
    assert_same_as_analyses(found, three)
    assert not [*(out / "journal").iterdir()]


def test_a_scan_beside_another_one_is_refused_and_disturbs_nothing(three, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "LOCK_SECONDS", 0.2)
    command = [sys.executable, "-c", SCAN, three, tmp_path / "out"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        lines = [process.stdout.readline() for _ in range(5)]
        os.killpg(process.pid, signal.SIGSTOP)  # in the middle of it
        with pytest.raises(ncut.InputError, match="another scan is writing"):
            ncut.scan(three, tmp_path / "out", backend="threading", **OPTIONS)
        os.killpg(process.pid, signal.SIGCONT)
        lines += process.stdout.readlines()
    assert process.returncode == 0
    assert int(lines[-1]) == 3 * (1 + SHUFFLES)
    assert_same_as_analyses(ncut.Scan(tmp_path / "out"), three)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc; run on Linux")
def test_tasks_of_a_killed_worker_are_repeated(three, tmp_path, fresh_workers):
    killed = []

    def kill(counts):
        if counts.shuffles_done >= 10 and not killed:
            killed.extend(pid for pid in children(os.getpid()) if is_worker(pid))
            os.kill(killed[0], signal.SIGKILL)

    def is_worker(pid):
        return b"popen_loky" in Path(f"/proc/{pid}/cmdline").read_bytes()

    found = ncut.scan(three, tmp_path / "out", jobs=2, progress=kill, **OPTIONS)
    assert killed
    assert not found.failed
    assert_same_as_analyses(found, three)


def test_a_model_that_kills_its_workers_fails_alone(deadly, tmp_path, fresh_workers):
    found = ncut.scan(deadly.parent, tmp_path / "out", jobs=2, **OPTIONS)
    assert list(found.failed) == [str(deadly)]
    assert "worker process died" in found.failed[str(deadly)]
    assert_same_as_analyses(found, deadly.parent)


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Dask's scheduler as a process on this machine: its address, and how to start a worker."""
    # Workers that take the place of dead ones are forked from a process that has imported Dask.
    monkeypatch.setenv("DASK_DISTRIBUTED__WORKER__MULTIPROCESSING_METHOD", "forkserver")
    # The second dead worker is enough to give a task up; each takes seconds to replace.
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES", "1")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    processes = []

    def start(name, *arguments):
        command = [sys.executable, "-m", f"distributed.cli.dask_{name}", *arguments]
        with (tmp_path / f"{name}-{len(processes)}.log").open("wb") as log:
            process = subprocess.Popen(
                [*command, "--no-dashboard"],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        processes.append(process)
        return process

    def start_worker(*arguments):
        return start("worker", address, "--nthreads", "1", *arguments)

    start("scheduler", "--host", "127.0.0.1", "--port", str(port))
    yield address, start_worker
    # With the processes that they started; an orderly end takes them seconds.
    for process in reversed(processes):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=30)


def wait_for_workers(address, n):
    import distributed

    deadline = time.monotonic() + 60
    while True:
        try:
            client = distributed.Client(address, timeout=5, set_as_default=False)
            break
        except OSError:
            assert time.monotonic() < deadline
    with client:
        client.wait_for_workers(n, timeout=60)


@pytest.mark.slow
def test_a_killed_worker_of_a_cluster_changes_no_number(three, tmp_path, cluster):
    address, start_worker = cluster
    first, _ = start_worker("--no-nanny"), start_worker("--no-nanny")
    wait_for_workers(address, 2)

    def kill(counts):
        if counts.shuffles_done >= 10 and first.poll() is None:
            first.kill()
            first.wait()

    found = ncut.scan(
        three, tmp_path / "out", backend="dask", scheduler=address, progress=kill, **OPTIONS
    )
    assert first.returncode == -signal.SIGKILL
    assert not found.failed
    assert_same_as_analyses(found, three)


@pytest.mark.slow
def test_a_model_that_kills_a_clusters_workers_fails_alone(deadly, tmp_path, cluster):
    address, start_worker = cluster
    start_worker("--nworkers", "2")
    wait_for_workers(address, 2)
    found = ncut.scan(deadly.parent, tmp_path / "out", backend="dask", scheduler=address, **OPTIONS)
    assert list(found.failed) == [str(deadly)]
    assert_same_as_analyses(found, deadly.parent)


FAKE_RAY = '''
"""The part of Ray that a scan uses, in one process: tasks end in another order."""
import os, time
from types import SimpleNamespace

class RayError(Exception):
    """Ray's error of this name."""

exceptions = SimpleNamespace(RayError=RayError)
mode, most, cancelled, gets = "", 0, 0, 0

def init(address, **options):
    global mode
    mode = address  # what is to go wrong
    if mode == "nowhere":
        raise ConnectionError("no cluster")

def shutdown():
    with open(os.environ["FAKE_RAY_LOG"], "w") as log:
        print(most, cancelled, file=log)

def cluster_resources():
    return {} if mode == "empty" else {"CPU": 2.0}

def remote(*, num_cpus, max_retries):
    assert (num_cpus, max_retries) == (1, 3)
    return lambda function: SimpleNamespace(remote=lambda task: (function, task))

def wait(waiting, timeout):
    global most
    most = max(most, len(waiting))
    return waiting[-1:], waiting[:-1]

def get(done):
    global gets
    gets += 1
    if mode == "aborts" and gets > 4:
        os.abort()
    if mode == "hangs" and gets > 4:
        time.sleep(1000)
    ((function, task),) = done
    if "deadly" in task.path:
        raise RayError("the worker died")
    return [function(task)]

def cancel(task):
    global cancelled
    cancelled += 1
'''


@pytest.fixture
def ray(tmp_path, monkeypatch):
    """A module `ray` for the processes started from now on; the file it writes at its end.

    `tests/fuzz/clusters.py` has clusters of Ray itself, which take half a minute to start.
    """
    site = tmp_path / "ray-site"
    site.mkdir()
    (site / "ray.py").write_text(FAKE_RAY)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace())
    monkeypatch.setenv("FAKE_RAY_LOG", str(tmp_path / "ray.log"))
    return tmp_path / "ray.log"


@pytest.mark.parametrize("has_deadly", [False, True])
def test_a_scan_on_ray(three, tmp_path, ray, has_deadly):
    if has_deadly:
        write_model(three / "deadly.npz", 9)
    found = ncut.scan(three, tmp_path / "out", backend="ray", scheduler="head", **OPTIONS)
    assert list(found.failed) == ([str(three / "deadly.npz")] if has_deadly else [])
    most, cancelled = map(int, ray.read_text().split())
    assert most == 2 * on_ray.AHEAD
    assert bool(cancelled) == has_deadly
    assert_same_as_analyses(found, three)


def test_a_cluster_of_ray_that_does_not_answer(three, tmp_path, ray):
    with pytest.raises(ncut.InputError, match="scheduler: nowhere does not answer: no cluster"):
        ncut.scan(three, tmp_path / "out", backend="ray", scheduler="nowhere")


@pytest.mark.parametrize(
    ("mode", "seconds", "message"),
    [
        ("aborts", 120, r"Ray ended its process \(SIGABRT\).*scan again to go on"),
        ("hangs", 10, "Ray has not answered for 10 s; finished shuffles are kept"),
        ("empty", 3, "the cluster of Ray has had no core for 3 s"),
    ],
)
def test_a_ray_that_fails_ends_the_scan_and_loses_nothing(
    three, tmp_path, ray, monkeypatch, mode, seconds, message
):
    monkeypatch.setattr(on_ray, "SILENCE_SECONDS", seconds)
    out = tmp_path / "out"
    with pytest.raises(ncut.InputError, match=message):
        ncut.scan(three, out, backend="ray", scheduler=mode, **OPTIONS)
    n_kept = sum(path.read_text().count('"number"') for path in (out / "journal").iterdir())
    assert n_kept == (0 if mode == "empty" else 4)
    found = ncut.scan(three, out, backend="threading", **OPTIONS)
    assert_same_as_analyses(found, three)


def test_a_scheduler_that_does_not_answer(three, tmp_path, monkeypatch):
    monkeypatch.setattr(backends, "CONNECT_SECONDS", 2)
    with pytest.raises(ncut.InputError, match=r"scheduler: tcp://127\.0\.0\.1:9 does not answer"):
        ncut.scan(three, tmp_path / "out", backend="dask", scheduler="tcp://127.0.0.1:9")
