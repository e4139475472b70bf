"""Tests in the report's summary: the lower bound against scale-free null models."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ncut.errors import InputError
from ncut.graphs.validate import too_few_left
from ncut.measure.run import Prepared
from ncut.nulls import (
    Null,
    at_once_and_inside,
    check_null_fits,
    compare,
    fitted,
    side_by_side_in_order,
)
from ncut.plan import Plan
from ncut.randomness import NETWORK
from ncut.spectral.compiled import CompiledNetwork
from ncut.spectral.embedding import embed
from ncut.spectral.operator import NormalizedAdjacency
from ncut.threads import single_threaded_blas
from ncut.types import Comparison

DEFAULT_TESTS = ("alignment",)
DEFAULT_SHUFFLES = 19
ROUNDING = 1e-6
DEFAULT_BYTES = 2**26
"""The default tests: cheap compared with the shuffles of the null model."""


@dataclass(frozen=True, slots=True)
class Tests:
    """The tests in a report's summary.

    Attributes
    ----------
    made : dict of str to Comparison
    why_not : dict of str to str
        Reasons for omitted tests.
    notes : list of str
        Limits of the null models for the network.
    """

    made: dict[str, Comparison] = field(default_factory=dict)
    why_not: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def tests_of(prepared: Prepared) -> Tests:
    """The summary's tests requested by the plan, or by default all applicable ones."""
    plan, graph = prepared.plan, prepared.connected
    found = Tests()
    if not plan.n_shuffles:
        return found
    asked = plan.tests
    if asked is None and (prepared.place.name != "cpu" or graph.n_bytes > DEFAULT_BYTES):
        found.why_not["alignment"] = "the network is large; request it with tests=['alignment']"
        return found
    for name in DEFAULT_TESTS if asked is None else asked:
        if name == plan.null:
            continue
        n = plan.n_shuffles if asked else min(plan.n_shuffles, DEFAULT_SHUFFLES)
        try:
            check_null_fits(graph, name)
            with single_threaded_blas():
                null = fitted(graph, name, plan.seed)
                found.made[name], stuck = _compared(name, null, plan, n)
                found.notes.extend(null.notes())
            if stuck:
                found.notes.append(
                    f"the eigensolver did not converge on {stuck} of the {n + 1} networks of the "
                    f"test {name!r}"
                )
        except InputError as error:
            if asked:
                raise
            found.why_not[name] = str(error).removeprefix("null: ")
    return found


def _compared(name: str, null: Null, plan: Plan, n_shuffles: int) -> tuple[Comparison, int]:
    """The lower bound of the network compared with those of networks of a null model.

    Also the number of networks on which the eigensolver did not converge.
    """
    at_once, inside = at_once_and_inside(null.graph, plan.threads)
    copied = None
    stuck: list[int] = []
    if null.orders(0) is not None and CompiledNetwork.suits(null.graph, plan.k):
        copied = CompiledNetwork(null.graph, k=plan.k, seed=plan.seed)

    def bound(number: int, threads: int = inside) -> float:
        orders = {} if number == NETWORK else null.orders(number - 1)
        if copied is not None and orders is not None:
            found = copied.embedding(number, orders, threads)
            if found is not None:
                return found.bound_by_residuals()
        of_network = number == NETWORK
        graph = null.graph if of_network else null.connected(number - 1, null.normalize)
        if plan.k >= graph.n_vertices:
            left, n = graph.n_vertices, null.graph.n_vertices
            raise InputError(too_few_left(plan.k, left, n, number - 1, name))
        embedding = embed(
            NormalizedAdjacency(graph, threads),
            plan.k,
            solver="auto",
            seed=plan.seed,
            graph_number=number,
        )
        if not embedding.converged:
            stuck.append(number)
        return embedding.bound_by_residuals()

    ours = bound(NETWORK, plan.threads)
    shuffled = side_by_side_in_order(lambda number: bound(number + 1), n_shuffles, at_once)
    # Residual graphs of the same layers share the eigenvalues of depth. If k does not exceed their
    # number, all bounds are equal up to rounding, and equal bounds count as equally clusterable.
    found = np.array(shuffled)
    found = np.where(np.abs(found - ours) <= ROUNDING * abs(ours), ours, found)
    return compare(ours, found), len(stuck)
