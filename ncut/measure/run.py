"""measure(): the network, or one of its shuffles, clustered; any number in any order.

A result depends only on the graph, the plan and the number, so shuffles may be measured in other
processes or on other machines.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ncut.errors import ShuffleError
from ncut.graphs import NeuronGraph
from ncut.graphs.validate import check_n_clusters, too_few_left
from ncut.measure.place import Place, place_of
from ncut.nulls import check_null_fits, side_by_side_in_order, statistics_of
from ncut.plan import Plan
from ncut.progress import ProgressCallback
from ncut.randomness import MAX_GRAPHS, NETWORK
from ncut.results import REPRODUCIBLE
from ncut.spectral.agreement import adjusted_rand_index
from ncut.spectral.clustering import cluster_embedded
from ncut.spectral.embedding import Embedding, embed
from ncut.spectral.kmeans import restarts
from ncut.spectral.operator import NormalizedAdjacency
from ncut.threads import single_threaded_blas
from ncut.types import Clustering, ShuffledNetwork

# To measure its noise, k-means is repeated this many times on the network, and once on as many
# shuffles, but on at most a fifth of the shuffles, so that the cost stays small.
MAX_REPEATS = 10

FEWER = (10, 8, 6, 5, 4, 3, 2)
"""Numbers of clusters tried in turn if repeats of k-means do not agree at k."""

AGREEMENT_REPEATS = 3

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A graph prepared for measurements.

    Attributes
    ----------
    graph : NeuronGraph
        The graph as read.
    measured : NeuronGraph
        The graph in the plan's convention.
    connected : NeuronGraph
        `graph` without isolated vertices, which is shuffled.
    kept : ndarray of intp, shape (n_connected,)
        The measured vertices of `graph`.
    plan : Plan
    ks : tuple of int
        The numbers of clusters, ascending.
    with_gap : bool
        Whether the eigenvalue after the last k is computed as well.
    n_init : int
        Restarts of k-means.
    repeats, shuffle_repeats : int
        Number of repeats of k-means on the network, and number of first shuffles with one repeat,
        to measure its noise.
    place : Place
        The place of the measurements.
    """

    graph: NeuronGraph
    measured: NeuronGraph
    connected: NeuronGraph
    kept: NDArray[np.intp]
    plan: Plan
    ks: tuple[int, ...]
    with_gap: bool
    n_init: int
    repeats: int
    shuffle_repeats: int
    place: Place

    def labels(self, found: Clustering) -> NDArray[np.int32]:
        """A partition of the network by vertices of `graph`, -1 for an isolated one."""
        labels = np.full(self.graph.n_vertices, -1, dtype=np.int32)
        labels[self.kept] = found.labels
        return labels


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """A graph clustered with each number of clusters.

    Attributes
    ----------
    clusterings : tuple of Clustering
        One clustering for each k.
    eigenvalues : ndarray of float64, shape (max(ks),), one more with a gap
        The smallest eigenvalues of the normalized Laplacian, ascending.
    other_starts : tuple of tuple of Clustering
        The clusterings from other start vectors of the eigensolver.
    agreement : dict of int to float
        For the network, the agreement between repeats of k-means at k, and at smaller k until they
        agree.
    """

    clusterings: tuple[Clustering, ...]
    eigenvalues: NDArray[np.float64]
    other_starts: tuple[tuple[Clustering, ...], ...] = ()
    agreement: dict[int, float] = field(default_factory=dict)


