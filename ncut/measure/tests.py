"""Tests of the report's top: the lower bound against null models that are free of scale."""

from __future__ import annotations

import numpy as np

from ncut.errors import InputError
from ncut.graphs import NeuronGraph
from ncut.graphs.validate import check_n_clusters
from ncut.measure.run import Prepared
from ncut.nulls import at_once_and_inside, check_null_fits, compare, fitted, side_by_side_in_order
from ncut.randomness import NETWORK
from ncut.spectral.embedding import embed
from ncut.spectral.operator import NormalizedAdjacency
from ncut.threads import single_threaded_blas
from ncut.types import Comparison

DEFAULT_TESTS = ("alignment",)
DEFAULT_SHUFFLES = 19
DEFAULT_BYTES = 2**26
"""What is tested where nothing is asked for: cheap beside the shuffles of the null model."""


def tests_of(prepared: Prepared) -> tuple[dict[str, Comparison], dict[str, str]]:
    """The tests of the report's top, and why others were not made."""
    plan, graph = prepared.plan, prepared.connected
    if not plan.n_shuffles:
        return {}, {}
    asked = plan.tests
    if asked is None and (prepared.place.name != "cpu" or graph.n_bytes > DEFAULT_BYTES):
        return {}, {"alignment": "the network is large, ask with tests=['alignment']"}
    done: dict[str, Comparison] = {}
    why: dict[str, str] = {}
    for name in DEFAULT_TESTS if asked is None else asked:
        if name == plan.null:
            continue
        n = plan.n_shuffles if asked else min(plan.n_shuffles, DEFAULT_SHUFFLES)
        try:
            check_null_fits(graph, name)
            with single_threaded_blas():
                done[name] = _compared(prepared, name, n)
        except InputError as error:
            if asked:
                raise
            why[name] = str(error).removeprefix("null: ")
    return done, why


def _compared(prepared: Prepared, name: str, n: int) -> Comparison:
    """The lower bound of the network against that of n networks of a null model."""
    plan = prepared.plan
    null = fitted(prepared.connected, name, plan.seed)

    def bound(graph: NeuronGraph, number: int, inside: int) -> float:
        embedding = embed(
            NormalizedAdjacency(graph, inside),
            check_n_clusters(plan.k, graph.n_vertices),
            solver="auto",
            seed=plan.seed,
            graph_number=number,
        )
        return embedding.bound_by_residuals()

    ours = bound(null.graph, NETWORK, plan.threads)
    at_once, inside = at_once_and_inside(null.graph, plan.threads)
    shuffled = side_by_side_in_order(
        lambda number: bound(null.connected(number, "residual"), number + 1, inside), n, at_once
    )
    return compare(ours, np.array(shuffled))
