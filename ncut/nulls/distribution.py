"""The n-cuts of many shuffled networks, in parallel."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue

from ncut.graphs import NeuronGraph
from ncut.graphs.validate import check_n_clusters
from ncut.nulls.models import shuffle_connected
from ncut.spectral.clustering import cluster_connected
from ncut.types import Clustering

LARGE_BYTES = 2**30
"""Weights that shuffled copies may take together, unless a single one takes more."""

Progress = Callable[[int, int], None]


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during the shuffles; `finished` holds the clusterings of those done, in order."""

    def __init__(self, finished: list[Clustering]) -> None:
        super().__init__(f"stopped after {len(finished)} shuffles")
        self.finished = finished


def cluster_shuffles(
    graph: NeuronGraph,
    k: int,
    n_shuffles: int,
    *,
    null: str,
    n_init: int,
    solver: str,
    refine: bool,
    seed: int,
    threads: int,
    progress: Progress | None = None,
) -> list[Clustering]:
    """Shuffle and cluster a graph without isolated vertices `n_shuffles` times.

    Returns a clustering for each shuffle, in the order of their numbers; it depends on the seed
    alone. Small graphs are shuffled and clustered side by side, one to a thread; of large ones
    (over LARGE_BYTES of weights in all copies) one at a time, with all threads inside it. So
    memory is bounded by LARGE_BYTES, or two copies. `progress(done, n_shuffles)` is called from
    this thread.

    Raises
    ------
    Interrupted
        On Ctrl-C, after the shuffles under way have ended; it carries what is finished.
    """

    side_by_side = threads if threads * graph.n_bytes <= LARGE_BYTES else 1

    def one(number: int) -> Clustering:
        shuffled, _ = shuffle_connected(graph, null, seed, number).without_isolated()
        check_n_clusters(k, shuffled.n_vertices)  # shuffles isolate vertices of sparse layers
        return cluster_connected(
            shuffled,
            k,
            n_init=n_init,
            solver=solver,
            refine=refine,
            seed=seed,
            graph_number=number + 1,
            threads=threads // side_by_side,
        )

    finished: dict[int, Clustering] = {}
    try:
        for number, clustering in _in_threads(one, n_shuffles, side_by_side):
            finished[number] = clustering
            if progress is not None:
                progress(len(finished), n_shuffles)
    except KeyboardInterrupt:
        raise Interrupted([finished[number] for number in sorted(finished)]) from None
    return [finished[number] for number in range(n_shuffles)]


def _in_threads(
    task: Callable[[int], Clustering], n_tasks: int, n_threads: int
) -> Iterator[tuple[int, Clustering]]:
    """(i, task(i)) for all i below n_tasks, as they are finished; at most n_threads at a time.

    A task's exception is raised here, and no further task is started. The threads talk to this
    one through a queue that Ctrl-C cannot leave locked, which is not so for the waiting functions
    of concurrent.futures: interrupted at the wrong moment, they block their workers for ever.
    """
    results: SimpleQueue[tuple[int, Clustering | None, BaseException | None]] = SimpleQueue()
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
