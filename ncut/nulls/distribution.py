"""Measurements of many shuffled networks, in parallel."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from queue import SimpleQueue
from typing import TypeVar

from ncut.errors import Interrupted
from ncut.graphs import NeuronGraph
from ncut.nulls.models import fitted

LARGE_BYTES = 2**30
"""Weights that shuffled copies may take together, unless a single one takes more."""

Progress = Callable[[int, int], None]

T = TypeVar("T")

Measure = Callable[[NeuronGraph, int, int], T]
"""What to measure: (graph without isolated vertices, its number, threads) -> result."""


def at_once_and_inside(graph: NeuronGraph, threads: int) -> tuple[int, int]:
    """How many shuffles of a graph are measured side by side, and with how many threads each."""
    return (threads, 1) if threads * graph.n_bytes <= LARGE_BYTES else (1, threads)


def over_shuffles(
    graph: NeuronGraph,
    n_shuffles: int,
    measure: Measure[T],
    *,
    null: str,
    normalize: str,
    seed: int,
    threads: int,
    progress: Progress | None = None,
    stop: Callable[[Sequence[T]], bool] | None = None,
) -> list[T]:
    """Shuffle a graph without isolated vertices `n_shuffles` times, and measure each shuffle.

    Returns the results in the order of the shuffles' numbers; they depend on the seed alone.
    Weights are shuffled first and brought to the convention `normalize` after that, as the
    network's own are. Small graphs are measured side by side, one to a thread; large ones (over
    LARGE_BYTES of weights in all copies) one at a time, with all threads inside it. So memory is
    bounded by LARGE_BYTES, or two copies. `progress(done, n_shuffles)` is called from this
    thread.

    `stop` is asked after each result, with all results up to the first one that is missing; when
    it says so, later ones are dropped, so that where it ends depends on the results alone.

    Raises
    ------
    Interrupted
        On Ctrl-C, after the shuffles under way have ended; it carries what is finished (with
        `stop` up to the first that is missing).
    """
    side_by_side, inside = at_once_and_inside(graph, threads)
    shuffles = fitted(graph, null, seed)

    def one(number: int) -> T:
        return measure(shuffles.connected(number, normalize), number + 1, inside)

    return side_by_side_in_order(one, n_shuffles, side_by_side, progress=progress, stop=stop)


def side_by_side_in_order(
    one: Callable[[int], T],
    n_shuffles: int,
    at_once: int,
    *,
    progress: Progress | None = None,
    stop: Callable[[Sequence[T]], bool] | None = None,
) -> list[T]:
    """The results of `one(number)` for all shuffles, `at_once` of them at a time.

    What `over_shuffles` does, for shuffles that are made and measured in any way.
    """
    finished: dict[int, T] = {}
    results: list[T] = []
    try:
        # Closed before anything leaves this function, so that no thread works on behind it.
        with closing(_in_threads(one, n_shuffles, at_once)) as tasks:
            for number, result in tasks:
                finished[number] = result
                if progress is not None:
                    progress(len(finished), n_shuffles)
                while len(results) in finished:
                    results.append(finished[len(results)])
                    if stop is not None and stop(results):
                        return results
    except KeyboardInterrupt:
        numbers = sorted(finished)
        if stop is not None:  # the order counts: nothing behind a shuffle that is missing
            numbers = [number for at, number in enumerate(numbers) if at == number]
        so_far = [finished[number] for number in numbers]
        raise Interrupted(so_far, f"{len(so_far)} shuffles") from None
    return results


def _in_threads(
    task: Callable[[int], T], n_tasks: int, n_threads: int
) -> Generator[tuple[int, T], None, None]:
    """(i, task(i)) for all i below n_tasks, as they are finished; at most n_threads at a time.

    A task's exception is raised here, and no further task is started. The threads talk to this
    one through a queue that Ctrl-C cannot leave locked, which is not so for the waiting functions
    of concurrent.futures: interrupted at the wrong moment, they block their workers for ever.
    """
    results: SimpleQueue[tuple[int, T | None, BaseException | None]] = SimpleQueue()
    numbers = itertools.count()
    stopped = threading.Event()

    def work() -> None:
        while not stopped.is_set() and (number := next(numbers)) < n_tasks:
            try:
                results.put((number, task(number), None))
            except BaseException as error:  # handed over to the calling thread
                results.put((number, None, error))

    workers = [threading.Thread(target=work) for _ in range(min(n_threads, n_tasks))]
    for worker in workers:
        worker.start()
    try:
        for _ in range(n_tasks):
            number, result, error = results.get()
            if error is not None:
                raise error
            assert result is not None
            yield number, result
    finally:
        stopped.set()
        for worker in workers:
            worker.join()
