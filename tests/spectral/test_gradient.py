"""eigenvalues_and_gradient(): eigenvalues and gradients, arrays in and arrays out."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import ncut
from ncut.errors import InputError
from ncut.spectral import gradient as module

Matrices = list[NDArray[Any]]


def chain(*sizes: int, seed: int = 3, dtype: Any = np.float64) -> Matrices:
    rng = np.random.default_rng(seed)
    shapes = itertools.pairwise(sizes)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def dense(weights: Matrices, ends: list[tuple[int, int]] | None = None) -> NDArray[np.float64]:
    """All eigenvalues of the chain's Laplacian, ascending, from the whole matrix by LAPACK."""
    ends = ends or [(at, at + 1) for at in range(len(weights))]
    sizes: dict[int, int] = {}
    for matrix, (a, b) in zip(weights, ends, strict=True):
        sizes[a], sizes[b] = matrix.shape
    start = {layer: sum(sizes[i] for i in sizes if i < layer) for layer in sizes}
    A = np.zeros((sum(sizes.values()),) * 2)
    for matrix, (a, b) in zip(weights, ends, strict=True):
        rows, columns = slice(start[a], start[a] + sizes[a]), slice(start[b], start[b] + sizes[b])
        A[rows, columns] += np.abs(matrix)
        A[columns, rows] += np.abs(matrix).T
    kept = A.sum(1) > 0
    A = A[kept][:, kept]
    scale = A.sum(1) ** -0.5
    values: NDArray[np.float64] = np.linalg.eigvalsh(np.eye(len(A)) - scale[:, None] * A * scale)
    return values


