"""From records to results: the network, then the network compared with its shuffles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncut.graphs import NeuronGraph
from ncut.graphs.normalize import normalization_notes
from ncut.measure.run import Measured, Prepared
from ncut.measure.tests import tests_of
from ncut.nulls import compare_all, statistics_of
from ncut.nulls.sequential import anytime_p_value, stopping_point
from ncut.nulls.statistics import as_clusterable, noise_note, p_value
from ncut.plan import Plan
from ncut.results import Measurement, NetworkFacts, NetworkRecord, ncut_version
from ncut.spectral.diagnostics import clustering_warnings
from ncut.types import ShuffledNetwork


def network_record(prepared: Prepared, measured: Measured) -> NetworkRecord:
    """Make the network's record from `measure(prepared, NETWORK)`."""
    plan, graph = prepared.plan, prepared.measured
    found = replace(measured.clusterings[0], labels=prepared.labels(measured.clusterings[0]))
    tests = tests_of(prepared)
    degrees, unit_notes = _degrees_in_own_unit(graph)
    return NetworkRecord(
        model=graph.name,
        k=found.k,
        labels=found.labels,
        eigenvalues=found.eigenvalues,
        values=statistics_of(found),
        repeated_ncuts=found.repeated_ncuts,
        null=plan.null,
        normalize=plan.normalize,
        preset=plan.preset,
        seed=plan.seed,
        n_init=found.n_init,
        refine=plan.refine,
        solver=found.solver,
        residual=found.residual,
        layers=graph.layers,
        degrees=degrees,
        n_edges=graph.n_edges,
        left_out=graph.left_out,
        warnings=(
            *normalization_notes(prepared.graph, plan.normalize),
            *prepared.place.notes(),
            *tests.notes,
            *clustering_warnings(graph, found),
            *unit_notes,
        ),
        version=ncut_version(),
        sums=graph.sums,
        device=prepared.place.name,
        tests=tests.made,
        untested=tests.why_not,
        cut_share=found.cut_share,
        chance_share=found.chance_share,
        agreement=measured.agreement,
        graph=graph,
    )


def _degrees_in_own_unit(graph: NeuronGraph) -> tuple[NDArray[np.float64], list[str]]:
    """The degrees in the unit of the model's weights, or in the graph's unit if out of range."""
    with np.errstate(over="ignore"):
        degrees = np.ldexp(graph.degrees, graph.exponent)
        total = degrees.sum()
    if np.isfinite(total) and np.count_nonzero(degrees) == np.count_nonzero(graph.degrees):
        return degrees, []
    return graph.degrees, [
        f"sums of the weights exceed the range of numbers: degrees are given in units of "
        f"2^{graph.exponent}"
    ]


def finish(network: NetworkRecord, shuffled: Sequence[ShuffledNetwork], plan: Plan) -> Measurement:
    """Compare the network with its shuffles, given in the order of their numbers."""
    headline, rule = network.headline, plan.stopping_rule
    p, outcome, ended = p_value, None, ""
    if rule is not None:
        ended = f"{rule} was interrupted after {len(shuffled)} shuffles"
    if rule is not None and shuffled:
        p = partial(anytime_p_value, level=plan.level)
        outcome = stopping_point(
            _as_clusterable(network, shuffled), rule, plan.level, plan.n_shuffles
        )
    statistics = compare_all(network.values, [one.statistics for one in shuffled], p)
    again = np.array([one.repeated_ncut for one in shuffled if one.repeated_ncut is not None])
    warnings = list(network.warnings)
    noise = noise_note(statistics[headline], again)
    if noise:
        warnings.append(noise)
    if outcome is not None:
        statistics[headline] = replace(statistics[headline], p_value=outcome.p_value)
        ended = str(outcome)
    elif len(shuffled) < plan.n_shuffles:
        warnings.append(f"stopped after {len(shuffled)} of {plan.n_shuffles} shuffles")
    stuck = sum(not one.converged for one in shuffled)
    if stuck:
        warnings.append(f"the eigensolver did not converge on {stuck} of the shuffles")
    facts: dict[str, Any] = {one.name: getattr(network, one.name) for one in fields(NetworkFacts)}
    facts["warnings"] = tuple(warnings)
    return Measurement(**facts, statistics=statistics, shuffled_repeats=again, sequential=ended)


def stop_rule(
    network: NetworkRecord, plan: Plan
) -> Callable[[Sequence[ShuffledNetwork]], bool] | None:
    """Return a predicate "these shuffles are enough"; None if their number is fixed."""
    rule = plan.stopping_rule
    if rule is None:
        return None

    def stop(shuffled: Sequence[ShuffledNetwork]) -> bool:
        as_clusterable = _as_clusterable(network, shuffled)
        return stopping_point(as_clusterable, rule, plan.level, plan.n_shuffles) is not None

    return stop


def _as_clusterable(
    network: NetworkRecord, shuffled: Sequence[ShuffledNetwork]
) -> NDArray[np.bool_]:
    values = [one.statistics[network.headline] for one in shuffled]
    return as_clusterable(network.ncut, np.array(values, dtype=np.float64))
