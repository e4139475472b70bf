"""The compiled kernels' functions in torch: any device, and edges without a matrix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ncut.chebyshev import Unwanted, filtered
from ncut.errors import InputError
from ncut.training.spectrum_types import WIDTH, EdgeWeights, Spectrum

FIRST_DEGREE, LAST_DEGREE = 4, 16
"""Degrees of the Chebyshev filter: in the first iteration, and in later ones."""


def degrees(blocks: Sequence[EdgeWeights], n: int) -> Tensor:
    """Sums of the edge weights of each vertex, shape (n,)."""
    sums = blocks[0].weights.new_zeros(n, dtype=torch.float64)
    for block in blocks:
        magnitudes = block.weights.abs()
        if block.rows is not None and block.columns is not None:
            wide = magnitudes.double()
            sums.index_add_(0, block.rows, wide).index_add_(0, block.columns, wide)
        else:
            rows, columns = slices(block)
            # Not `sums[rows] +=`, which would copy the result onto itself.
            sums[rows].add_(magnitudes.sum(1, dtype=torch.float64))
            sums[columns].add_(magnitudes.sum(0, dtype=torch.float64))
    return sums


def multiply(blocks: Sequence[EdgeWeights], x: Tensor) -> Tensor:
    """A x for x of shape (n, any)."""
    result = torch.zeros_like(x)
    for block in blocks:
        magnitudes = block.weights.abs()
        if block.rows is not None and block.columns is not None:
            result.index_add_(0, block.rows, magnitudes[:, None] * x[block.columns])
            result.index_add_(0, block.columns, magnitudes[:, None] * x[block.rows])
        else:
            rows, columns = slices(block)
            result[rows].addmm_(magnitudes, x[columns])
            result[columns].addmm_(magnitudes.T, x[rows])
    return result


def gradient(
    blocks: Sequence[EdgeWeights],
    slopes: NDArray[np.float64] | Tensor,
    values: NDArray[np.float64] | Tensor,
    u: Tensor,
) -> tuple[Tensor, ...]:
    """The gradient of sum(slopes * (1 - values)) for the weights of each block.

    d lambda / d A_ij = (1 - lambda) (u_i^2 + u_j^2) - 2 u_i u_j for an undirected edge and
    u = D^-1/2 v. Source: Filan et al. (2021), appendix A.9.
    """
    factors = torch.as_tensor(slopes, dtype=u.dtype, device=u.device)
    values = torch.as_tensor(values, dtype=u.dtype, device=u.device)
    sums = ((u * u) @ (factors * values))[:, None]
    ones = torch.ones_like(sums)
    # The slope for an edge is one product of two rows.
    left = torch.cat([-2 * u * factors, sums, ones], dim=1)
    right = torch.cat([u, ones, sums], dim=1)
    found = []
    for block in blocks:
        if block.rows is not None and block.columns is not None:
            slope = (left[block.rows] * right[block.columns]).sum(1)
        else:
            rows, columns = slices(block)
            slope = left[rows] @ right[columns].T
        found.append(slope.mul_(block.weights.sign()).to(block.weights.dtype))
    return tuple(found)


def dense_spectrum(blocks: Sequence[EdgeWeights], n: int, width: int = WIDTH) -> Spectrum:
    """The `width` smallest eigenvalues after the first, by LAPACK in float64.

    For graphs in which few vertices have edges.
    """
    sums = degrees(blocks, n)
    _check_edges(sums)
    used = torch.nonzero(sums > 0).ravel()
    chosen = blocks[0].weights.new_zeros((n, len(used)))
    chosen[used, torch.arange(len(used), device=used.device)] = 1.0
    adjacency = multiply(blocks, chosen)[used].double().cpu()
    used, sums = used.cpu(), sums.cpu()
    scale = sums[used].rsqrt()
    M = scale[:, None] * adjacency * scale
    values, vectors = torch.linalg.eigh(M)
    # Any vector of the eigenvalue 1 may be dropped: the copies left then have no gradient.
    kept = values.flip(0)[1 : width + 1], vectors.flip(1)[:, 1 : width + 1]
    full = torch.zeros((n, kept[1].shape[1]), dtype=torch.float64)
    full[used] = scale[:, None] * kept[1]
    return Spectrum(
        kept[0].numpy(), np.zeros(len(kept[0])), full.to(blocks[0].weights), sums.numpy(), 1
    )


def improved(
    blocks: Sequence[EdgeWeights],
    basis: Tensor,
    fresh: Tensor,
    *,
    n_wanted: int,
    tolerance: float,
    max_products: int,
) -> tuple[Tensor, Spectrum]:
    """Start vectors (n, m) closer to the leading eigenvectors, and the spectrum in their span.

    Subspace iteration with a Chebyshev filter on [-1, mu_m] and a Rayleigh-Ritz step per iteration,
    until the residuals of the first `n_wanted` are below `tolerance`. `fresh`, shape (n,), replaces
    the last vector.
    """
    sums = degrees(blocks, len(basis))
    _check_edges(sums)
    scale = torch.where(sums > 0, sums.rsqrt(), 0.0).to(basis.dtype)[:, None]
    known = (sums / sums.sum()).sqrt().to(basis.dtype)

    def apply(x: Tensor) -> Tensor:
        return scale * multiply(blocks, scale * x)

    basis = torch.cat([basis[:, :-1], fresh[:, None]], dim=1)
    n_products, degree = 0, FIRST_DEGREE
    while True:
        basis = torch.linalg.qr(torch.cat([known[:, None], basis], dim=1))[0][:, 1:]
        product = apply(basis)
        n_products += 1
        projected = (basis.T @ product).double().cpu()
        values, mixture = torch.linalg.eigh((projected + projected.T) / 2)
        values, mixture = values.flip(0), mixture.flip(1).to(basis)
        vectors, product = basis @ mixture, product @ mixture
        residuals = torch.linalg.vector_norm(product - vectors * values.to(basis), dim=0).cpu()
        worst = float(residuals[:n_wanted].max())
        if not worst > tolerance or n_products >= max_products:  # also where it is NaN
            found = Spectrum(
                values.numpy(), residuals.double().numpy(), scale * vectors,
                sums.cpu().numpy(), n_products,
            )  # fmt: skip
            return vectors, found
        unwanted = Unwanted.below(float(values[-2]))
        basis = filtered(apply, vectors, product, unwanted, degree)
        n_products += degree - 1
        degree = min(2 * degree, LAST_DEGREE, _bearable(float(values[0]), unwanted))


def _bearable(largest: float, unwanted: Unwanted) -> int:
    """The largest degree that magnifies an eigenvalue at most a thousand times."""
    x = max((largest - unwanted.centre) / unwanted.half, 1.0)
    return max(int(np.log(2e3) / max(float(np.arccosh(x)), 1e-3)), 1)


def _check_edges(sums: Tensor) -> None:
    if not bool(torch.isfinite(sums).all()):
        raise InputError("weights: some are not finite; has the training diverged?")
    if not bool((sums > 0).any()):
        raise InputError("weights: all of them are zero")


def slices(block: EdgeWeights) -> tuple[slice, slice]:
    """The vertices along the axes of a dense block."""
    n_rows, n_columns = block.weights.shape
    return (
        slice(block.first_row, block.first_row + n_rows),
        slice(block.first_column, block.first_column + n_columns),
    )
