"""Measurements of many shuffled networks, in parallel."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from queue import SimpleQueue
from typing import TypeVar

from ncut.errors import Interrupted, ShuffleError
from ncut.graphs import NeuronGraph
from ncut.progress import ProgressCallback
from ncut.spectral.operator import WIDTH

LARGE_BYTES = 2**30
"""Bytes that concurrent shuffled copies may take together, unless a single copy takes more."""

BYTES_PER_VERTEX = 7 * WIDTH * 4 + 6 * WIDTH * 8
"""Bytes that a clustering holds for a vertex: the Lanczos basis, blocks of vectors in single and
double precision, the embedding."""

T = TypeVar("T")


def at_once_and_inside(graph: NeuronGraph, threads: int) -> tuple[int, int]:
    """Number of concurrent shuffles of a graph, and number of threads for each.

    Small graphs get one thread each; graphs whose copies, with the vectors of their clusterings,
    would exceed LARGE_BYTES are measured one at a time with all threads. Memory is therefore
    bounded by LARGE_BYTES, or two copies.
    """
    one = graph.n_bytes + BYTES_PER_VERTEX * graph.n_vertices
    return (threads, 1) if threads * one <= LARGE_BYTES else (1, threads)


def side_by_side_in_order(
    one: Callable[[int], T],
    n_shuffles: int,
    at_once: int,
    *,
    progress: ProgressCallback | None = None,
    stop: Callable[[Sequence[T]], bool] | None = None,
) -> list[T]:
    """Results of `one(number)` for all shuffles in the order of their numbers, counted from 0.

    `at_once` of them run at a time, each in a separate thread. `progress(done, n_shuffles)` is
    called from the calling thread.

    `stop` is called after each result, with all results before the first missing one; if it returns
    true, later results are dropped, so that the end depends on the results alone.

    Raises
    ------
    Interrupted
        On Ctrl-C, after the shuffles in progress have ended; it carries the finished results (with
        `stop`, those before the first missing one).
    ShuffleError
        If a shuffle cannot be measured; it carries the finished results likewise.
    """
    finished: dict[int, T] = {}
    results: list[T] = []
    try:
        # Closed before this function exits, so that no thread continues afterwards.
        with closing(_in_threads(one, n_shuffles, at_once)) as tasks:
            for number, result in tasks:
                finished[number] = result
                if progress is not None:
                    progress(len(finished), n_shuffles)
                while len(results) in finished:
                    results.append(finished[len(results)])
                    if stop is not None and stop(results):
                        return results
    except (KeyboardInterrupt, ShuffleError) as stopped:
        numbers = sorted(finished)
        if stop is not None:  # the order counts: nothing after a missing shuffle
            numbers = [number for at, number in enumerate(numbers) if at == number]
        so_far = [finished[number] for number in numbers]
        if isinstance(stopped, ShuffleError):
            stopped.finished = so_far
            raise
        raise Interrupted(so_far, f"{len(so_far)} shuffles") from None
    return results


def _in_threads(
    task: Callable[[int], T], n_tasks: int, n_threads: int
) -> Generator[tuple[int, T], None, None]:
    """(i, task(i)) for all i below n_tasks, in order of completion; at most n_threads at a time.

    A task's exception is raised here, and no further task is started. The threads communicate with
    this thread through a queue that Ctrl-C cannot leave locked; the waiting functions of
    concurrent.futures, interrupted at the wrong moment, block their workers forever.
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

    workers: list[threading.Thread] = []
    try:
        for _ in range(min(n_threads, n_tasks)):
            worker = threading.Thread(target=work)
            try:
                worker.start()
            except RuntimeError:  # the system has no more threads: fewer do the same
                if not workers:
                    raise
                break
            workers.append(worker)
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
