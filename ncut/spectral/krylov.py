"""Block Lanczos with thick restarts: the largest eigenvalues of a symmetric operator.

Written against the array namespace of its start vectors, so that GPU arrays can replace NumPy
arrays; the small projected matrix is always a NumPy array.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncut import kernels
from ncut.spectral.namespaces import HOST, Arrays, astype, concat
from ncut.spectral.operator import WIDTH

NEARLY = 1e-3
"""Change of a block in a pass below which no further pass is needed."""

SAFE = 1e-5
"""Smallest diagonal entry, relative to the largest, of a trusted Cholesky factor."""

MAX_PASSES = 5

MAX_BLOCKS = 7
"""Blocks in the basis before a restart.

A larger basis occasionally saves a product, but its small eigenproblem costs more.
"""


@dataclass(frozen=True, slots=True, eq=False)
class RitzPairs:
    """Approximate eigenpairs.

    Attributes
    ----------
    values : ndarray of float64, shape (k,), descending
    vectors : array of the start vectors' type, shape (n, k), orthonormal
    residuals : ndarray of float64, shape (k,)
        Norms of H u - theta u, as the recurrence estimates them.
    others : ndarray of float64, shape (m,), descending
        The other Ritz values: estimates from below of the eigenvalues that follow.
    n_products : int
        Number of applications of the operator to a block.
    """

    values: NDArray[np.float64]
    vectors: Any
    residuals: NDArray[np.float64]
    others: NDArray[np.float64]
    n_products: int


def block_width(k: int) -> int:
    """Vectors in a block: at least the k wanted, and a multiple of the kernels' width."""
    return WIDTH * -(-k // WIDTH)


def basis_size(k: int) -> int:
    """Vectors in a full basis for k wanted ones."""
    return MAX_BLOCKS * block_width(k)


def room_needed(k: int) -> int:
    """Dimensions that block Lanczos needs: for a full basis and the block after it."""
    return basis_size(k) + block_width(k)


def block_lanczos(
    apply: Callable[[Any], Any],
    start: Any,
    known: Any,
    k: int,
    *,
    tolerance: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    max_blocks: int,
    max_products: int,
    first_look: int | None = None,
    arrays: Arrays = HOST,
) -> RitzPairs:
    """The k largest eigenpairs of a symmetric operator H orthogonal to known eigenvectors.

    Growth: the basis starts as the orthonormalized start block; it grows by the part of H times its
    last block that is orthogonal to the basis and to the known vectors (full reorthogonalization,
    usually in two passes). Checks: Ritz pairs are computed after `first_look` products, whenever
    the basis is full, and after as many products as the last two checks suggest (`_Checks`). Stop:
    at a check, when each of the k residuals is within its tolerance, when `_Checks.PATIENCE`
    products brought no progress, or after `max_products`. Restart: a full basis is reduced to the k
    + b // 2 best Ritz vectors, and continues with the next block (the restart of Wu and Simon, in
    blocks).

    With b >= k no copy of a repeated eigenvalue is missed: the Krylov space of a random block of b
    vectors contains min(m, b) independent eigenvectors of an eigenvalue of multiplicity m, with
    probability 1 (the block's projection onto an eigenspace of dimension m has that rank).

    Parameters
    ----------
    apply : callable
        H times a block of vectors, (n, b) -> (n, b).
    start : array, shape (n, b)
        Random start vectors; their type is the type of all work.
    known : array, shape (n, c)
        Orthonormal eigenvectors that are locked from the start.
    k : int
    tolerance : callable
        Given the Ritz values, more than k of them in descending order, the residual norms at
        which the first k count as converged.
    max_blocks : int
        Blocks in the basis before a restart; k must leave room for new blocks.
    max_products : int
        Largest number of products.
    first_look : int, optional
        Products before the first convergence check; by default as many as fill the basis.
    arrays : Arrays
        The namespace of `start` and all other vectors.

    Source: Golub and Underwood (1977), The block Lanczos method for computing eigenvalues; Wu
    and Simon (2000), Thick-restart Lanczos method for large symmetric eigenvalue problems.
    """
    xp = arrays.xp
    n, b = start.shape
    n_known = known.shape[1]
    # One more block: a full basis is followed by the next block.
    vectors = xp.empty((n, n_known + (max_blocks + 1) * b), dtype=start.dtype)
    vectors[:, :n_known] = known
    projected = np.zeros((max_blocks * b, max_blocks * b))
    fresh, _, _ = _orthonormalized(start, vectors, known.T @ start, arrays)
    size = 0
    n_products = 0
    checks = _Checks(first=max_blocks if first_look is None else first_look)
    while True:
        vectors[:, n_known + size : n_known + size + b] = fresh
        product = apply(fresh)
        n_products += 1
        size += b
        inside = vectors[:, : n_known + size].T @ product
        fresh, remainder, inside = _orthonormalized(product, vectors, inside, arrays)
        coupling = inside[n_known:]
        projected[:size, size - b : size] = coupling
        projected[size - b : size, :size] = coupling.T
        full = size + b > max_blocks * b
        if full or n_products >= max_products or checks.due(n_products):
            values, mixture = _eigenpairs(projected[:size, :size])
            residuals = np.linalg.norm(remainder @ mixture[size - b :, :k], axis=0)
            excess = float(np.max(residuals / tolerance(values)[:k]))
            checks.record(n_products, excess, float(residuals.max()))
            basis = vectors[:, n_known : n_known + size]
            if excess <= 1 or checks.stalled or n_products >= max_products:
                found = basis @ _moved(mixture[:, :k], start.dtype, arrays)
                return RitzPairs(values[:k], found, residuals, values[k:], n_products)
        if full:
            kept = k + b // 2
            vectors[:, n_known : n_known + kept] = basis @ _moved(
                mixture[:, :kept], start.dtype, arrays
            )
            projected[:] = 0
            projected[:kept, :kept] = np.diag(values[:kept])
            size = kept


class _Checks:
    """Schedule of convergence checks, which cost as much as a product or more.

    Residuals fall by a slowly varying factor per block, so two checks predict when they will be
    small enough.
    """

    STRIDE = 2  # blocks
    PATIENCE = 40  # blocks without notable progress

    def __init__(self, first: int) -> None:
        self._next = first
        self._best = np.inf
        self._last: tuple[int, float] | None = None
        self._best_at = 0
        self._latest = 0

    def due(self, n_products: int) -> bool:
        return n_products >= self._next

    def record(self, n_products: int, excess: float, residual: float) -> None:
        """The largest ratio of a residual to its tolerance, and the largest residual.

        Tolerances may shrink with the eigenvalues, so progress is measured by the residuals.
        """
        wait = self.STRIDE
        if self._last is not None and 1 < excess < self._last[1]:
            before, excess_before = self._last
            rate = np.log(excess_before / excess) / (n_products - before)
            wait = min(max(int(np.log(excess) / rate), 1), 3 * self.STRIDE)
        self._next = n_products + wait
        self._last = (n_products, excess)
        self._latest = n_products
        if residual < 0.7 * self._best:
            self._best, self._best_at = residual, n_products

    @property
    def stalled(self) -> bool:
        """Check whether rounding errors keep the residual from decreasing."""
        return self._latest - self._best_at >= self.PATIENCE


def _eigenpairs(
    matrix: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eigenvalues of a small symmetric matrix, descending, and their vectors.

    NumPy's function releases the interpreter lock; SciPy's, which could compute only the largest
    few, does not.
    """
    values, vectors = np.linalg.eigh(matrix)
    return values[::-1], vectors[:, ::-1]


def _orthonormalized(
    block: Any, vectors: Any, inside: Any, arrays: Arrays
) -> tuple[Any, NDArray[np.float64], NDArray[np.float64]]:
    """(Q, R, inside) with block = Q R + vectors inside, Q orthonormal to the first vectors.

    `inside` holds the inner products of those vectors (as many as it has rows) with the block; it
    is returned as a NumPy array, so that one copy from a device serves both. The block is projected
    again after normalization until the change is small: once is enough unless the block lies almost
    in the span and only rounding errors are left.
    """
    xp = arrays.xp
    if arrays is HOST and block.shape[1] % WIDTH == 0:
        # The same by a kernel, which leaves rank-deficient blocks to the code below.
        found = _by_kernel(block, vectors, inside)
        if found is not None:
            return *found, inside.astype(np.float64)
    n_inside = inside.shape[0]
    against = vectors[:, :n_inside]
    factor = np.eye(block.shape[1])
    coupling = np.zeros((n_inside, block.shape[1]))
    for number in range(MAX_PASSES):
        products = inside if number == 0 else against.T @ block
        block = block - against @ products
        # A double-precision Gram matrix distinguishes columns at angles above 1e-6.
        wide = astype(block, xp.float64, xp)
        small = wide.T @ wide
        if number == 0:
            together = arrays.to_host(concat([astype(products, xp.float64, xp), small], xp))
            coupling, gram = together[:n_inside], together[n_inside:]
        else:
            gram = arrays.to_host(small)
        block, triangle = _normalized(block, gram, arrays)
        factor = triangle @ factor
        if number > 0 and np.abs(triangle - np.eye(len(triangle))).max() < NEARLY:
            break
    return block, factor, coupling


def _by_kernel(
    block: NDArray[Any], vectors: NDArray[Any], inside: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[np.float64]] | None:
    """(Q, R) by the compiled kernel, WIDTH columns at a time; None if the block lost its rank.

    The finished columns of a wide block are stored after the first vectors, their final place.
    """
    n_inside, width = inside.shape
    if width == WIDTH:
        return kernels.orthonormalize(block, vectors, n_inside, inside.copy())
    factor = np.zeros((width, width))
    for start in range(0, width, WIDTH):
        columns = slice(start, start + WIDTH)
        part = np.ascontiguousarray(block[:, columns])
        done = vectors[:, n_inside : n_inside + start]
        factor[:start, columns] = products = done.T @ part
        against = np.concatenate([inside[:, columns], products])
        found = kernels.orthonormalize(part, vectors, n_inside + start, against)
        if found is None:
            return None
        vectors[:, n_inside + start : n_inside + start + WIDTH] = found[0]
        factor[columns, columns] = found[1]
    return vectors[:, n_inside : n_inside + width].copy(), factor


def _normalized(
    block: Any, gram: NDArray[np.float64], arrays: Arrays
) -> tuple[Any, NDArray[np.float64]]:
    """(Q, R) with block = Q R, given block' block in double precision.

    Uses Cholesky if it is safe, which is several times faster than QR.
    """
    lengths = np.sqrt(np.diag(gram))
    if lengths.min() > SAFE * lengths.max():
        try:
            triangle = np.linalg.cholesky(gram / np.outer(lengths, lengths)).T
        except np.linalg.LinAlgError:
            triangle = np.zeros((1, 1))
        if np.diag(triangle).min() > SAFE:
            triangle = np.asarray(triangle * lengths)
            return block @ _moved(np.linalg.inv(triangle), block.dtype, arrays), triangle
    vectors, triangle = arrays.xp.linalg.qr(block)
    return vectors, arrays.to_host(triangle).astype(np.float64)


def _moved(matrix: NDArray[np.float64], dtype: Any, arrays: Arrays) -> Any:
    """A small matrix in the vectors' namespace and type."""
    return astype(arrays.asarray(np.ascontiguousarray(matrix)), dtype, arrays.xp)
