"""profile(): every number of clusters from one embedding per graph."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncut.device.devices import check_device
from ncut.device.graph import DeviceGraph
from ncut.device.network import DeviceNetwork
from ncut.device.operator import operator_of
from ncut.errors import InputError
from ncut.extract import read_graph
from ncut.graphs import NeuronGraph
from ncut.graphs.normalize import normalization_notes
from ncut.graphs.validate import check_n_clusters
from ncut.nulls import (
    check_null_fits,
    compare,
    compare_all,
    null_notes,
    over_shuffles,
    side_by_side_in_order,
    statistics_of,
)
from ncut.nulls.distribution import Interrupted
from ncut.progress import Progress, check_progress, telling
from ncut.randomness import MAX_GRAPHS, NETWORK
from ncut.report import Profile
from ncut.settings import Settings, check_settings, needed_options
from ncut.spectral.agreement import adjusted_rand_index
from ncut.spectral.clustering import cluster_embedded
from ncut.spectral.embedding import Embedding, embed
from ncut.spectral.kmeans import restarts
from ncut.spectral.operator import NormalizedAdjacency
from ncut.threads import single_threaded_blas
from ncut.types import Clustering

# Refinement makes up for restarts of k-means, which would cost most of the time.
RESTARTS = 2
# Repeats of k-means, and of the eigensolver from other start vectors, that stability is seen in.
N_SEEDS = 4
N_STARTS = 2


class ProfileInterrupted(KeyboardInterrupt):
    """Ctrl-C during `profile`; `profile` holds everything that was computed until then."""

    def __init__(self, profile: Profile) -> None:
        super().__init__(f"stopped after {profile.n_shuffles} shuffles")
        self.profile = profile


@dataclass(frozen=True, slots=True, eq=False)
class _Sweep:
    """A graph cut into every number of clusters, and its eigenvalues."""

    clusterings: list[Clustering]
    eigenvalues: NDArray[np.float64]


def profile(
    model: Any,
    k: Iterable[int] = range(2, 21),
    *,
    shuffles: int | None = None,
    null: str | None = None,
    normalize: str | None = None,
    preset: str = "filan2021",
    seed: int = 0,
    n_init: int = RESTARTS,
    solver: str = "auto",
    threads: int | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
    **graph_options: Any,
) -> Profile:
    """Measure a network for many numbers of clusters, from one embedding of each graph.

    The n-cut itself cannot choose k: it grows with k for every graph. The profile sets beside it
    what can: how far it lies from the shuffles' at each k, the gap in the eigenvalues behind k
    against the shuffles' gaps, and whether the partition comes out the same again.

    Parameters
    ----------
    model
        Whatever `ncut.graph` reads.
    k : iterable of int, default range(2, 21)
        Numbers of clusters.
    shuffles, null, normalize, preset, seed, solver, threads, device
        See `ncut.analyze`.
    n_init : int, default 2
        Restarts of k-means for each k: few, because partitions are refined after it. The plain
        n-cuts are noisier for it than those of `ncut.analyze`; the refined ones are not.
    progress : True or callable, optional
        True shows a bar (extra `notebook`); a function is called as `progress(done, total)` after
        each shuffle.
    **graph_options
        Passed to `ncut.graph`.

    Returns
    -------
    Profile

    Raises
    ------
    InputError
        If an argument cannot be used, or there is no such GPU; the message names it.
    MissingExtraError
        If a GPU is asked for and CuPy is not installed.
    ModelError
        If the model cannot be read.
    ProfileInterrupted
        On Ctrl-C during the shuffles, a KeyboardInterrupt that carries the profile so far.

    Source: von Luxburg (2007), A tutorial on spectral clustering, section 8.3, for the gap;
    Hubert and Arabie (1985), Comparing partitions, for the agreement of partitions.
    """
    settings = check_settings(
        shuffles=shuffles, null=null, normalize=normalize, preset=preset, refine=True, seed=seed,
        n_init=n_init, solver=solver, threads=threads, device=device,
    )  # fmt: skip
    if settings.sequential:
        raise InputError("shuffles: must be a number here; 'auto' has no single k to decide on")
    check_progress(progress)
    on = check_device(settings.device)
    graph = read_graph(model, **needed_options(settings.null), **graph_options)
    connected, kept = graph.without_isolated()
    ks = _check_ks(k, connected.n_vertices)
    check_null_fits(connected, settings.null)
    measured = graph.normalized(settings.normalize)
    ours = connected if measured is graph else measured.without_isolated()[0]

    there = None
    if on is not None:
        there = DeviceNetwork(
            connected,
            on,
            null=settings.null,
            normalize=settings.normalize,
            threads=settings.threads,
        )

    def swept(one: NeuronGraph | DeviceGraph, number: int, n_threads: int) -> _Sweep:
        check_n_clusters(ks[-1] + 1, one.n_vertices)
        operator = operator_of(one, n_threads)
        return _sweep(operator, _embedded(operator, ks, settings, number), ks, settings, number)

    def shuffle_swept(number: int) -> _Sweep:
        assert there is not None
        with there.shuffled(settings.seed, number) as one:
            return swept(one, number + 1, there.inside)

    with single_threaded_blas():
        with on.stream() if on else nullcontext():
            operator = operator_of(there.network(ours) if there else ours, settings.threads)
            embedding = _embedded(operator, ks, settings, NETWORK)
            found = _sweep(operator, embedding, ks, settings, NETWORK, repeats=N_SEEDS)
            others = [
                _sweep(
                    operator,
                    _embedded(operator, ks, settings, MAX_GRAPHS - 1 - number),
                    ks,
                    settings,
                    NETWORK,
                )
                for number in range(N_STARTS)
            ]
            del operator, embedding  # a device's memory is for the shuffles

        def result(shuffled: Sequence[_Sweep]) -> Profile:
            labels = np.full((len(ks), graph.n_vertices), -1, dtype=np.int32)
            labels[:, kept] = [one.labels for one in found.clusterings]
            return Profile(
                model=graph.name,
                ks=tuple(ks),
                statistics=_statistics(found, shuffled),
                gaps=_gaps(ks, found, shuffled),
                labels=labels,
                eigenvalues=found.eigenvalues,
                stability_seeds=_stability_seeds(found),
                stability_starts=_stability_starts(found, others),
                null=settings.null,
                normalize=settings.normalize,
                preset=settings.preset,
                seed=settings.seed,
                n_init=restarts(settings.n_init, connected.n_vertices),
                layers=graph.layers,
                warnings=(
                    *normalization_notes(graph, settings.normalize),
                    *null_notes(connected, settings.null),
                ),
                version=version("ncut"),
            )

        try:
            with telling(progress, "shuffles") as told:
                if there:
                    shuffled = side_by_side_in_order(
                        shuffle_swept, settings.n_shuffles, there.at_once, progress=told
                    )
                else:
                    shuffled = over_shuffles(
                        connected,
                        settings.n_shuffles,
                        swept,
                        null=settings.null,
                        normalize=settings.normalize,
                        seed=settings.seed,
                        threads=settings.threads,
                        progress=told,
                    )
        except Interrupted as interrupted:
            raise ProfileInterrupted(result(interrupted.finished)) from None
    return result(shuffled)


def _check_ks(k: Iterable[int], n_vertices: int) -> list[int]:
    if not isinstance(k, Iterable):
        raise InputError(f"k: must be several whole numbers, such as range(2, 21), got {k!r}")
    # Checked one by one, so that a range of billions ends at its first that is too large.
    ks = sorted({check_n_clusters(one, n_vertices) for one in k})
    if not ks:
        raise InputError("k: no number of clusters given")
    # The gap behind k needs one eigenvalue more.
    if ks[-1] + 1 >= n_vertices:
        raise InputError(
            f"k: {ks[-1]} clusters, and the gap behind them, asked of a graph with {n_vertices} "
            "vertices that have edges; choose a smaller k"
        )
    return ks


def _embedded(
    operator: NormalizedAdjacency, ks: Sequence[int], settings: Settings, number: int
) -> Embedding:
    return embed(
        operator,
        ks[-1] + 1,
        solver=settings.solver,
        seed=settings.seed,
        graph_number=number,
    )


def _sweep(
    operator: NormalizedAdjacency,
    embedding: Embedding,
    ks: Sequence[int],
    settings: Settings,
    number: int,
    repeats: int = 0,
) -> _Sweep:
    clusterings = [
        cluster_embedded(
            operator,
            embedding.first(k),
            n_init=restarts(settings.n_init, operator.n_vertices),
            refine=True,
            seed=settings.seed,
            graph_number=number,
            repeats=repeats,
        )
        for k in ks
    ]
    return _Sweep(clusterings, embedding.eigenvalues)


def _statistics(found: _Sweep, shuffled: Sequence[_Sweep]) -> tuple[dict[str, Any], ...]:
    return tuple(
        compare_all(
            statistics_of(one), [statistics_of(sweep.clusterings[at]) for sweep in shuffled]
        )
        for at, one in enumerate(found.clusterings)
    )


def _gaps(ks: Sequence[int], found: _Sweep, shuffled: Sequence[_Sweep]) -> tuple[Any, ...]:
    def gap(sweep: _Sweep, k: int) -> float:
        return float(sweep.eigenvalues[k] - sweep.eigenvalues[k - 1])

    return tuple(
        compare(gap(found, k), np.array([gap(sweep, k) for sweep in shuffled]), low=False)
        for k in ks
    )


def _stability_seeds(found: _Sweep) -> NDArray[np.float64]:
    """Mean agreement between repeats of k-means on the same embedding, for each k."""
    return np.array(
        [
            np.mean([adjusted_rand_index(a, b) for a, b in combinations(one.repeated_labels, 2)])
            for one in found.clusterings
        ]
    )


def _stability_starts(found: _Sweep, others: Sequence[_Sweep]) -> NDArray[np.float64]:
    """Mean agreement with partitions from other start vectors of the eigensolver, for each k."""
    return np.array(
        [
            np.mean([adjusted_rand_index(one.labels, o.clusterings[at].labels) for o in others])
            for at, one in enumerate(found.clusterings)
        ]
    )
