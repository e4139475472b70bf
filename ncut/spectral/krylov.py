"""Block Lanczos with thick restarts: the largest eigenvalues of a symmetric operator.

Written against the array namespace of its start vectors, so that arrays on a GPU can take the
place of NumPy's; the small projected matrix is always NumPy's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncut import kernels
from ncut.spectral.namespaces import HOST, Arrays, astype, concat

NEARLY = 1e-3
"""A block that a pass changes by less needs no further one."""

SAFE = 1e-5
"""A Cholesky factor with smaller entries, relative to the largest, is not trusted."""

MAX_PASSES = 5


@dataclass(frozen=True, slots=True, eq=False)
class RitzPairs:
    """Approximate eigenpairs.

    Attributes
    ----------
    values : ndarray of float64, shape (k,), descending
    vectors : array of the start vectors' type, shape (n, k), orthonormal
    residuals : ndarray of float64, shape (k,)
        Norms of H u - theta u, as the recurrence estimates them.
    n_products : int
        How often the operator was applied to a block.
    """

    values: NDArray[np.float64]
    vectors: Any
    residuals: NDArray[np.float64]
    n_products: int


def block_lanczos(
    apply: Callable[[Any], Any],
    start: Any,
    known: Any,
    k: int,
    *,
    tolerance: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    max_blocks: int,
    max_products: int,
    arrays: Arrays = HOST,
) -> RitzPairs:
    """The k largest eigenpairs of a symmetric operator H orthogonal to known eigenvectors.

    The basis grows by the part of H's product with its last block that is orthogonal to it, with
    full reorthogonalization; when it is full, it is cut down to the best Ritz vectors (the
    restart of Wu and Simon, in blocks).

    Parameters
    ----------
    apply : callable
        H times a block of vectors, (n, b) -> (n, b).
    start : array, shape (n, b)
        Random start vectors; their type is the type of all work.
    known : array, shape (n, c)
        Orthonormal eigenvectors to stay orthogonal to: locked from the start.
    k : int
    tolerance : callable
        Given the k Ritz values, the residual norms at which each counts as converged.
    max_blocks : int
        Blocks in the basis before it is cut down; k must leave room for some.
    max_products : int
        Give up after so many.
    arrays : Arrays
        Where `start` and all other vectors live.

    Source: Golub and Underwood (1977), The block Lanczos method for computing eigenvalues; Wu
    and Simon (2000), Thick-restart Lanczos method for large symmetric eigenvalue problems.
    """
    xp = arrays.xp
    n, b = start.shape
    n_known = known.shape[1]
    vectors = xp.empty((n, n_known + max_blocks * b), dtype=start.dtype)
    vectors[:, :n_known] = known
    projected = np.zeros((max_blocks * b, max_blocks * b))
    fresh, _, _ = _orthonormalized(start, vectors, known.T @ start, arrays)
    size = 0
    n_products = 0
    checks = _Checks(first=max_blocks)
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
            excess = float(np.max(residuals / tolerance(values[:k])))
            checks.record(n_products, excess)
            basis = vectors[:, n_known : n_known + size]
            if excess <= 1 or checks.stalled or n_products >= max_products:
                found = basis @ _moved(mixture[:, :k], start.dtype, arrays)
                return RitzPairs(values[:k], found, residuals, n_products)
        if full:
            kept = k + b // 2
            vectors[:, n_known : n_known + kept] = basis @ _moved(
                mixture[:, :kept], start.dtype, arrays
            )
            projected[:] = 0
            projected[:kept, :kept] = np.diag(values[:kept])
            size = kept


class _Checks:
    """When to look at convergence, which costs as much as a product or more.

    Residuals fall by a factor per block that changes slowly: two looks tell when they will be
    small enough.
    """

    STRIDE = 2  # blocks
    PATIENCE = 40  # blocks without progress to speak of

    def __init__(self, first: int) -> None:
        self._next = first
        self._best = np.inf
        self._last: tuple[int, float] | None = None
        self._best_at = 0
        self._latest = 0

    def due(self, n_products: int) -> bool:
        return n_products >= self._next

    def record(self, n_products: int, excess: float) -> None:
        """`excess` is the largest ratio of a residual to its tolerance."""
        wait = self.STRIDE
        if self._last is not None and 1 < excess < self._last[1]:
            before, excess_before = self._last
            rate = np.log(excess_before / excess) / (n_products - before)
            wait = min(max(int(np.log(excess) / rate), 1), 3 * self.STRIDE)
        self._next = n_products + wait
        self._last = (n_products, excess)
        self._latest = n_products
        if excess < 0.7 * self._best:
            self._best, self._best_at = excess, n_products

    @property
    def stalled(self) -> bool:
        """Whether rounding errors keep the residual from getting smaller."""
        return self._latest - self._best_at >= self.PATIENCE


def _eigenpairs(
    matrix: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eigenvalues of a small symmetric matrix, descending, and their vectors.

    NumPy's function lets other threads run meanwhile; SciPy's, which could stop at the largest
    few, does not.
    """
    values, vectors = np.linalg.eigh(matrix)
    return values[::-1], vectors[:, ::-1]


def _orthonormalized(
    block: Any, vectors: Any, inside: Any, arrays: Arrays
) -> tuple[Any, NDArray[np.float64], NDArray[np.float64]]:
    """(Q, R, inside) with block = Q R + vectors inside, Q orthonormal to the first vectors.

    `inside` holds the inner products of those vectors (as many as it has rows) with the block; it
    is returned as NumPy's, so that it comes from a device along with what is needed anyway.
    Projected again after normalization, until that changes little: once is enough, unless the
    block lies almost in the span and what is left is rounding errors.
    """
    xp = arrays.xp
    if arrays is HOST:
        # The same in one call; it leaves blocks that lost their rank to what follows.
        found = kernels.orthonormalize(block, vectors, len(inside), inside.copy())
        if found is not None:
            return *found, inside.astype(np.float64)
    n_inside = inside.shape[0]
    against = vectors[:, :n_inside]
    factor = np.eye(block.shape[1])
    coupling = np.zeros((n_inside, block.shape[1]))
    for number in range(MAX_PASSES):
        products = inside if number == 0 else against.T @ block
        block = block - against @ products
        # The Gram matrix in double precision tells columns apart whose angles are above 1e-6.
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


def _normalized(
    block: Any, gram: NDArray[np.float64], arrays: Arrays
) -> tuple[Any, NDArray[np.float64]]:
    """(Q, R) with block = Q R, given block' block in double precision.

    By Cholesky where that is safe: several times faster than QR.
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
    """A small matrix where the vectors are, in their type."""
    return astype(arrays.asarray(np.ascontiguousarray(matrix)), dtype, arrays.xp)
