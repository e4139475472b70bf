"""Spectral clustering of a graph on a device, and one door for graphs wherever they are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncut.device.embedding import embed_on_device, look_again_on_device
from ncut.device.graph import DeviceGraph
from ncut.device.measures import inner_shares
from ncut.device.operator import DeviceOperator
from ncut.graphs import NeuronGraph
from ncut.graphs.colouring import two_colours
from ncut.randomness import Purpose, stream
from ncut.spectral import clustering
from ncut.spectral.clustering import MAX_LOOKS, MAX_PASSES
from ncut.spectral.cut import ncut_of
from ncut.spectral.embedding import Embedding, embed
from ncut.spectral.measures import measures_of
from ncut.spectral.operator import NormalizedAdjacency
from ncut.types import Clustering

Operator = NormalizedAdjacency | DeviceOperator


def operator_of(graph: NeuronGraph | DeviceGraph, threads: int) -> Operator:
    """The normalized adjacency of a graph without isolated vertices, where the graph is."""
    if isinstance(graph, DeviceGraph):
        return DeviceOperator(graph)
    return NormalizedAdjacency(graph, threads)


def embedded(operator: Operator, k: int, *, solver: str, seed: int, graph_number: int) -> Embedding:
    """The spectral embedding of the operator's graph in k eigenvectors; see `spectral.embed`."""
    if isinstance(operator, DeviceOperator):
        return embed_on_device(operator, k, solver=solver, seed=seed, graph_number=graph_number)
    return embed(operator.graph, operator, k, solver=solver, seed=seed, graph_number=graph_number)


def clustered(
    operator: Operator,
    embedding: Embedding,
    *,
    n_init: int,
    refine: bool,
    seed: int,
    graph_number: int,
    repeats: int = 0,
) -> Clustering:
    """Cluster the vertices of the operator's graph by the points of their embedding."""
    on_device = isinstance(operator, DeviceOperator)
    cluster: Any = _cluster_embedded if on_device else clustering.cluster_embedded
    found: Clustering = cluster(
        operator,
        embedding,
        n_init=n_init,
        refine=refine,
        seed=seed,
        graph_number=graph_number,
        repeats=repeats,
    )
    return found


def cluster_on_device(
    graph: DeviceGraph,
    k: int,
    *,
    n_init: int,
    solver: str = "auto",
    refine: bool = False,
    seed: int = 0,
    graph_number: int = 0,
    repeats: int = 0,
) -> Clustering:
    """`cluster` for a graph on a device without isolated vertices, arguments checked by the caller.

    Parameters
    ----------
    graph : DeviceGraph
    k, n_init, refine, seed
        See `ncut.cluster`.
    solver : {"auto", "krylov", "gram", "dense"}
    graph_number : int
        Number of the graph among those of an analysis, for its random streams.
    repeats : int
        How often to repeat k-means, to see how much of the n-cut is its noise.

    Returns
    -------
    Clustering
        As on the CPU, with the labels of this graph's vertices.

    Raises
    ------
    InputError
        If the solver runs on the CPU only, or the graph is too small for it.
    """
    operator = DeviceOperator(graph)
    embedding = embed_on_device(operator, k, solver=solver, seed=seed, graph_number=graph_number)
    return _cluster_embedded(
        operator,
        embedding,
        n_init=n_init,
        refine=refine,
        seed=seed,
        graph_number=graph_number,
        repeats=repeats,
    )


def _cluster_embedded(
    operator: DeviceOperator,
    embedding: Embedding,
    *,
    n_init: int,
    refine: bool,
    seed: int,
    graph_number: int,
    repeats: int = 0,
) -> Clustering:
    from ncut.device.cut import volumes_and_cuts
    from ncut.device.kmeans import partition
    from ncut.device.refine import refine as refined_on_device

    graph, device, k = operator.graph, operator.device, embedding.eigenvalues.size

    def partitioned(random_stream: int) -> tuple[Any, Any]:
        labels = partition(
            device, embedding.points, k, n_init=n_init, seed=seed, stream=random_stream
        )
        return labels, refined_on_device(graph, labels, k, MAX_PASSES)

    def sums(labels: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        volume, cut = volumes_and_cuts(graph, labels, k)
        return _on_host(device, volume), _on_host(device, cut)

    for look in range(1, MAX_LOOKS + 2):
        spectral, refined = partitioned(stream(Purpose.KMEANS, graph_number))
        labels, other = (refined, spectral) if refine else (spectral, refined)
        volume, cut = sums(labels)
        other_sums = sums(other)
        ncut, other_ncut = ncut_of(volume, cut), ncut_of(*other_sums)
        if embedding.allows(min(ncut, other_ncut)):
            break
        last = look > MAX_LOOKS
        embedding = (
            replace(embedding, missed=True)
            if last
            else look_again_on_device(
                operator, embedding, look, seed=seed, graph_number=graph_number
            )
        )
    on_host = device.to_host(labels).astype(np.int32, copy=False)
    measures = measures_of(
        two_colours(graph.host),
        [layer.size for layer in graph.host.layers],
        *(graph.host_degrees, on_host, volume, cut, inner_shares(graph, labels, k)),
    )
    repeated = [
        partitioned(stream(Purpose.KMEANS_REPEATS, number))[int(refine)]
        for number in range(repeats)
    ]
    refined_volume, refined_cut = (volume, cut) if refine else other_sums
    whole = refined_volume.sum()
    return Clustering(
        labels=on_host,
        ncut=measures.ncut,
        spectral_ncut=other_ncut if refine else measures.ncut,
        refined_ncut=measures.ncut if refine else other_ncut,
        lower_bound=embedding.lower_bound(),
        modularity=measures.modularity,
        bipartite_modularity=measures.bipartite_modularity,
        clusterability=measures.clusterability,
        eigenvalues=embedding.eigenvalues,
        k=k,
        solver=embedding.solver,
        residual=embedding.residual,
        converged=embedding.converged,
        n_init=n_init,
        repeated_ncuts=np.array([ncut_of(*sums(again)) for again in repeated]),
        repeated_labels=tuple(
            device.to_host(again).astype(np.int32, copy=False) for again in repeated
        ),
        cut_share=float(refined_cut.sum() / whole),
        chance_share=1.0 - float(np.square(refined_volume / whole).sum()),
    )


def _on_host(device: Any, array: Any) -> NDArray[np.float64]:
    host = array if isinstance(array, np.ndarray) else device.to_host(array)
    return np.asarray(host, dtype=np.float64)
