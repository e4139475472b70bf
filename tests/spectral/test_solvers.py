"""One contract for all eigensolvers: the smallest eigenvalues of L_sym, and their vectors."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable

import numpy as np
import pytest
from checks import check_eigenpairs
from hypothesis import given
from hypothesis import strategies as st
from ml_dtypes import bfloat16
from samples import (
    Matrices,
    chain_graph,
    embedding_of,
    random_chain,
    side_by_side,
    skip_graph,
    small_chains,
)
from scipy import linalg, sparse

from ncut import reference
from ncut.errors import InputError
from ncut.graphs import NeuronGraph, from_adjacency
from ncut.spectral import solvers
from ncut.spectral.accuracy import ACCEPTED, LARGEST_GOAL
from ncut.spectral.operator import NormalizedAdjacency, in_own_unit
from ncut.threads import single_threaded_blas

SIZES = (120, 200, 100)
"""Layers with two sides of 200 and more, enough for the iterative solvers."""

TOLERANCE = LARGEST_GOAL * ACCEPTED


def copies(number: int, seed: int = 5) -> NeuronGraph:
    """The same chain several times: every eigenvalue is repeated."""
    sizes = [max(size // number, 4) for size in SIZES]
    return chain_graph(side_by_side(*[random_chain(seed, sizes)] * number))


def different(number: int) -> NeuronGraph:
    """Several different chains without edges between them."""
    sizes = [max(size // number, 4) for size in SIZES]
    return chain_graph(side_by_side(*[random_chain(7 + i, sizes) for i in range(number)]))


def random_adjacency(seed: int, n: int, density: float) -> NeuronGraph:
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.random((n, n)) * (rng.random((n, n)) < density), k=1)
    return from_adjacency(sparse.csr_array(upper + upper.T)).without_isolated()[0]


def arms(number: int) -> NeuronGraph:
    """Equal chains that all hang on one neuron: connected, and eigenvalues are repeated."""
    hub = np.full((1, 60 * number), 0.3)
    weights = side_by_side(*[random_chain(11, (60, 40, 30))] * number)
    return chain_graph([hub, *weights])


def low_rank(seed: int, rank: int) -> NeuronGraph:
    """Chains of products of thin matrices."""
    rng = np.random.default_rng(seed)
    shapes = itertools.pairwise(SIZES)
    return chain_graph([rng.random((a, rank)) @ rng.random((rank, b)) for a, b in shapes])


GRAPHS: dict[str, Callable[[], NeuronGraph]] = {
    "dense": lambda: chain_graph(random_chain(3, SIZES)),
    "float32": lambda: chain_graph(random_chain(3, SIZES, dtype=np.float32)),
    "float16": lambda: chain_graph(random_chain(3, SIZES, dtype=np.float16)),
    "bfloat16 and sparse": lambda: chain_graph(
        [random_chain(3, SIZES, dtype=bfloat16)[0], random_chain(3, SIZES, 0.1)[1]]
    ),
    "bfloat16 and float32": lambda: chain_graph(
        [
            random_chain(3, SIZES, dtype=bfloat16)[0],
            random_chain(3, SIZES, dtype=np.float32)[1],
        ]
    ),
    "sparse": lambda: chain_graph(random_chain(5, SIZES, 0.1)).without_isolated()[0],
    "four layers": lambda: chain_graph(random_chain(9, (130, 110, 120, 130))),
    "skip connections": lambda: skip_graph(13, (150, 120, 130)),
    "sparse skip connections": lambda: skip_graph(15, (150, 120, 130), 0.1),
    "one layer": lambda: random_adjacency(17, 400, 0.05),
    "many vertices": lambda: random_adjacency(23, 800, 0.03),
    "2 components": lambda: different(2),
    "3 components": lambda: different(3),
    "12 components": lambda: different(12),
    "20 components": lambda: different(20),
    "2 copies": lambda: copies(2),
    "3 copies": lambda: copies(3),
    "5 copies": lambda: copies(5, seed=1),
    "5 other copies": lambda: copies(5, seed=4),
    "5 arms": lambda: arms(5),
}


# Nearly all eigenvalues are 1, so that iterations run out of directions.
DEGENERATE: dict[str, Callable[[], NeuronGraph]] = {
    "equal weights": lambda: chain_graph([np.ones((120, 200)), np.ones((200, 100))]),
    "equal weights, large": lambda: chain_graph([np.ones((500, 450)), np.ones((450, 400))]),
    "rank 3": lambda: low_rank(25, 3),
}


def layered_in_two_colours(graph: NeuronGraph) -> bool:
    return NormalizedAdjacency(graph, 1).bipartite


@functools.cache
def graph_of(name: str) -> NeuronGraph:
    return (GRAPHS | DEGENERATE)[name]()


@functools.cache
def laplacian_of(graph: NeuronGraph) -> np.ndarray:
    return reference.symmetric_laplacian(graph.adjacency.toarray().astype(float))


@functools.cache
def expected_eigenvalues(graph: NeuronGraph, k: int) -> np.ndarray:
    with single_threaded_blas():
        found = linalg.eigh(laplacian_of(graph), eigvals_only=True, subset_by_index=[0, k - 1])
    return np.asarray(found)


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("k", [3, 12])
def test_eigenpairs(solver: str, name: str, k: int) -> None:
    graph = graph_of(name)
    if solver == "gram" and not layered_in_two_colours(graph):
        with pytest.raises(InputError, match=r"solver: gram .*two colours"):
            embedding_of(graph, k, solver)
        return
    found = embedding_of(graph, k, solver)
    np.testing.assert_allclose(found.eigenvalues, expected_eigenvalues(graph, k), atol=1e-6)
    assert found.converged
    assert found.residual <= TOLERANCE
    vectors = found.points * np.sqrt(in_own_unit(graph.degrees)[0])[:, None]
    L = laplacian_of(graph)
    check_eigenpairs(L, found.eigenvalues, vectors, TOLERANCE)
    residuals = np.linalg.norm(L @ vectors - vectors * found.eigenvalues, axis=0)
    assert found.residual == pytest.approx(residuals.max(), rel=1e-3, abs=1e-12)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(k), atol=1e-10)


@pytest.mark.parametrize("name", DEGENERATE)
@pytest.mark.parametrize("k", [2, 3, 12])
def test_degenerate_graphs_are_solved_or_the_solver_admits_it(
    solver: str, name: str, k: int
) -> None:
    graph = graph_of(name)
    try:
        found = embedding_of(graph, k, solver)
    except InputError:
        assert solver in ("arpack", "lobpcg")
        return
    if solver in ("arpack", "lobpcg") and not found.converged:
        return
    np.testing.assert_allclose(found.eigenvalues, expected_eigenvalues(graph, k), atol=1e-6)
    assert found.converged


@pytest.mark.parametrize("name", ["dense", "sparse", "one layer", "5 copies"])
def test_threads_change_nothing(solver: str, name: str) -> None:
    graph = graph_of(name)
    if solver == "gram" and not layered_in_two_colours(graph):
        return
    one = embedding_of(graph, 8, solver, threads=1)
    for threads in (2, 3):
        other = embedding_of(graph, 8, solver, threads=threads)
        np.testing.assert_array_equal(other.points, one.points)
        np.testing.assert_array_equal(other.eigenvalues, one.eigenvalues)


def test_zero_eigenvalues_are_counted_by_the_components(solver: str) -> None:
    for number in (2, 3, 12, 20):
        found = embedding_of(different(number), 12, solver)
        np.testing.assert_allclose(found.eigenvalues[: min(number, 12)], 0, atol=1e-12)
        assert (found.eigenvalues[number:] > 1e-3).all()


def test_components_that_fill_the_embedding_need_no_solver(solver: str) -> None:
    found = embedding_of(different(20), 12, solver)
    assert found.solver == "components"
    assert found.residual < 1e-12


def test_a_solver_says_its_name(solver: str) -> None:
    found = embedding_of(chain_graph(random_chain(3, SIZES)), 5, solver)
    names = {*solvers.SOLVERS, "krylov-float64"}
    assert found.solver in names if solver == "auto" else found.solver.startswith(solver)


@given(small_chains(), st.data())
def test_auto_is_right_on_any_small_graph(weights: Matrices, data: st.DataObject) -> None:
    graph, _ = chain_graph(weights).without_isolated()
    k = data.draw(st.integers(1, graph.n_vertices - 1))
    found = embedding_of(graph, k, "auto")
    np.testing.assert_allclose(found.eigenvalues, expected_eigenvalues(graph, k), atol=1e-6)
    assert found.converged


@given(weights=small_chains(), data=st.data())
def test_small_graphs_are_solved_or_refused(
    solver: str, weights: Matrices, data: st.DataObject
) -> None:
    graph, _ = chain_graph(weights).without_isolated()
    k = data.draw(st.integers(1, graph.n_vertices - 1))
    try:
        found = embedding_of(graph, k, solver)
    except InputError as error:
        refusal = str(error)
    else:
        np.testing.assert_allclose(found.eigenvalues, expected_eigenvalues(graph, k), atol=1e-6)
        assert found.converged
        return
    assert solver != "auto"
    assert refusal.startswith(f"solver: {solver}")


@pytest.mark.parametrize("middle", [3, 11, 12, 13])
@pytest.mark.parametrize("k", [3, 4, 5, 12])
def test_bottlenecks(middle: int, k: int) -> None:
    # Fewer eigenvalues differ from 1 than are asked for.
    graph = chain_graph(random_chain(19, (40, middle, 30)))
    found = embedding_of(graph, k, "auto")
    np.testing.assert_allclose(found.eigenvalues, expected_eigenvalues(graph, k), atol=1e-6)
    assert found.converged


def test_weights_of_very_different_size(solver: str) -> None:
    small, large = random_chain(21, SIZES)
    graph = chain_graph([1e-6 * small, 1e6 * large])
    found = embedding_of(graph, 6, solver)
    np.testing.assert_allclose(found.eigenvalues, expected_eigenvalues(graph, 6), atol=1e-6)


@pytest.mark.parametrize("wrong", ["Dense", "", None, 3, ["dense"]])
def test_unknown_solvers_are_refused(wrong: object) -> None:
    with pytest.raises(InputError, match=r"solver: must be one of auto, .*dense"):
        embedding_of(chain_graph(random_chain(3, (6, 5))), 3, wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["arpack", "lobpcg"])
def test_rounding_errors_of_equal_eigenvalues_start_no_search(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twelve copies of a part, each tied to a hub: eleven copies of each eigenvalue."""
    part = random_chain(3, (15, 15))[0]
    between = np.full((180, 1), 0.37)
    inner = np.kron(np.eye(12), part + part.T)
    A = sparse.csr_array(np.block([[inner, between], [between.T, np.zeros((1, 1))]]))
    graph = from_adjacency(A)
    searches = []
    pairs = getattr(solvers, f"_{name}_pairs")

    def counted(*arguments: object) -> object:
        searches.append(name)
        return pairs(*arguments)

    monkeypatch.setattr(solvers, f"_{name}_pairs", counted)
    found = embedding_of(graph, 5, name)
    exact = reference.laplacian_eigenvalues(graph.adjacency.toarray())[:5]
    np.testing.assert_allclose(found.eigenvalues, exact, atol=1e-9)
    assert found.converged
    assert len(searches) <= 1 + 5


@pytest.mark.parametrize("name", ["dense", "arpack", "lobpcg"])
def test_a_matrix_that_a_solver_needs_is_not_kept_by_the_graph(name: str) -> None:
    graph = chain_graph(random_chain(3, (30, 25, 20)))
    embedding_of(graph, 3, name)
    assert "adjacency" not in vars(graph)
