"""A network on a device and its shuffles: made there where they can be, several in flight."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace

from ncut.device.devices import Device
from ncut.device.graph import VECTORS, DeviceGraph, upload
from ncut.device.shuffle import shuffle_on_device, working_bytes
from ncut.device.weights import bytes_on
from ncut.graphs import NeuronGraph
from ncut.nulls import Null, fitted
from ncut.nulls.distribution import LARGE_BYTES

ON_DEVICE = ("layer", "layer-nonzero")
"""Null models that a device shuffles itself; others are shuffled on the host and uploaded."""

MOST_IN_FLIGHT = 4
"""Shuffles at a time: while one waits for its small eigenproblem, the others keep a GPU busy."""


class DeviceNetwork:
    """A network without isolated vertices whose shuffles are measured on a device.

    Attributes
    ----------
    device : Device
    at_once : int
        Shuffles that fit on the device together, and that there are threads for.
    """

    def __init__(
        self, graph: NeuronGraph, device: Device, *, null: str, normalize: str, threads: int
    ) -> None:
        self.device = device
        self._graph = graph
        self._uploaded: DeviceGraph | None = None
        self._lock = threading.Lock()
        self._null, self._normalize = null, normalize
        self._fitted: Null | None = None
        weights = sum(bytes_on(device, block.weights) for block in graph.blocks)
        vectors = 4 * VECTORS * graph.n_vertices + 2 * device.tile_bytes
        sorting = max(working_bytes(device, block.weights, null) for block in graph.blocks)
        one = weights + vectors + sorting
        self._shuffles_here = (
            null in ON_DEVICE and normalize == "none" and weights + one <= device.budget
        )
        left = device.budget - weights
        if not self._shuffles_here:
            one, left = weights + vectors, device.budget
            # A shuffled copy is on the host as well.
            threads = min(threads, max(1, LARGE_BYTES // max(1, graph.n_bytes)))
        self.at_once = max(1, min(MOST_IN_FLIGHT, threads, left // one))
        self._share = replace(device, budget=max(0, left) // self.at_once)

    def _base(self) -> DeviceGraph:
        """The network on the device, complete there whatever stream it is used on."""
        with self._lock:
            if self._uploaded is None:
                with self.device.stream():
                    self._uploaded = upload(self._graph, self.device)
            return self._uploaded

    def network(self, measured: NeuronGraph) -> DeviceGraph:
        """The network itself on the device, in whatever convention of scale."""
        if measured is self._graph and self._shuffles_here:
            return replace(self._base())  # what it keeps for products goes with the copy
        return upload(measured, self.device)

    @contextmanager
    def shuffled(self, seed: int, number: int) -> Generator[DeviceGraph, None, None]:
        """Shuffle `number`, without isolated vertices, on a stream of this thread's own."""
        with self.device.stream():
            if self._shuffles_here:
                base = replace(self._base(), device=self._share)
                yield shuffle_on_device(base, self._null, seed, number).without_isolated()[0]
                return
            on_host = self._on_host(seed).connected(number, self._normalize)
            yield upload(on_host, self._share)

    def _on_host(self, seed: int) -> Null:
        """What makes shuffles on the host, which may share work that they begin with."""
        with self._lock:
            if self._fitted is None or self._fitted.seed != seed:
                self._fitted = fitted(self._graph, self._null, seed)
            return self._fitted
