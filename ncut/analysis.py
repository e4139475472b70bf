"""analyze(): graph, clustering, null distribution, report. Calls the rooms, computes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ncut.errors import InputError
from ncut.extract import read_graph
from ncut.graphs import NeuronGraph
from ncut.graphs.normalize import check_normalization, normalization_notes
from ncut.graphs.validate import check_n_clusters
from ncut.nulls import Interrupted, check_null, check_null_fits, null_notes, over_shuffles
from ncut.nulls.distribution import Progress
from ncut.nulls.sequential import anytime_p_value, check_sequential, stopping_point
from ncut.nulls.statistics import compare_all, noise_note, p_value
from ncut.presets import find_preset
from ncut.randomness import MAX_GRAPHS, NETWORK, check_seed
from ncut.report import HEADLINES, Report
from ncut.spectral.clustering import cluster_connected
from ncut.spectral.diagnostics import clustering_warnings
from ncut.spectral.embedding import check_solver
from ncut.spectral.kmeans import restarts
from ncut.threads import n_threads, single_threaded_blas
from ncut.types import Clustering

# To see its noise, k-means is repeated as often as this on the network, and once on as many
# shuffles; not more than for a fifth of the shuffles, so that it costs little beside them.
MAX_REPEATS = 10


class AnalysisInterrupted(KeyboardInterrupt):
    """Ctrl-C during `analyze`; `report` holds everything that was computed until then."""

    def __init__(self, report: Report) -> None:
        super().__init__(f"stopped after {report.n_shuffles} shuffles")
        self.report = report


@dataclass(frozen=True, slots=True)
class Settings:
    """The checked arguments of an analysis."""

    k: int
    n_shuffles: int
    sequential: str | None
    level: float
    null: str
    normalize: str
    preset: str
    refine: bool
    seed: int
    n_init: int | Literal["auto"]
    solver: str
    threads: int


def analyze(
    model: Any,
    *,
    k: int | None = None,
    shuffles: int | Literal["auto"] | None = None,
    null: str | None = None,
    normalize: str | None = None,
    preset: str = "filan2021",
    refine: bool = False,
    seed: int = 0,
    n_init: int | Literal["auto"] | None = None,
    solver: str = "auto",
    threads: int | None = None,
    max_shuffles: int = 1000,
    level: float = 0.05,
    sequential: str = "betting",
    progress: Progress | None = None,
    **graph_options: Any,
) -> Report:
    """Measure how clusterable a network is, by itself and against shuffled networks.

    The network's weights become a graph of neurons, which is cut into k clusters by spectral
    clustering; the report has the normalized cut (low: clusterable) and says how unusual it is
    among networks with the same weights in random places. The defaults are the paper's. Beside
    the n-cut the report holds its certificate (a lower bound and a refined n-cut) and other
    measures of the same partition, each against the same shuffles.

    Parameters
    ----------
    model
        Whatever `ncut.graph` reads: a torch module, a list of (fan_in, fan_out) weight matrices,
        a scipy sparse symmetric adjacency, a path, a NeuronGraph.
    k : int, optional
        Number of clusters; the preset's by default, 12.
    shuffles : int or "auto", optional
        Number of shuffled networks; 0 for none, then there are no statistics. The preset's by
        default, 50. "auto": as many as it takes, see `sequential`.
    null : str, optional
        How they are shuffled, see `ncut.shuffle`; the preset's by default, "layer".
    normalize : {"none", "l2", "l1", "balanced"}, optional
        The convention for the scale of weights, which a ReLU network leaves open, see
        `NeuronGraph.normalized`; shuffles are brought to it after shuffling. The preset's by
        default, "none".
    preset : {"filan2021", "hcai-torch"}, default "filan2021"
        Whose choices to follow where an argument is not given: the paper's, or those of its
        successor in PyTorch.
    refine : bool, default False
        Make the refined n-cut the report's `ncut`, and the refined partition its `labels`: lower
        by some percent, as moving single vertices removes most of k-means' noise, so that the
        spread of the shuffles shrinks and |Z| grows. Both n-cuts are measured in any case.
    seed : int, default 0
        The same seed gives the same report, whatever the number of threads.
    n_init : int or "auto", optional
        Restarts of k-means, see `ncut.cluster`; the preset's by default.
    solver
        See `ncut.cluster`.
    threads : int, optional
        Threads to use; all cores by default.
    max_shuffles : int, default 1000
        With shuffles="auto", how many at most.
    level : float, default 0.05
        With shuffles="auto", the level at which to decide.
    sequential : {"betting", "besag-clifford"}, default "betting"
        With shuffles="auto", when to stop. "betting": as soon as a bet against "the network is
        one of its shuffles" has won 1 / level, or has no hope left; the p-value is valid at any
        time. "besag-clifford": when ten shuffles are as clusterable.
    progress : callable, optional
        Called as `progress(done, total)` after each shuffle, from the calling thread.
    **graph_options
        Passed to `ncut.graph`: `scope`, `norm`, `layers`, `name`.

    Returns
    -------
    Report

    Raises
    ------
    InputError
        If an argument cannot be used; the message names it.
    ModelError
        If the model cannot be read.
    AnalysisInterrupted
        On Ctrl-C during the shuffles, a KeyboardInterrupt that carries the report so far.

    Source: Filan, Casper, Hod, Wild, Critch, Russell (2021), Clusterability in neural networks,
    section 1; for `sequential` Fischer and Ramdas (2024), arXiv:2401.07365, and Besag and
    Clifford (1991), Sequential Monte Carlo p-values.
    """
    settings = check_settings(
        k=k,
        shuffles=shuffles,
        null=null,
        normalize=normalize,
        preset=preset,
        refine=refine,
        seed=seed,
        n_init=n_init,
        solver=solver,
        threads=threads,
        max_shuffles=max_shuffles,
        level=level,
        sequential=sequential,
    )
    check_progress(progress)
    graph = read_graph(model, **needed_options(settings.null), **graph_options)
    try:
        return replace(analyze_graph(graph, settings, progress), source=model)
    except AnalysisInterrupted as stopped:
        raise AnalysisInterrupted(replace(stopped.report, source=model)) from None


def check_settings(
    *,
    k: int | None = None,
    shuffles: int | Literal["auto"] | None = None,
    null: str | None = None,
    normalize: str | None = None,
    preset: str = "filan2021",
    refine: bool = False,
    seed: int = 0,
    n_init: int | Literal["auto"] | None = None,
    solver: str = "auto",
    threads: int | None = None,
    max_shuffles: int = 1000,
    level: float = 0.05,
    sequential: str = "betting",
) -> Settings:
    """The settings of an analysis: the arguments checked, the preset's where there is none."""
    chosen = find_preset(preset)
    if shuffles is None:
        shuffles = chosen.shuffles
    if shuffles == "auto":
        check_sequential(sequential, level, max_shuffles)
    return Settings(
        k=chosen.k if k is None else k,
        n_shuffles=max_shuffles if shuffles == "auto" else _check_shuffles(shuffles),
        sequential=sequential if shuffles == "auto" else None,
        level=level,
        null=check_null(chosen.null if null is None else null),
        normalize=check_normalization(chosen.normalize if normalize is None else normalize),
        preset=preset,
        refine=bool(refine),
        seed=check_seed(seed),
        n_init=chosen.n_init if n_init is None else n_init,
        solver=check_solver(solver),
        threads=n_threads(threads),
    )


