"""analyze(): graph, clustering, null distribution, report. Calls the rooms, computes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Unpack

from ncut.arguments import suggests_names
from ncut.errors import Interrupted, ShuffleError
from ncut.extract import GRAPH_OPTIONS, GraphOptions, read_graph
from ncut.graphs import NeuronGraph
from ncut.measure import (
    finish,
    measure,
    measure_shuffles,
    network_record,
    prepare,
    shuffle_record,
    stop_rule,
)
from ncut.plan import Plan, with_needed_options
from ncut.progress import Progress, ProgressCallback, check_progress, progress_callback
from ncut.randomness import NETWORK
from ncut.report import Report
from ncut.results import Measurement
from ncut.threads import single_threaded_blas
from ncut.types import Normalization, Null, PresetName, Sequential, Solver


@suggests_names(*GRAPH_OPTIONS)
def analyze(
    model: Any,
    *,
    k: int | None = None,
    shuffles: int | Literal["auto"] | None = None,
    null: Null | None = None,
    normalize: Normalization | None = None,
    preset: PresetName = "filan2021",
    refine: bool = False,
    seed: int = 0,
    n_init: int | Literal["auto"] | None = None,
    solver: Solver = "auto",
    threads: int | None = None,
    max_shuffles: int = 1000,
    level: float = 0.05,
    sequential: Sequential = "betting",
    device: str = "cpu",
    tests: Sequence[str] | None = None,
    progress: Progress | None = None,
    **graph_options: Unpack[GraphOptions],
) -> Report:
    """Measure how clusterable a network is, by itself and against shuffled networks.

    The network's weights become a graph of neurons, which spectral clustering partitions into k
    clusters; the report compares the normalized cut (low: clusterable) with those of networks that
    have the same weights in random positions. The defaults are the paper's. The report also holds a
    certificate of the n-cut (a lower bound and a refined n-cut) and other measures of the same
    partition, each compared with the same shuffles.

    Parameters
    ----------
    model
        Any input of `ncut.graph`: a torch module, a list of (fan_in, fan_out) weight matrices, a
        symmetric scipy sparse adjacency matrix, a path, a NeuronGraph.
    k : int, optional
        Number of clusters; the preset's by default, 12.
    shuffles : int or "auto", optional
        Number of shuffled networks; 0 for none, which leaves out p and Z. The preset's by default,
        50. "auto": as many as the test needs, see `sequential`.
    null : str, optional
        The null model, see `ncut.shuffle`; the preset's by default, "layer".
    normalize : {"none", "l2", "l1", "balanced", "residual"}, optional
        The convention for the scale of weights, which is arbitrary in a ReLU network, see
        `NeuronGraph.normalized`; it is applied to shuffles after shuffling. The preset's by
        default, "none".
    preset : {"filan2021", "hcai-torch"}, default "filan2021"
        The defaults of the other arguments: those of the paper, or of its PyTorch successor.
    refine : bool, default False
        Make the refined n-cut the report's `ncut`, and the refined partition its `labels`. The
        refined n-cut is lower by a few percent; since moving single vertices removes most of the
        noise of k-means, the spread of the shuffles shrinks and |Z| grows. Both n-cuts are always
        measured.
    seed : int, default 0
        The same seed gives the same report on any number of threads.
    n_init : int or "auto", optional
        Restarts of k-means, see `ncut.cluster`; the preset's by default.
    solver
        See `ncut.cluster`.
    threads : int, optional
        Threads to use; all cores by default.
    max_shuffles : int, default 1000
        With shuffles="auto", the largest number of shuffles.
    level : float, default 0.05
        With shuffles="auto", the level at which to decide.
    sequential : {"betting", "besag-clifford"}, default "betting"
        With shuffles="auto", the stopping rule. "betting": stop as soon as a bet against "the
        network is one of its shuffles" has won 1 / level or is futile; the p-value is valid at any
        time. "besag-clifford": stop when ten shuffles are as clusterable as the network.
    device : {"cpu", "cuda", "cuda:N"}, default "cpu"
        The device. On a GPU (extra `gpu`) the definitions are the same and numbers agree to
        rounding, but shuffles and starts of k-means use other random numbers than on the CPU.
    tests : sequence of {"alignment", "residual"} or "none", optional
        Additional tests in the report's summary: whether clusters run through the layers
        ("alignment"), and whether they go beyond the scales of neurons ("residual"). Each compares
        the lower bound with that of as many networks of its null model as there are shuffles. By
        default "alignment" with 19 networks, if the graph allows it and fits the budget of a
        default analysis. The tests run on the CPU.
    progress : True or callable, optional
        True shows a bar (extra `notebook`); a function is called as `progress(done, total)` after
        each shuffle, from the calling thread.
    **graph_options
        Passed to `ncut.graph`: `scope`, `norm`, `layers`, `name`.

    Returns
    -------
    Report

    Raises
    ------
    InputError
        If an argument cannot be used, or there is no such GPU; the message names it.
    MissingExtraError
        If a GPU is requested and CuPy is not installed.
    ModelError
        If the model cannot be read.
    Interrupted
        On Ctrl-C during the shuffles, a KeyboardInterrupt whose `finished` is the report so far.
    ShuffleError
        If a shuffle leaves edges at too few vertices for k clusters, an InputError whose `finished`
        is the report so far.

    Source: Filan, Casper, Hod, Wild, Critch, Russell (2021), Clusterability in neural networks,
    section 1; for `sequential` Fischer and Ramdas (2024), arXiv:2401.07365, and Besag and
    Clifford (1991), Sequential Monte Carlo p-values.
    """
    plan = Plan.of(
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
        device=device,
        tests=tests,
    )
    check_progress(progress)
    graph = read_graph(model, **with_needed_options(graph_options, plan.null))
    try:
        with progress_callback(progress, "shuffles") as callback:
            return Report.of(analyze_graph(graph, plan, callback), model)
    except Interrupted as stopped:
        report = Report.of(stopped.finished, model)
        raise Interrupted(report, f"{report.n_shuffles} shuffles") from None
    except ShuffleError as failed:
        failed.finished = Report.of(failed.finished, model)
        raise


@single_threaded_blas()  # once: finding the libraries takes milliseconds
def analyze_graph(
    graph: NeuronGraph, plan: Plan, progress: ProgressCallback | None = None
) -> Measurement:
    """Analyze a graph; the caller has checked the arguments."""
    prepared = prepare(graph, plan)
    network = network_record(prepared, measure(prepared, NETWORK))
    try:
        shuffled = measure_shuffles(
            prepared, shuffle_record, progress=progress, stop=stop_rule(network, plan)
        )
    except Interrupted as interrupted:
        so_far = finish(network, interrupted.finished, plan)
        raise Interrupted(so_far, f"{so_far.n_shuffles} shuffles") from None
    except ShuffleError as failed:
        failed.finished = finish(network, failed.finished, plan)
        raise
    return finish(network, shuffled, plan)
