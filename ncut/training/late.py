"""A step of the eigenvectors on a device, which the host prepares without waiting for any of it.

The host decides nothing that depends on numbers of this step: so many products, one Rayleigh-Ritz
step, and the residuals are copied to the host, which looks at them in a later step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ncut.training import jacobi, products
from ncut.training.placed import LateSpectrum, Placed

DENSE = 4096
"""Graphs of up to so many vertices are one matrix: one launch for a product, not many."""


class Seen(NamedTuple):
    """What the host knows of a step, most often an earlier one.

    Attributes
    ----------
    worst : float
        Largest residual of the wanted eigenvectors; NaN if there are none.
    second : float
        The second eigenvalue of the Laplacian.
    n_connected : int
        Vertices with edges.
    least : float
        Smallest degree of these, as a share of the mean over all vertices.
    """

    worst: float
    second: float
    n_connected: int
    least: float


class Look:
    """Four numbers on their way to the host, and whether they have arrived."""

    def __init__(self, numbers: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        if numbers.device.type != "cuda":
            self._host = numbers
            return
        self._host = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
        self._host.copy_(numbers, non_blocking=True)
        with torch.cuda.device(numbers.device):
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record()

    @property
    def seen(self) -> Seen | None:
        """The numbers; None as long as they are on their way. Does not wait."""
        if self._event is not None and not self._event.query():  # type: ignore[no-untyped-call]
            return None
        worst, second, n_connected, least = self._host.tolist()
        return Seen(worst, second, int(n_connected), least)


def improved(
    blocks: Sequence[Placed], basis: Tensor, fresh: Tensor, high: Tensor, degree: int
) -> tuple[Tensor, LateSpectrum]:
    """Start vectors (n, 16) closer to the leading eigenvectors, and the spectrum in their span.

    A Chebyshev filter on [-1, high] of the degree given and a Rayleigh-Ritz step: `degree` + 1
    products. `fresh`, shape (n,), takes the place of the last vector. `high`, a scalar on the
    device, is an eigenvalue of the step before. What is not finite shows in the residuals.
    """
    sums = products.degrees(blocks, len(basis))
    alone = sums <= 0
    scale = sums.rsqrt().masked_fill(alone, 0.0)[:, None]
    known = (sums / sums.sum()).sqrt()[:, None]
    apply = _operator(blocks, scale)
    fresh = fresh / len(fresh) ** 0.5
    before = torch.cat([basis[:, :-1], fresh[:, None]], dim=1).double()
    before = before.masked_fill(alone[:, None], 0.0)
    high = high.clamp_min(-1.0 + 1e-3)
    centre, half = (high - 1.0) / 2, (high + 1.0) / 2
    x = (apply(before) - centre * before) / half
    for _ in range(degree - 1):
        before, x = x, 2 * (apply(x) - centre * x) / half - before
    x, failed = _orthonormal(torch.cat([known, x], dim=1))
    x = x[:, 1:]
    product = apply(x)
    projected = x.T @ product
    values, mixture = jacobi.eigh((projected + projected.T) / 2)
    vectors, product = x @ mixture, product @ mixture
    residuals = torch.linalg.vector_norm(product - vectors * values, dim=0)
    residuals = residuals.masked_fill(failed, torch.inf)
    dtype = blocks[0].weights.dtype
    spectrum = LateSpectrum(values, residuals, (scale * vectors).to(dtype), sums, degree + 1)
    return vectors.to(dtype), spectrum


def look(spectrum: LateSpectrum, n_wanted: int) -> Look:
    """Send the host what it has to know of a step."""
    alone = spectrum.sums <= 0
    least = spectrum.sums.masked_fill(alone, torch.inf).min() / spectrum.sums.mean()
    second = (1.0 - spectrum.mu[0]).clamp_min(0.0)
    n_connected = len(alone) - alone.sum()
    worst = spectrum.errors[:n_wanted].max()
    return Look(torch.stack([worst, second, n_connected.double(), least]))


def shared_slopes(slopes: Tensor, values: Tensor, tolerance: float) -> Tensor:
    """As `ncut.training.spectrum.shared_slopes`, on the device."""
    apart = (values[:-1] - values[1:] > tolerance).to(slopes.dtype)
    group = torch.nn.functional.pad(apart, (1, 0)).cumsum(0)
    same = (group[:, None] == group).to(slopes.dtype)
    return same @ slopes / same.sum(1)


def is_coarse(device: torch.device) -> bool:
    """Whether products in float32 are rounded to TF32, in which eigenvectors do not converge."""
    if device.type != "cuda":
        return False
    try:
        return bool(torch.backends.cuda.matmul.allow_tf32)
    except RuntimeError:  # set by the newer of two ways of setting it
        return True


def _operator(blocks: Sequence[Placed], scale: Tensor) -> Callable[[Tensor], Tensor]:
    """x -> D^-1/2 A D^-1/2 x, in the blocks' type."""
    n, first = len(scale), blocks[0].weights
    magnitudes = [block._replace(weights=block.weights.abs()) for block in blocks]
    if n > DENSE:
        factors = scale.to(first.dtype)

        def apply(x: Tensor) -> Tensor:
            return (factors * products.added(magnitudes, factors * x.to(first.dtype))).double()

        return apply
    adjacency = first.new_zeros((n, n))
    for block in magnitudes:
        if block.rows is not None and block.columns is not None:
            flat = adjacency.view(-1)
            flat.index_add_(0, block.rows * n + block.columns, block.weights)
            flat.index_add_(0, block.columns * n + block.rows, block.weights)
        else:
            rows, columns = products.slices(block)
            adjacency[rows, columns] += block.weights
            adjacency[columns, rows] += block.weights.T
    matrix = (adjacency * scale * scale.T).to(first.dtype)
    return lambda x: (matrix @ x.to(first.dtype)).double()


def _orthonormal(x: Tensor) -> tuple[Tensor, Tensor]:
    """The columns made orthonormal, in their order, and whether that failed: Cholesky QR twice.

    Source: Fukaya et al. (2014), CholeskyQR2.
    """
    failed = torch.zeros((), dtype=torch.bool, device=x.device)
    for _ in range(2):
        x = x / torch.linalg.vector_norm(x, dim=0)
        lower, info = torch.linalg.cholesky_ex(x.T @ x)
        failed = failed | (info != 0)
        x = torch.linalg.solve_triangular(lower, x.T, upper=False).T
    return x, failed
