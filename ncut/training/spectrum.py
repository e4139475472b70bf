"""Eigenvalues of the normalized Laplacian of changing weights, and their gradients."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ncut import kernels
from ncut.errors import InputError
from ncut.training import products
from ncut.training.spectrum_types import WIDTH, EdgeWeights, Spectrum

SPARE = 2
"""Smallest number of eigenvectors tracked in addition to the requested ones."""

COLD_PRODUCTS = 2000
"""Products after which an iteration from random vectors stops."""

WARM_PRODUCTS = 60
"""Products after which old eigenvectors are replaced by random ones."""

MANY_FLOPS = 2e8
"""Smallest work of a product that is divided between threads."""

EQUAL = {torch.float32: 1e-6, torch.float64: 1e-10}
"""Eigenvalues closer than this count as one repeated eigenvalue."""


class Tracker:
    """Eigenvectors of a graph whose weights change a little from call to call.

    Each call starts from the last eigenvectors and improves them until the residuals of the
    requested ones are below `tolerance`: mostly one product with the weights, sometimes two. If
    this does not converge, it restarts from random vectors. Crossings are not missed, because an
    eigenvalue must pass the other tracked eigenvalues before it overtakes a requested one, and one
    start vector of each call is random.

    On a GPU, and for more than 14 requested eigenvalues, torch computes the products and all
    vectors; the host solves the small eigenproblems.

    Parameters
    ----------
    n : int
        Vertices.
    n_first : int
        Vertices of the first colour, which come first, if every edge joins two colours; else 0.
    n_wanted : int
        Number of requested eigenvalues, excluding the first.
    tolerance : float
        Largest residual |M v - mu v| of the requested eigenvectors.
    seed : int
        Seed of the random start vectors.

    Attributes
    ----------
    last : Spectrum, optional
        Spectrum of the last call.
    """

    def __init__(
        self, n: int, n_first: int, n_wanted: int, *, tolerance: float, seed: int = 0
    ) -> None:
        self.n = n
        # A small side with few vertices has no room for the block of vectors, all vertices may.
        self.width = WIDTH if n_wanted + SPARE <= WIDTH else n_wanted + max(n_wanted // 4, SPARE)
        few = n - n_first < 2 * self.width
        self.n_first = 0 if few else n_first
        self.n_wanted = n_wanted
        self.tolerance = tolerance
        self.seed = seed
        self.n_calls = 0
        self.n_restarts = 0
        self.last: Spectrum | None = None
        self._basis: Any = None

    def state_dict(self) -> dict[str, Any]:
        """State for resuming: the eigenvectors, tensors and numbers."""
        return {
            "n_calls": self.n_calls,
            "n_restarts": self.n_restarts,
            "basis": None if self._basis is None else self._basis.clone(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a `state_dict`."""
        self.n_calls, self.n_restarts = int(state["n_calls"]), int(state["n_restarts"])
        self._basis = None if state["basis"] is None else state["basis"].clone()

    def update(self, blocks: Sequence[EdgeWeights]) -> Spectrum:
        """The spectrum for the current weights, also stored in `last`."""
        self.n_calls += 1
        if _is_coarse(blocks[0].weights.device):
            blocks = [block._replace(weights=block.weights.double()) for block in blocks]
        self.last = self._update(blocks)
        return self.last

    def _update(self, blocks: Sequence[EdgeWeights]) -> Spectrum:
        first = blocks[0].weights
        if self.n - self.n_first < 2 * self.width:
            return products.dense_spectrum(blocks, self.n, self.width)
        compiled = self.width == WIDTH and _compiled(blocks)
        step = self._compiled if compiled else self._general
        size = self.n - self.n_first if compiled else self.n
        warm = self._fits(first, size)
        if not warm:
            self._restart(first, size)
        spectrum, converged = step(blocks, WARM_PRODUCTS if warm else COLD_PRODUCTS)
        if warm and not converged:
            self._restart(first, size)
            spectrum, converged = step(blocks, COLD_PRODUCTS)
        if np.count_nonzero(spectrum.degrees) < 2 * self.width:
            # Neurons without weights have the eigenvalue 0 of M, which none of the others may.
            return products.dense_spectrum(blocks, self.n, self.width)
        if not converged:
            self._complain(blocks, spectrum)
        return spectrum

    def _fits(self, like: Tensor, size: int) -> bool:
        basis = self._basis
        kept = basis is not None and tuple(basis.shape) == (size, self.width)
        return kept and basis.dtype == like.dtype and basis.device == like.device

    def _restart(self, like: Tensor, size: int) -> None:
        generator = torch.Generator().manual_seed(self.seed + self.n_restarts)
        self.n_restarts += 1
        start = torch.randn((size, self.width), generator=generator, dtype=like.dtype)
        self._basis = start.to(like.device)

    def _compiled(self, blocks: Sequence[EdgeWeights], budget: int) -> tuple[Spectrum, bool]:
        vectors = torch.empty((self.n, WIDTH), dtype=self._basis.dtype)
        degrees, values, residuals = np.empty(self.n), np.empty(WIDTH), np.empty(WIDTH)
        progress = kernels.update_eigenvectors(
            _arrays(blocks), self.n_first, self._basis.numpy(),
            degrees, values, residuals, vectors.numpy(),
            n_wanted=self.n_wanted, tolerance=self.tolerance, max_products=budget,
            seed=self.seed, stream=self.n_calls % 2**32, threads=_threads(blocks),
        )  # fmt: skip
        if progress.broken:
            values[:], residuals[:] = np.nan, np.inf
        spectrum = Spectrum(values, residuals, vectors, degrees, progress.n_products)
        return spectrum, progress.converged

    def _general(self, blocks: Sequence[EdgeWeights], budget: int) -> tuple[Spectrum, bool]:
        generator = torch.Generator().manual_seed(self.seed + self.n_calls)
        fresh = torch.randn(self.n, generator=generator, dtype=self._basis.dtype)
        self._basis, spectrum = products.improved(
            blocks, self._basis, fresh.to(self._basis.device),
            n_wanted=self.n_wanted, tolerance=self.tolerance, max_products=budget,
        )  # fmt: skip
        worst = spectrum.residuals[: self.n_wanted].max()
        return spectrum, bool(worst <= self.tolerance)

    def _complain(self, blocks: Sequence[EdgeWeights], spectrum: Spectrum) -> None:
        if not all(bool(torch.isfinite(block.weights).all()) for block in blocks):
            raise InputError("weights: some are not finite; has the training diverged?")
        if not np.isfinite(spectrum.values).all():
            raise InputError("weights: no eigenvalues could be found; are all of them zero?")
        worst = float(spectrum.residuals[: self.n_wanted].max())
        warnings.warn(
            f"eigenvectors were found to a residual of {worst:.1e} only, not {self.tolerance:.1e}; "
            "raise tolerance, or use float64",
            stacklevel=2,
        )


