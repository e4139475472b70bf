"""The path that eigenvalues take on a GPU: nothing waited for, residuals looked at later.

Most of it runs here on tensors of the CPU; what only a GPU can show is skipped without one.
"""

from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import ncut
from ncut.errors import InputError
from ncut.training import jacobi, late
from ncut.training.eigenvalues import differentiable
from ncut.training.live import numbered
from ncut.training.placed import LateSpectrum, Placed, constant
from ncut.training.spectrum import Tracker, shared_slopes

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


def chain_blocks(weights: list[Tensor]) -> tuple[list[Placed], int]:
    """Blocks of a chain, and the number of its vertices."""
    sizes = [weights[0].shape[1], *(weight.shape[0] for weight in weights)]
    starts, _ = numbered(sizes, [(i, i + 1) for i in range(len(weights))])
    blocks = [
        Placed(weight, int(starts[i + 1]), int(starts[i])) for i, weight in enumerate(weights)
    ]
    return blocks, sum(sizes)


def one_by_one(blocks: list[Placed]) -> list[Placed]:
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
        found.append(Placed(block.weights.reshape(-1), rows=rows.ravel(), columns=columns.ravel()))
    return found


def reference_values(blocks: list[Placed], n: int) -> Tensor:
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


class _Waits(TorchDispatchMode):
    """Counts operations, and those by which the host reads a device's numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.n_operations = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.n_operations += 1
        if func.overloadpacket.__name__ in ("_local_scalar_dense", "nonzero", "_linalg_eigh"):
            self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


@contextmanager
def no_wait() -> Iterator[None]:
    """Any synchronization is an error."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("way", [jacobi.eigh, jacobi.rotated])
@pytest.mark.parametrize("seed", range(5))
def test_rotations_find_the_eigenvectors_of_lapack(way, seed: int) -> None:  # type: ignore[no-untyped-def]
    matrix = torch.randn((16, 16), generator=torch.Generator().manual_seed(seed)).double()
    matrix = matrix + matrix.T
    if seed == 3:  # nearly what it is in training, with repeated eigenvalues
        matrix = torch.diag(torch.arange(16.0).double() // 3) + 1e-9 * matrix
    if seed == 4:
        matrix = torch.eye(16, dtype=torch.float64)
    values, vectors = way(matrix)
    expected = torch.linalg.eigvalsh(matrix).flip(0)
    torch.testing.assert_close(values, expected, rtol=0, atol=1e-13)
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(16).double(), rtol=0, atol=1e-13)
    torch.testing.assert_close(matrix @ vectors, vectors * values, rtol=0, atol=1e-13)


def test_rotations_of_what_is_not_finite_are_not_finite() -> None:
    matrix = torch.eye(16, dtype=torch.float64)
    matrix[3, 5] = matrix[5, 3] = torch.nan
    assert not torch.isfinite(jacobi.eigh(matrix)[0]).all()


