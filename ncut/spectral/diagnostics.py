"""Warnings about unreliable clusterings."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ncut import kernels
from ncut.graphs import NeuronGraph
from ncut.types import Clustering

SMALL_CLUSTER = 3
# A cluster is nearly disconnected when less than this share of its volume leaves it ...
LEAVING_SHARE = 0.1
# ... and negligible when it has less than this share of the graph's volume.
VOLUME_SHARE = 0.02
VERTICES_PER_CLUSTER = 4
NEURONS_NAMED = 6


def clustering_warnings(graph: NeuronGraph, clustering: Clustering) -> list[str]:
    """Warnings about a clustering, one sentence for each problem found."""
    labels, k = clustering.labels, clustering.k
    n_clustered = int(np.count_nonzero(labels >= 0))
    volume, cut = _volumes(graph, clustering)
    sizes = np.bincount(labels[labels >= 0], minlength=k)
    warnings: list[str] = []
    trifles = np.flatnonzero(
        (volume > 0) & (cut < LEAVING_SHARE * volume) & (volume < VOLUME_SHARE * volume.sum())
    )
    if trifles.size:
        members = np.flatnonzero(np.isin(labels, trifles))
        warnings.append(
            f"the n-cut is lowered by {trifles.size} small, nearly disconnected group(s) of "
            f"neurons ({_named(graph, members)}); it says little about the rest of the network"
        )
    small = np.flatnonzero((sizes > 0) & (sizes < SMALL_CLUSTER))
    if small.size:
        members = np.flatnonzero(np.isin(labels, small))
        warnings.append(
            f"{small.size} of the {k} clusters have fewer than {SMALL_CLUSTER} neurons "
            f"({_named(graph, members)})"
        )
    if (sizes == 0).any():
        warnings.append(
            f"only {np.count_nonzero(sizes)} of the {k} clusters have neurons: the embedding has "
            "too few distinct points; choose a smaller k"
        )
    if n_clustered < VERTICES_PER_CLUSTER * k:
        warnings.append(
            f"k = {k} is close to the number of neurons with edges ({n_clustered}); "
            "choose a smaller k"
        )
    if clustering.solver == "krylov-float64" and clustering.converged:
        warnings.append("the eigensolver needed double precision, which takes longer")
    if not clustering.converged:
        warnings.append(
            f"the eigensolver {clustering.solver} did not converge (residual "
            f"{clustering.residual:.1e}); try solver='dense' or another solver"
        )
    return warnings


def _volumes(
    graph: NeuronGraph, clustering: Clustering
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return kernels.volumes_and_cuts(graph.placed_blocks(), clustering.labels, clustering.k)


def _named(graph: NeuronGraph, vertices: NDArray[np.intp]) -> str:
    """ "fc1 3, 17; fc2 0 and 12 more"."""
    parts: list[tuple[str, list[str]]] = []
    for layer in graph.layers:
        inside = vertices[(vertices >= layer.start) & (vertices < layer.start + layer.size)]
        inside = inside[: NEURONS_NAMED - sum(len(numbers) for _, numbers in parts)]
        if inside.size:
            parts.append((layer.name, [str(vertex - layer.start) for vertex in inside]))
    text = "; ".join(f"{name} {', '.join(numbers)}" for name, numbers in parts)
    more = vertices.size - sum(len(numbers) for _, numbers in parts)
    return text + (f" and {more} more" if more else "")
