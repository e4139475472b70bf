"""Eigenvalues, bounds and cuts of graphs that eigensolvers get wrong, against exact spectra."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hard_graphs import (
    FAMILIES,
    Hard,
    Task,
    clustered,
    exact_eigenvalues,
    judged,
    path,
    product,
    ring,
    task,
)
from scipy import sparse

from ncut.errors import InputError

N_CASES, AT_ONCE = 2000, 100
LARGEST = 500


@pytest.mark.parametrize("first", range(0, N_CASES, AT_ONCE))
def test_every_graph_is_solved_and_bounded(first: int) -> None:
    for seed in range(first, first + AT_ONCE):
        one = task(seed, LARGEST)
        outcome = judged(one, clustered(one), must_converge=True)
        assert not outcome.faults, (seed, outcome)


def uneven(matrix: sparse.csr_array, spread: float) -> sparse.csr_array:
    """The same edges with log-normal weights."""
    upper = sparse.coo_array(sparse.triu(matrix, 1))
    factors = np.random.default_rng(3).lognormal(0, spread, upper.nnz)
    weighted = sparse.coo_array((upper.data * factors, upper.coords), shape=upper.shape)
    return sparse.csr_array(weighted + weighted.T)


def tree(n: int, branches: int) -> sparse.csr_array:
    """Each vertex joined with the one above it; a star for n - 1 branches."""
    below = np.arange(1, n)
    half = sparse.coo_array((np.ones(n - 1), (below, (below - 1) // branches)), shape=(n, n))
    return sparse.csr_array(half + half.T)


def necklace(number: int, size: int, weight: float) -> sparse.csr_array:
    """Complete graphs in a row, each joined with the next by one edge."""
    matrix = np.kron(np.eye(number), np.ones((size, size)) - np.eye(size))
    last = np.arange(1, number) * size
    matrix[last - 1, last] = matrix[last, last - 1] = weight
    return sparse.csr_array(matrix)


RELATIVES = {
    "uneven path": uneven(path(500), 1),
    "very uneven path": uneven(path(400), 8),
    "uneven grid": uneven(product(path(20), path(25)), 3),
    "binary tree": tree(511, 2),
    "uneven tree": uneven(tree(400, 3), 4),
    "star": tree(300, 299),
    "necklace": necklace(20, 20, 1.0),
    "loose necklace": necklace(20, 20, 1e-3),
    "very loose necklace": necklace(20, 20, 1e-9),
    "three pieces": sparse.block_diag([path(200), product(path(12), path(12)), ring(90)], "csr"),
}


@pytest.mark.parametrize("k", [2, 12, 18, 33])
@pytest.mark.parametrize("name", RELATIVES)
def test_relatives_of_the_families(name: str, k: int) -> None:
    hard = Hard(name, RELATIVES[name])
    plain, kept = hard.graph(1.0).without_isolated()
    one = Task(k, hard, plain, kept, k, 1.0, exact_eigenvalues(hard, plain, k))
    outcome = judged(one, clustered(one), must_converge=True)
    assert not outcome.faults


@pytest.mark.parametrize(
    ("solver", "n_cases", "largest"),
    [
        ("krylov", 80, 500),
        ("shift-invert", 100, 500),
        ("gram", 100, 400),
        ("dense", 60, 300),
        ("arpack", 40, 200),
        ("lobpcg", 40, 200),
    ],
)
def test_no_solver_is_wrong_without_saying_so(solver: str, n_cases: int, largest: int) -> None:
    used: Counter[str] = Counter()
    refusals: list[str] = []
    for seed in range(10_000, 10_000 + n_cases):
        one = task(seed, largest)
        try:
            found = clustered(one, solver)
        except InputError as error:
            refusals.append(str(error))
            continue
        outcome = judged(one, found, must_converge=solver in ("dense", "gram", "shift-invert"))
        assert not outcome.faults, (seed, outcome)
        used[outcome.solver] += 1
    assert used[solver] >= 5
    assert all(refusal.startswith(f"solver: {solver} ") for refusal in refusals)


@pytest.mark.parametrize("k", [2, 9, 40])
@pytest.mark.parametrize("family", ["path", "ring", "torus", "hypercube"])
def test_graphs_of_thousands_of_vertices(family: str, k: int) -> None:
    hard = FAMILIES[family](np.random.default_rng(k), 4500)
    plain, kept = hard.graph(1.0).without_isolated()
    assert plain.n_vertices > 2500
    one = Task(k, hard, plain, kept, k, 1e160, exact_eigenvalues(hard, plain, k))
    outcome = judged(one, clustered(one), must_converge=True)
    assert not outcome.faults


def test_the_judge_finds_wrong_edges() -> None:
    hard = Hard("path", path(60))
    plain, kept = hard.graph(1.0).without_isolated()
    exact = exact_eigenvalues(hard, plain, 3)
    one = Task(1, hard, plain, kept, 3, 1.0, exact)
    found = clustered(one)
    assert not judged(one, found, must_converge=True).faults
    for wrong in (0.97, 1.03):
        other = Task(1, hard, plain, kept, 3, 1.0, exact * wrong)
        assert "called converged" in judged(other, found, must_converge=True).faults[0]
    lower = Task(1, hard, plain, kept, 3, 1.0, exact * 0.9)
    assert any(
        "above the sum" in fault for fault in judged(lower, found, must_converge=True).faults
    )


def test_formulas_match_the_matrices() -> None:
    for name in FAMILIES:
        for seed in range(3):
            hard = FAMILIES[name](np.random.default_rng(seed), 90)
            if hard.spectrum is None:
                continue
            plain, _ = hard.graph(1.0).without_isolated()
            by_lapack = exact_eigenvalues(Hard(name, hard.weights), plain, 20)
            np.testing.assert_allclose(np.sort(hard.spectrum)[:20], by_lapack, atol=1e-12)
