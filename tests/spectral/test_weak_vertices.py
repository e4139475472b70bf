"""Vertices with next to no edge weight: their points come from their neighbours, not from error."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

import ncut
from ncut.graphs import NeuronGraph, from_adjacency
from ncut.spectral.clustering import cluster
from ncut.spectral.embedding import embed
from ncut.spectral.operator import NormalizedAdjacency

WIDTHS = (160, 120, 120, 48)
FIRST, SECOND = 160, 280
"""First vertices of the two hidden layers."""


def network(seed: int, weak: float, n_faint: int = 6) -> list[np.ndarray]:
    """A planted network of four groups; some neurons of both hidden layers have weak weights."""
    random = np.random.default_rng(seed)
    groups = [np.arange(width) % 4 for width in WIDTHS]
    weights = [
        random.uniform(0.5, 1.0, (m, n)) * np.where(a[:, None] == b, 1.0, 0.05)
        for m, n, a, b in zip(WIDTHS, WIDTHS[1:], groups, groups[1:], strict=False)
    ]
    for layer in (0, 1):
        weights[layer][:, :n_faint] *= weak
        weights[layer + 1][:n_faint] *= weak
    return weights


def points_of(graph: NeuronGraph, k: int, solver: str) -> tuple[np.ndarray, np.ndarray]:
    operator = NormalizedAdjacency(graph, 1)
    found = embed(operator, k, solver=solver, seed=0, graph_number=0)
    return found.points, found.eigenvalues


@pytest.mark.parametrize("weak", [1e-7, 1e-12, 1e-30, 1e-40])
def test_points_satisfy_the_eigenvectors_equation_in_every_row(weak: float, solver: str) -> None:
    graph = ncut.graph(network(1, weak))
    points, eigenvalues = points_of(graph, 4, solver)
    A = graph.adjacency.toarray().astype(np.longdouble)
    walked = (A @ points.astype(np.longdouble)) / A.sum(axis=1)[:, None]
    faint_rows = graph.degrees < 1e-6 * graph.degrees.mean()
    assert faint_rows.sum() == 12
    error = np.abs(walked - (1 - eigenvalues) * points)[faint_rows]
    assert float(error.max()) < 1e-6 * np.abs(points).max()


def test_a_weak_neuron_does_not_affect_the_others(solver: str) -> None:
    weights = network(2, 1e-25)
    with_them = ncut.cluster(ncut.graph(weights), 4, solver=solver)
    removed = [weights[0][:, 6:], weights[1][6:, 6:], weights[2][6:]]
    without = ncut.cluster(ncut.graph(removed), 4, solver=solver)
    assert with_them.ncut == pytest.approx(without.ncut, rel=1e-6)
    kept = np.ones(sum(WIDTHS), bool)
    kept[FIRST : FIRST + 6] = kept[SECOND : SECOND + 6] = False
    table = np.zeros((4, 4))
    np.add.at(table, (with_them.labels[kept], without.labels), 1)
    assert np.count_nonzero(table) == 4


def test_faint_neurons_join_the_group_they_are_tied_to() -> None:
    weights = network(3, 1e-20)
    labels = ncut.cluster(ncut.graph(weights), 4).labels
    for layer in (labels[FIRST:SECOND], labels[SECOND : SECOND + WIDTHS[2]]):
        for neuron in range(6):
            assert layer[neuron] == layer[neuron + 8]


def test_in_single_precision_below_its_smallest_normal_number() -> None:
    weights = [w.astype(np.float32) for w in network(4, 1e-20)]
    # The weak neurons' weights to each other are 1e-40: denormal in single precision.
    assert 0 < weights[1][:6, :6].max() < np.finfo(np.float32).tiny
    found = ncut.cluster(ncut.graph(weights), 4)
    exact = ncut.cluster(ncut.graph([w.astype(np.float64) for w in weights]), 4, solver="dense")
    assert found.ncut == pytest.approx(exact.ncut, rel=1e-5)


def test_a_component_of_faint_vertices_keeps_its_own_eigenvector() -> None:
    random = np.random.default_rng(5)
    weights = np.zeros((12, 12))
    weights[:8, :8] = random.uniform(0.5, 1, (8, 8))
    weights[8:, 8:] = random.uniform(0.5, 1, (4, 4)) * 1e-20
    last = np.vstack([np.eye(8), np.zeros((4, 8))])
    last[8:, 7] = 0
    graph = ncut.graph([weights, last])
    points, eigenvalues = points_of(graph, 2, "auto")
    assert eigenvalues == pytest.approx([0, 0], abs=1e-12)
    found = cluster(graph, 2)
    assert found.ncut == pytest.approx(0, abs=1e-12)
    assert len(set(found.labels[[8, 9, 20, 21]])) == 1
    assert points[8, 1] != pytest.approx(points[0, 1])


@given(st.integers(0, 10_000), st.sampled_from([1e-4, 1e-2]))
def test_graphs_without_weak_vertices_are_unchanged(seed: int, weak: float) -> None:
    graph = ncut.graph(network(seed, weak, 2))
    assert not (graph.degrees < 1e-6 * graph.degrees.mean()).any()
    points, _ = points_of(graph, 4, "dense")
    from ncut.spectral.weak_vertices import corrected

    assert corrected(graph, points, np.zeros(4)) is points


def heavy_edge(n: int, weight: float) -> tuple[sparse.csr_array, sparse.csr_array]:
    """A sparse random graph, and the same with one edge that makes all other vertices weak."""
    random = np.random.default_rng(3)
    i, j = random.integers(0, n, (2, 5 * n))
    apart = i != j
    upper = sparse.coo_array((np.ones(apart.sum()), (i[apart], j[apart])), shape=(n, n))
    plain = sparse.csr_array(upper + upper.T)
    edge = sparse.csr_array(([weight, weight], ([0, 3], [3, 0])), shape=(n, n))
    return plain, sparse.csr_array(plain + edge)


def test_many_faint_vertices_take_no_dense_matrix() -> None:
    _, heavy = heavy_edge(4000, 1e11)
    assert (heavy.sum(axis=0) < 1e-6 * heavy.sum(axis=0).mean()).sum() > 3900
    graph = from_adjacency(heavy).without_isolated()[0]
    tracemalloc.start()
    points, eigenvalues = points_of(graph, 3, "krylov")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4000**2 * 8 / 2
    walked = graph.adjacency @ points / graph.degrees[:, None]
    assert np.abs(walked - (1 - eigenvalues) * points).max() < 1e-3 * np.abs(points).max()


def test_iteration_and_lapack_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = ncut.graph(network(6, 1e-9, 40))
    by_lapack, _ = points_of(graph, 4, "dense")
    monkeypatch.setattr("ncut.spectral.weak_vertices.MANY", 10)
    by_iteration, _ = points_of(graph, 4, "dense")
    np.testing.assert_allclose(by_iteration, by_lapack, atol=1e-7 * np.abs(by_lapack).max())


def test_the_faintest_follow_the_faint(monkeypatch: pytest.MonkeyPatch) -> None:
    # A neuron a million times fainter than weak ones, tied to these alone.
    weights = network(7, 1e-8)
    weights[1][0, :] *= 0.0
    weights[1][0, 0] = 1e-30
    weights[0][:, 0] = 0.0
    graph, _ = ncut.graph(weights).without_isolated()
    for many in (400, 5):
        monkeypatch.setattr("ncut.spectral.weak_vertices.MANY", many)
        points, eigenvalues = points_of(graph, 4, "dense")
        faintest = int(graph.degrees.argmin())
        (other,) = graph.adjacency[[faintest]].indices
        expected = points[other] / (1 - eigenvalues)
        np.testing.assert_allclose(points[faintest], expected, rtol=1e-6)
