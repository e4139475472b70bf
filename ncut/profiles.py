"""profile(): every number of clusters from one embedding per graph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from typing import Any, NamedTuple, Unpack

import numpy as np
from numpy.typing import NDArray

from ncut.arguments import suggests_names
from ncut.errors import InputError, Interrupted, ShuffleError
from ncut.extract import GRAPH_OPTIONS, GraphOptions, read_graph
from ncut.graphs.normalize import normalization_notes
from ncut.graphs.validate import check_n_clusters
from ncut.measure import Measured, Prepared, measure, measure_shuffles, prepare
from ncut.nulls import compare, compare_all, statistics_of
from ncut.plan import Plan, with_needed_options
from ncut.progress import Progress, check_progress, progress_callback
from ncut.randomness import NETWORK
from ncut.report import Profile
from ncut.results import ncut_version
from ncut.spectral.agreement import adjusted_rand_index
from ncut.types import Comparison, Normalization, Null, PresetName, Solver

# Refinement compensates for few restarts of k-means, which would take most of the time.
RESTARTS = 2
# Repeats of k-means, and of the eigensolver from other start vectors, to measure stability.
N_SEEDS = 4
N_STARTS = 2

NUMBERS = range(2, 21)
"""Numbers of clusters unless others are given; those that a small network allows."""


@suggests_names(*GRAPH_OPTIONS)
def profile(
    model: Any,
    k: Iterable[int] = NUMBERS,
    *,
    shuffles: int | None = None,
    null: Null | None = None,
    normalize: Normalization | None = None,
    preset: PresetName = "filan2021",
    seed: int = 0,
    n_init: int = RESTARTS,
    solver: Solver = "auto",
    threads: int | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
    **graph_options: Unpack[GraphOptions],
) -> Profile:
    """Measure a network for many numbers of clusters, from one embedding of each graph.

    The n-cut itself cannot choose k, since it grows with k for every graph. The profile adds
    criteria that can: the distance of the n-cut from the shuffles at each k, the gap between
    eigenvalues k and k + 1 compared with the shuffles' gaps, and the stability of the partition.

    Parameters
    ----------
    model
        Any input of `ncut.graph`.
    k : iterable of int, default range(2, 21)
        Numbers of clusters. The default ends earlier for networks of fewer than 22 neurons with
        edges.
    shuffles, null, normalize, preset, seed, solver, threads, device
        See `ncut.analyze`.
    n_init : int, default 2
        Restarts of k-means for each k; few suffice because partitions are refined afterwards. The
        plain n-cuts are therefore noisier than those of `ncut.analyze`; the refined n-cuts are not.
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
        If a GPU is requested and CuPy is not installed.
    ModelError
        If the model cannot be read.
    Interrupted
        On Ctrl-C during the shuffles, a KeyboardInterrupt whose `finished` is the profile so far.
    ShuffleError
        If a shuffle leaves edges at too few vertices for the largest k, an InputError whose
        `finished` is the profile so far.

    Source: von Luxburg (2007), A tutorial on spectral clustering, section 8.3, for the gap;
    Hubert and Arabie (1985), Comparing partitions, for the agreement of partitions.
    """
    plan = Plan.of(
        shuffles=shuffles, null=null, normalize=normalize, preset=preset, refine=True, seed=seed,
        n_init=n_init, solver=solver, threads=threads, device=device,
    )  # fmt: skip
    if plan.stopping_rule:
        raise InputError("shuffles: must be a number here; 'auto' has no single k to decide on")
    check_progress(progress)
    graph = read_graph(model, **with_needed_options(graph_options, plan.null))
    prepared = prepare(graph, plan, choose_ks=lambda n: _check_ks(k, n), repeats=N_SEEDS)
    network = measure(prepared, NETWORK, starts=N_STARTS)
    try:
        with progress_callback(progress, "shuffles") as callback:
            shuffled = measure_shuffles(prepared, _swept, progress=callback)
    except Interrupted as interrupted:
        so_far = _profile(prepared, network, interrupted.finished)
        raise Interrupted(so_far, f"{so_far.n_shuffles} shuffles") from None
    except ShuffleError as failed:
        failed.finished = _profile(prepared, network, failed.finished)
        raise
    return _profile(prepared, network, shuffled)


class _Swept(NamedTuple):
    """The statistics of a graph for each k, its eigenvalues, and whether all converged."""

    statistics: list[dict[str, float]]
    eigenvalues: NDArray[np.float64]
    converged: bool


def _swept(measured: Measured) -> _Swept:
    return _Swept(
        [statistics_of(one) for one in measured.clusterings],
        measured.eigenvalues,
        all(one.converged for one in measured.clusterings),
    )


def _check_ks(k: Iterable[int], n_vertices: int) -> list[int]:
    if not isinstance(k, Iterable) or isinstance(k, str):
        raise InputError(f"k: must be several whole numbers, such as range(2, 21), got {k!r}")
    if k is NUMBERS:
        k = range(2, max(3, min(NUMBERS.stop, n_vertices - 1)))
    # Checked one by one, so that a range of billions ends at the first k that is too large.
    ks = sorted({check_n_clusters(one, n_vertices) for one in k})
    if not ks:
        raise InputError("k: must hold at least one number of clusters, got none")
    # The gap after k needs one more eigenvalue.
    if ks[-1] + 1 >= n_vertices:
        raise InputError(
            f"k: {ks[-1]} clusters and the following gap requested, but only {n_vertices} vertices "
            "have edges; choose a smaller k"
        )
    return ks


def _profile(prepared: Prepared, found: Measured, shuffled: Sequence[_Swept]) -> Profile:
    plan, graph, network = prepared.plan, prepared.graph, _swept(found)
    return Profile(
        model=graph.name,
        ks=prepared.ks,
        statistics=tuple(
            compare_all(own, [one.statistics[at] for one in shuffled])
            for at, own in enumerate(network.statistics)
        ),
        gaps=tuple(_gap(k, network, shuffled) for k in prepared.ks),
        labels=np.array([prepared.labels(one) for one in found.clusterings]),
        eigenvalues=found.eigenvalues,
        stability_seeds=_stability_seeds(found),
        stability_starts=_stability_starts(found),
        null=plan.null,
        normalize=plan.normalize,
        preset=plan.preset,
        seed=plan.seed,
        n_init=prepared.n_init,
        layers=graph.layers,
        warnings=(
            *normalization_notes(graph, plan.normalize),
            *prepared.place.notes(),
            *_not_converged(found, shuffled),
        ),
        version=ncut_version(),
    )


def _not_converged(found: Measured, shuffled: Sequence[_Swept]) -> Iterator[str]:
    """Warnings about eigenvectors that are not accurate enough for clustering."""
    ks = [str(one.k) for one in found.clusterings if not one.converged]
    if ks:
        solver = found.clusterings[0].solver
        yield (
            f"the eigensolver {solver} did not converge for k = {', '.join(ks)}; try "
            "solver='dense' or another solver"
        )
    stuck = sum(not one.converged for one in shuffled)
    if stuck:
        yield f"the eigensolver did not converge on {stuck} of the shuffles"


def _gap(k: int, network: _Swept, shuffled: Sequence[_Swept]) -> Comparison:
    def gap(one: _Swept) -> float:
        return float(one.eigenvalues[k] - one.eigenvalues[k - 1])

    return compare(gap(network), np.array([gap(one) for one in shuffled]), low=False)


def _stability_seeds(found: Measured) -> NDArray[np.float64]:
    """Mean agreement between repeats of k-means on the same embedding, for each k."""
    return np.array(
        [
            np.mean([adjusted_rand_index(a, b) for a, b in combinations(one.repeated_labels, 2)])
            for one in found.clusterings
        ]
    )


def _stability_starts(found: Measured) -> NDArray[np.float64]:
    """Mean agreement with partitions from other start vectors of the eigensolver, for each k."""
    return np.array(
        [
            np.mean([adjusted_rand_index(one.labels, o[at].labels) for o in found.other_starts])
            for at, one in enumerate(found.clusterings)
        ]
    )
