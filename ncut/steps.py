"""The steps of an analysis: the network, each shuffle, the report; each can run on its own.

A shuffle's result depends on the graph, the settings and the shuffle's number alone, so that
shuffles may be measured in any order, in other processes or on other machines.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from ncut.device.devices import check_device
from ncut.device.graph import DeviceGraph
from ncut.device.network import DeviceNetwork
from ncut.device.operator import operator_of
from ncut.graphs import NeuronGraph
from ncut.graphs.normalize import normalization_notes
from ncut.graphs.validate import check_n_clusters
from ncut.nulls import (
    at_once_and_inside,
    check_null_fits,
    null_notes,
    shuffle_connected,
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
from ncut.settings import Settings
from ncut.spectral.clustering import cluster_connected
from ncut.spectral.compiled import CompiledShuffles
from ncut.spectral.diagnostics import clustering_warnings
from ncut.spectral.kmeans import restarts
from ncut.types import Clustering, ShuffledNetwork

# To see its noise, k-means is repeated as often as this on the network, and once on as many
# shuffles; not more than for a fifth of the shuffles, so that it costs little beside them.
MAX_REPEATS = 10


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
        on_device=on_device,
        compiled=compiled,
    )


def measure_network(prepared: Prepared, threads: int) -> Report:
    """Cluster the network itself; the report has no shuffles yet."""
    graph, settings = prepared.graph, prepared.settings
    measured = graph.normalized(settings.normalize)
    ours = prepared.connected if measured is graph else measured.without_isolated()[0]
    if prepared.on_device is None:
        device = "cpu"
        found = _clustered(prepared, ours, NETWORK, threads)
    else:
        device = prepared.on_device.device.name
        with prepared.on_device.device.stream():
            found = _clustered(prepared, prepared.on_device.network(ours), NETWORK, threads)
    labels = np.full(graph.n_vertices, -1, dtype=np.int32)
    labels[prepared.kept] = found.labels
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
            *null_notes(prepared.connected, settings.null),
            *clustering_warnings(measured, found),
            *unit_notes,
        ),
        version=version("ncut"),
        sums=measured.sums,
        device=device,
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
    shuffled = shuffle_connected(prepared.connected, settings.null, settings.seed, number)
    return measure_shuffled(
        prepared, shuffled.normalized(settings.normalize).without_isolated()[0], number + 1, threads
    )


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
    return _kept(_clustered(prepared, graph, graph_number, threads))


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
    prepared: Prepared, graph: NeuronGraph | DeviceGraph, number: int, threads: int
) -> Clustering:
    settings = prepared.settings
    k = check_n_clusters(prepared.k, graph.n_vertices)  # shuffles isolate vertices
    operator = operator_of(graph, threads)
    return cluster_connected(
        operator,
        k,
        n_init=prepared.n_init,
        solver=settings.solver,
        refine=settings.refine,
        seed=settings.seed,
        graph_number=number,
        repeats=prepared.repeats if number == NETWORK else int(number <= prepared.repeats),
    )


def _as_clusterable(
    ncut: float, shuffled: Sequence[ShuffledNetwork], headline: str
) -> NDArray[np.bool_]:
    return np.array([one.statistics[headline] <= ncut for one in shuffled], dtype=np.bool_)
