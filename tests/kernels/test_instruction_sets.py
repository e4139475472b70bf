"""The choice of an instruction set, and the agreement of kernels between sets."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import ncut
from ncut import kernels

SETS = kernels.instruction_sets()


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = kernels.build()[1]
    yield
    kernels.use_instruction_set(before)


def with_each(work: Callable[[], Any]) -> list[Any]:
    """The result of `work` with the kernels of each instruction set."""
    results = []
    for name in SETS:
        kernels.use_instruction_set(name)
        assert kernels.build()[1] == name
        results.append(work())
    return results


def imported(name: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from ncut import kernels; print(kernels.build()[1])"],
        env={**os.environ, "NCUT_ISA": name},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", SETS)
def test_an_environment_variable_chooses(name: str) -> None:
    assert imported(name).stdout.strip() == name


@pytest.mark.parametrize("name", ["x86-64-v9", "avx2", "X86-64"])
def test_a_set_that_is_not_there_is_refused_by_name(name: str) -> None:
    with pytest.raises(ncut.InputError, match=rf"NCUT_ISA: must be one of .*got '{name}'"):
        kernels.use_instruction_set(name)
    child = imported(name)
    assert child.returncode != 0
    assert f"got '{name}'" in child.stderr


def test_the_best_set_comes_first() -> None:
    assert len(set(SETS)) == len(SETS)
    assert sorted(SETS, reverse=True) == SETS  # "x86-64" < "x86-64-v3" < "x86-64-v4"


def test_random_numbers_are_the_same_bit_for_bit() -> None:
    values = np.arange(10_000, dtype=np.float32)
    first, *others = with_each(lambda: kernels.permuted(values, 1, 2, 3))
    for other in others:
        np.testing.assert_array_equal(first, other)


def test_kmeans_finds_the_same_clusters() -> None:
    rng = np.random.default_rng(5)
    centres = rng.standard_normal((6, 5)) * 10
    points = (centres[rng.integers(0, 6, 700)] + rng.standard_normal((700, 5))).astype(np.float32)
    options: dict[str, Any] = {
        "n_init": 5, "max_iterations": 100, "tolerance": 1e-4, "seed": 3, "stream": 1, "threads": 1
    }  # fmt: skip
    first, *others = with_each(lambda: kernels.kmeans(points, 6, **options))
    for labels, inertia in others:
        np.testing.assert_array_equal(labels, first[0])
        assert inertia == pytest.approx(first[1], rel=1e-6)


def test_a_clustering_is_the_same_to_rounding() -> None:
    rng = np.random.default_rng(6)
    labels = rng.integers(0, 4, 450)
    # Planted groups, so that k-means has one answer.
    weights = [
        rng.random((150, 150)) * np.where(labels[:150, None] == labels[None, 150:300], 1.0, 0.05),
        rng.random((150, 150)) * np.where(labels[150:300, None] == labels[None, 300:], 1.0, 0.05),
    ]
    first, *others = with_each(lambda: ncut.cluster(ncut.graph(weights), 4, solver="krylov"))
    for other in others:
        np.testing.assert_allclose(other.eigenvalues, first.eigenvalues, atol=1e-6)
        np.testing.assert_array_equal(other.labels, first.labels)
        assert other.ncut == first.ncut
