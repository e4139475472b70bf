"""verdict(): a network under every statistic, convention of scale and null model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from ncut.analysis import AnalysisInterrupted, analyze_graph
from ncut.errors import InputError
from ncut.extract import read_graph
from ncut.graphs import NeuronGraph
from ncut.graphs.normalize import (
    applicable_conventions,
    check_normalization,
    check_sigma,
    rescalable_layers,
)
from ncut.nulls import check_null, check_null_fits, uses_weights_twice
from ncut.nulls.sequential import check_level
from ncut.progress import Progress, Told, check_progress, telling
from ncut.report import Report, Verdict
from ncut.settings import SCALE_FREE, Settings, check_settings
from ncut.types import Block

RESIDUAL = "residual"


class VerdictInterrupted(KeyboardInterrupt):
    """Ctrl-C during `verdict`; `verdict` holds the analyses until then.

    The last of them may have fewer shuffles, if not too few for the level.
    """

    def __init__(self, verdict: Verdict) -> None:
        n_done = len(verdict.tested) + len(verdict.reports)
        super().__init__(f"stopped after {n_done} analyses")
        self.verdict = verdict


def verdict(
    model: Any,
    *,
    k: int | None = None,
    shuffles: int = 20,
    null: str | Sequence[str] | None = None,
    normalize: str | Sequence[str] | None = None,
    rescalings: int = 4,
    sigma: float = 1.0,
    level: float = 0.05,
    preset: str = "filan2021",
    seed: int = 0,
    n_init: int | Literal["auto"] | None = None,
    solver: str = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
    **graph_options: Any,
) -> Verdict:
    """Measure a network under every statistic, convention and null model, and say what follows.

    One n-cut and one p-value can mislead: whether a network counts as more clusterable than
    shuffled ones may depend on the statistic, on the scale of its neurons (which a ReLU network
    leaves open), and on what the shuffles keep. The conclusion rests on three tests, corrected for
    their number (Holm): whether clusters run through the layers, and whether there is more to
    them than the strength of neurons, both by the lower bound and whatever the scales of neurons;
    and the paper's. Beside it stands a table with Z and p of each statistic for each combination.

    Parameters
    ----------
    model
        Whatever `ncut.graph` reads.
    k : int, optional
        Number of clusters; the preset's by default, 12.
    shuffles : int, default 20
        Shuffled networks for each combination of convention and null model; for the tests as many
        as can give a corrected p-value of `level`, if these are more.
    null : str or sequence of str, optional
        Null models of the table. By default "layer"; "layer-nonzero" where the network has zeros;
        "strength"; "tied" where layers share weights; "init" where the model tells how it was
        initialized. The tests are made in any case.
    normalize : str or sequence of str, optional
        Conventions; all by default, and "none" alone for a graph without hidden layers that can
        be rescaled.
    rescalings : int, default 4
        Networks that compute the same with the scales of their neurons drawn at random: the range
        of their Z is the part of it that the function does not determine.
    sigma : float, default 1
        Standard deviation of the logarithm of these scales.
    level : float, default 0.05
        p-values at or below it count.
    preset, seed, n_init, solver, threads
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
    VerdictInterrupted
        On Ctrl-C, a KeyboardInterrupt that carries the verdict so far.
    """
    base = check_settings(
        k=k, shuffles=shuffles, preset=preset, seed=seed, n_init=n_init, solver=solver,
        threads=threads, tests=(),
    )  # fmt: skip
    if base.sequential:
        raise InputError("shuffles: must be a number here; 'auto' decides on one p-value only")
    level, sigma = check_level(level), check_sigma(sigma)
    _check_counts(base.n_shuffles, rescalings, level)
    check_progress(progress)
    asked = _chosen("null", null, check_null)
    conventions = _chosen("normalize", normalize, check_normalization)
    graph = _read(model, asked, graph_options)
    conventions = conventions or applicable_conventions(graph)
    nulls = asked or _fitting_nulls(graph)
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
    todo = [(done, measured, settings) for done, pairs in parts for measured, settings in pairs]
    total = sum(settings.n_shuffles for _, _, settings in todo)
    with telling(progress, "shuffles") as told:
        before = 0
        for done, measured, settings in todo:
            step = _step(told, before, total)
            before += settings.n_shuffles
            try:
                done.append(replace(analyze_graph(measured, settings, step), source=model))
            except KeyboardInterrupt as stopped:
                # Too few shuffles for the level would count as a finding of no difference.
                if isinstance(stopped, AnalysisInterrupted) and _enough(
                    stopped.report.n_shuffles, level
                ):
                    done.append(replace(stopped.report, source=model))
                raise VerdictInterrupted(so_far()) from None
    return so_far()


def _tests(graph: NeuronGraph, base: Settings, level: float) -> list[tuple[NeuronGraph, Settings]]:
    """The analyses that the conclusion rests on, those that make sense for the graph."""
    connected, _ = graph.without_isolated()
    fitting = []
    for name in (*SCALE_FREE, "layer"):
        try:
            check_null_fits(connected, name)
        except InputError:
            continue
        fitting.append(name)
    shuffles = max(base.n_shuffles, math.ceil(len(fitting) / level) - 1)
    return [
        (
            graph,
            replace(
                base,
                null=name,
                normalize=RESIDUAL if name in SCALE_FREE else "none",
                n_shuffles=shuffles,
            ),
        )
        for name in fitting
    ]


def _read(model: Any, asked: tuple[str, ...], options: dict[str, Any]) -> NeuronGraph:
    """The graph, with how its layers were initialized where that can be told and may be used."""
    if asked and "init" not in asked:
        return read_graph(model, **options)
    try:
        return read_graph(model, initial=True, **options)
    except InputError:
        if asked:
            raise
        return read_graph(model, **options)


def _fitting_nulls(graph: NeuronGraph) -> tuple[str, ...]:
    """The null models that say something of their own about this network."""
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
    """How many edges there could be."""
    rows, columns = block.weights.shape
    return int(rows * (rows - 1) // 2 if block.source == block.target else rows * columns)


def _chosen(
    argument: str, names: str | Sequence[str] | None, check: Callable[[Any], str]
) -> tuple[str, ...]:
    """The names that were asked for, each once and in order; empty if that is left open."""
    if names is None:
        return ()
    if not isinstance(names, Iterable):
        raise InputError(f"{argument}: must be a name or several, got {names!r}")
    chosen = tuple(dict.fromkeys(map(check, [names] if isinstance(names, str) else names)))
    if not chosen:
        raise InputError(f"{argument}: no name given")
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
            f"shuffles: {shuffles} cannot give a p-value of {level}; needs at least "
            f"{int(-(-1 // level)) - 1}"
        )


def _step(progress: Told | None, before: int, total: int) -> Told | None:
    """Progress over all analyses, from within one of them."""
    if progress is None:
        return None
    return lambda done, _: progress(before + done, total)


def _first(nulls: Sequence[str]) -> str:
    """The null model that random rescalings are compared under: one that scales matter to."""
    return next((name for name in nulls if name not in SCALE_FREE), "layer")
