"""verdict(): a network under every statistic, convention of scale and null model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal, Unpack, cast

import numpy as np

from ncut.analysis import analyze_graph
from ncut.arguments import suggests_names
from ncut.errors import InputError, Interrupted, ShuffleError
from ncut.extract import GRAPH_OPTIONS, GraphOptions, read_graph
from ncut.graphs import NeuronGraph
from ncut.graphs.normalize import (
    applicable_conventions,
    check_normalization,
    check_sigma,
    rescalable_layers,
)
from ncut.nulls import check_null, check_null_fits, uses_weights_twice
from ncut.nulls.sequential import check_level
from ncut.plan import SCALE_FREE, Plan, with_needed_options
from ncut.progress import Progress, ProgressCallback, check_progress, progress_callback
from ncut.report import Report, Verdict
from ncut.results import Measurement
from ncut.types import Block, Normalization, Null, PresetName, Solver

RESIDUAL: Normalization = "residual"


@suggests_names(*GRAPH_OPTIONS)
def verdict(
    model: Any,
    *,
    k: int | None = None,
    shuffles: int = 20,
    null: Null | Sequence[Null] | None = None,
    normalize: Normalization | Sequence[Normalization] | None = None,
    rescalings: int = 4,
    sigma: float = 1.0,
    level: float = 0.05,
    preset: PresetName = "filan2021",
    seed: int = 0,
    n_init: int | Literal["auto"] | None = None,
    solver: Solver = "auto",
    threads: int | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
    **graph_options: Unpack[GraphOptions],
) -> Verdict:
    """Measure a network under every statistic, convention and null model, and draw a conclusion.

    One n-cut and one p-value can mislead: whether a network counts as more clusterable than
    shuffled networks may depend on the statistic, on the scale of its neurons (arbitrary in a ReLU
    network), and on what the shuffles preserve. The conclusion rests on three tests with Holm's
    correction: whether clusters run through the layers and whether they go beyond the strength of
    neurons, both by the lower bound and independent of the scales of neurons; and the paper's test.
    A table adds Z and p of each statistic for each combination.

    Parameters
    ----------
    model
        Any input of `ncut.graph`.
    k : int, optional
        Number of clusters; the preset's by default, 12.
    shuffles : int, default 20
        Shuffled networks for each combination of convention and null model; the tests use more if a
        corrected p-value of `level` requires it.
    null : str or sequence of str, optional
        Null models of the table. By default "layer"; "layer-nonzero" if the network has zeros;
        "strength"; "tied" if layers share weights; "init" if the model's initialization is known.
        The tests are always run.
    normalize : str or sequence of str, optional
        Conventions; all by default, and only "none" for a graph without rescalable hidden layers.
    rescalings : int, default 4
        Number of networks with the same function and randomly rescaled neurons; the range of their
        Z shows how much of Z the function does not determine.
    sigma : float, default 1
        Standard deviation of the logarithm of these scales.
    level : float, default 0.05
        Significance level: p-values at or below it are significant.
    preset, seed, n_init, solver, threads, device
        See `ncut.analyze`.
    progress : True or callable, optional
        True shows a bar (extra `notebook`); a function is called as `progress(done, total)` after
        each shuffle.
    **graph_options
        Passed to `ncut.graph`.

    Returns
    -------
    Verdict

    Raises
    ------
    InputError
        If an argument cannot be used; the message names it.
    ModelError
        If the model cannot be read.
    Interrupted
        On Ctrl-C, a KeyboardInterrupt whose `finished` is the verdict of the analyses so far; the
        last analysis may have fewer shuffles, unless they are too few for the level.
    ShuffleError
        If a shuffle leaves edges at too few vertices for k clusters, an InputError whose `finished`
        is the verdict of the analyses so far.
    """
    base = Plan.of(
        k=k, shuffles=shuffles, preset=preset, seed=seed, n_init=n_init, solver=solver,
        threads=threads, device=device, tests=(),
    )  # fmt: skip
    if base.stopping_rule:
        raise InputError("shuffles: must be a number here; 'auto' decides only one p-value")
    level, sigma = check_level(level), check_sigma(sigma)
    _check_counts(base.n_shuffles, rescalings, level)
    check_progress(progress)
    asked = _chosen("null", null, check_null)
    conventions = _chosen("normalize", normalize, check_normalization)
    graph = _read(model, asked, graph_options)
    conventions = cast("tuple[Normalization, ...]", conventions or applicable_conventions(graph))
    nulls = cast("tuple[Null, ...]", asked or _fitting_nulls(graph))
    combinations = [
        (graph, replace(base, normalize=convention, null=name))
        for convention in conventions
        for name in nulls
        if name not in SCALE_FREE
    ] + [
        (graph, replace(base, normalize=RESIDUAL, null=name))
        for name in nulls
        if name in SCALE_FREE
    ]
    randomly = [
        (
            graph.rescaled((base.seed + number) % 2**64, sigma),
            replace(base, normalize="none", null=_first(nulls)),
        )
        for number in range(rescalings if rescalable_layers(graph) else 0)
    ]
    reports: list[Report] = []
    rescaled: list[Report] = []
    tested: list[Report] = []

    def so_far() -> Verdict:
        return Verdict(
            *(tuple(reports), tuple(rescaled)), sigma=sigma, level=level, tested=tuple(tested)
        )

    parts = [(tested, _tests(graph, base, level)), (reports, combinations), (rescaled, randomly)]
    todo = [(done, measured, plan) for done, pairs in parts for measured, plan in pairs]
    total = sum(plan.n_shuffles for _, _, plan in todo)
    with progress_callback(progress, "shuffles") as callback:
        before = 0
        for done, measured, plan in todo:
            step = _step(callback, before, total)
            before += plan.n_shuffles
            try:
                done.append(Report.of(analyze_graph(measured, plan, step), model))
            except KeyboardInterrupt as stopped:
                # With too few shuffles for the level, the result would read as no difference.
                found: Measurement | None = getattr(stopped, "finished", None)
                if found is not None and _enough(found.n_shuffles, level):
                    done.append(Report.of(found, model))
                n_done = len(tested) + len(reports)
                raise Interrupted(so_far(), f"{n_done} analyses") from None
            except ShuffleError as failed:
                failed.finished = so_far()
                raise
    return so_far()


def _tests(graph: NeuronGraph, base: Plan, level: float) -> list[tuple[NeuronGraph, Plan]]:
    """The analyses for the conclusion that apply to the graph."""
    connected, _ = graph.without_isolated()
    fitting: list[Null] = []
    names: tuple[Null, ...] = (*SCALE_FREE, "layer")
    for name in names:
        try:
            check_null_fits(connected, name)
        except InputError:
            continue
        fitting.append(name)
    shuffles = max(base.n_shuffles, math.ceil(len(fitting) / level) - 1)
    shuffles += 1 / (shuffles + 1) * len(fitting) > level  # by rounding, for levels such as 0.15
    return [
        (
            graph,
            replace(
                base,
                null=name,
                normalize=RESIDUAL if name in SCALE_FREE else "none",
                shuffles=shuffles,
            ),
        )
        for name in fitting
    ]


def _read(model: Any, asked: tuple[str, ...], options: GraphOptions) -> NeuronGraph:
    """The graph, with the initialization of its layers if it is known and may be needed."""
    if asked and "init" not in asked:
        return read_graph(model, **options)
    try:
        return read_graph(model, **with_needed_options(options, "init"))
    except InputError:
        if asked:
            raise
        return read_graph(model, **options)


def _fitting_nulls(graph: NeuronGraph) -> tuple[str, ...]:
    """The null models that add information about this network."""
    connected, _ = graph.without_isolated()
    has_zeros = connected.n_edges < sum(map(_places, connected.blocks))
    fits = {
        "layer": True,
        "layer-nonzero": has_zeros,
        "strength": True,
        "tied": uses_weights_twice(graph),
        "init": all(block.initial is not None for block in graph.blocks),
    }
    return tuple(name for name, does in fits.items() if does)


def _places(block: Block) -> int:
    """Number of possible edges between the block's layers."""
    rows, columns = block.weights.shape
    return int(rows * (rows - 1) // 2 if block.source == block.target else rows * columns)


def _chosen(
    argument: str, names: str | Sequence[str] | None, check: Callable[[Any], str]
) -> tuple[str, ...]:
    """The requested names, without duplicates and in order; empty by default."""
    if names is None:
        return ()
    if not isinstance(names, Iterable):
        raise InputError(f"{argument}: must be a name or several, got {names!r}")
    chosen = tuple(dict.fromkeys(map(check, [names] if isinstance(names, str) else names)))
    if not chosen:
        raise InputError(f"{argument}: must hold at least one name, got none")
    return chosen


def _enough(shuffles: int, level: float) -> bool:
    return (shuffles + 1) * level >= 1


def _check_counts(shuffles: int, rescalings: object, level: float) -> None:
    if (
        isinstance(rescalings, bool)
        or not isinstance(rescalings, int | np.integer)
        or rescalings < 0
    ):
        raise InputError(f"rescalings: must be a whole number of at least 0, got {rescalings!r}")
    if not _enough(shuffles, level):
        raise InputError(
            f"shuffles: must be at least {int(-(-1 // level)) - 1} for a p-value of {level}, got "
            f"{shuffles}"
        )


def _step(progress: ProgressCallback | None, before: int, total: int) -> ProgressCallback | None:
    """Progress over all analyses, from within one of them."""
    if progress is None:
        return None
    return lambda done, _: progress(before + done, total)


def _first(nulls: Sequence[Null]) -> Null:
    """The null model for random rescalings: one that depends on scales."""
    return next((name for name in nulls if name not in SCALE_FREE), "layer")