@pytest.mark.parametrize("entries", [False, True], ids=["matrices", "entries"])
@pytest.mark.parametrize("dense", [0, 4096], ids=["by-block", "dense"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_a_late_step_has_the_values_and_gradients_of_the_dense_matrix(
    entries: bool, dense: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(late, "DENSE", dense)
    weights = random_weights(dtype=dtype)
    blocks, n = chain_blocks(weights)
    given = one_by_one(blocks) if entries else blocks
    tracker = Tracker(n, 0, 3, tolerance=1e-3, late=True)
    differentiable(tracker, (2, 3, 4), given)
    for _ in range(4):  # the weights stay: each call improves on the last
        values = differentiable(tracker, (2, 3, 4), given)
    factors = torch.tensor([0.5, -1.0, 2.0], dtype=dtype)
    found = torch.autograd.grad(values @ factors, weights)
    expected = reference_values(blocks, n)[1:4]
    wanted = torch.autograd.grad(expected @ factors.double(), weights)
    assert tracker.n_restarts == 1
    assert isinstance(tracker.last, LateSpectrum)
    assert tracker.last.n_products == late.first_degree(n) + 1
    error = 1e-9 if dtype == torch.float64 else 1e-6
    torch.testing.assert_close(values.double(), expected, rtol=0, atol=error)
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.dtype == dtype
        assert (ours - theirs).norm() <= 2e-3 * theirs.norm()


def test_the_gradient_of_a_late_step_is_that_of_finite_differences() -> None:
    weights = random_weights((30, 26, 22))
    blocks, n = chain_blocks(weights)
    tracker = Tracker(n, 0, 2, tolerance=1e-9, late=True)
    for _ in range(8):
        term = differentiable(tracker, (2, 3), blocks, 0.7)
    found = torch.autograd.grad(term, weights)
    for number, at in ((0, (3, 4)), (1, (20, 25))):
        moved = [weight.detach().clone() for weight in weights]
        ends = []
        for step in (1e-5, -2e-5):
            moved[number][at] += step
            ends.append(0.7 * reference_values(chain_blocks(moved)[0], n)[1:3].mean())
        slope = (ends[0] - ends[1]) / 2e-5
        torch.testing.assert_close(found[number][at], slope, rtol=1e-4, atol=1e-9)


def test_a_late_step_reads_nothing_but_an_earlier_step() -> None:
    model = nn.Sequential(nn.Linear(40, 50), nn.ReLU(), nn.Linear(50, 30))
    regularizer = ncut.EigenvalueRegularizer(model)
    for tracker in regularizer._trackers:
        tracker.late = True
    regularizer().backward()
    for _ in range(3):
        waits = _Waits()
        with waits:
            regularizer().backward()
        assert not waits.seen
    with waits:
        assert len(regularizer.eigenvalues) == 3


def test_a_late_step_of_an_untrained_network_has_accurate_gradients() -> None:
    """Its eigenvalues lie close together, which eigenvectors are most sensitive to."""
    torch.manual_seed(0)
    layers = [nn.Linear(a, b) for a, b in itertools.pairwise((784, 256, 256, 256, 256, 10))]
    model = nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU())))
    exact = copy.deepcopy(model).double()
    ncut.EigenvalueRegularizer(exact, tolerance=1e-10)().backward()
    regularizer = ncut.EigenvalueRegularizer(model)
    regularizer._trackers[0].late = True
    for _ in range(10):
        model.zero_grad()
        regularizer().backward()
    for ours, theirs in zip(model.parameters(), exact.parameters(), strict=True):
        if theirs.grad is not None and theirs.grad.any():
            assert ours.grad is not None
            assert (ours.grad.double() - theirs.grad).norm() <= 5e-3 * theirs.grad.norm()


