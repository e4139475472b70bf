"""The n-cuts of many shuffled networks, in parallel."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from ncut.graphs import NeuronGraph
from ncut.nulls.models import shuffle_connected
from ncut.spectral.clustering import cluster_connected
from ncut.types import Clustering

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
    alone. At most `threads` shuffled copies exist at a time. `progress(done, n_shuffles)` is
    called from this thread.

    Raises
    ------
    Interrupted
        On Ctrl-C, after the shuffles under way have ended; it carries what is finished.
    """

    def one(number: int) -> Clustering:
        shuffled, _ = shuffle_connected(graph, null, seed, number).without_isolated()
        return cluster_connected(
            shuffled,
            k,
            n_init=n_init,
            solver=solver,
            refine=refine,
            seed=seed,
            graph_number=number + 1,
            threads=1,
        )

    finished: dict[int, Clustering] = {}
    with ThreadPoolExecutor(threads) as pool:
        pending: dict[Future[Clustering], int] = {
            pool.submit(one, number): number for number in range(n_shuffles)
        }
        try:
            while pending:
                done, _ = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    finished[pending.pop(future)] = future.result()
                if progress is not None:
                    progress(len(finished), n_shuffles)
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            if isinstance(error, KeyboardInterrupt):
                raise Interrupted([finished[i] for i in sorted(finished)]) from None
            raise
    return [finished[i] for i in range(n_shuffles)]
