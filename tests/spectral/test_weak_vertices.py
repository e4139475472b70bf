"""Vertices with next to no edge weight: their points come from their neighbours, not from error."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from sklearn.cluster import KMeans

import ncut
from ncut.graphs import NeuronGraph, from_adjacency
from ncut.spectral.agreement import adjusted_rand_index
from ncut.spectral.clustering import cluster
from ncut.spectral.embedding import embed
from ncut.spectral.kmeans import partition
from ncut.spectral.operator import NormalizedAdjacency
from ncut.spectral.weak_vertices import MANY, corrected

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
    found, solved = corrected(graph, points, np.zeros(4))
    assert found is points
    assert solved


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


def paths_on_groups(n_groups: int, weak: float) -> NeuronGraph:
    """Dense groups, nearly apart, and paths of weak edges that hang on them, of many lengths."""
    random = np.random.default_rng(11)
    lengths = range(10, 40, 3)
    n_core = 12 * n_groups
    n = n_core + sum(lengths)
    A = sparse.lil_array((n, n))
    groups = np.arange(n_core) // 12
    dense = random.uniform(0.5, 1, (n_core, n_core)) * np.where(groups[:, None] == groups, 1, 1e-7)
    A[:n_core, :n_core] = np.triu(dense, 1)
    at = n_core
    for number, length in enumerate(lengths):
        stops = [number % n_core, *range(at, at + length)]
        for one, other in itertools.pairwise(stops):
            A[one, other] = weak * random.uniform(0.5, 1)
        at += length
    upper = A.tocsr()
    return from_adjacency(upper + upper.T)


@pytest.mark.parametrize(
    ("n_iterations", "last_dense", "solved"),
    [((200, 2000), 0, True), ((5, 5), 4000, True), ((5, 5), 0, False)],
)
def test_iterations_that_do_not_converge_are_noticed(
    monkeypatch: pytest.MonkeyPatch, n_iterations: tuple[int, ...], last_dense: int, solved: bool
) -> None:
    """Vertices of a path know their neighbours only: each iteration reaches one further."""
    graph = paths_on_groups(3, 1e-30)
    faint = graph.degrees < 1e-6 * graph.degrees.mean()
    assert 200 < faint.sum() < MANY
    random = np.random.default_rng(14)
    points, eigenvalues = random.normal(size=(graph.n_vertices, 2)), np.array([1e-8, 1e-4])
    points[faint] *= 1e-8 / np.sqrt(graph.degrees[faint])[:, None]  # a solver's rounding errors
    by_lapack, _ = corrected(graph, points, eigenvalues)
    monkeypatch.setattr("ncut.spectral.weak_vertices.MANY", 100)
    monkeypatch.setattr("ncut.spectral.weak_vertices.MAX_ITERATIONS", n_iterations)
    monkeypatch.setattr("ncut.spectral.weak_vertices.LAST_DENSE", last_dense)
    found, right = corrected(graph, points, eigenvalues)
    assert right == solved
    error = np.abs(found - by_lapack).max() / np.abs(by_lapack).max()
    assert error < 1e-6 if solved else error > 1
    operator = NormalizedAdjacency(graph, 1)
    embedding = embed(operator, 3, solver="krylov", seed=0, graph_number=0)
    assert embedding.solved == embedding.converged == solved


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


def components_apart(scale: float) -> tuple[NeuronGraph, np.ndarray]:
    """Two planted groups, and a component of weights `scale` times theirs; the three groups."""
    random = np.random.default_rng(12)
    groups = np.repeat([0, 1, 2], (90, 90, 60))
    same = groups[:, None] == groups
    ours = (groups < 2)[:, None] & (groups < 2)
    share = np.where(same, 1.0, np.where(ours, 0.02, 0.0)) * np.where(ours, 1.0, scale)
    upper = np.triu(random.uniform(0.5, 1, same.shape) * share, 1)
    return from_adjacency(sparse.csr_array(upper + upper.T)), groups


@pytest.mark.parametrize("scale", [1e-4, 1e-10, 1e-14, 1e-20, 1e-30, 1e-44, 1e-90, 1e-200])
def test_a_component_whose_points_are_far_outside_hides_no_groups(scale: float) -> None:
    """Points of the faint component are scale^-1/2 times as long as those of the two groups."""
    graph, groups = components_apart(scale)
    for solver in ("dense", "krylov", "auto"):
        found = cluster(graph, 3, solver=solver)
        table = np.zeros((3, 3))
        np.add.at(table, (found.labels, groups), 1)
        assert np.count_nonzero(table) == 3, table
    exact = ncut.normalized_cut(graph, groups)
    assert found.ncut == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("scale", [1e-2, 1e-6, 1e-10, 1e-13])
def test_no_worse_than_scikit_learn_in_double_precision(scale: float) -> None:
    graph, _ = components_apart(scale)
    points, _ = points_of(graph, 4, "dense")
    labels = partition(points, 4, n_init=25, seed=0, stream=0, threads=1)
    ours = sum(
        float(((points[labels == c] - points[labels == c].mean(axis=0)) ** 2).sum())
        for c in range(4)
    )
    theirs = KMeans(4, n_init=25, random_state=0, tol=0).fit(points).inertia_
    assert ours <= theirs * (1 + 1e-6)


def test_points_far_from_the_origin_are_told_apart() -> None:
    random = np.random.default_rng(13)
    groups = np.arange(90) % 3
    points = random.normal(size=(90, 2)) * 1e-2 + np.eye(3)[groups][:, :2]
    near = partition(points, 3, n_init=10, seed=0, stream=0, threads=1)
    for offset in (1e2, 1e4, 1e6):
        far = partition(points + offset, 3, n_init=10, seed=0, stream=0, threads=1)
        assert adjusted_rand_index(near, far) == 1.0
        assert adjusted_rand_index(far, groups) == 1.0


def test_points_as_long_as_numbers_go() -> None:
    points = np.repeat([[1.0, 0.0], [0.0, 1.0], [1e-70, 1e-70], [1e-70, -1e-70]], 5, axis=0)
    for scale in (1.0, 1e200, 1e300, 1e-200):
        labels = partition(points * scale, 4, n_init=10, seed=0, stream=0, threads=1)
        assert [len(set(part)) for part in labels.reshape(4, 5)] == [1, 1, 1, 1]
        assert len(set(labels)) == 4
