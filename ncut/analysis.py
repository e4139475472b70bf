"""analyze(): graph, clustering, null distribution, report. Calls the rooms, computes nothing."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, Literal

import numpy as np

from ncut.errors import InputError
from ncut.extract import read_graph
from ncut.graphs import NeuronGraph
from ncut.graphs.validate import check_n_clusters
from ncut.nulls import Interrupted, check_null, cluster_shuffles, compare
from ncut.nulls.distribution import Progress
from ncut.randomness import MAX_GRAPHS, check_seed
from ncut.report import Report
from ncut.spectral.clustering import cluster
from ncut.spectral.diagnostics import clustering_warnings
from ncut.spectral.embedding import check_solver
from ncut.spectral.kmeans import restarts
from ncut.threads import n_threads, single_threaded_blas
from ncut.types import Clustering


class AnalysisInterrupted(KeyboardInterrupt):
    """Ctrl-C during `analyze`; `report` holds everything that was computed until then."""

    def __init__(self, report: Report) -> None:
        super().__init__(f"stopped after {report.shuffled_ncuts.size} shuffles")
        self.report = report


def analyze(
    model: Any,
    *,
    k: int = 12,
    shuffles: int = 50,
    null: str = "layer",
    seed: int = 0,
    n_init: int | Literal["auto"] = "auto",
    solver: str = "auto",
    refine: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
    **graph_options: Any,
) -> Report:
    """Measure how clusterable a network is, by itself and against shuffled networks.

    The network's weights become a graph of neurons, which is cut into k clusters by spectral
    clustering; the report has the normalized cut (low: clusterable) and says how unusual it is
    among networks with the same weights in random places. The defaults are the paper's.

    Parameters
    ----------
    model
        Whatever `ncut.graph` reads: a torch module, a list of (fan_in, fan_out) weight matrices,
        a scipy sparse symmetric adjacency, a path, a NeuronGraph.
    k : int, default 12
        Number of clusters.
    shuffles : int, default 50
        Number of shuffled networks; 0 for none, then there are no statistics.
    null : {"layer", "layer-nonzero", "layer-nonzero-kde", "layer-kde"}
        How they are shuffled, see `ncut.shuffle`.
    seed : int, default 0
        The same seed gives the same report, whatever the number of threads.
    n_init, solver
        See `ncut.cluster`.
    refine : bool, default False
        Lower the n-cut of the network's partition and of every shuffle's by moving single
        vertices. It is lower by some percent then and k-means' noise is mostly gone, so that
        the spread of the shuffles shrinks and |Z| grows; such a Z-score must not be compared
        with one of the paper's method, the default.
    threads : int, optional
        Threads to use; all cores by default.
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
    section 1.
    """
    check_null(null)
    check_solver(solver)
    seed = check_seed(seed)
    n_shuffles = _check_shuffles(shuffles)
    if progress is not None and not callable(progress):
        raise InputError(f"progress: must be a function of (done, total), got {progress!r}")
    workers = n_threads(threads)
    graph = read_graph(model, **graph_options)
    connected, _ = graph.without_isolated()
    check_n_clusters(k, connected.n_vertices)
    n_restarts = restarts(n_init, connected.n_vertices)
    with single_threaded_blas():
        found = cluster(
            graph,
            k,
            n_init=n_restarts,
            solver=solver,
            refine=refine,
            seed=seed,
            threads=workers,
        )

        def report(shuffled: list[Clustering]) -> Report:
            return _report(graph, found, shuffled, n_shuffles, null=null, refine=refine, seed=seed)

        try:
            shuffled = cluster_shuffles(
                connected,
                k,
                n_shuffles,
                null=null,
                n_init=n_restarts,
                solver=solver,
                refine=refine,
                seed=seed,
                threads=workers,
                progress=progress,
            )
        except Interrupted as interrupted:
            raise AnalysisInterrupted(report(interrupted.finished)) from None
    return report(shuffled)


def _check_shuffles(shuffles: object) -> int:
    whole = isinstance(shuffles, int | np.integer) and not isinstance(shuffles, bool)
    if not whole or not 0 <= shuffles < MAX_GRAPHS - 1:  # type: ignore[operator]
        raise InputError(f"shuffles: must be a whole number of at least 0, got {shuffles!r}")
    return int(shuffles)  # type: ignore[call-overload, no-any-return]


def _report(
    graph: NeuronGraph,
    found: Clustering,
    shuffled: list[Clustering],
    n_shuffles: int,
    *,
    null: str,
    refine: bool,
    seed: int,
) -> Report:
    ncuts = np.array([clustering.ncut for clustering in shuffled])
    comparison = compare(found.ncut, ncuts)
    warnings = clustering_warnings(graph, found)
    if len(shuffled) < n_shuffles:
        warnings.append(f"stopped after {len(shuffled)} of {n_shuffles} shuffles")
    stuck = sum(not clustering.converged for clustering in shuffled)
    if stuck:
        warnings.append(f"the eigensolver did not converge on {stuck} of the shuffles")
    return Report(
        model=graph.name,
        k=found.k,
        ncut=found.ncut,
        labels=found.labels,
        eigenvalues=found.eigenvalues,
        shuffled_ncuts=ncuts,
        shuffled_mean=comparison.mean,
        shuffled_std=comparison.std,
        p_value=comparison.p_value,
        z_score=comparison.z_score,
        null=null,
        seed=seed,
        n_init=found.n_init,
        refine=refine,
        solver=found.solver,
        residual=found.residual,
        layers=graph.layers,
        degrees=graph.degrees,
        n_edges=graph.n_edges,
        left_out=graph.left_out,
        warnings=tuple(warnings),
        version=version("ncut"),
        graph=graph,
    )
