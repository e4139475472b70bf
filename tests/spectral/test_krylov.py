"""Block Lanczos on matrices with known spectra."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from checks import check_eigenpairs

from ncut.spectral.krylov import RitzPairs, block_lanczos


def with_eigenvalues(values: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A symmetric matrix with these eigenvalues, and its eigenvectors."""
    vectors, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(values.size,) * 2))
    return (vectors * values) @ vectors.T, vectors


def run(H: np.ndarray, k: int, known: np.ndarray | None = None, **options: Any) -> RitzPairs:
    start = np.random.default_rng(3).normal(size=(len(H), 16)).astype(H.dtype)
    known = np.zeros((len(H), 0), H.dtype) if known is None else known
    settings: dict[str, Any] = {
        "tolerance": lambda values: np.full(values.size, 1e-8),
        "max_blocks": 12,
        "max_products": 300,
    }
    return block_lanczos(lambda x: H @ x, start, known, k, **(settings | options))


SPECTRA = {
    "spread": np.linspace(-1, 1, 400),
    "close together": 1 - np.geomspace(0.02, 1, 400),
    "repeated": np.repeat(np.linspace(-1, 1, 40), 10),
    "many times repeated": np.repeat([0.9, 0.5, 0.1, -0.5], 100),
    "few and zero": np.concatenate([np.linspace(0.2, 1, 10), np.zeros(390)]),
}


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("k", [1, 5, 16, 27])
def test_largest_eigenpairs(name: str, k: int) -> None:
    values = np.sort(SPECTRA[name])[::-1]
    H, _ = with_eigenvalues(values, seed=5)
    found = run(H, k)
    assert found.values.shape == (k,)
    assert found.vectors.shape == (400, k)
    np.testing.assert_allclose(found.values, values[:k], atol=1e-9)
    check_eigenpairs(-H, -found.values, found.vectors, 1e-6)


@pytest.mark.parametrize("k", [3, 20])
def test_known_eigenvectors_are_left_out(k: int) -> None:
    values = np.linspace(1, -1, 400)
    H, vectors = with_eigenvalues(values, seed=7)
    found = run(H, k, vectors[:, :4].copy())
    np.testing.assert_allclose(found.values, values[4 : 4 + k], atol=1e-9)
    np.testing.assert_allclose(vectors[:, :4].T @ found.vectors, 0, atol=1e-9)


def test_single_precision_reaches_single_precision() -> None:
    values = np.linspace(1, -1, 400)
    H, _ = with_eigenvalues(values, seed=9)
    found = run(H.astype(np.float32), 12, tolerance=lambda values: np.full(values.size, 1e-4))
    assert found.vectors.dtype == np.float32
    np.testing.assert_allclose(found.values, values[:12], atol=1e-5)


def test_it_stops_after_the_largest_number_of_products() -> None:
    H, _ = with_eigenvalues(1 - np.geomspace(1e-6, 1, 400), seed=11)
    found = run(H, 5, tolerance=lambda values: np.full(values.size, 1e-15), max_products=6)
    assert found.n_products == 6
    assert found.residuals.max() > 1e-15


def test_residuals_match_their_definition() -> None:
    H, _ = with_eigenvalues(np.linspace(1, -1, 400), seed=13)
    found = run(H, 6, tolerance=lambda values: np.full(values.size, 1e-3))
    norms = np.linalg.norm(H @ found.vectors - found.vectors * found.values, axis=0)
    np.testing.assert_allclose(found.residuals, norms, rtol=1e-3)
    assert norms.max() <= 1e-3


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_parts", [1, 3, 20])
def test_nothing_left_to_find_still_gives_orthonormal_vectors(dtype: Any, n_parts: int) -> None:
    # All that H does is known, constant on each part: even the rounding errors of its products
    # with the basis leave no new direction.
    known = np.zeros((400, n_parts), dtype)
    known[np.arange(400), np.arange(400) % n_parts] = 1
    known /= np.linalg.norm(known, axis=0)
    found = run(known @ known.T, 5, known, tolerance=lambda values: np.full(values.size, 1e-4))
    np.testing.assert_allclose(found.values, 0, atol=1e-5)
    np.testing.assert_allclose(found.vectors.T @ found.vectors, np.eye(5), atol=1e-4)
    np.testing.assert_allclose(known.T @ found.vectors, 0, atol=1e-4)


def test_an_operator_that_is_zero() -> None:
    found = run(np.zeros((400, 400)), 5)
    np.testing.assert_array_equal(found.values, 0)
    np.testing.assert_allclose(found.vectors.T @ found.vectors, np.eye(5), atol=1e-8)