def prepare(
    graph: NeuronGraph,
    plan: Plan,
    *,
    choose_ks: Callable[[int], Sequence[int]] | None = None,
    repeats: int | None = None,
) -> Prepared:
    """Check that a graph and a plan fit together, and bring them to their place.

    Parameters
    ----------
    graph : NeuronGraph
    plan : Plan
    choose_ks : callable, optional
        Returns the numbers of clusters, given the number of vertices with edges; the eigenvalue
        after the last k is then computed as well. By default only the plan's k.
    repeats : int, optional
        Repeats of k-means on the network, with none on shuffles; by default both follow from the
        number of shuffles.

    Raises
    ------
    InputError
        If graph and plan do not fit together, or the place does not exist.
    """
    connected, kept = graph.without_isolated()
    check_null_fits(connected, plan.null)
    n = connected.n_vertices
    ks = tuple(choose_ks(n)) if choose_ks else (check_n_clusters(plan.k, n),)
    n_init = restarts(plan.n_init, n)
    with single_threaded_blas():
        measured = graph.normalized(plan.normalize)
    network = connected
    if measured is not graph:
        network, kept = measured.without_isolated()
    usual = min(MAX_REPEATS, plan.n_shuffles // 5)
    return Prepared(
        graph=graph,
        measured=measured,
        connected=connected,
        kept=kept,
        plan=plan,
        ks=ks,
        with_gap=choose_ks is not None,
        n_init=n_init,
        repeats=usual if repeats is None else repeats,
        shuffle_repeats=usual if repeats is None else 0,
        place=place_of(network, connected, plan, ks, n_init),
    )


def measure(
    prepared: Prepared, number: int, threads: int | None = None, *, starts: int = 0
) -> Measured:
    """Cluster the network (number 0), or shuffle it and cluster that (from 1).

    Parameters
    ----------
    threads : int, optional
        Threads to use; by default the plan's for the network, and the place's for a shuffle.
    starts : int, default 0
        Further clusterings from other start vectors of the eigensolver.
    """
    of_network = number == NETWORK
    plan, place = prepared.plan, prepared.place
    if threads is None:
        threads = plan.threads if of_network else place.inside
    repeats = prepared.repeats if of_network else int(number <= prepared.shuffle_repeats)
    with single_threaded_blas():
        compiled = place.compiled(number, repeats, threads)
    if compiled is not None:
        return Measured((compiled,), compiled.eigenvalues)
    n_vectors = prepared.ks[-1] + int(prepared.with_gap)
    with single_threaded_blas(), place.operator(number, threads) as operator:
        if n_vectors >= operator.n_vertices:  # a shuffle: `prepare` has checked the network
            n, left = prepared.connected.n_vertices, operator.n_vertices
            raise ShuffleError(too_few_left(prepared.ks[-1], left, n, number - 1, plan.null))

        def cut(start: int, repeats: int) -> Measured:
            return _cut(prepared, operator, n_vectors, number, start, repeats)

        found = cut(number, repeats)
        others = [cut(MAX_GRAPHS - 1 - start, 0).clusterings for start in range(starts)]
    return Measured(found.clusterings, found.eigenvalues, tuple(others), found.agreement)


def _cut(
    prepared: Prepared,
    operator: NormalizedAdjacency,
    n_vectors: int,
    number: int,
    start: int,
    repeats: int,
) -> Measured:
    """Every clustering from one embedding; `start` selects the start vectors."""
    plan = prepared.plan
    embedding = embed(operator, n_vectors, solver=plan.solver, seed=plan.seed, graph_number=start)
    clusterings = tuple(
        cluster_embedded(
            operator,
            embedding.first(k) if k < n_vectors else embedding,
            n_init=prepared.n_init,
            refine=plan.refine,
            seed=plan.seed,
            graph_number=number,
            repeats=repeats,
        )
        for k in prepared.ks
    )
    agreement: dict[int, float] = {}
    if start == NETWORK and not prepared.with_gap:
        agreement = _agreement(prepared, operator, embedding, clusterings[0])
    return Measured(clusterings, embedding.eigenvalues, agreement=agreement)


def _agreement(
    prepared: Prepared, operator: NormalizedAdjacency, embedding: Embedding, found: Clustering
) -> dict[int, float]:
    """Agreement between repeats of k-means at k, and at smaller k until they agree."""
    plan, same = prepared.plan, {}
    if len(found.repeated_labels) > 1:
        same[found.k] = _agree((found.labels, *found.repeated_labels[:AGREEMENT_REPEATS]))
    for k in (k for k in FEWER if k < found.k and same):
        if max(same.values()) >= REPRODUCIBLE:
            break
        fewer = cluster_embedded(
            operator,
            embedding.first(k),
            n_init=prepared.n_init,
            refine=plan.refine,
            seed=plan.seed,
            graph_number=NETWORK,
            repeats=AGREEMENT_REPEATS,
        )
        same[k] = _agree((fewer.labels, *fewer.repeated_labels))
    return same


def _agree(partitions: Sequence[NDArray[np.int32]]) -> float:
    return float(np.mean([adjusted_rand_index(a, b) for a, b in combinations(partitions, 2)]))


def measure_shuffles(
    prepared: Prepared,
    keep: Callable[[Measured], T],
    *,
    progress: ProgressCallback | None = None,
    stop: Callable[[Sequence[T]], bool] | None = None,
) -> list[T]:
    """Measure all shuffles of the plan, several at a time; see `nulls.side_by_side_in_order`.

    `keep`: selects the data to keep of each.

    Raises
    ------
    Interrupted
        On Ctrl-C; it carries the finished shuffles.
    ShuffleError
        If a shuffle has too few vertices with edges; it carries the finished shuffles.
    """
    with single_threaded_blas():
        return side_by_side_in_order(
            lambda number: keep(measure(prepared, number + 1)),
            prepared.plan.n_shuffles,
            prepared.place.at_once,
            progress=progress,
            stop=stop,
        )


def shuffle_record(measured: Measured) -> ShuffledNetwork:
    """The part of a shuffle's measurement that goes into a report."""
    found = measured.clusterings[0]
    again = found.repeated_ncuts
    return ShuffledNetwork(
        statistics=statistics_of(found),
        repeated_ncut=float(again[0]) if again.size else None,
        converged=found.converged,
    )
