"""The basis that block Lanczos grows by, against NumPy's QR."""

from __future__ import annotations

import numpy as np
import pytest

from ncut import kernels

pytestmark = pytest.mark.usefixtures("each_instruction_set")

EPS = {np.float32: 1e-6, np.float64: 1e-14}


def basis(n: int, m: int, seed: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(n, m)))[0]


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("n", [50, 51, 53, 200])
@pytest.mark.parametrize("m", [0, 1, 7, 8, 17])
@pytest.mark.parametrize("spare", [0, 3])
def test_the_block_is_split(dtype: type, n: int, m: int, spare: int) -> None:
    against = np.ascontiguousarray(basis(n, m + spare, 5).astype(dtype))
    block = np.random.default_rng(6).normal(size=(n, 16)).astype(dtype)
    first = against[:, :m]
    found = kernels.orthonormalize(block, against, m, first.T @ block)
    assert found is not None
    Q, R = found
    assert Q.dtype == dtype
    tolerance = 100 * EPS[dtype]
    np.testing.assert_allclose(Q.T @ Q, np.eye(16), atol=tolerance)
    np.testing.assert_allclose(first.T @ Q, 0, atol=tolerance)
    rest = block.astype(np.float64) - first.astype(np.float64) @ (first.T @ block)
    np.testing.assert_allclose(Q @ R, rest, atol=tolerance * np.abs(block).max() * 10)
    np.testing.assert_array_equal(R, np.triu(R))


def test_a_block_almost_in_the_span_still_gives_orthonormal_vectors() -> None:
    rng = np.random.default_rng(7)
    against = np.ascontiguousarray(basis(300, 40, 8))
    block = against @ rng.normal(size=(40, 16)) + 1e-9 * rng.normal(size=(300, 16))
    found = kernels.orthonormalize(block, against, 40, against.T @ block)
    assert found is not None
    np.testing.assert_allclose(found[0].T @ found[0], np.eye(16), atol=1e-12)
    np.testing.assert_allclose(against.T @ found[0], 0, atol=1e-12)


@pytest.mark.parametrize("kind", ["zero", "repeated column", "one long", "nan"])
def test_a_block_without_full_rank_is_left_to_others(kind: str) -> None:
    block = np.random.default_rng(9).normal(size=(100, 16))
    if kind == "zero":
        block[:] = 0
    elif kind == "repeated column":
        block[:, 3] = block[:, 11]
    elif kind == "one long":
        block[:, 5] *= 1e9
    else:
        block[4, 4] = np.nan
    against = np.ascontiguousarray(basis(100, 4, 10))
    assert kernels.orthonormalize(block, against, 4, against.T @ block) is None
