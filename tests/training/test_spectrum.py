"""Eigenvalues of moving weights and their gradients, against LAPACK and finite differences."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import ncut
from ncut import reference
from ncut.errors import InputError
from ncut.training import products
from ncut.training.eigenvalues import differentiable, laplacian_eigenvalues
from ncut.training.live_graph import numbered
from ncut.training.spectrum import Tracker, shared_slopes
from ncut.training.spectrum_types import WIDTH, EdgeWeights

WIDE, SMALL, DEEP = (40, 60, 30), (12, 9, 7, 5), (30, 40, 40, 40, 10)


def chain(
    widths: tuple[int, ...], seed: int = 0, dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    """Weights (out, in) of a chain, with a few large ones, so that some eigenvalues stand out."""
    random = np.random.default_rng(seed)
    found = []
    for n_in, n_out in itertools.pairwise(widths):
        same = (np.arange(n_out)[:, None] * 4 // n_out) == (np.arange(n_in) * 4 // n_in)
        values = random.standard_normal((n_out, n_in)) * (1 + 2 * same)
        found.append(torch.tensor(values, dtype=dtype, requires_grad=True))
    return found


def edge_weights(widths: tuple[int, ...], weights: list[Tensor], two_colours: bool = True):  # type: ignore[no-untyped-def]
    """Blocks of a chain, the number of vertices and of those of the first colour."""
    pairs = [(number, number + 1) for number in range(len(weights))]
    starts, n_first = numbered(widths, pairs)
    blocks = [
        EdgeWeights(weight, int(starts[number + 1]), int(starts[number]))
        for number, weight in enumerate(weights)
    ]
    return blocks, sum(widths), n_first if two_colours else 0


def dense_eigenvalues(blocks: list[EdgeWeights], n: int) -> Tensor:
    """All eigenvalues of L_norm ascending, by autograd through the full symmetric matrix."""
    adjacency = torch.zeros((n, n), dtype=torch.float64)
    for block in blocks:
        rows, columns = block.weights.shape
        pad = (block.first_column, n - block.first_column - columns)
        pad += (block.first_row, n - block.first_row - rows)
        adjacency = adjacency + torch.nn.functional.pad(block.weights.double().abs(), pad)
    adjacency = adjacency + adjacency.T
    degrees = adjacency.sum(1)
    scale = degrees.rsqrt()
    return 1 - torch.linalg.eigvalsh(scale[:, None] * adjacency * scale).flip(0)


def as_entries(blocks: list[EdgeWeights]) -> list[EdgeWeights]:
    """The same edges one by one."""
    found = []
    for block in blocks:
        rows, columns = torch.meshgrid(
            torch.arange(block.weights.shape[0]) + block.first_row,
            torch.arange(block.weights.shape[1]) + block.first_column,
            indexing="ij",
        )
        found.append(
            EdgeWeights(block.weights.reshape(-1), rows=rows.ravel(), columns=columns.ravel())
        )
    return found


@pytest.mark.parametrize("widths", [WIDE, SMALL, DEEP], ids=str)
@pytest.mark.parametrize("two_colours", [True, False])
@pytest.mark.parametrize("entries", [False, True], ids=["matrices", "entries"])
@pytest.mark.parametrize(
    ("dtype", "tolerance", "error"),
    [(torch.float64, 1e-10, 1e-5), (torch.float32, 2e-6, 1e-3)],
    ids=["float64", "float32"],
)
def test_values_and_gradients_match_the_dense_matrix(
    widths: tuple[int, ...],
    two_colours: bool,
    entries: bool,
    dtype: torch.dtype,
    tolerance: float,
    error: float,
) -> None:
    weights = chain(widths, dtype=dtype)
    blocks, n, n_first = edge_weights(widths, weights, two_colours)
    factors = torch.tensor([0.5, -1.0, 2.0], dtype=dtype)
    tracker = Tracker(n, n_first, 3, tolerance=tolerance)
    values = differentiable(tracker, (2, 3, 4), as_entries(blocks) if entries else blocks)
    (values @ factors).backward()
    found = [weight.grad.clone() for weight in weights]
    for weight in weights:
        weight.grad = None
    expected = dense_eigenvalues(blocks, n)[1:4]
    (expected @ factors.double()).backward()
    torch.testing.assert_close(
        values.double(), expected, rtol=0, atol=1e-9 if dtype.itemsize == 8 else 1e-6
    )
    for ours, weight in zip(found, weights, strict=True):
        assert (ours - weight.grad).norm() <= error * weight.grad.norm()


@pytest.mark.parametrize("two_colours", [True, False])
def test_gradcheck(two_colours: bool) -> None:
    widths = (20, 26, 22)
    weights = chain(widths)

    def values(*moved: Tensor) -> Tensor:
        blocks, n, n_first = edge_weights(widths, list(moved), two_colours)
        return differentiable(Tracker(n, n_first, 4, tolerance=1e-12), (2, 3, 5), blocks)

    # Along random directions, as the whole Jacobian takes thousands of eigenproblems.
    assert torch.autograd.gradcheck(values, weights, eps=1e-6, atol=1e-7, rtol=1e-5, fast_mode=True)


@settings(max_examples=25, deadline=None)
@given(
    widths=st.lists(st.integers(1, 30), min_size=3, max_size=5).filter(lambda w: sum(w) > 6),
    seed=st.integers(0, 1000),
    zeros=st.floats(0, 0.9),
)
def test_any_chain_has_the_eigenvalues_of_scipy(widths: list[int], seed: int, zeros: float) -> None:
    """Sparse ones too, with isolated neurons and several components."""
    random = np.random.default_rng(seed)
    weights = [
        torch.tensor(w * (random.random(w.shape) >= zeros))
        for w in (random.standard_normal((b, a)) for a, b in itertools.pairwise(widths))
    ]
    if not any(weight.any() for weight in weights):
        weights[0][0, 0] = 1.0
    blocks, n, n_first = edge_weights(tuple(widths), weights)
    sums = products.degrees(blocks, n)
    used = int((sums > 0).sum())
    spectrum = Tracker(n, n_first, 3, tolerance=1e-9).update(blocks)
    adjacency = products.multiply(blocks, torch.eye(n, dtype=torch.float64))
    keep = sums > 0
    scale = sums[keep].rsqrt()
    M = scale[:, None] * adjacency[keep][:, keep] * scale
    expected = np.linalg.eigvalsh(M.numpy())[::-1]
    m = min(3, used - 1, len(spectrum.values))
    positive = expected[1 : m + 1] > 1e-6  # isolated vertices have the eigenvalue 0 of M
    np.testing.assert_allclose(
        spectrum.values[:m][positive], expected[1 : m + 1][positive], atol=1e-7
    )
    assert not spectrum.vectors[~keep].any()


def test_a_warm_start_takes_few_products() -> None:
    weights = chain((200, 100, 100, 100, 10), dtype=torch.float32)
    blocks, n, n_first = edge_weights((200, 100, 100, 100, 10), weights)
    tracker = Tracker(n, n_first, 3, tolerance=1e-3)
    tracker.update(blocks)
    generator = torch.Generator().manual_seed(0)
    taken = []
    for _ in range(20):
        with torch.no_grad():
            for weight in weights:
                weight += 1e-3 * weight.std() * torch.randn(weight.shape, generator=generator)
        detached = [block._replace(weights=block.weights.detach()) for block in blocks]
        spectrum = tracker.update(detached)
        taken.append(spectrum.n_products)
        np.testing.assert_allclose(
            1 - spectrum.values[:3], dense_eigenvalues(detached, n)[1:4].numpy(), atol=1e-5
        )
    assert max(taken) <= 2
    assert tracker.n_restarts == 1


def crossing(share: float) -> list[Tensor]:
    """Two chains of 40 and 30 neurons a layer and a link, one falling apart as `share` grows."""
    random = np.random.default_rng(3)
    weights = []
    for _ in range(3):
        weight = 0.02 * random.random((70, 70))
        for first, last, inner in ((0, 40, 1 - share), (40, 70, share)):
            half = (first + last) // 2
            for a, b in ((first, half), (half, last)):
                weight[a:b, a:b] += inner * (0.5 + random.random((b - a, b - a)))
        weights.append(torch.tensor(weight))
    return weights


@pytest.mark.parametrize("steps", [40, 3], ids=["slow", "fast"])
def test_crossing_eigenvalues_are_not_missed(steps: int) -> None:
    widths = (70, 70, 70, 70)
    blocks, n, n_first = edge_weights(widths, crossing(0.05))
    tracker = Tracker(n, n_first, 3, tolerance=1e-6)
    for share in np.linspace(0.05, 0.95, steps):
        blocks, _, _ = edge_weights(widths, crossing(float(share)))
        spectrum = tracker.update(blocks)
        np.testing.assert_allclose(
            1 - spectrum.values[:3], dense_eigenvalues(blocks, n)[1:4].numpy(), atol=1e-9
        )


def test_a_sudden_change_is_started_anew_or_converges() -> None:
    widths = (60, 50, 40)
    tracker = Tracker(150, numbered(widths, [(0, 1), (1, 2)])[1], 3, tolerance=1e-8)
    for seed in range(5):
        blocks, n, _ = edge_weights(widths, chain(widths, seed=seed))
        detached = [block._replace(weights=block.weights.detach()) for block in blocks]
        spectrum = tracker.update(detached)
        np.testing.assert_allclose(
            1 - spectrum.values[:3], dense_eigenvalues(detached, n)[1:4].numpy(), atol=1e-10
        )


def test_the_same_seed_gives_the_same_bits() -> None:
    widths = (60, 50, 40)

    def run() -> list[np.ndarray]:
        blocks, n, n_first = edge_weights(widths, chain(widths, dtype=torch.float32))
        tracker = Tracker(n, n_first, 3, tolerance=1e-4, seed=5)
        found = []
        for step in range(5):
            moved = [b._replace(weights=b.weights.detach() * (1 + 0.01 * step)) for b in blocks]
            found.append(tracker.update(moved).values)
        return found

    for first, second in zip(run(), run(), strict=True):
        assert np.array_equal(first, second)


def test_second_derivatives_are_refused_and_first_ones_with_create_graph_are_not() -> None:
    weights = chain(WIDE)
    blocks, n, n_first = edge_weights(WIDE, weights)
    values = differentiable(Tracker(n, n_first, 3, tolerance=1e-8), (2, 3, 4), blocks)
    gradients = torch.autograd.grad(values.sum(), weights, create_graph=True)
    with pytest.raises(NotImplementedError, match="second derivatives"):
        gradients[0].square().sum().backward()


def test_isolated_neurons_get_zero_gradients() -> None:
    widths = (40, 60, 30)
    weights = chain(widths)
    with torch.no_grad():
        weights[0][5] = 0.0
        weights[1][:, 5] = 0.0
        weights[0][:, 3] = 0.0
    blocks, n, n_first = edge_weights(widths, weights)
    values = differentiable(Tracker(n, n_first, 3, tolerance=1e-9), (2, 3, 4), blocks)
    values.sum().backward()
    assert torch.isfinite(weights[0].grad).all()
    assert not weights[0].grad[5].any()
    assert not weights[1].grad[:, 5].any()
    assert not weights[0].grad[:, 3].any()
    assert weights[0].grad.any()


def test_a_disconnected_graph_has_zero_eigenvalues_with_finite_gradients() -> None:
    widths = (60, 60, 60)
    weights = chain(widths)
    with torch.no_grad():
        for weight in weights:
            weight[:30, 30:] = 0.0
            weight[30:, :30] = 0.0
    blocks, n, n_first = edge_weights(widths, weights)
    values = differentiable(Tracker(n, n_first, 3, tolerance=1e-9), (2, 3, 4), blocks)
    assert values[0].item() < 1e-12
    assert values[1].item() > 1e-3
    values[0].backward(retain_graph=True)
    assert all(float(weight.grad.abs().max()) < 1e-6 for weight in weights)


def test_copies_of_a_repeated_eigenvalue_share_their_slope() -> None:
    values = np.array([0.9, 0.5, 0.5, 0.5, 0.1])
    slopes = np.array([1.0, 3.0, 0.0, 0.0, 0.0])
    np.testing.assert_allclose(shared_slopes(slopes, values, 1e-9), [1, 1, 1, 1, 0])


def test_the_gradient_of_a_repeated_eigenvalue_does_not_depend_on_the_basis() -> None:
    """Two equal halves: the third and fourth eigenvalues are equal, each half's own."""
    widths = (60, 60, 60)
    random = np.random.default_rng(0)
    weights = []
    for _ in range(2):
        half = random.random((30, 30)) * (
            1 + 3 * np.equal.outer(np.arange(30) // 15, np.arange(30) // 15)
        )
        whole = np.zeros((60, 60))
        whole[:30, :30] = whole[30:, 30:] = half
        weights.append(torch.tensor(whole, requires_grad=True))
    found = []
    for seed in range(3):
        blocks, n, n_first = edge_weights(widths, weights)
        tracker = Tracker(n, n_first, 3, tolerance=1e-10, seed=seed)
        values = differentiable(tracker, (2, 3, 4), blocks)
        torch.testing.assert_close(values[1], values[2])
        found.append(torch.autograd.grad(values[1], weights)[0])
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(found[0][:30, :30], found[0][30:, 30:], rtol=1e-6, atol=1e-12)


def test_weights_that_are_not_finite_are_named() -> None:
    weights = chain(WIDE)
    with torch.no_grad():
        weights[0][0, 0] = float("nan")
    blocks, n, n_first = edge_weights(WIDE, weights)
    with pytest.raises(InputError, match="not finite"):
        differentiable(Tracker(n, n_first, 3, tolerance=1e-6), (2, 3, 4), blocks)


def test_weights_that_are_all_zero_are_named() -> None:
    weights = [torch.zeros_like(weight) for weight in chain(WIDE)]
    blocks, n, n_first = edge_weights(WIDE, weights)
    with pytest.raises(InputError, match="zero"):
        differentiable(Tracker(n, n_first, 3, tolerance=1e-6), (2, 3, 4), blocks)


def test_a_tolerance_out_of_reach_is_reported() -> None:
    weights = chain(DEEP, dtype=torch.float32)
    blocks, n, n_first = edge_weights(DEEP, weights)
    with pytest.warns(UserWarning, match="residual"):
        differentiable(Tracker(n, n_first, 3, tolerance=1e-14), (2, 3, 4), blocks)


def test_more_vectors_are_kept_than_can_be_asked_for() -> None:
    weights = chain(DEEP)
    blocks, n, n_first = edge_weights(DEEP, weights)
    spectrum = Tracker(n, n_first, 14, tolerance=1e-9).update(
        [block._replace(weights=block.weights.detach()) for block in blocks]
    )
    assert spectrum.values.shape == (WIDTH,)
    expected = dense_eigenvalues(blocks, n)[1:15].detach().numpy()
    np.testing.assert_allclose(1 - spectrum.values[:14], expected, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n_modules", "weight"), [(5, 1e-6), (12, 1e-3), (15, 1e-4)])
def test_no_copy_of_a_repeated_eigenvalue_is_missed(
    n_modules: int, weight: float, dtype: torch.dtype
) -> None:
    size = 24
    module = np.eye(size) + np.roll(np.eye(size), 1, 0) + np.roll(np.eye(size), -1, 0)
    between = np.kron(np.ones((n_modules, n_modules)) - np.eye(n_modules), np.eye(size))
    matrix = np.kron(np.eye(n_modules), module) + weight * between
    which = tuple(range(2, n_modules + 1))
    found = laplacian_eigenvalues([torch.tensor(matrix, dtype=dtype)] * 2, which)
    graph = ncut.graph([matrix] * 2)
    exact = np.linalg.eigvalsh(reference.symmetric_laplacian(graph.adjacency.toarray()))
    np.testing.assert_allclose(found, exact[1:n_modules], atol=2e-6)
