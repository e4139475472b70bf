"""The normalized cut of a partition."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ncut import kernels
from ncut.arguments import suggests_names
from ncut.errors import InputError
from ncut.graphs import NeuronGraph, from_adjacency


def as_graph(graph: Any) -> NeuronGraph:
    """A NeuronGraph unchanged, or a scipy sparse adjacency matrix as a graph of one layer."""
    if isinstance(graph, NeuronGraph):
        return graph
    if not isinstance(graph, np.ndarray) and not hasattr(graph, "tocsr"):
        raise InputError(
            "graph: must be a NeuronGraph or a symmetric scipy sparse matrix, got "
            f"{type(graph).__name__}; ncut.graph(model) makes a graph of a model"
        )
    return from_adjacency(graph)


@suggests_names()
def normalized_cut(graph: Any, labels: ArrayLike) -> float:
    """Normalized cut of a partition: sum over clusters X of W(X, V \\ X) / vol(X).

    W(X, Y) is the weight of the edges between X and Y, vol(X) the sum of the degrees in X.
    The value lies between 0 (no edges between clusters) and the number of clusters. A cluster
    without edges adds nothing.

    Parameters
    ----------
    graph : NeuronGraph or scipy sparse symmetric adjacency, n vertices
    labels : array_like of int, shape (n,)
        Cluster of each vertex, any numbers from 0 up; negative: in no cluster (its edges still
        count as leaving the clusters at their other ends).

    Raises
    ------
    InputError
        If `labels` has the wrong length or is not of whole numbers.

    Notes
    -----
    One pass over the edges, sums in float64.

    Source: Shi and Malik (2000), Normalized cuts and image segmentation; Filan et al. (2021),
    Clusterability in neural networks, section 1.1.
    """
    graph = as_graph(graph)
    checked = check_labels(labels, graph.n_vertices)
    k = int(checked.max(initial=-1)) + 1
    if k == 0:
        raise InputError("labels: no vertex is in a cluster")
    if (checked < 0).any():
        # An extra cluster, not counted, keeps the edges to unlabelled vertices cut.
        outside = np.where(checked < 0, np.int32(k), checked)
        volume, cut = kernels.volumes_and_cuts(graph.placed_blocks(), outside, k + 1)
        volume, cut = volume[:k], cut[:k]
    else:
        volume, cut = kernels.volumes_and_cuts(graph.placed_blocks(), checked, k)
    return ncut_of(volume, cut)


def ncut_of(volume: NDArray[np.float64], cut: NDArray[np.float64]) -> float:
    """The normalized cut from each cluster's volume and cut, shapes (k,)."""
    return float(np.sum(cut[volume > 0] / volume[volume > 0]))


def check_labels(labels: ArrayLike, n_vertices: int) -> NDArray[np.int32]:
    """Labels renumbered from 0 without gaps, negative labels as -1; refuse invalid labels."""
    try:
        array = np.asarray(labels)
    except ValueError as error:
        raise InputError(f"labels: not an array: {error}") from error
    if array.shape != (n_vertices,):
        raise InputError(
            f"labels: must have one label per vertex, shape ({n_vertices},), got {array.shape}"
        )
    if array.dtype.kind not in "iu":
        raise InputError(f"labels: must be whole numbers, got dtype {array.dtype}")
    # Renumbered from 0, so that large numbers cost no memory.
    outside = array < 0
    labels = np.full(n_vertices, -1, dtype=np.int32)
    labels[~outside] = np.unique(array[~outside], return_inverse=True)[1]
    return labels
