"""Eigensolvers: the largest eigenvalues of M = D^-1/2 A D^-1/2 and their eigenvectors.

The largest eigenvalues mu of M belong to the smallest eigenvalues 1 - mu of the normalized
Laplacian, with the same eigenvectors. Computing them directly needs only products with M; the usual
shift-invert makes ARPACK factorize a matrix for nothing.

Every solver is a function (operator, known, k, rng) -> (vectors, following): the eigenvectors of
the k largest eigenvalues orthogonal to the orthonormal columns of `known`, which are eigenvectors
of eigenvalue 1, and the solver's estimate of the next eigenvalue. Vectors are in the operator's
numbering.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncut.errors import InputError
from ncut.spectral.accuracy import following_of, goals
from ncut.spectral.krylov import (
    MAX_BLOCKS,
    RitzPairs,
    basis_size,
    block_lanczos,
    block_width,
    room_needed,
)
from ncut.spectral.operator import NormalizedAdjacency
from ncut.spectral.shift_invert import is_long_and_thin, smallest_by_factorization

Vectors = NDArray[np.float64]
Found = tuple[Vectors, float]

SINGLE_PRECISION = 3e-6
"""Smallest useful target of residual norms in float32."""

MAX_PRODUCTS = 300
"""Products after which block Lanczos gives up."""

LAST_DENSE = 4000
"""Largest number of rows for which LAPACK may replace solvers that failed."""

LOBPCG_MARGIN = 4
"""Columns of its block beyond the requested ones, which speed up the convergence of the last."""

ONE_AT_A_TIME = threading.Lock()
"""Guards code that changes the process's warning filters, which concurrent calls would corrupt."""

ROUNDING = 1e-14
"""Eigenvalues of M as far apart as this are equal: another copy is not worth another search."""

ZERO_SINGULAR_VALUE = 1e-7
"""Size of C v below which it does not determine a left singular vector."""


def choose_solver(operator: NormalizedAdjacency, n_known: int, k: int) -> str:
    """Choose the solver that `solver="auto"` stands for.

    Block Lanczos is the fastest if its basis is well below the size of the problem (with a smaller
    side of 200 vertices twice as fast as LAPACK on the Gram matrix, with 750 ten times), except for
    long thin graphs, whose smallest eigenvalues cluster at zero.
    """
    if fits_small_side(operator, n_known, k):
        size, direct = small_side(operator), "gram"
    else:
        size, direct = operator.n_vertices, "dense"
    if 2 * size <= 3 * basis_size(k) or size - n_known < room_needed(k):
        return direct
    return "shift-invert" if is_long_and_thin(operator) else "krylov"


def dense(operator: NormalizedAdjacency, known: Vectors, k: int, rng: np.random.Generator) -> Found:
    """LAPACK on the full matrix: exact, O(n^3) time and O(n^2) memory."""
    n = operator.n_vertices
    matrix = np.empty((n, n))
    matrix[np.ix_(operator.place, operator.place)] = operator.matrix().toarray()
    values, vectors = largest_dense(_pushed_down(matrix, known), k)
    return vectors, values[k]


def gram(operator: NormalizedAdjacency, known: Vectors, k: int, rng: np.random.Generator) -> Found:
    """LAPACK on C' C, for a graph of two colours with M = [[0, C], [C', 0]]: O(small side^3)."""
    check_sides(operator, known.shape[1], k)
    C = operator.corner()
    side = known[operator.n_first :] * np.sqrt(2.0)
    values, vectors = largest_dense(_pushed_down(C.T @ C, side), k)
    return _both_sides(C @ vectors, vectors), _root(values[k])


def krylov(
    operator: NormalizedAdjacency,
    known: Vectors,
    k: int,
    rng: np.random.Generator,
    dtype: Any = np.float32,
    whole: bool = False,
) -> Found:
    """Block Lanczos on the blocks of weights, without assembling a matrix.

    Works on C' C over the smaller side if the graph has two colours, else (and with `whole`) on M.
    """
    bipartite = not whole and fits_small_side(operator, known.shape[1], k)
    size = small_side(operator) if bipartite else operator.n_vertices
    if size - known.shape[1] < room_needed(k):
        raise InputError(
            f"solver: krylov needs a larger graph to find {k} eigenvectors; use 'auto' or 'dense'"
        )
    side = slice(operator.n_first, operator.n_vertices) if bipartite else slice(0, None)
    locked = known[side] * (np.sqrt(2.0) if bipartite else 1.0)
    shape = (locked.shape[0], block_width(k))
    start = rng.standard_normal(shape, dtype=np.float32).astype(dtype)
    found = block_lanczos(
        operator.apply_gram if bipartite else operator.apply,
        operator.arrays.asarray(start),
        operator.arrays.asarray(locked.astype(dtype)),
        k,
        tolerance=krylov_tolerance(k, bipartite, single=dtype == np.float32),
        max_blocks=MAX_BLOCKS,
        max_products=MAX_PRODUCTS,
        arrays=operator.arrays,
    )
    small = operator.arrays.to_host(found.vectors).astype(np.float64)
    if not bipartite:
        return small, following_mu(found, bipartite)
    there = np.zeros((operator.n_vertices, block_width(k)))
    there[side, :k] = operator.scaled(small, side)
    operator.multiply(there, there, slice(0, operator.n_first))
    return _both_sides(there[: operator.n_first, :k], small), following_mu(found, bipartite)


