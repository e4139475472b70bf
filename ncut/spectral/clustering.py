"""Spectral clustering of a graph of neurons."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ncut import kernels
from ncut.arguments import check_flag
from ncut.graphs import NeuronGraph
from ncut.graphs.validate import check_n_clusters
from ncut.randomness import NETWORK, Purpose, check_seed, random_stream
from ncut.spectral.cut import as_graph, ncut_of, normalized_cut
from ncut.spectral.embedding import Embedding, embed, look_again
from ncut.spectral.kmeans import partition, restarts
from ncut.spectral.measures import measure
from ncut.spectral.operator import NormalizedAdjacency
from ncut.threads import n_threads, single_threaded_blas
from ncut.types import Clustering

# Refinement usually ends after about ten passes over the vertices; this bounds rare cases.
MAX_PASSES = 100

MAX_LOOKS = 4
"""Number of further searches for eigenvalues that a solver missed."""


def cluster(
    graph: Any,
    k: int = 12,
    *,
    n_init: int | Literal["auto"] = "auto",
    solver: str = "auto",
    refine: bool = False,
    seed: int = 0,
    threads: int | None = None,
    operator: Callable[[NeuronGraph, int], NormalizedAdjacency] = NormalizedAdjacency,
) -> Clustering:
    """`ncut.cluster` with a given operator (from a graph and a number of threads) for products."""
    whole = as_graph(graph)
    connected, kept = whole.without_isolated()
    k = check_n_clusters(k, connected.n_vertices)
    with single_threaded_blas():
        found = cluster_connected(
            operator(connected, n_threads(threads)),
            k,
            n_init=restarts(n_init, connected.n_vertices),
            solver=solver,
            refine=check_flag(refine, "refine"),
            seed=check_seed(seed),
            graph_number=NETWORK,
        )
    labels = np.full(whole.n_vertices, -1, dtype=np.int32)
    labels[kept] = found.labels
    return replace(found, labels=labels)


def cluster_connected(
    operator: NormalizedAdjacency,
    k: int,
    *,
    n_init: int,
    solver: str,
    refine: bool,
    seed: int,
    graph_number: int,
    repeats: int = 0,
) -> Clustering:
    """Cluster a graph without isolated vertices; the caller has checked the arguments.

    `repeats`: number of repeats of k-means, to measure its noise in the n-cut.
    """
    embedding = embed(operator, k, solver=solver, seed=seed, graph_number=graph_number)
    return cluster_embedded(
        operator,
        embedding,
        n_init=n_init,
        refine=refine,
        seed=seed,
        graph_number=graph_number,
        repeats=repeats,
    )


def cluster_embedded(
    operator: NormalizedAdjacency,
    embedding: Embedding,
    *,
    n_init: int,
    refine: bool,
    seed: int,
    graph_number: int,
    repeats: int = 0,
) -> Clustering:
    """Cluster the vertices of the operator's graph by the points of their embedding.

    A partition with an n-cut below the embedding's lower bound proves that the solver missed an
    eigenvalue. Another search follows, and the vertices are clustered again, until this no longer
    happens or nothing is left to try; see `spectral.embedding.look_again`.
    """
    graph, k = operator.graph, embedding.eigenvalues.size

    def partitioned(kmeans_stream: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        labels = partition(
            embedding.points,
            k,
            n_init=n_init,
            seed=seed,
            stream=kmeans_stream,
            threads=operator.threads,
        )
        return labels, operator.refine(labels, k, MAX_PASSES)

    for look in range(1, MAX_LOOKS + 2):
        spectral, refined = partitioned(random_stream(Purpose.KMEANS, graph_number))
        labels = refined if refine else spectral
        measures = measure(graph, labels, k)
        volume, cut = kernels.volumes_and_cuts(graph.placed_blocks(), refined, k)
        other_ncut = normalized_cut(graph, spectral) if refine else ncut_of(volume, cut)
        # Refinement empties no cluster.
        if embedding.allows(min(measures.ncut, other_ncut), np.unique(spectral).size):
            break
        last = look > MAX_LOOKS
        embedding = (
            replace(embedding, missed=True)
            if last
            else look_again(operator, embedding, look, seed=seed, graph_number=graph_number)
        )
    repeated = tuple(
        partitioned(random_stream(Purpose.KMEANS_REPEATS, number))[int(refine)]
        for number in range(repeats)
    )
    return Clustering(
        labels=labels,
        ncut=measures.ncut,
        spectral_ncut=other_ncut if refine else measures.ncut,
        refined_ncut=measures.ncut if refine else other_ncut,
        lower_bound=embedding.lower_bound(),
        **measures.shared(),
        eigenvalues=embedding.eigenvalues,
        k=k,
        solver=embedding.solver,
        residual=embedding.residual,
        converged=embedding.converged,
        n_init=n_init,
        repeated_ncuts=np.array([normalized_cut(graph, again) for again in repeated]),
        repeated_labels=repeated,
        cut_share=float(cut.sum() / volume.sum()),
        chance_share=1.0 - float(np.square(volume / volume.sum()).sum()),
    )
