"""Eigenvectors on a device, against the dense Laplacian and the CPU's embedding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import array_api_strict
import numpy as np
import pytest
from places import NAMESPACES, PLACES, operator_on
from samples import chain_graph, embedding_of, random_chain, side_by_side, skip_graph
from scipy import sparse

from ncut import reference
from ncut.device.devices import Device, host_device
from ncut.device.graph import upload
from ncut.device.operator import DeviceOperator
from ncut.errors import InputError
from ncut.graphs import NeuronGraph, from_adjacency
from ncut.spectral import krylov as krylov_module
from ncut.spectral import solvers
from ncut.spectral.accuracy import LARGEST_GOAL
from ncut.spectral.embedding import Embedding, embed
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
RESIDUALS = {"krylov": 1e-3, "shift-invert": LARGEST_GOAL, "lobpcg": 1e-5}


def path_graph(n: int) -> NeuronGraph:
    return from_adjacency(
        sparse.csr_array(sparse.diags_array([np.ones(n - 1)] * 2, offsets=[1, -1]))
    )


def embedded(
    graph: NeuronGraph, place: str, solver: str, k: int = K
) -> tuple[DeviceOperator, Embedding]:
    operator = operator_on(graph, place)
    return operator, embed(operator, k, solver=solver, seed=3, graph_number=0)


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
@pytest.mark.parametrize("solver", solvers.SOLVERS)
@pytest.mark.parametrize("graph_name", ["chain", "sparse", "skip", "several components"])
def test_each_solver_finds_eigenvectors(graph_name: str, solver: str, name: str) -> None:
    graph = GRAPHS[graph_name]()
    if graph_name == "skip" and solver == "gram":
        with pytest.raises(InputError, match="two colours"):
            embedded(graph, name, solver)
        return
    operator, found = embedded(graph, name, solver)
    assert found.solver == solver
    assert isinstance(found.points, np.ndarray)
    vectors = found.points * operator.root_degrees[operator.place, None]
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(K), atol=1e-9)
    laplacian = reference.symmetric_laplacian(graph.adjacency.toarray().astype(float))
    residual = laplacian @ vectors - vectors * found.eigenvalues
    assert np.linalg.norm(residual, axis=0).max() == pytest.approx(found.residual, abs=1e-9)
    assert found.residual < RESIDUALS.get(solver, 1e-9)


@pytest.mark.parametrize("place", PLACES)
def test_the_same_starts_give_the_cpus_embedding(place: str) -> None:
    graph = GRAPHS["chain"]()
    ours = embedding_of(graph, K, "krylov")
    _, found = embedded(graph, place, "krylov")
    np.testing.assert_allclose(found.eigenvalues, ours.eigenvalues, atol=1e-8)
    scale = np.abs(ours.points).max()
    signs = np.sign((ours.points * found.points).sum(axis=0))
    np.testing.assert_allclose(found.points * signs, ours.points, atol=0.01 * scale)


def test_single_precision_that_does_not_converge_is_repeated_in_double(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(solvers, "SINGLE_PRECISION", 0.01)
    _, found = embedded(path_graph(200), "numpy", "krylov", k=3)
    assert found.solver == "krylov-float64"
    assert found.converged


def test_a_long_path_is_solved_as_on_the_cpu() -> None:
    graph = path_graph(800)
    _, honest = embedded(graph, "numpy", "krylov", k=3)
    assert not honest.converged
    _, found = embedded(graph, "numpy", "auto", k=3)
    assert found.converged
    assert found.solver == "shift-invert"
    expected = 1 - np.cos(np.pi * np.arange(3) / 799)
    np.testing.assert_allclose(found.eigenvalues, expected, rtol=1e-6, atol=1e-14)


def test_weak_vertices_are_corrected_on_a_device() -> None:
    weights = random_chain(35, (180, 190, 150))
    weights[0][3, :] *= 1e-25
    weights[1][:, 4] *= 1e-25
    graph = chain_graph(weights)
    ours = embedding_of(graph, K, "dense")
    for place in ("numpy", "strict", "numpy, streamed"):
        _, found = embedded(graph, place, "krylov")
        signs = np.sign((ours.points * found.points).sum(axis=0))
        tolerance = 0.02 * np.abs(ours.points).max()
        np.testing.assert_allclose(found.points * signs, ours.points, atol=tolerance)


def test_krylov_refuses_small_graphs() -> None:
    with pytest.raises(InputError, match="krylov needs a larger graph"):
        embedded(chain_graph(random_chain(3, (9, 14, 8))), "numpy", "krylov")


class Counting(Device):
    """A device that notes the sizes of the arrays that are copied to it and from it."""

    copies: list[tuple[str, tuple[int, ...]]] = []  # noqa: RUF012

    def asarray(self, host: Any) -> Any:
        self.copies.append(("there", host.shape))
        return super().asarray(host)

    def to_host(self, array: Any) -> Any:
        self.copies.append(("back", array.shape))
        return super().to_host(array)


def test_panels_move_a_few_times_in_a_whole_embedding() -> None:
    """Weights once; vectors to start with and at the end; between products small matrices only."""
    graph = chain_graph(random_chain(3, (1230, 1180, 1210), dtype=np.float32))
    place = host_device()
    device = Counting(place.name, place.xp, place.budget)
    Counting.copies.clear()
    operator = DeviceOperator(upload(graph, device), 1)
    embed(operator, K, solver="krylov", seed=3, graph_number=0)
    large = [(way, shape) for way, shape in Counting.copies if max(shape) > 500]
    n, side = operator.n_vertices, operator.n_vertices - operator.n_first
    assert sorted(large) == sorted(
        [
            *[("there", block.weights.shape) for block in graph.blocks],
            *[("there", (n, 1))] * 5,  # scales in float32 and float64
            ("there", (side, 16)),  # start vectors
            ("there", (side, 1)),  # known eigenvector
            ("back", (side, K - 1)),  # what Lanczos found
            *[("there", (n, 16)), ("back", (operator.n_first, 16))],  # the other side
            *[("there", (n, 16)), ("back", (n, 16))],  # Rayleigh-Ritz
        ]
    )


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
    """Two small arrays per product, for which the host waits."""
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
