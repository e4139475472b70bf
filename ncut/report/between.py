"""The weight between clusters, layer by layer, and each cluster's strongest edges."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ncut.report.edges import Edge, layer_flows, strongest_edges

if TYPE_CHECKING:
    from ncut.graphs import NeuronGraph
    from ncut.results import Measurement
    from ncut.types import Layer

Flows: TypeAlias = dict[tuple[int, int], NDArray[np.float64]]
"""The weight between clusters, (k, k), for each pair of layers joined by edges."""

N_STRONGEST = 10
MAX_ENTRIES = 400_000
DIGITS = 7


@dataclass(frozen=True, eq=False)
class Between:
    """A report's data about its graph's edges.

    Attributes
    ----------
    flows : dict of (int, int) to ndarray of float64, shape (k, k)
        By the layers' positions; entry (a, b) is the weight between cluster a in the first layer
        and cluster b in the second. Within one layer each edge counts once, in either entry.
    strongest : list of list of Edge
        The ten edges of largest weight with an end in each cluster, in descending order.
    """

    flows: Flows
    strongest: list[list[Edge]]

    def inside(self, k: int) -> NDArray[np.float64]:
        """Twice the weight inside each cluster, (k,)."""
        diagonals = (np.diag(flow) for flow in self.flows.values())
        return 2 * sum(diagonals, start=np.zeros(k))

    def ratio(self, sizes: NDArray[np.int64]) -> NDArray[np.float64]:
        """The weight between each pair of clusters, as a multiple of chance.

        Chance: each layer's weights in random positions, as in the null model `layer`. The weight
        between n neurons of one layer and m of another is then n m times the mean over the
        connected neurons of the two.

        Parameters
        ----------
        sizes : ndarray of int64, shape (n_layers, k)
            Neurons of each layer in each cluster.

        Returns
        -------
        ndarray of float64, shape (k, k)
            Symmetric; NaN if no edges are possible between two clusters.
        """
        k = sizes.shape[1]
        found, chance = np.zeros((k, k)), np.zeros((k, k))
        for (a, b), flow in self.flows.items():
            pairs = np.outer(sizes[a], sizes[b]).astype(np.float64)
            if a == b:  # no neuron is joined to itself
                pairs -= np.diag(sizes[a])
            found += flow + flow.T
            if pairs.sum() > 0:
                expected = flow.sum() * pairs / pairs.sum()
                chance += expected + expected.T
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(chance > 0, found / np.where(chance > 0, chance, 1.0), np.nan)


def between_of(graph: NeuronGraph, labels: NDArray[np.int32], k: int) -> Between:
    """Sum a graph's edges."""
    return Between(layer_flows(graph, labels, k), strongest_edges(graph, labels, k, N_STRONGEST))


def of_report(report: Measurement) -> Between | None:
    """The edge data of a report, or of a measurement with its graph."""
    if hasattr(report, "between"):
        found: Between | None = report.between
        return found
    return None if report.graph is None else between_of(report.graph, report.labels, report.k)


def to_dict(between: Between | None) -> dict[str, Any] | None:
    """Plain lists with seven digits; None if there are too many numbers."""
    if between is None or sum(flow.size for flow in between.flows.values()) > MAX_ENTRIES:
        return None
    return {
        "flows": [
            [a, b, [[_rounded(value) for value in row] for row in flow.tolist()]]
            for (a, b), flow in between.flows.items()
        ],
        "strongest": [
            [[edge.first, edge.second, _rounded(edge.weight)] for edge in edges]
            for edges in between.strongest
        ],
    }


def from_dict(data: Any, k: int, layers: Sequence[Layer]) -> Between | None:
    """The inverse of `to_dict`; raises ValueError or TypeError if data do not fit the report."""
    if data is None:
        return None
    if not isinstance(data, Mapping):
        raise TypeError("expected an object with 'flows' and 'strongest'")
    n_layers, n = len(layers), sum(layer.size for layer in layers)
    flows: Flows = {}
    for a, b, rows in data["flows"]:
        flow = np.array(rows, dtype=np.float64)
        if not 0 <= a < n_layers or not 0 <= b < n_layers or flow.shape != (k, k):
            raise ValueError("'flows' does not fit the layers and k")
        if not np.isfinite(flow).all() or (flow < 0).any():
            raise ValueError("'flows' has weights that are negative or not finite")
        flows[int(a), int(b)] = flow
    strongest = [
        [Edge(int(first), int(second), float(weight)) for first, second, weight in edges]
        for edges in data["strongest"]
    ]
    ends = [end for edges in strongest for edge in edges for end in edge[:2]]
    if len(strongest) != k or (ends and not 0 <= min(ends) <= max(ends) < n):
        raise ValueError("'strongest' does not fit the clusters and vertices")
    weights = [edge.weight for edges in strongest for edge in edges]
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights):
        raise ValueError("'strongest' has weights that are negative or not finite")
    return Between(flows, strongest)


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
