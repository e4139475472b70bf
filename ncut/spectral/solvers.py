"""Eigensolvers: the largest eigenvalues of M = D^-1/2 A D^-1/2 and their eigenvectors.

The largest eigenvalues mu of M belong to the smallest eigenvalues 1 - mu of the normalized
Laplacian, with the same eigenvectors. Asking for them directly needs products with M alone; the
usual shift to "smallest" makes ARPACK factorize a matrix for nothing.

Every solver is a function (M, known, k, rng) -> (values, vectors): the k largest eigenpairs
orthogonal to the orthonormal columns of `known`, which are eigenvectors of eigenvalue 1.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy import sparse

Solver = Literal["auto", "arpack", "lobpcg", "dense"]
Vectors = NDArray[np.float64]

TOLERANCE = 1e-5
"""A residual norm |M u - mu u| above this counts as not converged."""

DENSE_UP_TO = 600
"""Number of vertices up to which a dense eigensolver is the fastest."""


def dense(
    M: sparse.csr_array, known: Vectors, k: int, rng: np.random.Generator
) -> tuple[Vectors, Vectors]:
    """LAPACK on the full matrix: exact, O(n^3) time and O(n^2) memory."""
    from scipy import linalg

    n = M.shape[0]
    matrix = M.toarray() - 2 * known @ known.T
    found: Any = linalg.eigh(matrix, subset_by_index=[n - k, n - 1], overwrite_a=True)
    return found[0], found[1]


def arpack(
    M: sparse.csr_array, known: Vectors, k: int, rng: np.random.Generator
) -> tuple[Vectors, Vectors]:
    """Implicitly restarted Lanczos (ARPACK through SciPy) on products with M, without a shift."""
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    n = M.shape[0]

    def product(x: Vectors) -> Vectors:
        # The known eigenvectors are moved from 1 to -1, the far end of the spectrum.
        return M @ x - 2 * (known @ (known.T @ x))

    operator: Any = LinearOperator((n, n), matvec=product, matmat=product, dtype=np.float64)
    start = rng.standard_normal(n)
    start -= known @ (known.T @ start)
    for n_lanczos in (max(2 * k + 1, 20), max(6 * k, 80)):
        try:
            found: Any = eigsh(operator, k, which="LA", v0=start, ncv=min(n_lanczos, n))
            return found[0], found[1]
        except ArpackNoConvergence:
            continue
    return lobpcg(M, known, k, rng)


def lobpcg(
    M: sparse.csr_array, known: Vectors, k: int, rng: np.random.Generator
) -> tuple[Vectors, Vectors]:
    """Locally optimal block preconditioned conjugate gradients (SciPy), without preconditioner."""
    from scipy.sparse.linalg import lobpcg as scipy_lobpcg

    n = M.shape[0]
    # A few extra columns speed up the last of those asked for.
    block = rng.standard_normal((n, min(k + 4, n - known.shape[1])))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the residual is checked by the caller
        found: Any = scipy_lobpcg(M, block, Y=known, tol=TOLERANCE / 10, maxiter=500, largest=True)
    values, vectors = found[:2]
    top = np.argsort(values)[-k:]
    return values[top], vectors[:, top]


SOLVERS: dict[str, Callable[..., tuple[Vectors, Vectors]]] = {
    "arpack": arpack,
    "lobpcg": lobpcg,
    "dense": dense,
}


def choose_solver(n_vertices: int, k: int) -> str:
    """What `solver="auto"` means for a graph of this size.

    Small graphs are solved faster as dense matrices; ARPACK and LOBPCG also need several times
    more vertices than eigenvectors.
    """
    return "dense" if n_vertices <= max(DENSE_UP_TO, 5 * (k + 4)) else "arpack"
