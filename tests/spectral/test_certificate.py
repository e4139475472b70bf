"""The certificate: lower bound <= every partition, refined <= spectral, closed where exact."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import (
    Matrices,
    chain_graph,
    embedding_of,
    planted_chain,
    random_chain,
    side_by_side,
    side_by_side_labels,
    skip_graph,
    small_chains,
)

import ncut
from ncut import reference
from ncut.graphs import NeuronGraph
from ncut.spectral.agreement import adjusted_rand_index
from ncut.spectral.embedding import Embedding, rayleigh_ritz
from ncut.spectral.operator import NormalizedAdjacency

ROUNDING = 1e-9


def exact_bound(graph: NeuronGraph, k: int) -> float:
    """Sum of the k smallest eigenvalues, by LAPACK."""
    A = reference.adjacency(graph.n_vertices, graph.placed_blocks())
    return float(reference.laplacian_eigenvalues(A)[:k].sum())


@given(small_chains(), st.integers(2, 4), st.integers(0, 1000))
@settings(deadline=None)
def test_no_partition_is_below_the_lower_bound(weights: Matrices, k: int, seed: int) -> None:
    graph, _ = chain_graph(weights).without_isolated()
    if graph.n_vertices <= k:
        return
    found = ncut.cluster(graph, k, n_init=2, seed=seed)
    assert found.lower_bound <= found.refined_ncut <= found.spectral_ncut <= k
    rng = np.random.default_rng(seed)
    for _ in range(5):
        labels = rng.permutation(np.arange(graph.n_vertices) % k)
        assert found.lower_bound <= ncut.normalized_cut(graph, labels)


@pytest.mark.parametrize("solver", ["krylov", "gram", "dense", "arpack", "lobpcg"])
@pytest.mark.parametrize("k", [2, 5, 12])
def test_the_lower_bound_is_just_below_the_sum_of_eigenvalues(solver: str, k: int) -> None:
    graph = chain_graph(random_chain(4, (300, 260, 280, 300)))
    found = ncut.cluster(graph, k, n_init=1, solver=solver)
    exact = exact_bound(graph, k)
    assert exact - 2e-3 * k <= found.lower_bound <= exact


def test_the_lower_bound_of_a_graph_with_skip_connections() -> None:
    graph = skip_graph(3, (60, 70, 50))
    found = ncut.cluster(graph, 6, n_init=2)
    assert exact_bound(graph, 6) - 1e-2 <= found.lower_bound <= exact_bound(graph, 6)


@given(st.integers(0, 1000), st.floats(1e-8, 0.03))
@settings(deadline=None, max_examples=40)
def test_the_bound_allows_for_the_solvers_error(seed: int, error: float) -> None:
    graph = chain_graph(random_chain(seed, (20, 25, 15)))
    operator = NormalizedAdjacency(graph, 1)
    A = reference.adjacency(graph.n_vertices, graph.placed_blocks())
    values, vectors = np.linalg.eigh(reference.symmetric_laplacian(A))
    k = 5
    rng = np.random.default_rng(seed)
    rough = vectors[:, :k] + error * rng.standard_normal((graph.n_vertices, k))
    placed = np.empty_like(rough)
    placed[operator.place] = rough
    mu, _, residuals = rayleigh_ritz(operator, placed)
    embedding = Embedding(np.zeros((graph.n_vertices, k)), 1 - mu, "rough", residuals, 1.0)
    exact = values[:k].sum()
    assert embedding.eigenvalues.sum() >= exact - ROUNDING  # what it would be without allowance
    assert embedding.bound_by_residuals() <= exact + ROUNDING


@pytest.mark.parametrize("k", [2, 3, 4])
def test_the_certificate_closes_on_disconnected_parts(k: int) -> None:
    parts = [random_chain(seed, (12, 9, 10), 1.0) for seed in range(k)]
    graph = chain_graph(side_by_side(*parts))
    found = ncut.cluster(graph, k)
    assert found.spectral_ncut - found.lower_bound < 1e-6
    assert found.spectral_ncut == found.refined_ncut == 0
    agreement = adjusted_rand_index(found.labels, side_by_side_labels(*parts))
    assert agreement == 1


@pytest.mark.parametrize("noise", [0.01, 0.05, 0.1])
def test_planted_parts_are_recovered_and_nearly_certified(noise: float) -> None:
    weights, group = planted_chain(3, 4, 15, 4, noise)
    found = ncut.cluster(chain_graph(weights), 4)
    assert adjusted_rand_index(found.labels, group) == 1
    assert found.refined_ncut - found.lower_bound < 0.02 * found.refined_ncut + 1e-6


def test_the_order_of_neurons_changes_no_bound() -> None:
    weights, _ = planted_chain(5, 3, 20, 4, 0.3)
    rng = np.random.default_rng(1)
    orders = [rng.permutation(60) for _ in range(4)]
    moved = [matrix[np.ix_(orders[i], orders[i + 1])] for i, matrix in enumerate(weights)]
    one, other = (ncut.cluster(chain_graph(w), 3) for w in (weights, moved))
    for name in ("spectral_ncut", "refined_ncut", "modularity", "clusterability"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-6)
    assert one.lower_bound == pytest.approx(other.lower_bound, abs=1e-3)


def test_the_scale_of_all_weights_changes_nothing() -> None:
    weights = random_chain(5, (20, 30, 25))
    one, other = (ncut.cluster(chain_graph([c * w for w in weights]), 4) for c in (1.0, 64.0))
    assert one.lower_bound == pytest.approx(other.lower_bound, abs=1e-6)
    np.testing.assert_array_equal(one.labels, other.labels)


def test_an_embedding_in_fewer_vectors_is_the_first_of_them() -> None:
    graph = chain_graph(random_chain(5, (40, 50, 45)))
    whole = embedding_of(graph, 10, "dense")
    for k in (2, 5, 10):
        part = whole.first(k)
        np.testing.assert_array_equal(part.points, whole.points[:, :k])
        assert part.lower_bound() <= exact_bound(graph, k)
        assert part.lower_bound() == pytest.approx(exact_bound(graph, k), abs=1e-9)