class Eigenvalues(torch.autograd.Function):
    """Eigenvalues, with gradients in closed form for the weights of every block.

    With `factor`: the factor times their mean, a scalar.
    """

    @staticmethod
    def forward(
        ctx: Any,
        tracker: Tracker,
        which: tuple[int, ...],
        places: Sequence[EdgeWeights],
        factor: float | None,
        *weights: Tensor,
    ) -> Tensor:
        blocks = _detached(places, weights)
        spectrum = tracker.update(blocks)
        ctx.save_for_backward(*weights)
        ctx.blocks, ctx.spectrum, ctx.which, ctx.factor = blocks, spectrum, which, factor
        ctx.set_materialize_grads(False)
        found = [spectrum.eigenvalue(number) for number in which]
        return weights[0].new_tensor(found if factor is None else factor * sum(found) / len(found))

    @staticmethod
    def backward(ctx: Any, slope: Tensor | None) -> Any:
        weights = ctx.saved_tensors  # raises if a weight, and so its block, was changed in place
        none = (None, None, None, None)
        if slope is None:
            return none + (None,) * len(weights)
        with torch.no_grad(), full_precision(slope.device):
            found = _gradients(ctx, slope)
        if torch.is_grad_enabled():
            found = _Final.apply(len(found), *weights, *found)  # type: ignore[no-untyped-call]
        return none + tuple(found)


