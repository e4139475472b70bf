"""The smallest eigenvalues of a sparse normalized Laplacian, by factorizing it.

On long thin graphs (paths, grids, roads, neighbour graphs of curves and surfaces) the smallest
eigenvalues are as close as the inverse square of the graph's length, and Krylov methods with M take
as many steps as the graph is long. The factors are nearly as sparse as the matrix, and a few blocks
of the inverse's Krylov space contain the eigenvectors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ncut.spectral.accuracy import LARGEST_GOAL, following_of
from ncut.spectral.krylov import block_lanczos

if TYPE_CHECKING:
    from scipy import sparse

    from ncut.spectral.operator import NormalizedAdjacency

Vectors = NDArray[np.float64]

SHIFT = 1e-10
"""Added to L, which is singular, before it is inverted."""

MAX_DEGREE = 32
"""Mean number of neighbours above which thinness is not checked."""

LENGTH = 10
"""A graph is long and thin if in breadth-first order it is this many times as long as wide ..."""

MAX_ENTRIES = 2**27
"""... and its factor has at most this many entries, by the envelope in that order ..."""

MAX_OPERATIONS = 1e11
"""... which take at most this many operations."""

MARGIN = 2
"""Vectors in a block beyond the wanted number."""

LEAST_BLOCKS = 4
MAX_BLOCKS = 16
FIRST_LOOK = 2
MAX_PRODUCTS = 60
MAX_LOOKS = 4

ACCURACY = 1e-3
"""Tolerance of the inverse's residuals, relative to its eigenvalues."""

ROUNDING = 1e-13
"""The tolerance relative to the largest eigenvalue."""

APART = 1e-2
"""Relative gap between eigenvalues that allows counting below it."""


def is_long_and_thin(operator: NormalizedAdjacency) -> bool:
    """Check whether a factorization is cheap while products with M need many steps.

    The criterion is the envelope of the matrix in reverse Cuthill-McKee order, which bounds the
    fill of the factors; minimum-degree orders fill less.

    Source: George and Liu (1981), Computer solution of large sparse positive definite systems.
    """
    matrix = operator.sparse_only()
    n = operator.n_vertices
    if matrix is None or matrix.nnz > MAX_DEGREE * n:
        return False
    from scipy.sparse import csgraph

    order = csgraph.reverse_cuthill_mckee(matrix, symmetric_mode=True)
    place = np.empty(n, dtype=np.int64)
    place[order] = np.arange(n)
    widths = place - np.minimum.reduceat(place[matrix.indices], matrix.indptr[:-1])
    widths = np.maximum(widths, 0).astype(np.float64)
    entries, operations = float(widths.sum()), float((widths**2).sum())
    return LENGTH * entries <= n * n and entries <= MAX_ENTRIES and operations <= MAX_OPERATIONS


def smallest_by_factorization(
    M: sparse.csr_array, known: Vectors, k: int, rng: np.random.Generator
) -> tuple[Vectors, float]:
    """Eigenvectors of the k smallest eigenvalues of L = I - M orthogonal to `known`.

    Block Lanczos on (L + SHIFT)^-1. Afterwards L - s is factorized, for an s beyond the eigenvalues
    found: it has as many negative pivots as L has eigenvalues below s (Sylvester's law of inertia).
    If there are more than were found, the missing ones are computed.

    Parameters
    ----------
    M : csr_array of float64, shape (n, n)
        The normalized adjacency matrix.
    known : ndarray of float64, shape (n, c)
        All orthonormal eigenvectors of eigenvalue 0 of L.
    k : int
    rng : numpy.random.Generator
        Generator of the start vectors.

    Returns
    -------
    (vectors, following) : shape (n, k), and an estimate of the eigenvalue of L that follows

    Source: Ericsson and Ruhe (1980), The spectral transformation Lanczos method; Grimes, Lewis
    and Simon (1994), A shifted block Lanczos algorithm.
    """
    n = M.shape[0]
    inverse = _factorized(M, -SHIFT)
    room = n - known.shape[1]
    wanted = k
    for _ in range(MAX_LOOKS):
        width = wanted + MARGIN
        found = block_lanczos(
            lambda x: np.ascontiguousarray(inverse.solve(x)),
            rng.standard_normal((n, width)),
            known,
            wanted,
            tolerance=_tolerance,
            max_blocks=min(MAX_BLOCKS, room // width - 1),
            max_products=MAX_PRODUCTS,
            first_look=FIRST_LOOK,
        )
        every = 1.0 / np.maximum(np.append(found.values, found.others), 0.1) - SHIFT
        eigenvalues = every[: wanted + 1]
        n_below, s = _separation(eigenvalues)
        missed = _count_below(M, s) - known.shape[1] - n_below
        more = max(wanted, n_below + missed)
        if missed <= 0 or LEAST_BLOCKS * (more + MARGIN) > room:
            break
        wanted = more
    # A residual of the inverse, relative to its eigenvalue, can be larger for L by the ratio of the
    # eigenvalues in it; one more step of inverse iteration removes this factor.
    vectors: Vectors = inverse.solve(found.vectors[:, :k])
    for _ in range(2):
        vectors -= known @ (known.T @ vectors)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=0)), following_of(every, k)


def _tolerance(values: Vectors) -> Vectors:
    """Residual norms of the inverse's Ritz values: rho means at most 2 rho / theta for L."""
    eigenvalues = np.maximum(1.0 / np.maximum(values, 0.1), SHIFT)
    accuracy = np.minimum(ACCURACY, LARGEST_GOAL / (2.0 * eigenvalues))
    norms: Vectors = np.maximum(accuracy * values, ROUNDING * values[0])
    return norms


def _separation(eigenvalues: Vectors) -> tuple[int, float]:
    """(j, s) with s well between the j-th and the next eigenvalue, for the largest possible j.

    eigenvalues: the k wanted ones, ascending, and the next one, which may be less accurate.
    """
    before, behind = np.append(0.0, eigenvalues[:-1]), eigenvalues
    apart = np.flatnonzero(behind - before > APART * behind)
    if not apart.size:
        return 0, 0.0
    j = int(apart[-1])
    half = (behind[j] - before[j]) / 2
    if j == eigenvalues.size - 1:
        return j, float(before[j] + min(half, APART * before[j]))
    return j, float(behind[j] - min(half, APART * behind[j]))


def _count_below(M: sparse.csr_array, s: float) -> int:
    """Number of eigenvalues of L below s; 0 if the factorization is unreliable."""
    factors = _factorized(M, s)
    if not np.array_equal(factors.perm_r, factors.perm_c):
        return 0
    upper: Any = abs(factors.U)
    rounding = np.finfo(np.float64).eps * float(
        (abs(factors.L) @ (upper @ np.ones(M.shape[0]))).max()
    )
    pivots = factors.U.diagonal()
    if not rounding < APART / 8 * s:
        return 0
    return int(np.count_nonzero(pivots < 0))


def _factorized(M: sparse.csr_array, s: float) -> Any:
    """SuperLU's factors of L - s without pivoting, so that pivots are on the diagonal."""
    from scipy import sparse
    from scipy.sparse.linalg import splu

    shifted = sparse.csc_array(sparse.eye_array(M.shape[0]) * (1.0 - s) - M)
    return splu(
        shifted,
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True, "Equil": False},
    )
