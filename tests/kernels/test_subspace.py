"""Compiled kernels of the training side, against LAPACK and obvious loops."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ncut import _core, kernels

pytestmark = pytest.mark.usefixtures("each_instruction_set")

WIDTH = 16
Blocks = list[tuple[NDArray[Any], int, int]]


@dataclass
class Found:
    """Outputs of one call of `update_eigenvectors`."""

    progress: Any
    basis: NDArray[Any]
    degrees: NDArray[np.float64]
    values: NDArray[np.float64]
    residuals: NDArray[np.float64]
    vectors: NDArray[Any]


def bipartite(
    sizes: tuple[int, ...], seed: int = 0, dtype: Any = np.float64, scale: float = 1.0
) -> tuple[Blocks, int, int]:
    """Signed weights of a chain, layers of one colour first; vertices, and those of the first."""
    random = np.random.default_rng(seed)
    order = [*range(0, len(sizes), 2), *range(1, len(sizes), 2)]
    starts, total = {}, 0
    for layer in order:
        starts[layer] = total
        total += sizes[layer]
    blocks = []
    for layer in range(len(sizes) - 1):
        n_out, n_in = sizes[layer + 1], sizes[layer]
        same = (np.arange(n_out)[:, None] * 5 // n_out) == (np.arange(n_in) * 5 // n_in)
        weights = random.standard_normal((n_out, n_in)) * (1 + 3 * same) * scale
        blocks.append((weights.astype(dtype), starts[layer + 1], starts[layer]))
    return blocks, total, sum(sizes[::2])


def full(blocks: Blocks, n: int) -> NDArray[np.float64]:
    """The symmetric matrix of edge weights, by loops over the blocks."""
    adjacency = np.zeros((n, n))
    for weights, row, column in blocks:
        magnitudes = np.abs(weights.astype(np.float64))
        adjacency[row : row + len(weights), column : column + weights.shape[1]] += magnitudes
    return adjacency + adjacency.T


def normalized(adjacency: NDArray[np.float64]) -> NDArray[np.float64]:
    degrees = adjacency.sum(axis=1)
    scale = np.zeros_like(degrees)
    scale[degrees > 0] = degrees[degrees > 0] ** -0.5
    return scale[:, None] * adjacency * scale


def update(
    blocks: Blocks,
    n: int,
    n_first: int,
    *,
    basis: NDArray[Any] | None = None,
    n_wanted: int = 4,
    tolerance: float = 1e-10,
    max_products: int = 2000,
    threads: int = 1,
    seed: int = 3,
) -> Found:
    dtype = blocks[0][0].dtype
    if basis is None:
        start = np.random.default_rng(9).standard_normal((n - n_first, WIDTH))
        basis = start.astype(dtype)
    degrees, values, residuals = np.full(n, 7.0), np.full(WIDTH, 7.0), np.full(WIDTH, 7.0)
    vectors = np.full((n, WIDTH), 7, dtype=dtype)
    progress = kernels.update_eigenvectors(
        blocks, n_first, basis, degrees, values, residuals, vectors,
        n_wanted=n_wanted, tolerance=tolerance, max_products=max_products,
        seed=seed, stream=5, threads=threads,
    )  # fmt: skip
    return Found(progress, basis, degrees, values, residuals, vectors)


@pytest.mark.parametrize("sizes", [(60, 40, 50), (70, 33, 20, 40, 5)], ids=str)
@pytest.mark.parametrize("two_colours", [True, False])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(np.float64, 1e-10), (np.float32, 5e-6)], ids=["f8", "f4"]
)
@pytest.mark.parametrize("scale", [1.0, 1e-20, 1e20])
def test_eigenvectors_match_lapack(
    sizes: tuple[int, ...], two_colours: bool, dtype: Any, tolerance: float, scale: float
) -> None:
    blocks, n, n_first = bipartite(sizes, dtype=dtype, scale=scale)
    found = update(blocks, n, n_first if two_colours else 0, tolerance=tolerance)
    assert found.progress.converged
    assert not found.progress.broken
    adjacency = full(blocks, n)
    np.testing.assert_allclose(found.degrees, adjacency.sum(axis=1), rtol=1e-5)
    M = normalized(adjacency)
    values, vectors = np.linalg.eigh(M)
    np.testing.assert_allclose(
        found.values[:4], values[::-1][1:5], atol=1e-10 if dtype == np.float64 else 2e-6
    )
    unit = np.sqrt(adjacency.sum(axis=1))[:, None] * found.vectors[:, :4]
    np.testing.assert_allclose(unit.T @ unit, np.eye(4), atol=100 * tolerance)
    expected = vectors[:, ::-1][:, 1:5]
    # The eigenvalues are apart: each vector is that of LAPACK up to its sign.
    assert np.diff(values[::-1][1:6]).max() < -1e-3
    overlaps = np.abs(np.sum(unit * expected, axis=0))
    np.testing.assert_allclose(overlaps, 1, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("n", [300, 1300])
def test_small_eigenvalues_of_wide_random_layers(n: int, dtype: Any) -> None:
    """Without any clusters the eigenvalues are about 1 / sqrt(n), their squares tiny."""
    random = np.random.default_rng(1)
    weights = random.uniform(-1, 1, (n, n)).astype(dtype)
    found = update([(weights, n, 0)], 2 * n, n, tolerance=1e-3, max_products=300)
    assert found.progress.converged
    magnitudes = np.abs(weights.astype(np.float64))
    C = magnitudes / np.sqrt(np.outer(magnitudes.sum(1), magnitudes.sum(0)))
    expected = np.sqrt(np.linalg.eigvalsh(C @ C.T)[::-1][1:5])
    np.testing.assert_allclose(found.values[:4], expected, atol=1e-3)


@given(
    sizes=st.lists(st.integers(20, 50), min_size=3, max_size=4),
    seed=st.integers(0, 1000),
    density=st.floats(0.1, 1),
    isolated=st.integers(0, 10),
)
def test_residuals_are_true_on_sparse_graphs_with_isolated_vertices(
    sizes: list[int], seed: int, density: float, isolated: int
) -> None:
    blocks, n, n_first = bipartite(tuple(sizes), seed)
    random = np.random.default_rng(seed)
    for weights, _, _ in blocks:
        weights *= random.random(weights.shape) < density
    # The first vertices of the second layer lose all their edges.
    for weights in (blocks[0][0], blocks[1][0].T):
        weights[:isolated] = 0.0
    found = update(blocks, n, n_first, tolerance=1e-8)
    if found.progress.broken:
        assert n - n_first - isolated < WIDTH + 2
        return
    adjacency = full(blocks, n)
    degrees = adjacency.sum(axis=1)
    unit = np.sqrt(degrees)[:, None] * found.vectors[:, :4]
    M = normalized(adjacency)
    used = found.values[:4] > 1e-3
    wrong = np.linalg.norm(M @ unit - unit * found.values[:4], axis=0)
    assert wrong[used].max(initial=0) < 1e-7
    np.testing.assert_allclose(found.values[:4][used], np.linalg.eigvalsh(M)[::-1][1:5][used])
    assert not found.vectors[degrees == 0].any()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_rank_deficient_graphs(dtype: Any) -> None:
    """Two groups of equal weights: one eigenvalue besides the first, all others are 0."""
    weights = np.full((50, 60), 0.1)
    weights[:25, :30] = weights[25:, 30:] = 1.0
    found = update([(weights.astype(dtype), 60, 0)], 110, 60, tolerance=1e-3, n_wanted=3)
    assert not found.progress.broken
    expected = np.linalg.eigvalsh(normalized(full([(weights, 60, 0)], 110)))[::-1][1:4]
    np.testing.assert_allclose(found.values[:3], expected, atol=2e-3)
    assert found.progress.converged


@pytest.mark.parametrize("two_colours", [True, False])
def test_disconnected_graphs(two_colours: bool) -> None:
    blocks, n, n_first = bipartite((60, 60, 60))
    for weights, _, _ in blocks:
        weights[:30, 30:] = 0
        weights[30:, :30] = 0
    found = update(blocks, n, n_first if two_colours else 0)
    assert found.progress.converged
    assert found.values[0] == pytest.approx(1, abs=1e-12)
    expected = np.linalg.eigvalsh(normalized(full(blocks, n)))[::-1]
    np.testing.assert_allclose(found.values[:4], expected[1:5], atol=1e-10)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("two_colours", [True, False])
def test_weights_that_are_not_finite_are_reported(
    wrong: float, dtype: Any, two_colours: bool
) -> None:
    blocks, n, n_first = bipartite((60, 40, 50), dtype=dtype)
    blocks[1][0][3, 5] = wrong
    found = update(blocks, n, n_first if two_colours else 0)
    assert found.progress.broken
    assert not found.progress.converged


@pytest.mark.parametrize("two_colours", [True, False])
def test_weights_that_are_all_zero_are_reported(two_colours: bool) -> None:
    blocks, n, n_first = bipartite((60, 40, 50), scale=0.0)
    found = update(blocks, n, n_first if two_colours else 0)
    assert found.progress.broken
    assert not found.degrees.any()


@pytest.mark.parametrize("wrong", [np.nan, 0.0])
def test_a_basis_without_rank_is_reported(wrong: float) -> None:
    blocks, n, n_first = bipartite((60, 40, 50))
    found = update(blocks, n, n_first, basis=np.full((n - n_first, WIDTH), wrong))
    assert found.progress.broken


def test_underflown_weights_fail_the_check() -> None:
    """Inverse degrees overflow: NaN must not count as converged."""
    blocks, n, n_first = bipartite((60, 40, 50), dtype=np.float32, scale=1e-43)
    found = update(blocks, n, n_first, tolerance=1e-3)
    assert not found.progress.converged or np.isfinite(found.values).all()


@pytest.mark.parametrize("n_side", [1, 2, 15, 16])
def test_too_few_vertices_for_the_basis_are_reported(n_side: int) -> None:
    weights = np.random.default_rng(0).random((n_side, 40))
    assert update([(weights, 40, 0)], 40 + n_side, 40).progress.broken


def test_products_are_limited() -> None:
    blocks, n, n_first = bipartite((60, 40, 50))
    found = update(blocks, n, n_first, tolerance=0.0, max_products=20)
    assert not found.progress.converged
    assert 20 <= found.progress.n_products <= 20 + 8


def test_a_warm_start_takes_one_product() -> None:
    blocks, n, n_first = bipartite((60, 40, 50), dtype=np.float32)
    basis = update(blocks, n, n_first, tolerance=1e-4).basis
    blocks = [(weights * np.float32(2), *place) for weights, *place in blocks]
    found = update(blocks, n, n_first, basis=basis, tolerance=1e-3)
    assert found.progress.n_products == 1
    assert found.progress.converged


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("two_colours", [True, False])
def test_threads_change_no_bit(dtype: Any, two_colours: bool) -> None:
    blocks, n, n_first = bipartite((301, 277, 190, 70), dtype=dtype)
    n_first = n_first if two_colours else 0
    one, two = (update(blocks, n, n_first, tolerance=1e-5, threads=t) for t in (1, 2))
    assert one.progress == two.progress
    for name in ("basis", "degrees", "values", "residuals", "vectors"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    slopes = np.zeros(WIDTH)
    slopes[:3] = 1.0
    gradients = [[np.empty_like(block[0]) for block in blocks] for _ in range(2)]
    for threads, to in enumerate(gradients, 1):
        kernels.eigenvalue_gradient(blocks, slopes, one.values, one.vectors, to, threads)
    for ours, other in zip(*gradients, strict=True):
        np.testing.assert_array_equal(ours, other)


def test_the_seed_draws_the_fresh_vector() -> None:
    blocks, n, n_first = bipartite((60, 40, 50))
    found = [update(blocks, n, n_first, seed=s, max_products=1, tolerance=0.0) for s in (1, 1, 2)]
    np.testing.assert_array_equal(found[0].values, found[1].values)
    assert (found[0].values != found[2].values).any()


@pytest.mark.parametrize(("dtype", "error"), [(np.float64, 1e-12), (np.float32, 1e-5)])
@pytest.mark.parametrize("n_slopes", [0, 1, 3, 16])
@pytest.mark.parametrize("shape", [(70, 33), (1, 16), (5, 1), (64, 47)], ids=str)
def test_gradients_match_loops(
    shape: tuple[int, int], n_slopes: int, dtype: Any, error: float
) -> None:
    random = np.random.default_rng(4)
    n = sum(shape) + 3
    weights = random.standard_normal(shape).astype(dtype)
    weights[random.random(shape) < 0.2] = 0
    weights[0, 0] = -0.0
    vectors = random.standard_normal((n, WIDTH)).astype(dtype)
    values, slopes = random.random(WIDTH), np.zeros(WIDTH)
    slopes[random.permutation(WIDTH)[:n_slopes]] = random.standard_normal(n_slopes)
    gradient = np.full(shape, 7, dtype=dtype)
    kernels.eigenvalue_gradient(
        [(weights, 2, shape[0] + 3)], slopes, values, vectors, [gradient], 2
    )
    wide = vectors.astype(np.float64)
    for i in range(shape[0]):
        for j in range(shape[1]):
            a, b = wide[2 + i], wide[shape[0] + 3 + j]
            expected = np.sum(slopes * (values * (a**2 + b**2) - 2 * a * b)) * np.sign(
                weights[i, j]
            )
            scale = np.sum(np.abs(slopes) * (a**2 + b**2 + 2 * np.abs(a * b)))
            assert abs(gradient[i, j] - expected) <= error * scale


@pytest.mark.parametrize(("dtype", "error"), [(np.float64, 1e-13), (np.float32, 1e-6)])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize(
    ("n", "n_in", "n_rows", "width"), [(7, 35, 5, 1), (4, 3, 6, 9), (1, 16, 0, 2)]
)
def test_neurons_are_normalized_as_by_loops(
    n: int, n_in: int, n_rows: int, width: int, with_bias: bool, dtype: Any, error: float
) -> None:
    random = np.random.default_rng(2)
    incoming = random.standard_normal((n, n_in)).astype(dtype)
    bias = random.standard_normal(n).astype(dtype) if with_bias else None
    outgoing = random.standard_normal((n_rows, n * width)).astype(dtype)
    if n > 2:
        incoming[1] = 0
        if bias is not None:
            bias[1] = 0
    old = [x.astype(np.float64) for x in (incoming, bias if with_bias else np.zeros(n), outgoing)]
    kernels.normalize_neurons(incoming, bias, outgoing, 1.5)
    for i in range(n):
        length = np.sqrt(np.sum(old[0][i] ** 2) + old[1][i] ** 2)
        factor = 1.5 / length if length > 0 else 1.0
        np.testing.assert_allclose(incoming[i], old[0][i] * factor, rtol=5 * error)
        if bias is not None:
            np.testing.assert_allclose(bias[i], old[1][i] * factor, rtol=5 * error)
        part = slice(i * width, (i + 1) * width)
        np.testing.assert_allclose(outgoing[:, part], old[2][:, part] / factor, rtol=5 * error)


@pytest.mark.parametrize("scale", [1e-25, 1e25])
@pytest.mark.parametrize("n_in", [5, 40])
def test_neurons_whose_squares_leave_the_range_are_normalized(scale: float, n_in: int) -> None:
    random = np.random.default_rng(2)
    incoming = (random.standard_normal((3, n_in)) * scale).astype(np.float32)
    outgoing = np.ones((2, 3), np.float32)
    kernels.normalize_neurons(incoming, None, outgoing, 1.0)
    np.testing.assert_allclose(np.linalg.norm(incoming.astype(float), axis=1), 1, rtol=1e-5)
    assert np.isfinite(outgoing).all()


OFFSETS = """
import numpy as np
from ncut import _core
block, out = np.ones((20, 20)), np.zeros((40, 16))
for row, col in [({big}, 0), (0, {big}), (-1, 0), (0, -{big}), (21, 0), (0, 21)]:
    for call in (
        lambda: _core.update_eigenvectors(
            [(block, row, col)], 0, 3, 1e-3, 5, 0, 0, 1, out.copy(),
            np.zeros(40), np.zeros(16), np.zeros(16), out.copy()),
        lambda: _core.eigenvalue_gradient(
            [(block, row, col)], np.ones(16), np.ones(16), out, 1, [block.copy()]),
    ):
        try:
            call()
        except ValueError:
            continue
        raise SystemExit(f"accepted {{row}}, {{col}}")