def following_mu(found: RitzPairs, bipartite: bool) -> float:
    """The next eigenvalue of M that is separated from those found on M or on C' C."""
    values = np.concatenate([found.values, found.others])
    eigenvalues = 1.0 - (np.sqrt(np.maximum(values, 0.0)) if bipartite else values)
    return 1.0 - following_of(eigenvalues, found.values.size)


def krylov_float64(
    operator: NormalizedAdjacency, known: Vectors, k: int, rng: np.random.Generator
) -> Found:
    """`krylov` in float64."""
    return krylov(operator, known, k, rng, np.float64)


def krylov_tolerance(
    k: int, bipartite: bool, *, single: bool
) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Target residual norms of block Lanczos, on M or on C' C, from its Ritz values.

    On C' C, whose eigenvalues are squares, a residual r means r / (sqrt(2) sigma) on M.
    """

    def tolerance(values: NDArray[np.float64]) -> NDArray[np.float64]:
        eigenvalues = 1.0 - (np.sqrt(np.maximum(values, 0.0)) if bipartite else values)
        goal = goals(eigenvalues[:k], following_of(eigenvalues, k))
        if single:
            goal = np.maximum(goal, SINGLE_PRECISION)
        return goal * np.sqrt(2 * np.maximum(values[:k], 1e-6)) if bipartite else goal

    return tolerance


def shift_invert(
    operator: NormalizedAdjacency, known: Vectors, k: int, rng: np.random.Generator
) -> Found:
    """Block Lanczos on the inverse of the normalized Laplacian, by a sparse factorization."""
    if operator.n_vertices - known.shape[1] < basis_size(k):
        raise InputError(
            f"solver: shift-invert needs a larger graph to find {k} eigenvectors; use 'auto' or "
            "'dense'"
        )
    vectors, following = smallest_by_factorization(operator.matrix(), known[operator.place], k, rng)
    return _in_place(operator, vectors), 1.0 - following


def arpack(
    operator: NormalizedAdjacency, known: Vectors, k: int, rng: np.random.Generator
) -> Found:
    """Implicitly restarted Lanczos (ARPACK through SciPy) on products with M, without a shift."""
    n = operator.n_vertices
    if k >= n:
        raise InputError(f"solver: arpack cannot find {k} eigenvectors of {n}; use 'dense'")
    M = operator.matrix()
    locked = known[operator.place]
    values, vectors = _arpack_pairs(M, locked, k, rng)
    # Lanczos from one vector finds one eigenvector of a repeated eigenvalue, and parts of a graph
    # may be copies of each other: search the complement until nothing larger is found.
    while True:
        more, others = _arpack_pairs(M, np.hstack([locked, vectors]), k, rng)
        if more.max() <= values.min() + ROUNDING:
            break
        best = np.argsort(np.concatenate([values, more]))[::-1][:k]
        values = np.concatenate([values, more])[best]
        vectors = np.hstack([vectors, others])[:, best]
    known_values = 1.0 - np.concatenate([np.sort(values)[::-1], np.sort(more)[::-1]])
    return _in_place(operator, vectors), 1.0 - following_of(known_values, k)


def _arpack_pairs(
    M: Any, locked: Vectors, k: int, rng: np.random.Generator
) -> tuple[Vectors, Vectors]:
    from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, LinearOperator, eigsh

    n = M.shape[0]
    k = min(k, n - 1)

    def product(x: Vectors) -> Any:
        # The locked eigenvalues are moved below all others.
        return M @ x - 4 * (locked @ (locked.T @ x))

    shifted: Any = LinearOperator((n, n), matvec=product, matmat=product, dtype=np.float64)
    start = rng.standard_normal(n)
    start -= locked @ (locked.T @ start)
    n_lanczos, n_more = min(max(2 * k + 1, 20), n), min(max(6 * k, 80), n)
    try:
        try:
            found: Any = eigsh(shifted, k, which="LA", v0=start, ncv=n_lanczos)
        except ArpackNoConvergence:
            found = eigsh(shifted, k, which="LA", v0=start, ncv=n_more, maxiter=10 * n)
    except ArpackError as error:
        raise InputError(f"solver: arpack failed on this graph ({error}); use 'auto'") from error
    return found[0], found[1]


def lobpcg(
    operator: NormalizedAdjacency, known: Vectors, k: int, rng: np.random.Generator
) -> Found:
    """Locally optimal block preconditioned conjugate gradients (SciPy), without preconditioner."""
    M = operator.matrix()
    locked = known[operator.place]
    if M.shape[0] - known.shape[1] < 5 * (k + LOBPCG_MARGIN):
        raise InputError(
            f"solver: lobpcg needs a larger graph to find {k} eigenvectors; use 'auto' or 'dense'"
        )
    values, vectors = _lobpcg_pairs(M, locked, k, rng)
    # It may settle on an eigenvector of the next eigenvalue: search the complement until nothing
    # larger is found.
    while True:
        more, others = _lobpcg_pairs(M, np.hstack([locked, vectors[:, :k]]), 1, rng)
        together = np.concatenate([values[:k], more])
        best = np.argsort(together)[::-1]
        if more[0] <= values[:k].min() + ROUNDING:
            known_values = 1.0 - together[best]
            return _in_place(operator, vectors[:, :k]), 1.0 - following_of(known_values, k)
        values, vectors = together[best], np.hstack([vectors[:, :k], others])[:, best]


def _lobpcg_pairs(
    M: Any, locked: Vectors, k: int, rng: np.random.Generator
) -> tuple[Vectors, Vectors]:
    """Eigenpairs of the largest eigenvalues, descending: k, then some less accurate ones."""
    from scipy.sparse.linalg import lobpcg as scipy_lobpcg

    block = rng.standard_normal((M.shape[0], k + LOBPCG_MARGIN))
    with ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the residual is checked by the caller
        found: Any = scipy_lobpcg(M, block, Y=locked, tol=1e-6, maxiter=500, largest=True)
    order = np.argsort(found[0])[::-1]
    return found[0][order], found[1][:, order]


SOLVERS: dict[str, Callable[..., Found]] = {
    "gram": gram,
    "krylov": krylov,
    "shift-invert": shift_invert,
    "dense": dense,
    "arpack": arpack,
    "lobpcg": lobpcg,
}


ALL = SOLVERS | {"krylov-float64": krylov_float64}
"""Includes the internal solver for cases where float32 is not enough."""


def last_resorts(operator: NormalizedAdjacency, n_known: int, k: int, first: str) -> Sequence[str]:
    """Solvers that "auto" tries if the chosen one does not converge."""
    if first not in ("krylov", "shift-invert"):
        return ()
    on_side = fits_small_side(operator, n_known, k)
    size, direct = (small_side(operator), "gram") if on_side else (operator.n_vertices, "dense")
    return (direct,) if size <= LAST_DENSE else () if first == "krylov" else ("krylov-float64",)


def small_side(operator: NormalizedAdjacency) -> int:
    """Number of vertices of the smaller side."""
    return operator.n_vertices - operator.n_first


def fits_small_side(operator: NormalizedAdjacency, n_known: int, k: int) -> bool:
    """Check whether C' C has as many unknown eigenvectors as wanted."""
    return operator.bipartite and n_known + k <= small_side(operator)


