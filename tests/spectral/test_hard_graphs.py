"""Eigenvalues, bounds and cuts of graphs that eigensolvers get wrong, against exact spectra."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hard_graphs import FAMILIES, Hard, Task, clustered, exact_eigenvalues, judged, path, task

from ncut.errors import InputError

N_CASES, AT_ONCE = 2000, 100
LARGEST = 500


@pytest.mark.parametrize("first", range(0, N_CASES, AT_ONCE))
def test_every_graph_is_solved_and_bounded(first: int) -> None:
    for seed in range(first, first + AT_ONCE):
        one = task(seed, LARGEST)
        outcome = judged(one, clustered(one), must_converge=True)
        assert not outcome.faults, (seed, outcome)


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


def test_the_judge_sees_what_is_wrong() -> None:
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


def test_formulas_are_those_of_the_matrices() -> None:
    for name in FAMILIES:
        for seed in range(3):
            hard = FAMILIES[name](np.random.default_rng(seed), 90)
            if hard.spectrum is None:
                continue
            plain, _ = hard.graph(1.0).without_isolated()
            by_lapack = exact_eigenvalues(Hard(name, hard.weights), plain, 20)
            np.testing.assert_allclose(np.sort(hard.spectrum)[:20], by_lapack, atol=1e-12)
