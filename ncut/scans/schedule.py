"""The pending tasks of a scan, and the filing of their results."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ncut.measure import finish, stop_rule
from ncut.plan import Plan
from ncut.randomness import NETWORK
from ncut.results import Measurement, NetworkRecord
from ncut.scans.rows import done_row, failed_row
from ncut.scans.sources import ModelSource
from ncut.scans.store import Store
from ncut.scans.tasks import ChangedError, Task, TaskResult
from ncut.types import ShuffledNetwork


@dataclass
class ModelState:
    """A model that is being measured."""

    source: ModelSource
    plan: Plan
    network: NetworkRecord | None = None
    shuffles: dict[int, ShuffledNetwork] = field(default_factory=dict)
    seconds: float = 0.0
    ended: bool = False

    def missing(self) -> Iterator[int]:
        """Numbers of the pending tasks, until the model has ended."""
        if self.network is None and not self.ended:
            yield NETWORK
        for number in range(1, self.plan.n_shuffles + 1):
            if self.ended:
                return
            if number not in self.shuffles:
                yield number

    def report(self) -> Measurement | None:
        """The finished report; None while something is missing."""
        if self.network is None:
            return None
        in_order: list[ShuffledNetwork] = []
        stop = stop_rule(self.network, self.plan)
        while len(in_order) + 1 in self.shuffles:
            in_order.append(self.shuffles[len(in_order) + 1])
        if stop is not None:
            # Checked after each shuffle, so that the end depends only on the numbers.
            enough = next((n for n in range(1, len(in_order) + 1) if stop(in_order[:n])), None)
            if enough is not None:
                return finish(self.network, in_order[:enough], self.plan)
        if len(in_order) < self.plan.n_shuffles:
            return None
        return finish(self.network, in_order, self.plan)


@dataclass
class Counts:
    """Progress of a scan.

    Attributes
    ----------
    models, done, failed : int
        Numbers of models of this run: all, finished, and failed.
    shuffles, shuffles_done : int
        Numbers of shuffles of the models that have not failed, including earlier runs.
    current : str
        The model of the latest result.
    """

    models: int = 0
    done: int = 0
    failed: int = 0
    shuffles: int = 0
    shuffles_done: int = 0
    current: str = ""


class Schedule:
    """The tasks of several models, and the storage of their results."""

    def __init__(
        self,
        sources: Sequence[ModelSource],
        store: Store,
        plan: Plan,
        options: Mapping[str, Any],
        described: Mapping[str, Any],
        counts: Counts,
    ) -> None:
        self.store = store
        self.options = tuple(sorted(options.items()))
        self.described = described
        self.counts = counts
        self.models = {source.key: ModelState(source, plan) for source in sources}
        self.under_way: set[tuple[str, int]] = set()
        for model in self.models.values():
            model.network, model.shuffles, model.seconds = store.begin(model.source)
            counts.models += 1
            counts.shuffles += plan.n_shuffles
            counts.shuffles_done += len(model.shuffles)
            self._finish_if_complete(model)

    def tasks(self, threads: int, alone: ModelState | None = None) -> Iterator[Task]:
        """Yield pending tasks, model by model, in the light of the results so far.

        `alone`: of this model only.
        """
        for model in self.models.values() if alone is None else [alone]:
            for number in model.missing():
                self.under_way.add((model.source.key, number))
                yield Task(
                    key=model.source.key,
                    fingerprint=model.source.fingerprint,
                    state=model.source.state,
                    path=os.path.abspath(model.source.path),
                    options=self.options,
                    plan=model.plan,
                    number=number,
                    threads=threads,
                )

    def take(self, outcome: TaskResult) -> None:
        """Store a result; finish its model if it was the last result or an error."""
        self.under_way.discard((outcome.key, outcome.number))
        model = self.models[outcome.key]
        if model.ended:
            return
        model.seconds += outcome.seconds
        self.counts.current = model.source.shown
        if outcome.result is None:
            self.fail(model, outcome.error, outcome.error_type)
            return
        self.store.add(model.source, outcome)
        if isinstance(outcome.result, ShuffledNetwork):
            model.shuffles[outcome.number] = outcome.result
            self.counts.shuffles_done += 1
        else:
            model.network = outcome.result
        self._finish_if_complete(model)

    def fail(self, model: ModelState, error: str, error_type: str) -> None:
        """Record that a model cannot be measured."""
        model.ended = True
        self.counts.failed += 1
        self.counts.shuffles -= model.plan.n_shuffles
        self.counts.shuffles_done -= len(model.shuffles)
        row = failed_row(model.source, error, error_type, self.described, model.seconds)
        # It may be resumed later, or restarted if the measured files are gone.
        changed = error_type == ChangedError.__name__
        if changed:
            row["fingerprint"] = ""
        measured = model.network is not None or bool(model.shuffles)
        self.store.finish(model.source, row, None, keep_journal=measured and not changed)

    def lost(self) -> list[ModelState]:
        """The models with tasks in progress when a worker died; these tasks will be repeated."""
        keys = {key for key, _ in self.under_way}
        self.under_way.clear()
        return [model for key, model in self.models.items() if key in keys and not model.ended]

    def _finish_if_complete(self, model: ModelState) -> None:
        report = model.report()
        if report is None:
            return
        model.ended = True
        self.counts.done += 1
        unneeded = model.plan.n_shuffles - report.n_shuffles
        self.counts.shuffles -= unneeded
        self.counts.shuffles_done -= len(model.shuffles) - report.n_shuffles
        row = done_row(model.source, report, model.seconds)
        self.store.finish(model.source, row, report, keep_journal=False)
