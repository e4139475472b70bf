"""Eigensolvers: the largest eigenvalues of M = D^-1/2 A D^-1/2 and their eigenvectors.

The largest eigenvalues mu of M belong to the smallest eigenvalues 1 - mu of the normalized
Laplacian, with the same eigenvectors. Asking for them directly needs products with M alone; the
usual shift to "smallest" makes ARPACK factorize a matrix for nothing.

Every solver is a function (operator, known, k, rng) -> (values, vectors): the k largest eigenpairs
orthogonal to the orthonormal columns of `known`, which are eigenvectors of eigenvalue 1. Vectors
are in the operator's numbering.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ncut.errors import InputError
from ncut.spectral.krylov import block_lanczos
from ncut.spectral.operator import WIDTH, NormalizedAdjacency

Vectors = NDArray[np.float64]
Pairs = tuple[Vectors, Vectors]

TOLERANCE = 1e-3
"""A residual norm |M u - mu u| above this counts as not converged."""

ZERO_SINGULAR_VALUE = 1e-7
"""Below this, what is left of C v says nothing about a left singular vector."""


class Sided(Protocol):
    """An operator as far as a solver is chosen by it: its size, and that of its sides."""

    @property
    def n_vertices(self) -> int: ...

    @property
    def n_first(self) -> int: ...

    @property
    def bipartite(self) -> bool: ...


def choose_solver(operator: NormalizedAdjacency, n_known: int, k: int) -> str:
    """What `solver="auto"` means for a graph.

    Block Lanczos is the fastest wherever its basis is well below the size of the problem (on a
    smaller side of 200 vertices twice as fast as LAPACK on the Gram matrix, on 750 ten times).
    """
    if fits_small_side(operator, n_known, k):
        size, direct = small_side(operator), "gram"
    else:
        size, direct = operator.n_vertices, "dense"
    return direct if 2 * size <= 3 * basis_size(k) else "krylov"


def dense(operator: NormalizedAdjacency, known: Vectors, k: int, rng: np.random.Generator) -> Pairs:
    """LAPACK on the full matrix: exact, O(n^3) time and O(n^2) memory."""
    n = operator.n_vertices
    matrix = np.empty((n, n))
    matrix[np.ix_(operator.place, operator.place)] = operator.matrix().toarray()
    return _largest_dense(_pushed_down(matrix, known), k)


def gram(operator: NormalizedAdjacency, known: Vectors, k: int, rng: np.random.Generator) -> Pairs:
    """LAPACK on C' C, for a graph of two colours with M = [[0, C], [C', 0]]: O(small side^3)."""
    check_sides(operator, known.shape[1], k)
    first = operator.n_first
    place = operator.place
    matrix = operator.matrix().tocoo()
    rows, columns = place[matrix.row], place[matrix.col]
    upper = rows < first
    C = np.zeros((first, operator.n_vertices - first))
    C[rows[upper], columns[upper] - first] = matrix.data[upper]
    side = known[first:] * np.sqrt(2.0)
    _, vectors = _largest_dense(_pushed_down(C.T @ C, side), k)
    return _both_sides(C @ vectors, vectors)


def krylov(
    operator: NormalizedAdjacency,
    known: Vectors,
    k: int,
    rng: np.random.Generator,
    dtype: Any = np.float32,
) -> Pairs:
    """Block Lanczos on the blocks of weights, without assembling a matrix.

    On C' C over the smaller side if the graph has two colours, else on M.
    """
    bipartite = fits_small_side(operator, known.shape[1], k)
    size = small_side(operator) if bipartite else operator.n_vertices
    if size - known.shape[1] < basis_size(k):
        raise InputError(
            f"solver: krylov needs a larger graph to find {k} eigenvectors; use 'auto' or 'dense'"
        )
    side = slice(operator.n_first, operator.n_vertices) if bipartite else slice(0, None)
    locked = known[side] * (np.sqrt(2.0) if bipartite else 1.0)
    start = rng.standard_normal((locked.shape[0], WIDTH), dtype=np.float32).astype(dtype)

    def tolerance(values: NDArray[np.float64]) -> NDArray[np.float64]:
        # On C' C, whose eigenvalues are squares, a residual r means r / (sqrt(2) sigma) on M.
        goal = TOLERANCE / 10
        return goal * np.sqrt(2 * np.maximum(values, 1e-6)) if bipartite else np.full(k, goal)

    found = block_lanczos(
        operator.apply_gram if bipartite else operator.apply,
        start,
        locked.astype(dtype),
        k,
        tolerance=tolerance,
        max_blocks=basis_size(k) // WIDTH,
        max_products=300,
    )
    if not bipartite:
        return found.values, found.vectors.astype(np.float64)
    small = found.vectors.astype(np.float64)
    there = np.zeros((operator.n_vertices, -(-k // WIDTH) * WIDTH))
    there[side, :k] = operator.scaled(small, side)
    operator.multiply(there, there, slice(0, operator.n_first))
    return _both_sides(there[: operator.n_first, :k], small)


def arpack(
    operator: NormalizedAdjacency, known: Vectors, k: int, rng: np.random.Generator
) -> Pairs:
    """Implicitly restarted Lanczos (ARPACK through SciPy) on products with M, without a shift."""
    n = operator.n_vertices
    if k >= n:
        raise InputError(f"solver: arpack cannot find {k} eigenvectors of {n}; use 'dense'")
    M = operator.matrix()
    locked = known[operator.place]
    values, vectors = _arpack_pairs(M, locked, k, rng)
    # Lanczos from one vector finds one eigenvector of a repeated eigenvalue, and parts of a graph
    # may repeat each other: look at what is left until nothing is larger.
    while True:
        more, others = _arpack_pairs(M, np.hstack([locked, vectors]), k, rng)
        best = np.argsort(np.concatenate([values, more]))[::-1][:k]
        if best.max() < k:
            break
        values = np.concatenate([values, more])[best]
        vectors = np.hstack([vectors, others])[:, best]
    return _in_place(operator, values, vectors)


def _arpack_pairs(M: Any, locked: Vectors, k: int, rng: np.random.Generator) -> Pairs:
    from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, LinearOperator, eigsh

    n = M.shape[0]
    k = min(k, n - 1)

    def product(x: Vectors) -> Any:
        # The locked eigenvectors are moved below all others.
        return M @ x - 4 * (locked @ (locked.T @ x))

    shifted: Any = LinearOperator((n, n), matvec=product, matmat=product, dtype=np.float64)
    start = rng.standard_normal(n)
    start -= locked @ (locked.T @ start)
    n_lanczos, n_more = min(max(2 * k + 1, 20), n), min(max(6 * k, 80), n)
    try:
        try:
            found: Any = eigsh(shifted, k, which="LA", v0=start, ncv=n_lanczos)
        except ArpackNoConvergence:
            found = eigsh(shifted, k, which="LA", v0=start, ncv=n_more, maxiter=100 * n)
    except ArpackError as error:
        raise InputError(f"solver: arpack failed on this graph ({error}); use 'auto'") from error
    return found[0], found[1]


def lobpcg(
    operator: NormalizedAdjacency, known: Vectors, k: int, rng: np.random.Generator
) -> Pairs:
    """Locally optimal block preconditioned conjugate gradients (SciPy), without preconditioner."""
    from scipy.sparse.linalg import lobpcg as scipy_lobpcg

    M = operator.matrix()
    locked = known[operator.place]
    width = k + 4  # a few extra columns speed up the last of those asked for
    if M.shape[0] - known.shape[1] < 5 * width:
        raise InputError(
            f"solver: lobpcg needs a larger graph to find {k} eigenvectors; use 'auto' or 'dense'"
        )
    block = rng.standard_normal((M.shape[0], width))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the residual is checked by the caller
        found: Any = scipy_lobpcg(M, block, Y=locked, tol=1e-6, maxiter=500, largest=True)
    values, vectors = found[:2]
    top = np.argsort(values)[::-1][:k]
    return _in_place(operator, values[top], vectors[:, top])


SOLVERS: dict[str, Callable[..., Pairs]] = {
    "gram": gram,
    "krylov": krylov,
    "dense": dense,
    "arpack": arpack,
    "lobpcg": lobpcg,
}


def basis_size(k: int) -> int:
    """Vectors that block Lanczos keeps: k and some more at a restart, and blocks to grow by.

    A larger basis saves a product now and then, and costs more in its own small eigenproblem.
    """
    return WIDTH * (-(-k // WIDTH) + 6)


def small_side(operator: Sided) -> int:
    """How many vertices the smaller side has."""
    return operator.n_vertices - operator.n_first


def fits_small_side(operator: Sided, n_known: int, k: int) -> bool:
    """Whether C' C has as many eigenvectors besides those known as are wanted."""
    return operator.bipartite and n_known + k <= small_side(operator)


