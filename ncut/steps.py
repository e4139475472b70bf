"""The steps of an analysis: the network, each shuffle, the report; each can run on its own.

A shuffle's result depends on the graph, the settings and the shuffle's number alone, so that
shuffles may be measured in any order, in other processes or on other machines.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from ncut.device.devices import check_device
from ncut.device.graph import DeviceGraph
from ncut.device.network import DeviceNetwork
from ncut.device.operator import operator_of
from ncut.errors import InputError
from ncut.graphs import NeuronGraph
from ncut.graphs.normalize import normalization_notes
from ncut.graphs.validate import check_n_clusters
from ncut.nulls import (
    Null,
    at_once_and_inside,
    check_null_fits,
    fitted,
    side_by_side_in_order,
    substreams,
)
from ncut.nulls.sequential import anytime_p_value, stopping_point
from ncut.nulls.statistics import (
    compare,
    compare_all,
    noise_note,
    p_value,
    statistics_of,
)
from ncut.progress import Told
from ncut.randomness import NETWORK
from ncut.report import HEADLINES, Report
from ncut.report.top import REPRODUCIBLE
from ncut.settings import Settings
from ncut.spectral.agreement import adjusted_rand_index
from ncut.spectral.clustering import cluster_embedded
from ncut.spectral.compiled import CompiledShuffles
from ncut.spectral.diagnostics import clustering_warnings
from ncut.spectral.embedding import Embedding, embed
from ncut.spectral.kmeans import restarts
from ncut.spectral.operator import NormalizedAdjacency
from ncut.types import Clustering, Comparison, ShuffledNetwork

# To see its noise, k-means is repeated as often as this on the network, and once on as many
# shuffles; not more than for a fifth of the shuffles, so that it costs little beside them.
MAX_REPEATS = 10

DEFAULT_TESTS = ("alignment",)
DEFAULT_TEST_SHUFFLES = 19
DEFAULT_TEST_BYTES = 2**26
"""What is tested where nothing is asked for: cheap beside the shuffles of the null model."""

FEWER = (10, 8, 6, 5, 4, 3, 2)
"""Where repeats of k-means do not agree at k, these numbers of clusters are tried in turn."""

AGREEMENT_REPEATS = 3


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A graph made ready for measurements.

    Attributes
    ----------
    graph : NeuronGraph
        As it was read.
    connected : NeuronGraph
        The same without isolated vertices: what is shuffled.
    kept : ndarray of intp, shape (n_connected,)
        The vertices of `graph` that are in `connected`.
    settings : Settings
    k, n_init : int
        Clusters, and restarts of k-means.
    null : Null
        What makes the shuffles.
    on_device : DeviceNetwork or None
        The same on the device that the settings ask for; None where that is the CPU.
    compiled : CompiledShuffles or None
        What measures shuffles without Python in between, where it can.
    """

    graph: NeuronGraph
    connected: NeuronGraph
    kept: NDArray[np.intp]
    settings: Settings
    k: int
    n_init: int
    null: Null
    on_device: DeviceNetwork | None = None
    compiled: CompiledShuffles | None = None

    @property
    def repeats(self) -> int:
        """How often k-means is repeated to see its noise."""
        return min(MAX_REPEATS, self.settings.n_shuffles // 5)


def prepare(graph: NeuronGraph, settings: Settings) -> Prepared:
    """Check that a graph and the settings fit together; raise InputError if not."""
    connected, kept = graph.without_isolated()
    check_null_fits(connected, settings.null)
    device = check_device(settings.device)
    on_device = None
    if device is not None:
        on_device = DeviceNetwork(
            connected,
            device,
            null=settings.null,
            normalize=settings.normalize,
            threads=settings.threads,
        )
    k = check_n_clusters(settings.k, connected.n_vertices)
    n_init = restarts(settings.n_init, connected.n_vertices)
    compiled = None
    plain = device is None and settings.normalize == "none" and settings.n_shuffles > 0
    if plain and CompiledShuffles.suits(connected, settings.null, settings.solver, k):
        compiled = CompiledShuffles(
            connected,
            settings.null,
            substreams(connected),
            k=k,
            n_init=n_init,
            refine=settings.refine,
            seed=settings.seed,
        )
    return Prepared(
        graph=graph,
        connected=connected,
        kept=kept,
        settings=settings,
        k=k,
        n_init=n_init,
        null=fitted(connected, settings.null, settings.seed),
        on_device=on_device,
        compiled=compiled,
    )


def measure_network(prepared: Prepared, threads: int) -> Report:
    """Cluster the network itself; the report has no shuffles yet."""
    graph, settings = prepared.graph, prepared.settings
    measured = graph.normalized(settings.normalize)
    ours, kept = measured.without_isolated()
    if measured is graph:
        ours = prepared.connected  # the very one that is on the device
    on_device = prepared.on_device
    device = "cpu" if on_device is None else on_device.device.name
    with nullcontext() if on_device is None else on_device.device.stream():
        operator = operator_of(ours if on_device is None else on_device.network(ours), threads)
        embedding, found = _clustered(prepared, operator, NETWORK)
        agreement = _agreement(prepared, operator, embedding, found)
        del operator, embedding  # a device's memory is for the shuffles
    tests, untested = _tests(prepared, threads)
    labels = np.full(graph.n_vertices, -1, dtype=np.int32)
    labels[kept] = found.labels
    found = replace(found, labels=labels)
    nothing = np.empty(0)
    degrees, unit_notes = _degrees_in_own_unit(measured)
    return Report(
        model=graph.name,
        k=found.k,
        labels=found.labels,
        eigenvalues=found.eigenvalues,
        statistics={name: compare(value, nothing) for name, value in statistics_of(found).items()},
        repeated_ncuts=found.repeated_ncuts,
        shuffled_repeats=nothing,
        null=settings.null,
        normalize=settings.normalize,
        preset=settings.preset,
        sequential="",
        seed=settings.seed,
        n_init=found.n_init,
        refine=settings.refine,
        solver=found.solver,
        residual=found.residual,
        layers=measured.layers,
        degrees=degrees,
        n_edges=measured.n_edges,
        left_out=measured.left_out,
        warnings=(
            *normalization_notes(graph, settings.normalize),
            *prepared.null.notes(),
            *clustering_warnings(measured, found),
            *unit_notes,
        ),
        version=version("ncut"),
        sums=measured.sums,
        device=device,
        tests=tests,
        untested=untested,
        cut_share=found.cut_share,
        chance_share=found.chance_share,
        agreement=agreement,
        graph=measured,
    )


def _degrees_in_own_unit(graph: NeuronGraph) -> tuple[NDArray[np.float64], list[str]]:
    """The degrees in the unit of the model's weights; in the graph's where that cannot be."""
    with np.errstate(over="ignore"):
        degrees = np.ldexp(graph.degrees, graph.exponent)
        total = degrees.sum()
    if np.isfinite(total) and np.count_nonzero(degrees) == np.count_nonzero(graph.degrees):
        return degrees, []
    return graph.degrees, [
        f"sums of the weights exceed the range of numbers: degrees are given in units of "
        f"2^{graph.exponent}"
    ]


def measure_shuffle(prepared: Prepared, number: int, threads: int) -> ShuffledNetwork:
    """Shuffle the network and cluster it: shuffle `number`, from 0."""
    settings = prepared.settings
    if prepared.on_device is not None:
        with prepared.on_device.shuffled(settings.seed, number) as graph:
            return measure_shuffled(prepared, graph, number + 1, threads)
    if prepared.compiled is not None:
        repeats = int(number < prepared.repeats)
        found = prepared.compiled.measure(number + 1, repeats=repeats, threads=threads)
        if found is not None:
            return _kept(found)
    shuffled = prepared.null.connected(number, settings.normalize)
    return measure_shuffled(prepared, shuffled, number + 1, threads)


def measure_shuffles(
    prepared: Prepared,
    *,
    progress: Told | None = None,
    stop: Callable[[Sequence[ShuffledNetwork]], bool] | None = None,
) -> list[ShuffledNetwork]:
    """Measure all shuffles of the settings, several at a time; see `nulls.over_shuffles`.

    Raises
    ------
    Interrupted
        On Ctrl-C; it carries what is finished.
    """
    settings = prepared.settings
    if prepared.on_device is not None:
        at_once, inside = prepared.on_device.at_once, prepared.on_device.inside
    else:
        at_once, inside = at_once_and_inside(prepared.connected, settings.threads)
    return side_by_side_in_order(
        lambda number: measure_shuffle(prepared, number, inside),
        settings.n_shuffles,
        at_once,
        progress=progress,
        stop=stop,
    )


def measure_shuffled(
    prepared: Prepared, graph: NeuronGraph | DeviceGraph, graph_number: int, threads: int
) -> ShuffledNetwork:
    """Cluster a shuffled network, without isolated vertices and in the settings' convention."""
    return _kept(_clustered(prepared, operator_of(graph, threads), graph_number)[1])


def _kept(found: Clustering) -> ShuffledNetwork:
    again = found.repeated_ncuts
    return ShuffledNetwork(
        statistics=statistics_of(found),
        repeated_ncut=float(again[0]) if again.size else None,
        converged=found.converged,
    )


def with_shuffles(
    network: Report, shuffled: Sequence[ShuffledNetwork], settings: Settings
) -> Report:
    """The report of `measure_network`, completed with the shuffles in order of their numbers."""
    headline = HEADLINES[settings.refine]
    ncut = network.statistics[headline].value
    p, outcome, ended = p_value, None, ""
    if settings.sequential is not None:
        ended = f"{settings.sequential} was interrupted after {len(shuffled)} shuffles"
    if settings.sequential is not None and shuffled:
        p = partial(anytime_p_value, level=settings.level)
        outcome = stopping_point(
            _as_clusterable(ncut, shuffled, headline),
            settings.sequential,
            settings.level,
            settings.n_shuffles,
        )
    values = {name: compared.value for name, compared in network.statistics.items()}
    statistics = compare_all(values, [one.statistics for one in shuffled], p)
    again = np.array([one.repeated_ncut for one in shuffled if one.repeated_ncut is not None])
    warnings = list(network.warnings)
    noise = noise_note(statistics[headline], again)
    if noise:
        warnings.append(noise)
    if outcome is not None:
        statistics[headline] = replace(statistics[headline], p_value=outcome.p_value)
        ended = str(outcome)
    elif len(shuffled) < settings.n_shuffles:
        warnings.append(f"stopped after {len(shuffled)} of {settings.n_shuffles} shuffles")
    stuck = sum(not one.converged for one in shuffled)
    if stuck:
        warnings.append(f"the eigensolver did not converge on {stuck} of the shuffles")
    return replace(
        network,
        statistics=statistics,
        shuffled_repeats=again,
        sequential=ended,
        warnings=tuple(warnings),
    )


def stop_rule(
    network: Report, settings: Settings
) -> Callable[[Sequence[ShuffledNetwork]], bool] | None:
    """Whether the shuffles so far are enough; None if their number is given."""
    rule = settings.sequential
    if rule is None:
        return None
    headline = HEADLINES[settings.refine]
    ncut = network.statistics[headline].value

    def stop(shuffled: Sequence[ShuffledNetwork]) -> bool:
        as_clusterable = _as_clusterable(ncut, shuffled, headline)
        ends = stopping_point(as_clusterable, rule, settings.level, settings.n_shuffles)
        return ends is not None

    return stop


def _clustered(
    prepared: Prepared, operator: NormalizedAdjacency, number: int
) -> tuple[Embedding, Clustering]:
    settings = prepared.settings
    k = check_n_clusters(prepared.k, operator.n_vertices)  # shuffles isolate vertices
    embedding = embed(operator, k, solver=settings.solver, seed=settings.seed, graph_number=number)
    return embedding, cluster_embedded(
        operator,
        embedding,
        n_init=prepared.n_init,
        refine=settings.refine,
        seed=settings.seed,
        graph_number=number,
        repeats=prepared.repeats if number == NETWORK else int(number <= prepared.repeats),
    )


def _as_clusterable(
    ncut: float, shuffled: Sequence[ShuffledNetwork], headline: str
) -> NDArray[np.bool_]:
    return np.array([one.statistics[headline] <= ncut for one in shuffled], dtype=np.bool_)


def _tests(prepared: Prepared, threads: int) -> tuple[dict[str, Comparison], dict[str, str]]:
    """The tests of the report's top, and why others were not made."""
    settings, graph = prepared.settings, prepared.connected
    if not settings.n_shuffles:
        return {}, {}
    asked = settings.tests
    if asked is None and (prepared.on_device is not None or graph.n_bytes > DEFAULT_TEST_BYTES):
        return {}, {"alignment": "the network is large, ask with tests=['alignment']"}
    done, why = {}, {}
    for name in DEFAULT_TESTS if asked is None else asked:
        if name == settings.null:
            continue
        n = settings.n_shuffles if asked else min(settings.n_shuffles, DEFAULT_TEST_SHUFFLES)
        try:
            check_null_fits(graph, name)
            done[name] = _bounds_compared(prepared, name, n, threads)
        except InputError as error:
            if asked:
                raise
            why[name] = str(error).removeprefix("null: ")
    return done, why


def _bounds_compared(prepared: Prepared, name: str, n: int, threads: int) -> Comparison:
    """The lower bound of the network against that of n networks of a null model."""
    settings = prepared.settings
    null = fitted(prepared.connected, name, settings.seed)

    def bound(graph: NeuronGraph, number: int, inside: int) -> float:
        embedding = embed(
            NormalizedAdjacency(graph, inside),
            check_n_clusters(prepared.k, graph.n_vertices),
            solver="auto",
            seed=settings.seed,
            graph_number=number,
        )
        return embedding.bound_by_residuals()

    ours = bound(null.graph, NETWORK, threads)
    at_once, inside = at_once_and_inside(null.graph, threads)
    shuffled = side_by_side_in_order(
        lambda number: bound(null.connected(number, "residual"), number + 1, inside), n, at_once
    )
    return compare(ours, np.array(shuffled))


def _agreement(
    prepared: Prepared, operator: NormalizedAdjacency, embedding: Embedding, found: Clustering
) -> dict[int, float]:
    """How far repeats of k-means agree at k, and at smaller k down to the first where they do."""
    settings, same = prepared.settings, {}
    if len(found.repeated_labels) > 1:
        same[found.k] = _agree((found.labels, *found.repeated_labels[:AGREEMENT_REPEATS]))
    for k in (k for k in FEWER if k < found.k and same):
        if max(same.values()) >= REPRODUCIBLE:
            break
        fewer = cluster_embedded(
            operator,
            embedding.first(k),
            n_init=prepared.n_init,
            refine=settings.refine,
            seed=settings.seed,
            graph_number=NETWORK,
            repeats=AGREEMENT_REPEATS,
        )
        same[k] = _agree((fewer.labels, *fewer.repeated_labels))
    return same


def _agree(partitions: Sequence[NDArray[np.int32]]) -> float:
    return float(np.mean([adjusted_rand_index(a, b) for a, b in combinations(partitions, 2)]))