def check_slopes(weights: Matrices, which: tuple[int, ...], slopes: Any, found: Matrices) -> None:
    """Compare with central differences of LAPACK's eigenvalues along random directions."""
    rng = np.random.default_rng(1)
    for at, own in enumerate(found):
        direction = rng.standard_normal(own.shape) * (weights[at] != 0)
        sums = []
        for step in (1e-6, -1e-6):
            moved = [w + step * direction if n == at else w for n, w in enumerate(weights)]
            values = dense(moved)
            sums.append(sum(s * values[n - 1] for n, s in zip(which, slopes, strict=True)))
        slope = (sums[0] - sums[1]) / 2e-6
        assert float((own * direction).sum()) == pytest.approx(slope, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("which", [(2, 3, 4), (5,), (1, 2), tuple(range(2, 24))])
@pytest.mark.parametrize("way", ["lapack", "iteration"])
def test_values_and_slopes_match_the_whole_matrix(
    which: tuple[int, ...], way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "iteration":
        monkeypatch.setattr(module, "DENSE", 0)
    weights = chain(50, 40, 45, 30)
    slopes = np.linspace(-1, 2, len(which))
    values, gradient = ncut.eigenvalues_and_gradient(weights, which, slopes=slopes)
    exact = dense(weights)
    np.testing.assert_allclose(values, exact[[n - 1 for n in which]], atol=1e-10)
    check_slopes(weights, which, slopes, gradient)


def test_the_default_is_the_mean() -> None:
    weights = chain(9, 8, 7)
    mean = ncut.eigenvalues_and_gradient(weights)
    third = ncut.eigenvalues_and_gradient(weights, slopes=[1 / 3] * 3)
    for ours, theirs in zip(mean.gradient, third.gradient, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_float32_comes_back_as_float32() -> None:
    weights = chain(20, 15, 10, dtype=np.float32)
    weights[1] = weights[1].astype(np.float64)
    values, gradient = ncut.eigenvalues_and_gradient(weights)
    assert (values.dtype, [g.dtype for g in gradient]) == (np.float64, [np.float32, np.float64])
    exact = ncut.eigenvalues_and_gradient([w.astype(np.float64) for w in weights])
    np.testing.assert_allclose(values, exact.eigenvalues, atol=1e-9)
    np.testing.assert_allclose(gradient[0], exact.gradient[0], atol=1e-6)


def test_triples_of_a_graph_with_a_skip_and_strides() -> None:
    a, b = chain(12, 9, 7)
    skip = np.asfortranarray(np.random.default_rng(5).standard_normal((7, 12))).T
    ends = [(0, 1), (1, 2), (0, 2)]
    blocks = [(*pair, w) for pair, w in zip(ends, (a, b, skip), strict=True)]
    values, gradient = ncut.eigenvalues_and_gradient(blocks, (2, 3))
    np.testing.assert_allclose(values, dense([a, b, skip], ends)[1:3], atol=1e-10)
    named = [("xyz"[s], "xyz"[t], w) for s, t, w in blocks]
    again = ncut.eigenvalues_and_gradient(named, (2, 3))
    np.testing.assert_allclose(again.gradient[2], gradient[2])


def test_isolated_vertices_and_parts() -> None:
    a, b = (np.abs(w) for w in chain(12, 10, 8))
    a[3] = 0
    a[:6, 5:], a[6:, :5] = 0, 0
    b[:5, 4:], b[5:, :4] = 0, 0
    values, gradient = ncut.eigenvalues_and_gradient([a, b], (2, 3, 4))
    np.testing.assert_allclose(values, dense([a, b])[1:4], atol=1e-10)
    assert values[0] == pytest.approx(0, abs=1e-12)
    assert not gradient[0][3].any()
    assert all(np.isfinite(g).all() for g in gradient)


def test_copies_of_a_repeated_eigenvalue_share_their_slope() -> None:
    one = np.abs(chain(6, 5)[0])
    block = np.kron(np.eye(3), one)  # three equal parts: every eigenvalue has three copies
    found = [ncut.eigenvalues_and_gradient([block], (n,)).gradient[0] for n in (4, 5, 6)]
    np.testing.assert_allclose(found[0], found[1], atol=1e-8)
    np.testing.assert_allclose(found[0], found[2], atol=1e-8)
    parts = found[0][:6, :5], found[0][6:12, 5:10]
    np.testing.assert_allclose(parts[0], parts[1], atol=1e-8)


@pytest.mark.parametrize("which", [2, 8, 12, 30])
@pytest.mark.parametrize("way", ["lapack", "iteration"])
def test_all_copies_of_an_eigenvalue_share_its_slope_however_many(
    which: int, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their mean is smooth although single copies are not: central differences of it agree."""
    if way == "iteration":
        monkeypatch.setattr(module, "DENSE", 0)
    rng = np.random.default_rng(2)
    parts = np.kron(np.eye(11), rng.random((4, 3)))  # eleven zeros; eleven copies of the next two
    low = rng.random((60, 3)) @ rng.random((3, 40))  # of rank 3: 94 copies of 1
    weights = [parts] if which in (8, 12) else [low]
    exact = dense(weights)
    copies = np.flatnonzero(np.abs(exact - exact[which - 1]) < 1e-9) + 1
    found = ncut.eigenvalues_and_gradient(weights, (which,)).gradient
    check_slopes(weights, tuple(copies), np.full(copies.size, 1 / copies.size), found)


def test_large_and_small_weights_change_no_digit() -> None:
    weights = chain(30, 20, 10)
    exact = ncut.eigenvalues_and_gradient(weights)
    for scale in (2.0**60, 2.0**-60):
        values, gradient = ncut.eigenvalues_and_gradient([scale * w for w in weights])
        np.testing.assert_allclose(values, exact.eigenvalues, atol=1e-12)
        np.testing.assert_allclose(scale * gradient[0], exact.gradient[0], atol=1e-10)


@pytest.mark.parametrize(
    ("blocks", "options", "message"),
    [
        ([], {}, "blocks: must be a sequence of matrices"),
        (3, {}, "blocks: must be a sequence of matrices"),
        ([np.ones((3, 2)), (0, 1, np.ones((3, 2)))], {}, "blocks: must be a sequence of matrices"),
        ([np.ones((3, 2), int)], {}, "blocks: number 0 must be a matrix of float32 or float64"),
        ([np.ones(3)], {}, "blocks: number 0 must be a matrix"),
        ([np.ones((3, 2), np.float16)], {}, "blocks: number 0 must be .* of dtype float16"),
        ([np.ones((3, 2)), np.ones((4, 2))], {}, "blocks: layer 1 has 2 vertices .* 4 in number 1"),
        ([(1, 1, np.ones((3, 3)))], {}, "blocks: number 0 joins layer 1 with itself"),
        ([np.full((3, 2), np.nan)], {}, "layer .blocks.0..: .*must be finite"),
        ([np.zeros((3, 2))], {}, "zero"),
        ([np.ones((3, 2))], {"which": (2, 9)}, "which: .* vertices with edges, 5, got 9"),
        ([np.ones((3, 2))], {"which": (0, 2)}, "which: must be a sequence of whole numbers from 1"),
        ([np.ones((3, 2))], {"which": 2}, "which: must be a sequence of whole numbers from 1"),
        (
            [np.ones((3, 2))],
            {"which": (2, True)},
            "which: must be a sequence of whole numbers from 1",
        ),
        ([np.ones((3, 2))], {"slopes": [1.0]}, "slopes: must be 3 finite numbers"),
        ([np.ones((3, 2))], {"slopes": [1.0, np.nan, 0]}, "slopes: must be 3 finite numbers"),
        ([np.ones((3, 2))], {"seed": -1}, "seed: "),
        ([np.ones((3, 2))], {"threads": 0}, "threads: "),
    ],
)
def test_bad_arguments_are_named(blocks: Any, options: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ncut.eigenvalues_and_gradient(blocks, **options)