def check_sides(operator: Sided, n_known: int, k: int) -> None:
    """Refuse C' C where it is not defined, or has too few eigenvectors."""
    if not operator.bipartite:
        raise InputError(
            "solver: gram needs layers of two colours (a chain without skip connections); "
            "use 'krylov' or 'auto'"
        )
    if not fits_small_side(operator, n_known, k):
        raise InputError(
            f"solver: gram finds at most {small_side(operator)} eigenvectors here; use 'dense'"
        )


def _largest_dense(matrix: Vectors, k: int) -> Pairs:
    from scipy import linalg

    n = matrix.shape[0]
    found: Any = linalg.eigh(
        matrix, subset_by_index=[n - k, n - 1], overwrite_a=True, check_finite=False
    )
    return found[0], found[1]


def _pushed_down(matrix: Vectors, known: Vectors) -> Vectors:
    """The matrix with the eigenvalue 1 of the known eigenvectors moved below all others."""
    return matrix - 4.0 * (known @ known.T)


def _both_sides(large: Vectors, small: Vectors) -> Pairs:
    """Eigenpairs of M from right singular vectors v of C: sigma = |C v|, [C v / sigma, v] / sqrt 2.

    Where sigma is zero, the vector is [0, v].
    """
    sigma = np.linalg.norm(large, axis=0)
    zero = sigma < ZERO_SINGULAR_VALUE
    large = np.where(zero, 0.0, large / np.where(zero, 1.0, sigma))
    return sigma, np.vstack([large, small]) / np.sqrt(2.0)


def _in_place(operator: NormalizedAdjacency, values: Vectors, vectors: Vectors) -> Pairs:
    """Vectors in the graph's numbering -> the operator's."""
    placed = np.empty_like(vectors)
    placed[operator.place] = vectors
    return values, placed
