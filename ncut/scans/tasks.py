"""The work of one worker: cluster a model's network, or one of its shuffles."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace
from typing import Any

from ncut.errors import ModelError, NcutError
from ncut.extract import read_graph
from ncut.measure import Prepared, network_record, prepare, shuffle_record
from ncut.measure import measure as measured
from ncut.plan import Plan, with_needed_options
from ncut.randomness import NETWORK
from ncut.results import NetworkRecord
from ncut.scans.sources import source_of
from ncut.types import ShuffledNetwork


class ChangedError(ModelError):
    """A model's file changed while the model was measured."""


@dataclass(frozen=True, slots=True)
class Task:
    """A measurement of one graph; plain data, so that it can go to any machine.

    Attributes
    ----------
    key, fingerprint, state : str
        Of the model's `ModelSource`.
    path : str
        The model's absolute path.
    options : tuple of (str, value)
        Arguments of `ncut.graph`.
    plan : Plan
    number : int
        NETWORK, or the shuffle's number, from 1.
    threads : int
    """

    key: str
    fingerprint: str
    state: str
    path: str
    options: tuple[tuple[str, Any], ...]
    plan: Plan
    number: int
    threads: int


@dataclass(frozen=True, slots=True)
class TaskResult:
    """Result of a task: the network, a shuffle, or an error.

    Attributes
    ----------
    key : str
        Of the model.
    number : int
        Of the task.
    result : NetworkRecord, ShuffledNetwork or None
    error, error_type : str
        Why there is none.
    seconds : float
        Duration, including reading.
    """

    key: str
    number: int
    result: NetworkRecord | ShuffledNetwork | None
    error: str = ""
    error_type: str = ""
    seconds: float = 0.0


def measure(task: Task) -> TaskResult:
    """Do a task; an error of the model is an outcome too."""
    started = time.perf_counter()
    try:
        result = _measured(task)
    except Exception as error:  # no reader's error may end the scan
        return TaskResult(
            task.key, task.number, None, _one_line(error), type(error).__name__, _since(started)
        )
    return TaskResult(task.key, task.number, result, seconds=_since(started))


def _measured(task: Task) -> NetworkRecord | ShuffledNetwork:
    prepared = _GRAPH.prepared(task)
    found = measured(prepared, task.number, task.threads)
    if task.number != NETWORK:
        return shuffle_record(found)
    return replace(network_record(prepared, found), graph=None)  # too large to send


@dataclass
class _Latest:
    """The graph that this process read last; tasks of one model follow each other."""

    key: object = None
    graph: Prepared | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def prepared(self, task: Task) -> Prepared:
        key = (task.path, task.state, task.options, task.plan)
        with self.lock:
            if self.graph is None or self.key != key:
                self.graph = None  # before the next graph needs its memory
                options = with_needed_options(dict(task.options), task.plan.null)
                _check_state(task)
                graph = read_graph(task.path, **options)
                _check_state(task)
                self.graph = prepare(graph, task.plan)
                self.key = key
            return self.graph


def _check_state(task: Task) -> None:
    """Refuse a model that changed since earlier tasks measured it."""
    if source_of(task.path).state != task.state:
        raise ChangedError(
            f"{task.path}: changed while it was measured; scan again to start it over"
        )


_GRAPH = _Latest()


def forget_graph() -> None:
    """Release the graph that was read last."""
    _GRAPH.graph = None


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, NcutError) else f"{type(error).__name__}: {text}"


def _since(started: float) -> float:
    return time.perf_counter() - started
