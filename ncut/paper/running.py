"""Training and measurement of all networks of a table, parallel and resumable."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ncut.errors import import_extra
from ncut.files import remove_file, remove_parts
from ncut.paper.datasets import Data, load, n_examples
from ncut.paper.measure import measured
from ncut.paper.recipes import Recipe
from ncut.paper.records import PRUNED, UNPRUNED, Analysis, Record, keep
from ncut.paper.runs import RecordedRuns
from ncut.paper.tables import TrainedRow
from ncut.paper.training import device_named, network_of, train

Measure = tuple[str, Analysis]

STEP_COST = {"mlp": 1.0, "small-mlp": 0.15, "polynomial-mlp": 1.5, "small-cnn": 35.0, "vgg": 500.0}
"""Rough costs of a training step, for the estimate of the time left."""

ANALYSIS_COST = 0.3
"""Cost of clustering one graph, in the same unit, times 100: 51 graphs are about 1,500 steps."""

POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Job:
    """One network: its training recipe, and its measurements."""

    record: Record
    measures: tuple[Measure, ...]

    def cost(self) -> float:
        """The total work, in steps of the MLP."""
        recipe = self.record.recipe
        training = (recipe.epochs + recipe.pruning_epochs) * _epoch_cost(recipe)
        return training + sum(_analysis_cost(analysis) for _, analysis in self.measures)

    def done(self) -> float:
        """The finished part of the work, by the existing files."""
        recipe, record = self.record.recipe, self.record
        total = sum(
            _analysis_cost(analysis)
            for phase, analysis in self.measures
            if record.has_report(phase, analysis)
        )
        for phase, epochs in ((UNPRUNED, recipe.epochs), (PRUNED, recipe.pruning_epochs)):
            n_done = epochs if record.has(phase) else _epochs_done(record, phase)
            total += n_done * _epoch_cost(recipe)
        return total


def _epoch_cost(recipe: Recipe) -> float:
    n_images = recipe.images or n_examples(recipe.data)
    return STEP_COST[recipe.network] * n_images / recipe.architecture.batch


def _analysis_cost(analysis: Analysis) -> float:
    return 100 * ANALYSIS_COST * (analysis.shuffles + 1)


def _epochs_done(record: Record, phase: str) -> int:
    try:
        name, _, epoch = _progress_file(record).read_text(encoding="utf-8").partition(" ")
        return int(epoch) if name == phase else 0
    except (OSError, ValueError):  # not there yet, or not ours
        return 0


def _progress_file(record: Record) -> Path:
    return record.folder / "progress.txt"


def jobs_for(
    rows: Sequence[TrainedRow], n_seeds: Mapping[Recipe, int], out: Path, recorded: RecordedRuns
) -> list[Job]:
    """The jobs for these rows; networks shared by several rows appear once.

    `n_seeds` is the number of networks for each recipe. One network of each recipe comes first.
    Measurements in `recorded` are left out, as are networks without any other.
    """
    measures: dict[Recipe, list[Measure]] = {}
    for row in rows:
        found = measures.setdefault(row.recipe, [])
        if (row.phase, row.analysis) not in found:
            found.append((row.phase, row.analysis))
    return [
        Job(Record(out, recipe, seed), missing)
        for seed in range(max(n_seeds.values()))
        for recipe, found in measures.items()
        if seed < n_seeds[recipe]
        and (missing := tuple(each for each in found if (recipe, *each, seed) not in recorded))
    ]


def run(
    jobs: Sequence[Job],
    data: Path,
    n_jobs: int,
    progress: Callable[[float, float], None],
    device: str = "cpu",
) -> None:
    """Run the unfinished jobs, each on one thread, `n_jobs` at a time, training on a device.

    `progress` is called from time to time with the finished and the total work.

    Raises
    ------
    InputError
        If data or a record cannot be read. Finished networks stay.
    MissingExtraError
        If joblib is not installed.
    """
    pending = [job for job in jobs if not is_done(job)]
    joblib = import_extra("joblib", "paper")
    with _reporting(jobs, progress):
        if not pending:
            return
        parallel = joblib.Parallel(
            n_jobs=min(n_jobs, len(pending)), return_as="generator_unordered"
        )
        for _ in parallel(joblib.delayed(do)(job, data, device) for job in pending):
            pass


@contextmanager
def _reporting(jobs: Sequence[Job], progress: Callable[[float, float], None]) -> Iterator[None]:
    """Report the jobs' progress, from the files that workers write, until the end."""
    total = sum(job.cost() for job in jobs)
    stopped = threading.Event()

    def report() -> None:
        progress(sum(job.done() for job in jobs), total)

    def watch() -> None:
        while not stopped.wait(POLL_SECONDS):
            report()

    report()
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stopped.set()
        watcher.join()
        report()


def is_done(job: Job) -> bool:
    return all(
        job.record.has(phase) and job.record.has_report(phase, analysis)
        for phase, analysis in job.measures
    )


def do(job: Job, data: Path, device: str = "cpu") -> None:
    """Complete the training and the measurements of one network."""
    import torch

    torch.set_num_threads(1)
    record = job.record
    remove_parts(record.folder)
    recipe = record.recipe

    def on_epoch(phase: str, epoch: int) -> None:
        keep(
            _progress_file(record),
            lambda part: part.write_text(f"{phase} {epoch}", encoding="utf-8"),
        )

    if not all(record.has(phase) for phase, _ in job.measures):
        train(record, _loaded(recipe, data), on_epoch, device_named(device))
        remove_file(_progress_file(record))
    for phase, analysis in job.measures:
        if record.has_report(phase, analysis):
            continue
        report = measured(network_of(record, phase), recipe, analysis, record.seed)
        record.save_report(phase, analysis, report)


def _loaded(recipe: Recipe, folder: Path) -> Data:
    return _load(recipe.data, folder, recipe.images, not recipe.architecture.is_convolutional)


@lru_cache(maxsize=1)
def _load(name: str, folder: Path, images: int | None, flat: bool) -> Data:
    """A data set; the last one stays in memory, since networks of a row follow each other."""
    return load(name, folder, images, flat=flat)


def n_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
