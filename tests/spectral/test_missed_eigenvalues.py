"""Eigenvalues that repeat more often than a block is wide, and what happens if one is missed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hard_graphs import path, product, ring
from places import clustered_on
from samples import chain_graph, planted_chain
from scipy import linalg, sparse

import ncut
from ncut.graphs import NeuronGraph, from_adjacency
from ncut.spectral import embedding, solvers
from ncut.spectral.operator import NormalizedAdjacency
from ncut.spectral.shift_invert import is_long_and_thin
from ncut.types import Clustering

K = 20
WEIGHT = 1e-6


def joined(part: sparse.csr_array, number: int, weight: float) -> sparse.csr_array:
    """A graph many times, each vertex joined weakly to all its copies."""
    between = sparse.csr_array(np.ones((number, number)) - np.eye(number))
    copies = sparse.kron(sparse.eye_array(number), part)
    return sparse.csr_array(copies + weight * sparse.kron(between, sparse.eye_array(part.shape[0])))


@pytest.mark.parametrize("k", [12, 17, 18, 20])
@pytest.mark.parametrize("name", ["auto", "krylov", "shift-invert", "arpack", "lobpcg"])
def test_twenty_tori_have_nineteen_equal_eigenvalues(name: str, k: int) -> None:
    found = ncut.cluster(joined(product(ring(10), ring(10)), K, WEIGHT), k, n_init=1, solver=name)
    exact = np.full(k, 1 - (4 - WEIGHT) / (4 + WEIGHT * (K - 1)))
    exact[0] = 0
    np.testing.assert_allclose(found.eigenvalues, exact, atol=1e-8)
    assert found.converged or name == "lobpcg"  # which stops at a residual of 1e-6
    assert found.lower_bound <= found.refined_ncut
    assert found.lower_bound <= exact.sum() + 1e-12


@pytest.mark.parametrize("k", [18, 19, 20])
@pytest.mark.parametrize("name", ["auto", "krylov", "gram"])
def test_twenty_modules_of_a_layered_network(name: str, k: int) -> None:
    size = 30
    module = np.eye(size) + np.roll(np.eye(size), 1, 0) + np.roll(np.eye(size), -1, 0)
    between = np.kron(np.ones((K, K)) - np.eye(K), np.eye(size))
    graph = ncut.graph([np.kron(np.eye(K), module) + WEIGHT * between] * 3)
    planted = ncut.normalized_cut(graph, np.tile(np.repeat(np.arange(K), size), 4))
    found = ncut.cluster(graph, k, n_init=1, solver=name)
    assert found.converged
    assert found.lower_bound <= min(planted, found.refined_ncut)
    assert found.eigenvalues[-1] < 1e-5


def test_a_profile_of_equal_modules_is_bounded() -> None:
    module = np.ones((12, 12))
    matrix = np.kron(np.eye(K), module) + 1e-4 * np.ones((12 * K, 12 * K))
    graph = chain_graph([matrix, matrix])
    profile = ncut.profile(graph, k=[18, 19, 20], shuffles=0)
    for statistics in profile.statistics:
        assert statistics["lower_bound"].value <= statistics["refined_ncut"].value


def test_a_path_of_thousands_falls_into_halves() -> None:
    n = 3000
    found = ncut.cluster(path(n), 2)
    assert found.converged
    assert found.solver == "shift-invert"
    assert np.count_nonzero(np.diff(found.labels)) == 1
    assert found.ncut == pytest.approx(2 / (n - 1), rel=1e-3)
    assert found.eigenvalues[1] == pytest.approx(1 - np.cos(np.pi / (n - 1)), rel=1e-6)


def test_a_solver_that_fails_on_a_path_reports_it() -> None:
    found = ncut.cluster(path(1500), 2, solver="krylov", n_init=1)
    assert not found.converged
    assert found.lower_bound <= found.refined_ncut


def test_long_and_thin_graphs_are_recognized() -> None:
    random = np.random.default_rng(3)
    upper = sparse.triu(sparse.random_array((500, 500), density=0.02, rng=random), 1)
    graphs = {
        "path": path(400),
        "grid": product(path(30), path(30)),
        "tori apart": sparse.block_diag([product(ring(8), ring(8))] * 5),
        "cube": product(product(path(5), path(5)), path(5)),
        "random": sparse.csr_array(upper + upper.T) + path(500),
        "complete": np.ones((60, 60)),
    }
    found = {name: is_long_and_thin(_operator(graph)) for name, graph in graphs.items()}
    thin = [name for name, is_thin in found.items() if is_thin]
    assert thin == ["path", "grid", "tori apart"]
    assert not is_long_and_thin(NormalizedAdjacency(chain_graph([np.ones((30, 20))] * 1), 1))


def _operator(graph: Any) -> NormalizedAdjacency:
    return NormalizedAdjacency(from_adjacency(graph), 1)


def planted() -> NeuronGraph:
    """Four modules over three layers, of 240 vertices."""
    return chain_graph(planted_chain(3, 3, 80, 4, 0.002)[0])


def missing(solver: Callable[..., Any]) -> Callable[..., Any]:
    """The solver without the two largest of the eigenvectors it is asked for."""

    def broken(operator: Any, known: Any, k: int, rng: Any, **options: Any) -> Any:
        vectors, following = solver(operator, known, k + 2, rng, **options)
        values = np.linalg.norm(operator.apply(np.pad(vectors, ((0, 0), (0, 16 - k - 2)))), axis=0)
        return vectors[:, np.argsort(values[: k + 2])[:k]], following

    return broken


@pytest.mark.parametrize("last_dense", [0, 4000])
def test_a_miss_that_a_cut_proves_leads_to_another_look(
    monkeypatch: pytest.MonkeyPatch, last_dense: int
) -> None:
    right = ncut.cluster(planted(), 4)
    monkeypatch.setattr(solvers, "LAST_DENSE", last_dense)
    monkeypatch.setitem(solvers.ALL, "gram", missing(solvers.gram))
    found = ncut.cluster(planted(), 4, solver="gram")
    check_same(found, right)
    assert found.solver == ("dense" if last_dense else "krylov-float64")


@pytest.mark.parametrize("last_dense", [0, 4000])
def test_a_miss_on_a_device_leads_to_another_look(
    monkeypatch: pytest.MonkeyPatch, last_dense: int
) -> None:
    right = ncut.cluster(planted(), 4)
    monkeypatch.setattr(solvers, "LAST_DENSE", last_dense)
    monkeypatch.setitem(solvers.ALL, "gram", missing(solvers.gram))
    found = clustered_on(planted(), "numpy", 4, n_init=10, solver="gram")
    check_same(found, right)
    assert found.solver == ("dense" if last_dense else "krylov-float64")


def check_same(found: Clustering, right: Clustering) -> None:
    assert found.converged
    np.testing.assert_allclose(found.eigenvalues, right.eigenvalues, atol=1e-6)
    assert found.refined_ncut == pytest.approx(right.refined_ncut, rel=1e-9)
    assert found.lower_bound <= found.refined_ncut


def test_without_improvement_no_claim_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = missing(solvers.dense)
    monkeypatch.setitem(solvers.ALL, "dense", broken)
    monkeypatch.setattr(solvers, "dense", broken)
    found = ncut.cluster(planted(), 4, solver="dense")
    assert not found.converged
    assert found.lower_bound == 0


def test_lapack_solves_every_barbell() -> None:
    def refuse(matrix: Any, **options: Any) -> Any:
        if "subset_by_index" in options:
            raise linalg.LinAlgError("Internal Error.")
        return np.linalg.eigh(matrix)

    def too_few(matrix: Any, **options: Any) -> Any:
        values, vectors = np.linalg.eigh(matrix)
        return (
            (values[-40:], vectors[:, -40:]) if "subset_by_index" in options else (values, vectors)
        )

    clique, bridge = 40, 50
    n = 2 * clique + bridge
    matrix = np.zeros((n, n))
    matrix[:clique, :clique] = matrix[-clique:, -clique:] = 1
    at = np.arange(clique - 1, clique + bridge)
    matrix[at, at + 1] = matrix[at + 1, at] = 1
    np.fill_diagonal(matrix, 0)
    scale = 1 / np.sqrt(matrix.sum(axis=1))
    exact = 1 - np.linalg.eigvalsh(scale[:, None] * matrix * scale)[::-1][:43]
    for eigh in (linalg.eigh, refuse, too_few):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(linalg, "eigh", eigh)
            found = ncut.cluster(matrix, 43, n_init=1, solver="dense")
        np.testing.assert_allclose(found.eigenvalues, exact, atol=1e-12)


def test_a_second_search_has_other_start_vectors() -> None:
    starts = [embedding.numpy_generator(1, 2, 0, look).standard_normal(4) for look in range(3)]
    assert len({start.tobytes() for start in starts}) == 3