def check_progress(progress: object) -> None:
    """Refuse what cannot be called."""
    if progress is not None and not callable(progress):
        raise InputError(f"progress: must be a function of (done, total), got {progress!r}")


def needed_options(null: str) -> dict[str, Any]:
    """Options of `ncut.graph` that a null model needs."""
    return {"initial": True} if null == "init" else {}


def analyze_graph(
    graph: NeuronGraph, settings: Settings, progress: Progress | None = None
) -> Report:
    """`analyze` for a graph, arguments checked by the caller."""
    connected, kept = graph.without_isolated()
    k = check_n_clusters(settings.k, connected.n_vertices)
    n_init = restarts(settings.n_init, connected.n_vertices)
    check_null_fits(connected, settings.null)
    measured = graph.normalized(settings.normalize)

    repeats = min(MAX_REPEATS, settings.n_shuffles // 5)

    def clustered(one: NeuronGraph, number: int, threads: int) -> Clustering:
        return cluster_connected(
            one,
            check_n_clusters(k, one.n_vertices),  # shuffles isolate vertices of sparse layers
            n_init=n_init,
            solver=settings.solver,
            refine=settings.refine,
            seed=settings.seed,
            graph_number=number,
            threads=threads,
            repeats=repeats if number == NETWORK else int(number <= repeats),
        )

    with single_threaded_blas():
        ours = connected if measured is graph else measured.without_isolated()[0]
        found = clustered(ours, NETWORK, settings.threads)
        labels = np.full(graph.n_vertices, -1, dtype=np.int32)
        labels[kept] = found.labels
        found = replace(found, labels=labels)
        notes = normalization_notes(graph, settings.normalize)
        notes += null_notes(connected, settings.null)
        report = partial(_report, measured, found, settings, notes)
        try:
            shuffled = over_shuffles(
                connected,
                settings.n_shuffles,
                clustered,
                null=settings.null,
                normalize=settings.normalize,
                seed=settings.seed,
                threads=settings.threads,
                progress=progress,
                stop=_stop(found, settings),
            )
        except Interrupted as interrupted:
            raise AnalysisInterrupted(report(interrupted.finished)) from None
    return report(shuffled)


def _check_shuffles(shuffles: object) -> int:
    whole = isinstance(shuffles, int | np.integer) and not isinstance(shuffles, bool)
    if not whole or not 0 <= shuffles < MAX_GRAPHS - 1:  # type: ignore[operator]
        raise InputError(
            f"shuffles: must be a whole number of at least 0, or 'auto', got {shuffles!r}"
        )
    return int(shuffles)  # type: ignore[call-overload, no-any-return]


def _as_clusterable(found: Clustering, shuffled: Sequence[Clustering]) -> NDArray[np.bool_]:
    return np.array([one.ncut <= found.ncut for one in shuffled], dtype=np.bool_)


def _stop(found: Clustering, settings: Settings) -> Callable[[Sequence[Clustering]], bool] | None:
    """Whether the shuffles so far are enough; None if their number is given."""
    rule = settings.sequential
    if rule is None:
        return None

    def stop(shuffled: Sequence[Clustering]) -> bool:
        return (
            stopping_point(
                _as_clusterable(found, shuffled), rule, settings.level, settings.n_shuffles
            )
            is not None
        )

    return stop


def _report(
    graph: NeuronGraph,
    found: Clustering,
    settings: Settings,
    notes: list[str],
    shuffled: list[Clustering],
) -> Report:
    warnings = [*notes, *clustering_warnings(graph, found)]
    headline = HEADLINES[settings.refine]
    p, outcome, ended = p_value, None, ""
    if settings.sequential is not None:
        ended = f"{settings.sequential} was interrupted after {len(shuffled)} shuffles"
    if settings.sequential is not None and shuffled:
        p = partial(anytime_p_value, level=settings.level)
        outcome = stopping_point(
            _as_clusterable(found, shuffled),
            settings.sequential,
            settings.level,
            settings.n_shuffles,
        )
    statistics = compare_all(found, shuffled, p)
    again = np.array([one.repeated_ncuts[0] for one in shuffled if one.repeated_ncuts.size])
    noise = noise_note(statistics[headline], again)
    if noise:
        warnings.append(noise)
    if outcome is not None:
        statistics[headline] = replace(statistics[headline], p_value=outcome.p_value)
        ended = str(outcome)
    elif len(shuffled) < settings.n_shuffles:
        warnings.append(f"stopped after {len(shuffled)} of {settings.n_shuffles} shuffles")
    stuck = sum(not clustering.converged for clustering in shuffled)
    if stuck:
        warnings.append(f"the eigensolver did not converge on {stuck} of the shuffles")
    return Report(
        model=graph.name,
        k=found.k,
        labels=found.labels,
        eigenvalues=found.eigenvalues,
        statistics=statistics,
        repeated_ncuts=found.repeated_ncuts,
        shuffled_repeats=again,
        null=settings.null,
        normalize=settings.normalize,
        preset=settings.preset,
        sequential=ended,
        seed=settings.seed,
        n_init=found.n_init,
        refine=settings.refine,
        solver=found.solver,
        residual=found.residual,
        layers=graph.layers,
        degrees=graph.degrees,
        n_edges=graph.n_edges,
        left_out=graph.left_out,
        warnings=tuple(warnings),
        version=version("ncut"),
        sums=graph.sums,
        graph=graph,
    )
