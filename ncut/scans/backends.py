"""Backends that run tasks: joblib's, on this machine or with Dask, and Ray."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, closing, contextmanager
from functools import cache
from typing import Any

from ncut.arguments import check_choice
from ncut.errors import InputError, import_extra
from ncut.scans.on_ray import AHEAD, GaveUpError, RayCluster
from ncut.scans.tasks import Task, TaskResult, measure

BACKENDS = ("loky", "threading", "dask", "ray")

CONNECT_SECONDS = 20


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

    def __init__(self, n_jobs: int, ray: RayCluster | None = None) -> None:
        self.n_jobs = n_jobs
        self._ray = ray

    def run(self, tasks: Iterable[Task]) -> Iterator[TaskResult]:
        """The outcomes; `tasks` is read a few tasks ahead of the running ones.

        Raises
        ------
        WorkerDiedError
            If a worker process died (on a cluster, several times on the same task); the other
            workers' tasks are lost too.
        InputError
            If Ray does not answer any more.
        """
        if self._ray is not None:
            try:
                yield from self._ray.run(iter(tasks))
            except GaveUpError as error:
                raise WorkerDiedError("Ray gave up after several attempts") from error
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
            yield Workers(n_jobs, stack.enter_context(closing(RayCluster(scheduler))))
            return
        stack.enter_context(joblib.parallel_config(backend=backend, **options))
        yield Workers(n_jobs)


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
