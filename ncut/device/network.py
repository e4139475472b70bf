"""A network on a device and its shuffles, several in flight."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace

from ncut.device.devices import Device
from ncut.device.graph import VECTORS, DeviceGraph, bytes_on, upload
from ncut.device.shuffle import ON_DEVICE, shuffle_on_device, working_bytes
from ncut.graphs import NeuronGraph
from ncut.nulls import Null, at_once_and_inside, fitted


class DeviceNetwork:
    """A network without isolated vertices whose shuffles are measured with a device.

    Attributes
    ----------
    device : Device
    at_once : int
        Shuffles that fit on the device, and on the host, together.
    inside : int
        Threads of the host for each of them.
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
        one = weights + 4 * VECTORS * graph.n_vertices + 2 * device.tile_bytes
        with_shuffling = one + working_bytes(graph)
        self._shuffles_here = (
            null in ON_DEVICE
            and normalize == "none"
            and graph.scratch is None
            and weights + with_shuffling <= device.budget
        )
        left = device.budget
        if self._shuffles_here:
            one, left = with_shuffling, left - weights
        most, self.inside = at_once_and_inside(graph, threads)
        self.at_once = max(1, min(most, left // one))
        self.inside = max(self.inside, threads // self.at_once)
        self._share = replace(device, budget=max(0, left) // self.at_once)

    def _base(self) -> DeviceGraph:
        """The network on the device, complete before any CUDA stream uses it."""
        with self._lock:
            if self._uploaded is None:
                with self.device.cuda_stream():
                    self._uploaded = upload(self._graph, self.device)
            return self._uploaded

    def network(self, measured: NeuronGraph) -> DeviceGraph:
        """The network itself on the device, in its convention of scale."""
        here = measured is self._graph and self._shuffles_here
        return self._base() if here else upload(measured, self.device)

    @contextmanager
    def shuffled(self, seed: int, number: int) -> Generator[DeviceGraph, None, None]:
        """Shuffle `number`, without isolated vertices, on this thread's CUDA stream."""
        with self.device.cuda_stream():
            if self._shuffles_here:
                base = replace(self._base(), device=self._share)
                found = shuffle_on_device(base, self._null, seed, number)
                connected, _ = found.host.without_isolated()
                yield found if connected is found.host else upload(connected, self._share)
                return
            on_host = self.on_host(seed).connected(number, self._normalize)
            yield upload(on_host, self._share)

    def on_host(self, seed: int) -> Null:
        """The null model's object for shuffles on the host, which may share initial work."""
        with self._lock:
            if self._fitted is None or self._fitted.seed != seed:
                self._fitted = fitted(self._graph, self._null, seed)
            return self._fitted
