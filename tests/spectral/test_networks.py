"""Trained networks: eigenvalues, published ranges, and scikit-learn on the same shuffles."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from samples import MODEL_NAMES, chain_graph, embedding_of, model_weights
from scipy import linalg
from sklearn.cluster import SpectralClustering

from ncut import networks, reference
from ncut.graphs import NeuronGraph
from ncut.nulls import shuffle
from ncut.spectral import cluster, normalized_cut

# From the table of published results and from networks at initialization.
RANGES = {
    "fashion-none-0-init": (10.2, 10.4),
    "fashion-none-0-unpruned": (9.9, 10.0),
    "fashion-none-0-pruned": (8.4, 8.7),
}


def shipped(name: str) -> NeuronGraph:
    return chain_graph([np.abs(matrix) for matrix in networks.load(name)])


def expected_eigenvalues(graph: NeuronGraph, k: int) -> np.ndarray:
    L = reference.symmetric_laplacian(graph.adjacency.toarray().astype(float))
    return np.asarray(linalg.eigh(L, eigvals_only=True, subset_by_index=[0, k - 1]))


def scikit_learns_ncut(graph: NeuronGraph, k: int, seed: int) -> float:
    model = SpectralClustering(
        k, affinity="precomputed", n_init=25, assign_labels="kmeans", random_state=seed
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a graph that is not fully connected
        labels = model.fit_predict(graph.adjacency.astype(float))
    return normalized_cut(graph, labels)


def compare_with_scikit_learn(graph: NeuronGraph, n_shuffles: int) -> None:
    """The same shuffled graphs have the same n-cut on average, within 0.3 %."""
    ours, theirs = [], []
    for number in range(n_shuffles):
        shuffled = shuffle(graph, seed=11, number=number).without_isolated()[0]
        ours.append(cluster(shuffled, 12, n_init=25, seed=number).ncut)
        theirs.append(scikit_learns_ncut(shuffled, 12, number))
    assert np.mean(ours) == pytest.approx(np.mean(theirs), rel=0.003)


@pytest.mark.parametrize("name", networks.NAMES)
def test_shipped_networks_have_scipys_eigenvalues(solver: str, name: str) -> None:
    graph, _ = shipped(name).without_isolated()
    found = embedding_of(graph, 12, solver)
    np.testing.assert_allclose(found.eigenvalues, expected_eigenvalues(graph, 12), atol=1e-6)
    assert found.converged


@pytest.mark.slow
@pytest.mark.parametrize("name", networks.NAMES)
def test_shipped_networks_compare_with_scikit_learn(name: str) -> None:
    compare_with_scikit_learn(shipped(name), 10)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODEL_NAMES)
def test_eigenvalues_are_scipys(models_folder: Path, name: str) -> None:
    graph, _ = chain_graph(model_weights(models_folder, name)).without_isolated()
    expected = expected_eigenvalues(graph, 12)
    for solver in ("auto", "krylov", "arpack"):
        found = embedding_of(graph, 12, solver)
        np.testing.assert_allclose(found.eigenvalues, expected, atol=1e-6)
        assert found.converged


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_ncut_is_in_the_published_range(models_folder: Path, name: str) -> None:
    found = cluster(chain_graph(model_weights(models_folder, name)), 12)
    low, high = RANGES[name]
    assert low <= found.ncut <= high


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_refinement_lowers_the_ncut_by_a_little(models_folder: Path, name: str) -> None:
    graph = chain_graph(model_weights(models_folder, name))
    plain, refined = cluster(graph, 12), cluster(graph, 12, refine=True)
    assert 0.9 * plain.ncut < refined.ncut < plain.ncut
    assert refined.ncut >= refined.eigenvalues.sum()


@pytest.mark.slow
@pytest.mark.parametrize("name", MODEL_NAMES[1:])
def test_shuffles_compare_with_scikit_learn(models_folder: Path, name: str) -> None:
    compare_with_scikit_learn(chain_graph(model_weights(models_folder, name)), 4)
