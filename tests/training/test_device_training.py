"""The path that eigenvalues take on a GPU, on torch's operations alone.

It runs here on tensors of the CPU; what only a GPU can show is skipped without one.
"""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import ncut
from ncut.errors import InputError
from ncut.training import spectrum
from ncut.training.eigenvalues import differentiable
from ncut.training.live_graph import numbered
from ncut.training.spectrum import Tracker
from ncut.training.spectrum_types import EdgeWeights, constant

SIZES = (40, 30, 40, 30, 10)
needs_cuda = pytest.mark.skipif(
    not torch.cuda.is_available(),
    reason="needs a CUDA device: run pytest tests/training/test_device_training.py on one",
)


def random_weights(
    sizes: tuple[int, ...] = SIZES, seed: int = 0, dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    """Weights (out, in) of a chain with three groups, so that some eigenvalues stand out."""
    random = np.random.default_rng(seed)
    found = []
    for n_in, n_out in itertools.pairwise(sizes):
        same = (np.arange(n_out)[:, None] * 3 // n_out) == (np.arange(n_in) * 3 // n_in)
        values = random.standard_normal((n_out, n_in)) * (1 + 3 * same)
        found.append(torch.tensor(values, dtype=dtype, requires_grad=True))
    return found


def chain_blocks(weights: list[Tensor]) -> tuple[list[EdgeWeights], int]:
    """Blocks of a chain, and the number of its vertices."""
    sizes = [weights[0].shape[1], *(weight.shape[0] for weight in weights)]
    starts, _ = numbered(sizes, [(i, i + 1) for i in range(len(weights))])
    blocks = [
        EdgeWeights(weight, int(starts[i + 1]), int(starts[i])) for i, weight in enumerate(weights)
    ]
    return blocks, sum(sizes)


def one_by_one(blocks: list[EdgeWeights]) -> list[EdgeWeights]:
    """The same edges without matrices."""
    found = []
    for block in blocks:
        rows, columns = torch.meshgrid(
            *(
                torch.arange(size) + first
                for size, first in zip(block.weights.shape, block[1:3], strict=True)
            ),
            indexing="ij",
        )
        found.append(
            EdgeWeights(block.weights.reshape(-1), rows=rows.ravel(), columns=columns.ravel())
        )
    return found


def reference_values(blocks: list[EdgeWeights], n: int) -> Tensor:
    """All eigenvalues of L_norm, ascending, by autograd through the whole matrix."""
    adjacency = torch.zeros((n, n), dtype=torch.float64)
    for block in blocks:
        rows, columns = block.weights.shape
        pad = (block.first_column, n - block.first_column - columns)
        pad += (block.first_row, n - block.first_row - rows)
        adjacency = adjacency + nn.functional.pad(block.weights.double().abs(), pad)
    adjacency = adjacency + adjacency.T
    scale = adjacency.sum(1).rsqrt()
    return 1 - torch.linalg.eigvalsh(scale[:, None] * adjacency * scale).flip(0)


def moved_a_little(weights: list[Tensor], share: float = 1e-3) -> None:
    """A step of training, so to say, in place."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in weights:
            noise = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
            weight += share * weight.std() * noise


@pytest.fixture
def without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """No compiled kernels, as on a GPU."""
    monkeypatch.setattr(spectrum, "_compiled", lambda blocks: False)


@pytest.mark.usefixtures("without_kernels")
@pytest.mark.parametrize("entries", [False, True], ids=["matrices", "entries"])
@pytest.mark.parametrize("coarse", [False, True], ids=["float32", "tf32"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_values_and_gradients_match_the_dense_matrix(
    entries: bool, coarse: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where products in float32 would be rounded to TF32, they are made in float64.
    monkeypatch.setattr(spectrum, "_is_coarse", lambda device: coarse)
    weights = random_weights(dtype=dtype)
    blocks, n = chain_blocks(weights)
    tracker = Tracker(n, 0, 3, tolerance=1e-5)
    given = one_by_one(blocks) if entries else blocks
    for _ in range(2):  # from random vectors, then from the last ones
        values = differentiable(tracker, (2, 3, 4), given)
    factors = torch.tensor([0.5, -1.0, 2.0], dtype=dtype)
    found = torch.autograd.grad(values @ factors, weights)
    expected = reference_values(blocks, n)[1:4]
    wanted = torch.autograd.grad(expected @ factors.double(), weights)
    assert values.dtype == dtype
    assert tracker.n_restarts == 1
    error = 1e-9 if dtype == torch.float64 else 1e-6
    torch.testing.assert_close(values.double(), expected, rtol=0, atol=error)
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.dtype == dtype
        assert (ours - theirs).norm() <= 1e-4 * theirs.norm()


@pytest.mark.usefixtures("without_kernels")
def test_an_untrained_network_has_accurate_gradients() -> None:
    """Its eigenvalues lie close together, which eigenvectors are most sensitive to."""
    torch.manual_seed(0)
    layers = [nn.Linear(a, b) for a, b in itertools.pairwise((784, 256, 256, 256, 256, 10))]
    model = nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU())))
    exact = copy.deepcopy(model).double()
    ncut.EigenvalueRegularizer(exact, tolerance=1e-10)().backward()
    ncut.EigenvalueRegularizer(model, tolerance=1e-5)().backward()
    for ours, theirs in zip(model.parameters(), exact.parameters(), strict=True):
        if theirs.grad is not None and theirs.grad.any():
            assert ours.grad is not None
            assert (ours.grad.double() - theirs.grad).norm() <= 5e-3 * theirs.grad.norm()


@pytest.mark.usefixtures("without_kernels")
def test_weights_are_followed_in_training() -> None:
    weights = random_weights(dtype=torch.float32)
    blocks, n = chain_blocks(weights)
    tracker = Tracker(n, 0, 3, tolerance=1e-3)
    worst = []
    for _ in range(15):
        moved_a_little(weights)
        values = differentiable(tracker, (2, 3, 4), blocks).detach()
        worst.append(float((values - reference_values(blocks, n)[1:4].detach()).abs().max()))
    assert max(worst) < 1e-5
    assert tracker.n_restarts == 1
    assert tracker.last is not None
    assert tracker.last.n_products <= 5


@pytest.mark.usefixtures("without_kernels")
def test_diverged_weights_are_named() -> None:
    weights = random_weights()
    blocks, n = chain_blocks(weights)
    tracker = Tracker(n, 0, 3, tolerance=1e-3)
    differentiable(tracker, (2, 3, 4), blocks)
    with torch.no_grad():
        weights[0][0, 0] = torch.nan
    with pytest.raises(InputError, match="not finite"):
        differentiable(tracker, (2, 3, 4), blocks)


@pytest.mark.usefixtures("without_kernels")
def test_neurons_without_weights_get_no_gradients() -> None:
    weights = random_weights()
    with torch.no_grad():
        weights[0][5] = 0.0
        weights[1][:, 5] = 0.0
    blocks, n = chain_blocks(weights)
    tracker = Tracker(n, 0, 3, tolerance=1e-6)
    for _ in range(3):
        values = differentiable(tracker, (2, 3, 4), blocks)
    found = torch.autograd.grad(values.sum(), weights)
    assert all(bool(torch.isfinite(gradient).all()) for gradient in found)
    assert not found[0][5].any()
    assert found[0].any()


@pytest.mark.usefixtures("without_kernels")
def test_a_network_that_disconnects_is_reported_at_once() -> None:
    model = nn.Sequential(
        nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 40)
    )
    regularizer = ncut.EigenvalueRegularizer(model, disconnect="hold")
    assert regularizer().requires_grad
    with torch.no_grad():
        model[2].weight *= 1e-7
    with pytest.warns(UserWarning, match=r"cutting the network apart: .* 80 neurons"):
        held = not regularizer().requires_grad
    assert held


def test_a_device_is_where_the_eigenvalues_are_computed() -> None:
    weights = [weight.T.detach().requires_grad_() for weight in random_weights()]
    plain = ncut.laplacian_eigenvalues(weights)
    there = ncut.laplacian_eigenvalues(weights, device="cpu")
    assert torch.equal(plain, there)
    with pytest.raises(InputError, match=r"^device: 'nowhere'"):
        ncut.laplacian_eigenvalues(weights, device="nowhere")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match=r"^device: 'cuda'"):
            ncut.laplacian_eigenvalues(weights, device="cuda")


def test_constants_are_copied_to_a_device_once() -> None:
    array = np.arange(3)
    device = torch.device("meta")  # any that is not the CPU
    assert constant(array, device) is constant(array, device)
    assert constant(array, torch.device("cpu")).data_ptr() == array.ctypes.data


@needs_cuda
@pytest.mark.parametrize("precision", ["highest", "high"])
@pytest.mark.parametrize("kind", ["linear", "convolutions"])
def test_steps_on_cuda_are_the_cpus(kind: str, precision: str) -> None:
    torch.manual_seed(0)
    if kind == "linear":
        model = nn.Sequential(nn.Linear(49, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        model.append(nn.Linear(64, 10))
    else:
        model = nn.Sequential(
            nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 32, 3, groups=8)
        )
        model.extend([nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 20, 3)])
    on_cpu = copy.deepcopy(model).double()
    model = model.cuda()
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        regularizer = ncut.EigenvalueRegularizer(model, tolerance=1e-5)
        for _ in range(2):
            model.zero_grad()
            term = regularizer()
            term.backward()
    finally:
        torch.set_float32_matmul_precision(before)
    expected = ncut.EigenvalueRegularizer(on_cpu, tolerance=1e-10)()
    expected.backward()
    assert float(term) == pytest.approx(float(expected.detach()), rel=1e-4)
    for ours, theirs in zip(model.parameters(), on_cpu.parameters(), strict=True):
        if theirs.grad is not None:
            difference = (ours.grad.cpu().double() - theirs.grad).norm()
            assert difference <= 5e-3 * theirs.grad.norm() + 1e-7


@needs_cuda
def test_gradients_come_back_from_cuda() -> None:
    weights = [weight.T.detach().requires_grad_() for weight in random_weights()]
    found = [
        torch.autograd.grad(ncut.laplacian_eigenvalues(weights, device=device).sum(), weights)
        for device in (None, "cuda")
    ]
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)
