"""Eigenvectors on a device, against the dense Laplacian and the CPU's embedding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import array_api_strict
import numpy as np
import pytest
from places import NAMESPACES, PLACES, placed_graph
from samples import chain_graph, embedding_of, random_chain, side_by_side, skip_graph
from scipy import sparse

from ncut import kernels, reference
from ncut.device.devices import host_device
from ncut.device.embedding import component_vectors, embed_on_device
from ncut.device.graph import upload
from ncut.device.operator import DeviceOperator
from ncut.device.solve import choose_solver
from ncut.errors import InputError
from ncut.graphs import NeuronGraph, from_adjacency
from ncut.spectral import krylov as krylov_module
from ncut.spectral import solvers
from ncut.spectral.krylov import block_lanczos

GRAPHS: dict[str, Callable[[], NeuronGraph]] = {
    "chain": lambda: chain_graph(random_chain(3, (230, 180, 210), dtype=np.float32)),
    "sparse": lambda: chain_graph(random_chain(7, (300, 350, 250), 0.03)).without_isolated()[0],
    "skip": lambda: skip_graph(13, (90, 140, 80)),
    "one layer": lambda: from_adjacency(
        chain_graph(random_chain(3, (130, 150), 0.2)).adjacency
    ).without_isolated()[0],
    "several components": lambda: chain_graph(
        side_by_side(*[random_chain(s, (60, 50, 70)) for s in range(4)])
    ),
    "more components than k": lambda: chain_graph(
        side_by_side(*[random_chain(s, (3, 4, 5)) for s in range(9)])
    ),
}
K = 6


def path_graph(n: int) -> NeuronGraph:
    return from_adjacency(
        sparse.csr_array(sparse.diags_array([np.ones(n - 1)] * 2, offsets=[1, -1]))
    )


def embedded(graph: NeuronGraph, place: str, solver: str, k: int = K) -> Any:
    operator = DeviceOperator(placed_graph(graph, place))
    return operator, embed_on_device(operator, k, solver=solver, seed=3, graph_number=0)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", GRAPHS)
def test_eigenvalues_on_a_device(name: str, place: str) -> None:
    graph = GRAPHS[name]()
    _, found = embedded(graph, place, "auto")
    laplacian = reference.symmetric_laplacian(graph.adjacency.toarray().astype(float))
    expected = np.linalg.eigvalsh(laplacian)[:K]
    np.testing.assert_allclose(found.eigenvalues, expected, atol=1e-6)
    assert found.converged
    assert found.lower_bound() <= expected.sum() + 1e-9


@pytest.mark.parametrize("name", NAMESPACES)
@pytest.mark.parametrize("solver", ["krylov", "gram", "dense"])
@pytest.mark.parametrize("graph_name", ["chain", "sparse", "skip", "several components"])
def test_each_solver_finds_eigenvectors(graph_name: str, solver: str, name: str) -> None:
    graph = GRAPHS[graph_name]()
    if graph_name == "skip" and solver == "gram":
        with pytest.raises(InputError, match="two colours"):
            embedded(graph, name, solver)
        return
    operator, found = embedded(graph, name, solver)
    assert found.solver == solver
    points = operator.device.to_host(found.points)
    roots = np.sqrt(operator.degrees)[:, None]
    vectors = points * roots
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(K), atol=1e-9)
    laplacian = reference.symmetric_laplacian(graph.adjacency.toarray().astype(float))
    residual = laplacian @ vectors - vectors * found.eigenvalues
    assert np.linalg.norm(residual, axis=0).max() == pytest.approx(found.residual, abs=1e-9)
    assert found.residual < (1e-3 if solver == "krylov" else 1e-9)


@pytest.mark.parametrize("place", PLACES)
def test_the_same_starts_give_the_cpus_embedding(place: str) -> None:
    graph = GRAPHS["chain"]()
    ours = embedding_of(graph, K, "krylov")
    operator, found = embedded(graph, place, "krylov")
    np.testing.assert_allclose(found.eigenvalues, ours.eigenvalues, atol=1e-8)
    scale = np.abs(ours.points).max()
    signs = np.sign((ours.points * operator.device.to_host(found.points)).sum(axis=0))
    there = operator.device.to_host(found.points) * signs
    np.testing.assert_allclose(there, ours.points, atol=0.01 * scale)


@pytest.mark.parametrize("place", PLACES)
def test_component_vectors_on_a_device(place: str) -> None:
    graph = GRAPHS["more components than k"]()
    operator = DeviceOperator(placed_graph(graph, place))
    vectors = operator.device.to_host(component_vectors(operator, 5))
    assert vectors.shape == (graph.n_vertices, 5)
    component = kernels.components(graph.n_vertices, graph.placed_blocks())
    volumes = np.bincount(component, weights=graph.degrees)
    for column, number in enumerate(np.argsort(-volumes)[:5]):
        expected = np.sqrt(graph.degrees / volumes[number]) * (component == number)
        np.testing.assert_allclose(vectors[:, column], expected, atol=1e-12)


def test_single_precision_that_does_not_converge_is_repeated_in_double(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(solvers, "SINGLE_PRECISION", 0.01)
    _, found = embedded(path_graph(200), "numpy", "krylov", k=3)
    assert found.solver == "krylov-float64"
    assert found.converged


def test_a_long_path_is_solved_on_a_device_too() -> None:
    graph = path_graph(800)
    _, honest = embedded(graph, "numpy", "krylov", k=3)
    assert not honest.converged
    _, found = embedded(graph, "numpy", "auto", k=3)
    assert found.converged
    expected = 1 - np.cos(np.pi * np.arange(3) / 799)
    np.testing.assert_allclose(found.eigenvalues, expected, rtol=1e-6, atol=1e-14)


def test_faint_vertices_are_settled_on_a_device() -> None:
    weights = random_chain(35, (60, 70, 50))
    weights[0][3, :] *= 1e-25
    weights[1][:, 4] *= 1e-25
    graph = chain_graph(weights)
    ours = embedding_of(graph, K, "dense")
    for place in ("numpy", "strict", "numpy, streamed"):
        operator, found = embedded(graph, place, "dense" if place != "numpy, streamed" else "auto")
        points = operator.device.to_host(found.points)
        signs = np.sign((ours.points * points).sum(axis=0))
        tolerance = 0.02 * np.abs(ours.points).max()
        np.testing.assert_allclose(points * signs, ours.points, atol=tolerance)


@pytest.mark.parametrize("solver", ["arpack", "lobpcg"])
def test_solvers_of_the_cpu_are_refused(solver: str) -> None:
    with pytest.raises(InputError, match=f"'{solver}' runs on the CPU only"):
        embedded(GRAPHS["chain"](), "numpy", solver)
    with pytest.raises(InputError, match="must be one of"):
        embedded(GRAPHS["chain"](), "numpy", "nonsense")


def test_krylov_refuses_what_is_too_small() -> None:
    with pytest.raises(InputError, match="krylov needs a larger graph"):
        embedded(chain_graph(random_chain(3, (9, 14, 8))), "numpy", "krylov")


def test_dense_matrices_that_do_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ncut.device.solve.ALWAYS", 0)
    graph = GRAPHS["chain"]()
    operator = DeviceOperator(upload(graph, host_device(budget=2**20)))
    with pytest.raises(InputError, match="does not fit on the device"):
        embed_on_device(operator, K, solver="dense", seed=0, graph_number=0)


def test_auto_is_dense_for_small_graphs_and_krylov_for_large_ones() -> None:
    small = DeviceOperator(placed_graph(chain_graph(random_chain(3, (9, 14, 12))), "numpy"))
    assert choose_solver(small, 1, 5) == "gram"
    assert choose_solver(small, 1, 15) == "dense"
    assert choose_solver(DeviceOperator(placed_graph(GRAPHS["chain"](), "numpy")), 1, 5) == "krylov"


@pytest.mark.parametrize("name", NAMESPACES)
def test_lanczos_in_a_namespace_survives_a_block_that_loses_its_rank(name: str) -> None:
    """Start vectors that are all alike, and a matrix with two eigenvalues."""
    device = host_device(NAMESPACES[name])
    vectors, _ = np.linalg.qr(np.random.default_rng(5).normal(size=(300, 300)))
    H = device.asarray((vectors * np.repeat([0.9, 0.1], [7, 293])) @ vectors.T)
    start = np.random.default_rng(7).normal(size=(300, 16))
    start[:, 8:] = start[:, :8]
    found = block_lanczos(
        lambda x: H @ x,
        device.asarray(start),
        device.asarray(np.zeros((300, 0))),
        7,
        tolerance=lambda values: np.full(values.size, 1e-8),
        max_blocks=12,
        max_products=300,
        arrays=device,
    )
    np.testing.assert_allclose(found.values, 0.9, atol=1e-9)
    Q = device.to_host(found.vectors)
    np.testing.assert_allclose(Q.T @ Q, np.eye(7), atol=1e-9)


def test_few_results_of_a_product_come_to_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two small arrays for each product: what a GPU is waited for."""
    fetched: list[tuple[int, ...]] = []

    class Counting:
        xp = array_api_strict

        def asarray(self, host: Any) -> Any:
            return array_api_strict.asarray(host)

        def to_host(self, array: Any) -> Any:
            fetched.append(array.shape)
            return np.asarray(array)

    def no_kernel(*arguments: Any) -> None:
        raise AssertionError("a kernel of the host was called")

    monkeypatch.setattr(krylov_module.kernels, "orthonormalize", no_kernel)
    H, _ = np.linalg.qr(np.random.default_rng(5).normal(size=(400, 400)))
    H = (H * np.linspace(1, 0, 400)) @ H.T
    on_device = array_api_strict.asarray(H)
    found = block_lanczos(
        lambda x: on_device @ x,
        array_api_strict.asarray(np.random.default_rng(7).normal(size=(400, 16))),
        array_api_strict.zeros((400, 0), dtype=array_api_strict.float64),
        5,
        tolerance=lambda values: np.full(values.size, 1e-6),
        max_blocks=8,
        max_products=300,
        arrays=Counting(),
    )
    np.testing.assert_allclose(found.values, np.linspace(1, 0, 400)[:5], atol=1e-9)
    assert len(fetched) <= 2 * (found.n_products + 1) + 2
    assert max(shape[0] for shape in fetched) <= 9 * 16