"""


@pytest.mark.parametrize("big", [2**62, 2**63 - 1])
def test_offsets_outside_are_refused(big: int) -> None:
    # In a process of its own, which a write to a wild address cannot take the tests down with.
    code = OFFSETS.format(big=big)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]


def gradient_call() -> dict[str, Any]:
    return {
        "blocks": [(np.ones((20, 18)), 0, 20)],
        "slopes": np.ones(WIDTH),
        "values": np.ones(WIDTH),
        "vectors": np.ones((38, WIDTH)),
        "n_threads": 1,
        "gradients": [np.full((20, 18), 7.0)],
    }


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        [np.zeros((20, 18))] * 2,
        [np.zeros((18, 20))],
        [np.zeros((20, 17))],
        [np.zeros(360)],
        [np.zeros((20, 18), np.float32)],
        [np.zeros((18, 20)).T],
        [np.zeros((20, 36))[:, ::2]],
        [None],
        None,
    ],
    ids=range(10),
)
def test_gradients_of_other_shapes_and_types_are_refused(wrong: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        _core.eigenvalue_gradient(**(gradient_call() | {"gradients": wrong}))


def test_a_gradient_that_cannot_be_written_is_refused() -> None:
    call = gradient_call()
    call["gradients"][0].flags.writeable = False
    with pytest.raises((ValueError, TypeError)):
        _core.eigenvalue_gradient(**call)
    assert (call["gradients"][0] == 7).all()


@pytest.mark.parametrize("n_wanted", [0, -1, 17])
def test_more_vectors_than_there_are_cannot_be_wanted(n_wanted: int) -> None:
    blocks, n, n_first = bipartite((60, 40, 50))
    with pytest.raises(ValueError, match="n_wanted"):
        update(blocks, n, n_first, n_wanted=n_wanted)


@pytest.mark.parametrize("n_first", [-1, 150, 2**40])
def test_colours_outside_the_vertices_are_refused(n_first: int) -> None:
    blocks, n, _ = bipartite((60, 40, 50))
    basis = np.ones((40, WIDTH))
    with pytest.raises(ValueError, match="n_first"):
        update(blocks, n, n_first, basis=basis)


@pytest.mark.parametrize(
    "outgoing", [np.ones((3, 9)), np.ones((3, 3)), np.ones(8), np.ones((3, 8), np.float32)], ids=str
)
def test_weights_that_do_not_read_the_neurons_are_refused(outgoing: Any) -> None:
    incoming = np.ones((4, 5))
    with pytest.raises((ValueError, TypeError)):
        kernels.normalize_neurons(incoming, None, outgoing, 1.0)
    assert (incoming == 1).all()
