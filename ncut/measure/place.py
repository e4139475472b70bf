"""Places: the host or a device that makes and measures a network and its shuffles."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from ncut.device.devices import check_device
from ncut.device.network import DeviceNetwork
from ncut.device.operator import operator_of
from ncut.graphs import NeuronGraph
from ncut.nulls import at_once_and_inside, fitted, substreams
from ncut.plan import Plan
from ncut.randomness import NETWORK
from ncut.spectral.compiled import CompiledShuffles
from ncut.spectral.operator import NormalizedAdjacency
from ncut.types import Clustering


class Place(Protocol):
    """The place of the graphs of a measurement: 0 is the network, i the i-th shuffle.

    Attributes
    ----------
    name : str
        "cpu", or a GPU such as "cuda:0".
    at_once, inside : int
        Number of concurrent shuffles, and of threads in each.
    """

    name: str
    at_once: int
    inside: int

    def operator(self, number: int, threads: int) -> AbstractContextManager[NormalizedAdjacency]:
        """The normalized adjacency of a graph without isolated vertices, inside a `with` block."""
        ...

    def notes(self) -> list[str]:
        """Notes on limits of the null model for the network."""
        ...

    def compiled(self, number: int, repeats: int, threads: int) -> Clustering | None:
        """The clustering of a shuffle in one compiled call; None if that is not possible."""
        ...


class HostPlace:
    """A network whose shuffles the CPU makes and measures.

    Parameters
    ----------
    network : NeuronGraph
        The graph without isolated vertices, in the plan's convention.
    connected : NeuronGraph
        The same graph as read, which is shuffled.
    shuffles : CompiledShuffles or None
        The compiled measurement of shuffles, if available.
    """

    name = "cpu"

    def __init__(
        self,
        network: NeuronGraph,
        connected: NeuronGraph,
        plan: Plan,
        shuffles: CompiledShuffles | None,
    ) -> None:
        self._network, self._plan = network, plan
        self.shuffles = shuffles
        self._null = fitted(connected, plan.null, plan.seed)
        self.at_once, self.inside = at_once_and_inside(connected, plan.threads)

    @contextmanager
    def operator(self, number: int, threads: int) -> Iterator[NormalizedAdjacency]:
        """See `Place`."""
        graph = self._network
        if number != NETWORK:
            graph = self._null.connected(number - 1, self._plan.normalize)
        yield operator_of(graph, threads)

    def notes(self) -> list[str]:
        """See `Place`."""
        return self._null.notes()

    def compiled(self, number: int, repeats: int, threads: int) -> Clustering | None:
        """See `Place`."""
        if number == NETWORK or self.shuffles is None:
            return None
        return self.shuffles.measure(number, repeats=repeats, threads=threads)


class DevicePlace:
    """A network whose shuffles are measured, and if possible made, on a device."""

    def __init__(self, network: NeuronGraph, there: DeviceNetwork, plan: Plan) -> None:
        self._network, self._there, self._seed = network, there, plan.seed
        self.name = there.device.name
        self.at_once, self.inside = there.at_once, there.inside

    @contextmanager
    def operator(self, number: int, threads: int) -> Iterator[NormalizedAdjacency]:
        """See `Place`."""
        if number != NETWORK:
            with self._there.shuffled(self._seed, number - 1) as graph:
                yield operator_of(graph, threads)
            return
        with self._there.device.cuda_stream():
            yield operator_of(self._there.network(self._network), threads)

    def notes(self) -> list[str]:
        """See `Place`."""
        return self._there.on_host(self._seed).notes()

    def compiled(self, number: int, repeats: int, threads: int) -> Clustering | None:
        """See `Place`."""
        return None


def place_of(
    network: NeuronGraph, connected: NeuronGraph, plan: Plan, ks: tuple[int, ...], n_init: int
) -> Place:
    """The place that a plan requests, ready to measure; arguments as for `HostPlace`."""
    device = check_device(plan.device)
    if device is not None:
        there = DeviceNetwork(
            connected,
            device,
            null=plan.null,
            normalize=plan.normalize,
            threads=plan.threads,
        )
        return DevicePlace(network, there, plan)
    shuffles = None
    suits = len(ks) == 1 and plan.normalize == "none" and plan.n_shuffles > 0
    if suits and CompiledShuffles.suits(connected, plan.null, plan.solver, ks[0]):
        shuffles = CompiledShuffles(
            connected,
            plan.null,
            substreams(connected),
            k=ks[0],
            n_init=n_init,
            refine=plan.refine,
            seed=plan.seed,
        )
    return HostPlace(network, connected, plan, shuffles)
