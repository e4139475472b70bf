"""Other measures of a partition: modularities, and the share of squared weight inside clusters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ncut import kernels
from ncut.arguments import suggests_names
from ncut.errors import InputError
from ncut.graphs import NeuronGraph
from ncut.graphs.colouring import two_colours
from ncut.graphs.scale import in_range
from ncut.spectral.cut import as_graph, check_labels, ncut_of
from ncut.types import Clustering

SMALLEST_SQUARES = 1e-280
"""A sum of squared weights below this is recomputed in another unit."""


@dataclass(frozen=True, slots=True, eq=False)
class PartitionMeasures:
    """Several measures of the quality of a partition.

    Attributes
    ----------
    ncut : float
        Normalized cut; low is clusterable.
    modularity : float
        Newman's Q = sum over clusters X of inside(X) / m - (vol(X) / 2m)^2, with inside(X) the
        weight of the edges inside X and m that of all edges; high is clusterable.
    bipartite_modularity : float or None
        Barber's Q = sum over X of inside(X) / m - vol0(X) vol1(X) / m^2, with vol0 and vol1 the
        degrees in layers of the two colours; None if edges join layers of one colour.
    clusterability : float
        Share of squared weight inside clusters, averaged over the blocks; high is clusterable.
    clusterability_by_block : tuple of float
        This share for each of the graph's blocks.
    """

    ncut: float
    modularity: float
    bipartite_modularity: float | None
    clusterability: float
    clusterability_by_block: tuple[float, ...]

    def shared(self) -> dict[str, Any]:
        """The measures besides the n-cut that a `Clustering` has too, by name."""
        names = {one.name for one in fields(Clustering)} - {"ncut"}
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name in names}


@suggests_names()
def partition_measures(graph: Any, labels: ArrayLike) -> PartitionMeasures:
    """Measure a partition of a graph.

    Parameters
    ----------
    graph : NeuronGraph or scipy sparse symmetric adjacency, n vertices
    labels : array_like of int, shape (n,)
        Cluster of each vertex, any numbers from 0 up; negative for a vertex without edges.

    Raises
    ------
    InputError
        If `labels` has the wrong length, is not of whole numbers, or leaves out a vertex with
        edges.

    Source: Newman (2004), Analysis of weighted networks; Barber (2007), Modularity and community
    detection in bipartite networks; for the share of squared weight arXiv:2502.02470, which
    clusters the two sides of each matrix; here both sides use the clusters of one partition, so
    that a block-diagonal matrix scores 1 with the clusters of its blocks.
    """
    graph = as_graph(graph)
    checked = check_labels(labels, graph.n_vertices)
    n_left_out = int(np.count_nonzero(graph.degrees[checked < 0]))
    if n_left_out:
        raise InputError(
            f"labels: must be at least 0 for vertices with edges, got {n_left_out} negative"
        )
    return measure(graph, checked, int(checked.max(initial=-1)) + 1)


def measure(graph: NeuronGraph, labels: NDArray[np.int32], k: int) -> PartitionMeasures:
    """`partition_measures` for checked labels below k; two passes over the edges."""
    volume, cut = kernels.volumes_and_cuts(graph.placed_blocks(), labels, k)
    shares = tuple(_inner_share(graph, number, labels) for number in range(len(graph.blocks)))
    sizes = [layer.size for layer in graph.layers]
    return measures_of(two_colours(graph), sizes, graph.degrees, labels, volume, cut, shares)


def measures_of(
    colours: Sequence[int] | None,
    sizes: Sequence[int],
    degrees: NDArray[np.float64],
    labels: NDArray[np.int32],
    volume: NDArray[np.float64],
    cut: NDArray[np.float64],
    shares: tuple[float, ...],
) -> PartitionMeasures:
    """The measures from sums, which may come from compiled code.

    Parameters
    ----------
    colours : sequence of int, or None
        0 or 1 for each layer, if two colours suffice.
    sizes : sequence of int
        Vertices of each layer.
    degrees : ndarray of float64, shape (n,)
    labels : ndarray of int32, shape (n,)
    volume, cut : ndarray of float64, shape (k,)
    shares : tuple of float
        The share of squared weight inside clusters for each block.
    """
    total = float(volume.sum())
    inside = float((volume - cut).sum()) / total
    bipartite = None
    if colours is not None:
        first = (np.repeat(colours, sizes) == 0) & (labels >= 0)
        own = np.bincount(labels[first], degrees[first], minlength=volume.size)
        m = total / 2
        bipartite = inside - float((own * (volume - own)).sum() / m**2)
    return PartitionMeasures(
        ncut=ncut_of(volume, cut),
        modularity=inside - float(np.square(volume / total).sum()),
        bipartite_modularity=bipartite,
        clusterability=float(np.mean(shares)),
        clusterability_by_block=shares,
    )


def _inner_share(graph: NeuronGraph, number: int, labels: NDArray[np.int32]) -> float:
    block = graph.blocks[number]
    rows, cols = labels[graph.layers[block.source].slice], labels[graph.layers[block.target].slice]
    squares = kernels.inner_squares(block, rows, cols)
    if squares.total < SMALLEST_SQUARES:  # some squares may have underflowed
        (block,), _ = in_range([block], None)
        squares = kernels.inner_squares(block, rows, cols)
    return squares.inside / squares.total if squares.total else 0.0
