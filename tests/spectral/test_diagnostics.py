"""Warnings about a clustering: each where it belongs, none where all is well."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from samples import chain_graph, planted_chain, random_chain, side_by_side

from ncut.graphs import NeuronGraph
from ncut.spectral import cluster, normalized_cut
from ncut.spectral.diagnostics import clustering_warnings
from ncut.types import Clustering


def clustering(graph: NeuronGraph, labels: np.ndarray, k: int) -> Clustering:
    labels = labels.astype(np.int32)
    value = normalized_cut(graph, labels)
    return replace(cluster(graph, 2), labels=labels, k=k, ncut=value)


def planted() -> tuple[NeuronGraph, np.ndarray]:
    weights, groups = planted_chain(3, n_groups=3, per_group=12, n_layers=3, noise=0.1)
    return chain_graph(weights), groups


def test_no_warnings_for_a_good_clustering() -> None:
    graph, groups = planted()
    assert clustering_warnings(graph, clustering(graph, groups, 3)) == []


def test_nearly_disconnected_neurons_are_named() -> None:
    weights, _ = planted_chain(3, n_groups=3, per_group=12, n_layers=3, noise=0.1)
    graph = chain_graph(side_by_side(weights, random_chain(5, (2, 1, 1))))
    found = cluster(graph, 4)
    (warning,) = [text for text in clustering_warnings(graph, found) if "disconnected" in text]
    for name in ("layer0 36, 37", "layer1 36", "layer2 36"):
        assert name in warning
    assert "n-cut" in warning


def test_large_disconnected_groups_are_no_reason_to_warn() -> None:
    graph = chain_graph(side_by_side(*[random_chain(seed, (9, 8, 7)) for seed in (3, 5)]))
    assert clustering_warnings(graph, cluster(graph, 2)) == []


def test_small_clusters_are_named() -> None:
    graph, groups = planted()
    labels = groups.copy()
    labels[[5, 40]] = 3
    (warning,) = clustering_warnings(graph, clustering(graph, labels, 4))
    assert "1 of the 4 clusters" in warning
    assert "layer0 5; layer1 4" in warning
    labels[41] = 3
    assert clustering_warnings(graph, clustering(graph, labels, 4)) == []


def test_at_most_a_few_neurons_are_named() -> None:
    graph, groups = planted()
    labels = groups.copy()
    labels[:10] = 3 + np.arange(10) // 2
    (warning,) = clustering_warnings(graph, clustering(graph, labels, 8))
    assert "5 of the 8 clusters" in warning
    assert "layer0 0, 1, 2, 3, 4, 5 and 4 more" in warning


def test_empty_clusters() -> None:
    graph, groups = planted()
    (warning,) = clustering_warnings(graph, clustering(graph, groups, 5))
    assert "only 3 of the 5 clusters" in warning


def test_k_close_to_the_number_of_neurons() -> None:
    graph = chain_graph(random_chain(7, (9, 10, 8)))
    close = clustering_warnings(graph, clustering(graph, np.arange(27) % 7, 7))
    assert any("k = 7 is close to" in text and "27" in text for text in close)
    fine = clustering_warnings(graph, clustering(graph, np.arange(27) % 6, 6))
    assert not any("is close to" in text for text in fine)


def test_no_convergence() -> None:
    graph, groups = planted()
    stuck = replace(clustering(graph, groups, 3), converged=False, residual=0.02, solver="lobpcg")
    (warning,) = clustering_warnings(graph, stuck)
    assert "lobpcg" in warning
    assert "2.0e-02" in warning