def check_sides(operator: NormalizedAdjacency, n_known: int, k: int) -> None:
    """Refuse C' C if it is undefined or has too few eigenvectors."""
    if not operator.bipartite:
        raise InputError(
            "solver: gram needs layers of two colours (a chain without skip connections); "
            "use 'krylov' or 'auto'"
        )
    if not fits_small_side(operator, n_known, k):
        raise InputError(
            f"solver: gram finds at most {small_side(operator)} eigenvectors here; use 'dense'"
        )


def largest_dense(matrix: Vectors, k: int) -> tuple[Vectors, Vectors]:
    """The eigenvalues of a symmetric matrix, descending, and the eigenvectors of the k largest.

    At least k + 1 values, padded with -1 if the matrix has no more. On some matrices with many
    equal eigenvalues, LAPACK's driver for the largest few (MRRR) fails, or returns fewer than
    requested without an error; the driver for all eigenvalues does neither.
    """
    from scipy import linalg

    n = matrix.shape[0]
    first = max(n - k - 1, 0)
    try:
        values, vectors = linalg.eigh(matrix, subset_by_index=[first, n - 1], check_finite=False)
    except linalg.LinAlgError:
        values = np.empty(0)
    if len(values) < n - first:
        values, vectors = linalg.eigh(matrix, driver="evd", check_finite=False)
    return np.append(values[::-1], -1.0), vectors[:, ::-1][:, :k]


def _pushed_down(matrix: Vectors, known: Vectors) -> Vectors:
    """The matrix with the eigenvalue 1 of the known eigenvectors moved below all others."""
    return matrix - 4.0 * (known @ known.T)


def _root(square: float) -> float:
    return float(np.sqrt(max(square, 0.0)))


def _both_sides(large: Vectors, small: Vectors) -> Vectors:
    """Eigenvectors [C v / sigma, v] / sqrt 2 of M from right singular vectors v, sigma = |C v|.

    If sigma is zero, the vector is [0, v].
    """
    sigma = np.linalg.norm(large, axis=0)
    zero = sigma < ZERO_SINGULAR_VALUE
    large = np.where(zero, 0.0, large / np.where(zero, 1.0, sigma))
    both: Vectors = np.vstack([large, small]) / np.sqrt(2.0)
    return both


def _in_place(operator: NormalizedAdjacency, vectors: Vectors) -> Vectors:
    """Vectors from the graph's numbering to the operator's."""
    placed = np.empty_like(vectors)
    placed[operator.place] = vectors
    return placed
