"""The clusters of a report, one by one: their neurons, edges and masks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from ncut.errors import InputError
from ncut.report.between import of_report
from ncut.report.names import layer_names

if TYPE_CHECKING:
    from ncut.results import Measurement

SHOWN = 5


@dataclass(frozen=True, slots=True)
class Neuron:
    """A neuron.

    Attributes
    ----------
    layer : str
        Name of its layer in the graph.
    module : str
        The module or parameter that writes it; the layer's name if unknown.
    index : int
        Its position within the layer: the row or channel of the module's output.
    """

    layer: str
    module: str
    index: int


class WeightedEdge(NamedTuple):
    """An edge between two neurons.

    Attributes
    ----------
    first, second : Neuron
    clusters : (int, int)
        The clusters of the two neurons.
    weight : float
    """

    first: Neuron
    second: Neuron
    clusters: tuple[int, int]
    weight: float


@dataclass(frozen=True, eq=False)
class Cluster:
    """A cluster of neurons.

    Attributes
    ----------
    number : int
        Its number, as in the report's `labels`.
    """

    number: int
    _report: Measurement = field(repr=False)
    _modules: list[str] = field(repr=False)

    @property
    def size(self) -> int:
        """Number of neurons."""
        return int(np.count_nonzero(self._report.labels == self.number))

    def __len__(self) -> int:
        return self.size

    @property
    def layers(self) -> dict[str, int]:
        """Number of neurons in each layer with neurons of the cluster."""
        counts = self._report.cluster_sizes()[:, self.number].tolist()
        return {
            layer.name: count
            for layer, count in zip(self._report.layers, counts, strict=True)
            if count
        }

    @cached_property
    def neurons(self) -> list[Neuron]:
        """The cluster's neurons, in the order of the graph."""
        return [
            _neuron(self._report, self._modules, int(vertex))
            for vertex in np.flatnonzero(self._report.labels == self.number)
        ]

    @property
    def strongest_edges(self) -> list[WeightedEdge]:
        """The ten heaviest edges with an end in the cluster, in descending order.

        Raises
        ------
        InputError
            If the report was read from a file without edges.
        """
        report = self._report
        between = of_report(report)
        if between is None:
            raise InputError(
                "strongest_edges: this report was read from a file without edges; analyse the model"
            )
        return [
            WeightedEdge(
                _neuron(report, self._modules, edge.first),
                _neuron(report, self._modules, edge.second),
                (int(report.labels[edge.first]), int(report.labels[edge.second])),
                edge.weight,
            )
            for edge in between.strongest[self.number]
        ]

    def indices(self, layer: str | int) -> NDArray[np.int64]:
        """Indices of the cluster's neurons within a layer, ascending.

        Raises
        ------
        InputError
            If there is no such layer.
        """
        return np.flatnonzero(self.mask(layer))

    def mask(self, layer: str | int) -> NDArray[np.bool_]:
        """Mask of the cluster's neurons in a layer, shape (size of the layer,).

        Parameters
        ----------
        layer : str or int
            The layer's name, its short name in pictures, or its position.

        Raises
        ------
        InputError
            If there is no such layer.
        """
        report = self._report
        return np.asarray(report.labels[report.layers[_layer(report, layer)].slice] == self.number)

    def __repr__(self) -> str:
        parts = [f"{name}: {count}" for name, count in self.layers.items()]
        more = f", … {len(parts) - SHOWN} more layers" if len(parts) > SHOWN else ""
        return f"Cluster {self.number} ({self.size} neurons; {', '.join(parts[:SHOWN])}{more})"


class ClusterList(Sequence[Cluster]):
    """The clusters of a report, by number."""

    def __init__(self, report: Measurement) -> None:
        modules = modules_of(report)
        self._clusters = [Cluster(number, report, modules) for number in range(report.k)]

    @overload
    def __getitem__(self, at: int) -> Cluster: ...

    @overload
    def __getitem__(self, at: slice) -> list[Cluster]: ...

    def __getitem__(self, at: int | slice) -> Cluster | list[Cluster]:
        try:
            return self._clusters[at]
        except IndexError:
            raise IndexError(f"cluster {at}: must lie between 0 and {len(self) - 1}") from None

    def __len__(self) -> int:
        return len(self._clusters)

    def __iter__(self) -> Iterator[Cluster]:
        return iter(self._clusters)

    def __repr__(self) -> str:
        return "\n".join(map(repr, self._clusters))


def _layer(report: Measurement, wanted: str | int) -> int:
    if isinstance(wanted, int) and not isinstance(wanted, bool):
        if not -len(report.layers) <= wanted < len(report.layers):
            raise InputError(
                f"layer: must be a position from 0 to {len(report.layers) - 1}, got {wanted}"
            )
        return wanted
    full = [layer.name for layer in report.layers]
    for names in (full, list(layer_names(report.layers).short)):
        if wanted in names:
            return names.index(str(wanted))
    raise InputError(f"layer: must be one of {', '.join(map(repr, full[:8]))}, got {wanted!r}")


def modules_of(report: Measurement) -> list[str]:
    """The writer of each layer's neurons: the parameter of a block ending there, else its name."""
    found = [layer.name for layer in report.layers]
    if report.graph is not None:
        for block in reversed(report.graph.blocks):
            if block.name and block.source != block.target:
                found[block.target] = block.name
    return found


def _neuron(report: Measurement, modules: list[str], vertex: int) -> Neuron:
    starts = [layer.start for layer in report.layers]
    at = int(np.searchsorted(starts, vertex, side="right")) - 1
    return Neuron(report.layers[at].name, modules[at], vertex - starts[at])
