"""A step of the eigenvectors on a device, which the host prepares without waiting for any of it.

The host decides nothing that depends on numbers of this step: so many products, one Rayleigh-Ritz
step, and the residuals are copied to the host, which looks at them in a later step.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    """Some numbers on their way to the host, and whether they have arrived.

    Those of `Seen`, but mu for the second eigenvalue, and the mean degree after the smallest one.
    """

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
        worst, mu, n_connected, least, mean = self._host.tolist()
        return Seen(worst, max(1.0 - mu, 0.0), int(n_connected), least / mean)


def improved(
    blocks: Sequence[Placed], basis: Tensor, fresh: Tensor, high: Tensor, degree: int
) -> tuple[Tensor, LateSpectrum]:
    """Start vectors (n, 16) closer to the leading eigenvectors, and the spectrum in their span.

    A Chebyshev filter on [-1, high] of the degree given and a Rayleigh-Ritz step: `degree` + 1
    products. `fresh`, shape (n,), takes the place of the last vector. `high`, a scalar on the
    device, is an eigenvalue of the step before. What is not finite shows in the residuals.

    What costs time is the number of operations, not their work: each has to be launched.
    """
    n, dtype = len(basis), basis.dtype
    high = high.clamp_min(-1.0 + 1e-3)
    half = (high + 1.0) / 2
    centre, stretch = half - 1.0, 2.0 / half
    if n > DENSE:
        sums = products.degrees(blocks, n)
        scale, alone = _inverse_roots(sums)
        factors = scale.to(dtype)
        magnitudes = [block._replace(weights=block.weights.abs()) for block in blocks]

        def apply(x: Tensor) -> Tensor:
            return factors * products.added(magnitudes, factors * x)

        def twice_mapped(x: Tensor) -> Tensor:
            return (apply(x) - centre * x) * stretch
    else:
        matrix = products.adjacency(blocks, n)
        sums = matrix.sum(0, dtype=torch.float64)
        scale, alone = _inverse_roots(sums)
        factors = scale.to(dtype)
        matrix.mul_(factors).mul_(factors.T)
        twice = matrix * stretch
        twice.diagonal().sub_(centre * stretch)

        def apply(x: Tensor) -> Tensor:
            return matrix @ x

        def twice_mapped(x: Tensor) -> Tensor:
            return twice @ x

    before = torch.cat([basis[:, :-1], fresh[:, None]], dim=1).masked_fill_(alone, 0.0)
    x = twice_mapped(before) / 2
    for _ in range(degree - 1):
        before, x = x, twice_mapped(x) - before
    known = (sums / sums.sum()).sqrt()[:, None]
    x, failed = _orthonormal(torch.cat([known, x], dim=1))
    x = x[:, 1:]
    product = apply(x.to(dtype)).double()
    projected = x.T @ product
    values, mixture = jacobi.eigh((projected + projected.T) / 2)
    vectors, product = x @ mixture, product @ mixture
    residuals = torch.linalg.vector_norm(product - vectors * values, dim=0)
    residuals = residuals.masked_fill(failed, torch.inf)
    spectrum = LateSpectrum(values, residuals, (scale * vectors).to(dtype), sums, degree + 1)
    return vectors.to(dtype), spectrum


def first_degree(n: int) -> int:
    """Degree of the filter of a graph of n vertices as long as that is accurate enough.

    A product more is two operations more where the graph is one matrix, one with few edges.
    """
    return products.FIRST_DEGREE * (2 if n <= DENSE else 1)


def look(spectrum: LateSpectrum, n_wanted: int) -> Look:
    """Send the host what it has to know of a step."""
    sums = spectrum.sums
    numbers = [
        spectrum.errors[:n_wanted].max(),
        spectrum.mu[0],
        torch.count_nonzero(sums),
        sums.masked_fill(sums <= 0, torch.inf).min(),
        sums.mean(),
    ]
    return Look(torch.stack([number.double() for number in numbers]))


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


def _inverse_roots(sums: Tensor) -> tuple[Tensor, Tensor]:
    """Columns of D^-1/2, 0 for vertices without edges, and of which vertices these are."""
    alone = sums <= 0
    return sums.rsqrt().masked_fill_(alone, 0.0)[:, None], alone[:, None]


def _orthonormal(x: Tensor) -> tuple[Tensor, Tensor]:
    """The columns made orthonormal, in their order, and whether that failed: Cholesky QR twice.

    Source: Fukaya et al. (2014), CholeskyQR2.
    """
    x = x / torch.linalg.vector_norm(x, dim=0)
    infos = []
    for _ in range(2):
        lower, info = torch.linalg.cholesky_ex(x.T @ x)
        infos.append(info)
        x = torch.linalg.solve_triangular(lower, x.T, upper=False).T
    return x, (infos[0] + infos[1]) != 0