class _Final(torch.autograd.Function):
    """Gradients without derivatives."""

    @staticmethod
    def forward(ctx: Any, n: int, *weights_and_gradients: Tensor) -> tuple[Tensor, ...]:
        return tuple(gradient.view_as(gradient) for gradient in weights_and_gradients[n:])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        raise NotImplementedError(
            "second derivatives of the Laplacian's eigenvalues are not implemented; "
            "call backward() without create_graph, or detach the eigenvalues"
        )


def _gradients(ctx: Any, slope: Tensor) -> Sequence[Tensor]:
    spectrum, which, factor = ctx.spectrum, ctx.which, ctx.factor
    if factor is None:
        return _gradient(spectrum, which, slope.tolist(), ctx.blocks)
    slopes = [float(slope) * factor / len(which)] * len(which)
    return _gradient(spectrum, which, slopes, ctx.blocks)


def _gradient(
    spectrum: Spectrum, which: Sequence[int], slopes: Sequence[float], blocks: Sequence[EdgeWeights]
) -> Sequence[Tensor]:
    """The gradient of the sum of slopes times eigenvalues for the weights of each block."""
    by_vector = np.zeros(len(spectrum.values))
    for number, slope in zip(which, slopes, strict=True):
        if 0 <= number - 2 < len(by_vector):
            by_vector[number - 2] += slope
    first = blocks[0].weights
    by_vector = shared_slopes(by_vector, spectrum.values, EQUAL[first.dtype])
    if spectrum.vectors.shape[1] != WIDTH or not _compiled(blocks):
        return products.gradient(blocks, by_vector, spectrum.values, spectrum.vectors)
    gradients = [torch.empty_like(block.weights) for block in blocks]
    kernels.eigenvalue_gradient(
        _arrays(blocks), by_vector, spectrum.values, spectrum.vectors.numpy(),
        [gradient.numpy() for gradient in gradients], _threads(blocks),
    )  # fmt: skip
    return gradients


def _detached(places: Sequence[EdgeWeights], weights: Sequence[Tensor]) -> list[EdgeWeights]:
    return [
        EdgeWeights(matrix.detach().contiguous(), *place[1:])
        for place, matrix in zip(places, weights, strict=True)
    ]


def _compiled(blocks: Sequence[EdgeWeights]) -> bool:
    """Return whether the compiled kernels can read the blocks."""
    on_cpu = blocks[0].weights.device.type == "cpu"
    return on_cpu and all(block.rows is None for block in blocks)


def shared_slopes(
    slopes: NDArray[np.float64], values: NDArray[np.float64], tolerance: float
) -> NDArray[np.float64]:
    """Slopes with the slopes of a repeated eigenvalue replaced by the mean over its copies.

    A single one of several equal eigenvalues has no gradient, but their sum has. The mean covers
    only the copies found: copies beyond the tracked eigenvectors are unknown.

    Source: Lewis (1996), Derivatives of spectral functions.
    """
    apart = values[:-1] - values[1:] > tolerance
    if apart.all():
        return slopes
    ends = np.flatnonzero(apart) + 1
    shared = slopes.copy()
    for group in np.split(np.arange(len(values)), ends):
        if len(group) > 1 and slopes[group].any():
            shared[group] = slopes[group].mean()
    return shared


def _arrays(blocks: Sequence[EdgeWeights]) -> list[tuple[NDArray[Any], int, int]]:
    return [
        (block.weights.detach().numpy(), block.first_row, block.first_column) for block in blocks
    ]


def _threads(blocks: Sequence[EdgeWeights]) -> int:
    flops = 4 * WIDTH * sum(block.weights.numel() for block in blocks)
    return torch.get_num_threads() if flops > MANY_FLOPS else 1


def _is_coarse(device: torch.device) -> bool:
    """Return whether float32 products use TF32, in which eigenvectors do not converge."""
    if device.type != "cuda":
        return False
    try:
        return bool(torch.backends.cuda.matmul.allow_tf32)
    except RuntimeError:  # set through the newer of two settings
        return True


def full_precision(device: torch.device) -> AbstractContextManager[Any]:
    """Disable autocasts to 16 bits, in which eigenvectors do not converge."""
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def check_seed(seed: int) -> int:
    """Return the seed, or refuse it unless it is a whole number from 0 up to 2^63."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**63:
        raise InputError(f"seed: must be a whole number from 0 to 2^63 - 1, got {seed!r}")
    return int(seed)
