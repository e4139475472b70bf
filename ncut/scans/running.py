"""scan(): many models in parallel, resuming an earlier run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, Unpack, cast

import numpy as np

from ncut.arguments import suggests_names
from ncut.errors import InputError
from ncut.extract import FILE_OPTIONS, FileOptions
from ncut.extract.assembly.assemble import check_options
from ncut.graphs.scratch import check_scratch
from ncut.plan import Plan
from ncut.scans.backends import WorkerDiedError, Workers, check_backend, workers
from ncut.scans.results import Scan
from ncut.scans.rows import FAILED
from ncut.scans.schedule import Counts, ModelState, Schedule
from ncut.scans.sources import ModelSource, find_sources
from ncut.scans.store import Store
from ncut.scans.tasks import forget_graph
from ncut.threads import n_threads
from ncut.types import Normalization, Null, PresetName, Sequential, Solver

MEMORY_SHARE = 0.5
"""Share of the machine's memory for all jobs together."""

COPIES = 4
"""Memory of a job in units of the model's file size: the graph, a shuffle, and a reserve."""

POLL_SECONDS = 2.0

CountsCallback = Callable[[Counts], None]


@suggests_names(*FILE_OPTIONS)
def scan(
    paths: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    jobs: int | None = None,
    threads: int | None = None,
    backend: str = "loky",
    scheduler: str | None = None,
    retry_failed: bool = False,
    watch: bool = False,
    idle: float | None = None,
    progress: CountsCallback | None = None,
    k: int | None = None,
    shuffles: int | Literal["auto"] | None = None,
    null: Null | None = None,
    normalize: Normalization | None = None,
    preset: PresetName = "filan2021",
    refine: bool = False,
    seed: int = 0,
    n_init: int | Literal["auto"] | None = None,
    solver: Solver = "auto",
    max_shuffles: int = 1000,
    level: float = 0.05,
    sequential: Sequential = "betting",
    device: str = "cpu",
    tests: Sequence[str] | None = None,
    **graph_options: Unpack[FileOptions],
) -> Scan:
    """Measure many models, with a report and a row in a Parquet dataset for each.

    A task is one model or one shuffle. Every finished shuffle is kept, so that an interrupted or
    killed scan resumes where it ended when it is called again; a finished model is measured again
    only if its files changed. A model that cannot be measured gets a row with its error.

    Parameters
    ----------
    paths : str, Path or sequence of them
        Model files, folders of models (searched recursively; a folder with a `config.json` is one
        model), patterns such as `"runs/**/*.pt"`, and `.txt` files with one path per line.
    out : str or Path
        The results folder, created if it does not exist; `~` is expanded. It has one set of
        settings.
    jobs : int, optional
        Concurrent tasks on this machine; by default all cores, fewer if the models might exceed
        half of the memory, and one on a GPU. On a cluster, the workers decide.
    threads : int, optional
        Threads per task; by default the cores divided by `jobs`, on a cluster 1.
    backend : {"loky", "threading", "dask", "ray"}, default "loky"
        The joblib backend: processes or threads of this machine, or a cluster, which must see the
        same paths and have the same version of ncut.
    scheduler : str, optional
        Address of a Dask scheduler or a Ray cluster.
    retry_failed : bool, default False
        Retry models that failed before.
    watch : bool, default False
        After all models are done, look for new and changed models until Ctrl-C; for folders to
        which a training run writes checkpoints. A file is measured once it has not changed for two
        seconds.
    idle : float, optional
        With `watch`, stop after this many seconds without new models.
    progress : callable, optional
        Called as `progress(counts)` after each task, with the attributes `models`, `done`,
        `failed`, `shuffles`, `shuffles_done` and `current`.
    k, shuffles, null, normalize, preset, refine, seed, n_init, solver
        See `ncut.analyze`.
    max_shuffles, level, sequential, device, tests
        See `ncut.analyze`.
    **graph_options
        Options of `ncut.graph` that apply to files: `scope`, `norm`, `layers`, `residual`,
        `unknown`, `scratch`, `part`.

    Returns
    -------
    Scan
        The content of the folder. The numbers are those of `ncut.analyze` with the same arguments,
        for any backend and number of jobs.

    Raises
    ------
    InputError
        If an argument cannot be used, a path does not exist, the folder has results of other
        settings, or another scan writes to it.
    MissingExtraError
        If packages of the extra `scan` (or `dask`, `ray`) are not installed.
    KeyboardInterrupt
        On Ctrl-C; finished results are kept.
    """
    plan = Plan.of(
        k=k, shuffles=shuffles, null=null, normalize=normalize, preset=preset, refine=refine,
        seed=seed, n_init=n_init, solver=solver, max_shuffles=max_shuffles, level=level,
        sequential=sequential, device=device, tests=tests,
    )  # fmt: skip
    options = _checked_options(cast(dict[str, Any], graph_options))
    described = {**plan.recorded(), **_recorded(options)}
    check_backend(backend, scheduler)
    cores = n_threads(None)
    local = backend in ("loky", "threading")
    if jobs is not None and not local:
        raise InputError(f"jobs: is decided by the workers of backend={backend!r}; leave it out")
    if idle is not None and not watch:
        raise InputError("idle: has no effect without watch; leave it out")
    n_jobs = _count("jobs", jobs) or (cores if plan.device == "cpu" else 1)
    n_task_threads = _count("threads", threads)
    if not isinstance(paths, Iterable | Path):
        raise InputError(f"paths: must be a path or a sequence of paths, got {paths!r}")
    out = Path(out).expanduser()  # some libraries that write there expand it
    if not watch:  # missing paths are refused before the folder is created
        find_sources([paths] if isinstance(paths, str | Path) else [*paths])
    store = Store(out, described)
    counts = Counts()
    with store.locked(), workers(backend, n_jobs, scheduler) as crew:

        def run(sources: Sequence[ModelSource], n_jobs: int) -> None:
            crew.n_jobs = n_jobs
            schedule = Schedule(sources, store, plan, options, described, counts)
            each = n_task_threads or (max(1, cores // n_jobs) if local else 1)
            _work(schedule, crew, each, progress)

        for sources in _rounds(paths, store, retry_failed, watch, idle):
            if not local:
                run(sources, crew.n_jobs)
                continue
            fits = _as_given if jobs is not None else _fitting
            sizes = {source.key: fits(source, n_jobs) for source in sources}
            in_turn = sorted(sources, key=lambda source: -sizes[source.key])
            for size, group in groupby(in_turn, key=lambda source: sizes[source.key]):
                run([*group], size)
        forget_graph()
    return Scan(out)


def _checked_options(options: dict[str, Any]) -> dict[str, Any]:
    """Arguments of `ncut.graph` that can be used and compared."""
    checkable = ("scope", "norm", "residual", "unknown")
    check_options(**{name: options[name] for name in checkable if name in options})
    check_scratch(options.get("scratch"))
    if options.get("layers") is not None:
        options["layers"] = tuple(options["layers"])
    return options


def _recorded(options: dict[str, Any]) -> dict[str, Any]:
    """The options that change a graph, as plain data for the folder."""
    names = [name for name in FILE_OPTIONS if name != "scratch"]  # location changes nothing
    values = {name: options.get(name) for name in names}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


def _count(name: str, value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise InputError(f"{name}: must be a whole number of at least 1, got {value!r}")
    return int(value)


def _rounds(
    paths: str | Path | Sequence[str | Path],
    store: Store,
    retry_failed: bool,
    watch: bool,
    idle: float | None,
) -> Iterator[list[ModelSource]]:
    """The models to measure: once, or repeatedly as they appear."""
    given = [paths] if isinstance(paths, str | Path) else [*paths]
    if not watch:
        yield _to_do(find_sources(given), store, retry_failed)
        return
    before: dict[str, str] = {}
    quiet_since = time.monotonic()
    while idle is None or time.monotonic() - quiet_since < idle:
        now = {source.key: source for source in _present(given)}
        # It is still being written, or new enough that it may be.
        steady = [s for key, s in now.items() if before.get(key) == s.fingerprint]
        changed = len(steady) < len(now)
        before = {key: source.fingerprint for key, source in now.items()}
        to_do = _to_do(steady, store, retry_failed)
        retry_failed = False
        if to_do:
            yield to_do
        if to_do or changed:
            quiet_since = time.monotonic()
        time.sleep(POLL_SECONDS)


def _present(paths: Sequence[str | Path]) -> list[ModelSource]:
    """The models that exist now; a watched folder may be empty at first."""
    found: dict[str, ModelSource] = {}
    for path in paths:
        try:
            for source in find_sources([path]):
                found.setdefault(source.key, source)
        except InputError:
            continue
    return list(found.values())


def _to_do(sources: Sequence[ModelSource], store: Store, retry_failed: bool) -> list[ModelSource]:
    """Sources without a row, and those whose files changed since their row was written."""
    states = store.states()

    def needed(source: ModelSource) -> bool:
        status, fingerprint = states.get(source.key, ("", ""))
        if fingerprint != source.fingerprint or not status:
            return True
        return retry_failed and status == FAILED

    return [source for source in sources if needed(source)]


def _as_given(source: ModelSource, n_jobs: int) -> int:
    return n_jobs


def _fitting(source: ModelSource, n_jobs: int) -> int:
    """Number of tasks of a model that fit into memory, at least one."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    fits = int(MEMORY_SHARE * memory / max(1, COPIES * source.n_bytes))
    return max(1, min(n_jobs, fits))


def _work(schedule: Schedule, crew: Workers, threads: int, progress: CountsCallback | None) -> None:
    """Run all tasks; survive dead workers, and identify the model that killed them."""

    def report_progress() -> None:
        if progress is not None:
            progress(schedule.counts)

    report_progress()
    suspects: list[ModelState] = []
    attempts = 3  # at retries after a worker died for an unknown reason
    while True:
        alone = suspects.pop() if suspects else None
        try:
            for outcome in crew.run(schedule.tasks(threads, alone)):
                schedule.take(outcome)
                report_progress()
        except WorkerDiedError as error:
            lost = schedule.lost()
            if alone is not None:
                why = f"a worker process died while it was measured: {error}"
                schedule.fail(alone, why, "WorkerDiedError")
                report_progress()
            elif lost:
                suspects = lost
            elif attempts:
                attempts -= 1
            else:
                raise
            continue
        if alone is None:
            return
