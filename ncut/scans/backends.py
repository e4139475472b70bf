"""Backends that run tasks: joblib's, on this machine or with Dask, and Ray."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

from ncut.arguments import check_choice
from ncut.errors import InputError, import_extra
from ncut.scans.tasks import Task, TaskResult, measure

BACKENDS = ("loky", "threading", "dask", "ray")

CONNECT_SECONDS = 20

AHEAD = 2
"""Tasks submitted per worker: one in progress, and one waiting."""

RETRIES = 3
"""Attempts of Ray at a task whose worker died, after the first; Dask makes as many."""


class WorkerDiedError(Exception):
    """A worker process died during a task, for example from lack of memory."""


def check_backend(backend: str, scheduler: str | None) -> None:
    """Refuse an unknown backend, and an address for a backend that takes none."""
    check_choice("backend", backend, BACKENDS)
    if backend == "dask" and not scheduler:
        raise InputError("scheduler: backend='dask' needs the address of its scheduler")
    if scheduler and backend not in ("dask", "ray"):
        raise InputError(f"scheduler: has no effect with backend={backend!r}; leave it out")


class Workers:
    """Runs tasks on a backend and yields their outcomes as they finish."""

    def __init__(self, backend: str, n_jobs: int) -> None:
        self.backend = backend
        self.n_jobs = n_jobs

    def run(self, tasks: Iterable[Task]) -> Iterator[TaskResult]:
        """The outcomes; `tasks` is read a few tasks ahead of the running ones.

        Raises
        ------
        WorkerDiedError
            If a worker process died (on a cluster, several times on the same task); the other
            workers' tasks are lost too.
        """
        if self.backend == "ray":
            yield from _on_ray(iter(tasks))
            return
        joblib = import_extra("joblib", "scan")
        calls = (joblib.delayed(measure)(task) for task in tasks)
        options = {"n_jobs": self.n_jobs, "batch_size": 1, "pre_dispatch": f"{AHEAD} * n_jobs"}
        parallel = joblib.Parallel(**options, return_as="generator_unordered")
        yield from _without_dead(parallel(calls))


def _without_dead(outcomes: Iterator[TaskResult]) -> Iterator[TaskResult]:
    from concurrent.futures.process import BrokenProcessPool

    try:
        with warnings.catch_warnings():
            # From tasks in progress when Ctrl-C ended the scan.
            warnings.filterwarnings("ignore", r"\d+ tasks", UserWarning)
            yield from outcomes
    except BrokenProcessPool as error:
        raise WorkerDiedError("out of memory?") from error
    except Exception as error:
        if type(error).__name__ != "KilledWorker":  # Dask's, without importing Dask
            raise
        raise WorkerDiedError("Dask gave up after several attempts") from error


def _on_ray(tasks: Iterator[Task]) -> Iterator[TaskResult]:
    """Run tasks on all of a cluster's cores; Ray repeats those whose worker died.

    Not through Ray's backend for joblib, whose pool does not outlive one of its workers.
    """
    ray = import_extra("ray", "ray")
    remote = ray.remote(num_cpus=1, max_retries=RETRIES)(measure)
    waiting: list[Any] = []
    try:
        while True:
            n_cores = int(ray.cluster_resources().get("CPU", 1))
            free = max(0, AHEAD * n_cores - len(waiting))
            waiting += [remote.remote(task) for task in itertools.islice(tasks, free)]
            if not waiting:
                return
            done, waiting = ray.wait(waiting)
            yield from ray.get(done)
    except ray.exceptions.RayError as error:
        raise WorkerDiedError("Ray gave up after several attempts") from error
    finally:
        for task in waiting:
            ray.cancel(task)


@contextmanager
def workers(backend: str, n_jobs: int, scheduler: str | None) -> Iterator[Workers]:
    """Connect to a backend for the duration of the context.

    Raises
    ------
    InputError
        If the scheduler does not answer.
    MissingExtraError
        If the backend's package is not installed.
    """
    joblib = import_extra("joblib", "scan")
    with ExitStack() as stack:
        options: dict[str, Any] = {}
        if backend == "dask":
            options["client"] = stack.enter_context(_dask_client(str(scheduler)))
            joblib.register_parallel_backend("ncut-dask", _dask_backend())
            backend = "ncut-dask"
            n_jobs = -1  # as many as the cluster has
        if backend == "ray":
            stack.enter_context(_ray(scheduler))
            yield Workers(backend, n_jobs)
            return
        stack.enter_context(joblib.parallel_config(backend=backend, **options))
        yield Workers(backend, n_jobs)


@contextmanager
def _dask_client(address: str) -> Iterator[Any]:
    distributed = import_extra("distributed", "dask")
    try:
        client = distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(f"scheduler: {address} does not answer: {error}") from error
    with client:
        yield client


@cache
def _dask_backend() -> Any:
    """joblib's Dask backend with two fixes (for joblib 1.6).

    Without them it waits forever for a task that Dask gave up, and ignores a cluster of one worker:
    all tasks run in this process.
    """
    from joblib._dask import DaskDistributedBackend

    class Backend(DaskDistributedBackend):
        def effective_n_jobs(self, n_jobs: int) -> int:
            workers: int = super().effective_n_jobs(n_jobs)
            return max(2, workers)

        def submit(self, func: Any, callback: Any = None) -> Any:
            future = super().submit(func, callback)
            future.add_done_callback(lambda done: done.exception() and callback(done))
            return future

        def retrieve_result_callback(self, out: Any) -> Any:
            return (
                out.result() if isinstance(out, Future) else super().retrieve_result_callback(out)
            )

    return Backend


@contextmanager
def _ray(address: str | None) -> Iterator[None]:
    ray = import_extra("ray", "ray")
    try:
        ray.init(address=address, ignore_reinit_error=True, log_to_driver=False)
    except (ConnectionError, ValueError) as error:
        raise InputError(f"scheduler: {address} does not answer: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()