def test_a_late_step_is_few_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU has done each of them before the host has launched the next."""

    def one_kernel(matrix: Tensor) -> tuple[Tensor, Tensor]:
        values, vectors = torch.linalg.eigh(matrix)
        return values.flip(0), vectors.flip(1)

    monkeypatch.setattr(jacobi, "eigh", one_kernel)
    model = nn.Sequential(nn.Linear(40, 50), nn.ReLU(), nn.Linear(50, 30))
    regularizer = ncut.EigenvalueRegularizer(model)
    regularizer._trackers[0].late = True
    regularizer()
    regularizer()
    waits = _Waits()
    with waits:
        regularizer().backward()
    assert waits.n_operations <= 170


def test_a_late_step_follows_weights_in_training() -> None:
    weights = random_weights(dtype=torch.float32)
    blocks, n = chain_blocks(weights)
    tracker = Tracker(n, 0, 3, tolerance=1e-3, late=True)
    worst = []
    for _ in range(15):
        moved_a_little(weights)
        values = differentiable(tracker, (2, 3, 4), blocks).detach()
        worst.append(float((values - reference_values(blocks, n)[1:4].detach()).abs().max()))
    assert max(worst) < 1e-5
    assert tracker.n_restarts == 1


def test_what_did_not_converge_is_repaired_by_the_next_step() -> None:
    weights = random_weights()
    blocks, n = chain_blocks(weights)
    tracker = Tracker(n, 0, 3, tolerance=1e-8, late=True)
    differentiable(tracker, (2, 3, 4), blocks)
    with torch.no_grad():
        for weight, other in zip(weights, random_weights(seed=1), strict=True):
            weight.copy_(other.flip(0))
    expected = reference_values(blocks, n)[1:4]
    first = differentiable(tracker, (2, 3, 4), blocks)
    assert (first - expected).abs().max() > 1e-9  # or there was nothing to repair
    second = differentiable(tracker, (2, 3, 4), blocks)
    torch.testing.assert_close(second, expected, rtol=0, atol=1e-10)
    assert tracker._degree > late.first_degree(n)
    assert tracker.seen is not None
    assert tracker.seen.worst <= 1e-8


def test_diverged_weights_are_named_a_step_later() -> None:
    weights = random_weights()
    blocks, n = chain_blocks(weights)
    tracker = Tracker(n, 0, 3, tolerance=1e-3, late=True)
    differentiable(tracker, (2, 3, 4), blocks)
    with torch.no_grad():
        weights[0][0, 0] = torch.nan
    differentiable(tracker, (2, 3, 4), blocks)
    with pytest.raises(InputError, match="not finite"):
        differentiable(tracker, (2, 3, 4), blocks)


def test_neurons_without_weights_get_no_gradients_in_a_late_step() -> None:
    weights = random_weights()
    with torch.no_grad():
        weights[0][5] = 0.0
        weights[1][:, 5] = 0.0
    blocks, n = chain_blocks(weights)
    tracker = Tracker(n, 0, 3, tolerance=1e-6, late=True)
    for _ in range(3):
        values = differentiable(tracker, (2, 3, 4), blocks)
    found = torch.autograd.grad(values.sum(), weights)
    assert all(bool(torch.isfinite(gradient).all()) for gradient in found)
    assert not found[0][5].any()
    assert found[0].any()


def test_graphs_of_few_neurons_are_left_to_the_host() -> None:
    weights = random_weights((6, 5, 4))
    blocks, n = chain_blocks(weights)
    tracker = Tracker(n, 0, 2, tolerance=1e-6, late=True)
    for _ in range(2):
        values = differentiable(tracker, (1, 2, 3), blocks)
        expected = reference_values(blocks, n)[:3].detach()
        torch.testing.assert_close(values.detach(), expected, rtol=0, atol=1e-12)
    wanted = torch.autograd.grad(reference_values(blocks, n)[1:3].sum(), weights)
    for ours, theirs in zip(torch.autograd.grad(values.sum(), weights), wanted, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_copies_share_their_slope_on_a_device_too() -> None:
    random = np.random.default_rng(0)
    for _ in range(10):
        values = np.sort(random.integers(0, 6, 16) / 10)[::-1].copy()
        slopes = random.standard_normal(16)
        found = late.shared_slopes(torch.tensor(slopes), torch.tensor(values), 1e-9)
        np.testing.assert_allclose(found, shared_slopes(slopes, values, 1e-9), atol=1e-14)


def test_a_network_that_falls_apart_is_told_a_step_later() -> None:
    model = nn.Sequential(
        nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 40)
    )
    regularizer = ncut.EigenvalueRegularizer(model, disconnect="hold")
    regularizer._trackers[0].late = True
    assert regularizer().requires_grad
    with torch.no_grad():
        model[2].weight *= 1e-7
    with pytest.warns(UserWarning, match=r"cutting the network apart: .* 80 neurons"):
        held = [not regularizer().requires_grad for _ in range(3)]
    assert held[-1]


def test_a_regularizer_in_late_steps_can_be_copied() -> None:
    model = nn.Sequential(nn.Linear(40, 50), nn.ReLU(), nn.Linear(50, 30))
    regularizer = ncut.EigenvalueRegularizer(model)
    regularizer._trackers[0].late = True
    regularizer()
    expected = float(regularizer().detach())
    assert float(copy.deepcopy(regularizer)().detach()) == pytest.approx(expected, abs=1e-5)
    tracker = regularizer._trackers[0]
    assert tracker._look is not None
    again = pickle.loads(pickle.dumps(tracker))
    assert again._look is None
    assert again.n_calls == tracker.n_calls


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
def test_the_kernel_is_used_and_right() -> None:
    assert jacobi.prepare(torch.device("cuda", torch.cuda.current_device()))


@needs_cuda
@pytest.mark.parametrize("kind", ["linear", "convolutions"])
def test_a_warm_step_on_cuda_waits_for_nothing(kind: str) -> None:
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
    regularizer = ncut.EigenvalueRegularizer(model)
    for _ in range(4):
        regularizer().backward()
        torch.cuda.synchronize()
    model.zero_grad()
    with no_wait():
        term = regularizer()
        term.backward()
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
