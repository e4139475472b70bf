"""The spectral embedding of a graph: eigenvectors of the normalized Laplacian."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncut import kernels
from ncut.errors import InputError
from ncut.graphs import NeuronGraph
from ncut.randomness import Purpose, numpy_generator
from ncut.spectral import solvers
from ncut.spectral.faint import settle
from ncut.spectral.operator import WIDTH, NormalizedAdjacency


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """The k smallest eigenvalues of L_norm, and the graph's vertices as points.

    Attributes
    ----------
    points : array of float64, shape (n, k)
        NumPy's, or a device's where the graph is on one. Row i is vertex i: the entries of the
        eigenvectors D^-1/2 u of L_norm, for orthonormal eigenvectors u of L_sym, in the order of
        their eigenvalues.
    eigenvalues : ndarray of float64, shape (k,), ascending
    solver : str
    residuals : ndarray of float64, shape (k, k)
        R' R for the residuals R = M U - U diag(mu) of the eigenvectors U, computed in float64.
    """

    points: Any
    eigenvalues: NDArray[np.float64]
    solver: str
    residuals: NDArray[np.float64]

    @property
    def residual(self) -> float:
        """Largest |M u - mu u| over the eigenvectors u."""
        return math.sqrt(self.residuals.diagonal().max())

    def first(self, k: int) -> Embedding:
        """The embedding in the first k eigenvectors."""
        return Embedding(
            self.points[:, :k],
            self.eigenvalues[:k],
            self.solver,
            self.residuals[:k, :k],
        )

    def lower_bound(self) -> float:
        """A number that no partition into k clusters has an n-cut below.

        The sum of the k smallest eigenvalues bounds every k-way n-cut from below. Those computed
        are the exact ones of M - R U' - U R', which lie nearer to 1 in sum by at most the sum of
        the singular values of R: that is subtracted, and an allowance for rounding. The solver
        must not have missed an eigenvalue, which residuals cannot show.

        Source: Fan (1949), On a theorem of Weyl concerning eigenvalues; Zha, He, Ding, Gu, Simon
        (2001), Spectral relaxation for k-means clustering; Stewart and Sun (1990), Matrix
        perturbation theory, chapter IV.
        """
        n, k = self.points.shape
        singular = np.sqrt(np.maximum(np.linalg.eigvalsh(self.residuals), 0.0))
        rounding = float(n * k * np.finfo(np.float64).eps)
        return max(0.0, float(self.eigenvalues.sum() - singular.sum()) - rounding)

    @property
    def converged(self) -> bool:
        """Whether the residual is below `solvers.TOLERANCE`."""
        return self.residual <= solvers.TOLERANCE


def embed(
    graph: NeuronGraph,
    operator: NormalizedAdjacency,
    k: int,
    *,
    solver: str,
    seed: int,
    graph_number: int,
) -> Embedding:
    """Spectral embedding of a graph in which every vertex has edges.

    The eigenvalue 0 has one eigenvector per connected component, known without any solver: they
    are taken from the components (those of largest volume first), and the solver looks for the
    rest only. So repeated zero eigenvalues are never missed. Whatever the solver, the pairs are
    improved by one Rayleigh-Ritz step in float64, and the residual is measured there.
    """
    check_solver(solver)
    vectors = component_vectors(graph, operator, k)
    n_wanted = k - vectors.shape[1]
    used = "components"
    if n_wanted:
        used = (
            solvers.choose_solver(operator, vectors.shape[1], n_wanted)
            if solver == "auto"
            else solver
        )
        rng = numpy_generator(seed, Purpose.START_VECTORS, graph_number)
        _, found = solvers.SOLVERS[used](operator, vectors, n_wanted, rng)
        known, vectors = vectors, np.hstack([vectors, found])
    values, vectors, residuals = rayleigh_ritz(operator, vectors)
    if used == "krylov" and residuals.diagonal().max() > solvers.TOLERANCE**2:
        # Single precision has its limits where an eigenvalue of M is close to zero.
        used = "krylov-float64"
        _, found = solvers.krylov(operator, known, n_wanted, rng, np.float64)
        values, vectors, residuals = rayleigh_ritz(operator, np.hstack([known, found]))
    eigenvalues = np.maximum(1.0 - values, 0.0)
    points = (vectors / operator.root_degrees[:, None])[operator.place]
    return Embedding(
        points=settle(graph, points, eigenvalues),
        eigenvalues=eigenvalues,
        solver=used,
        residuals=residuals,
    )


def check_solver(solver: str) -> str:
    """Return the solver's name, or refuse one that does not exist."""
    names = ("auto", *solvers.SOLVERS)
    if not isinstance(solver, str) or solver not in names:
        raise InputError(f"solver: must be one of {', '.join(names)}, got {solver!r}")
    return solver


def rayleigh_ritz(
    operator: NormalizedAdjacency, vectors: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The best eigenpairs of M in the span of `vectors`: values descending, vectors, R' R."""
    k = vectors.shape[1]
    block = np.zeros((operator.n_vertices, -(-k // WIDTH) * WIDTH))
    block[:, :k], _ = np.linalg.qr(vectors)
    product = operator.apply(block)[:, :k]
    projected = block[:, :k].T @ product
    values, mixture = np.linalg.eigh((projected + projected.T) / 2)
    values, mixture = values[::-1], mixture[:, ::-1]
    vectors = block[:, :k] @ mixture
    residuals = product @ mixture - vectors * values
    return values, vectors, residuals.T @ residuals


def component_vectors(
    graph: NeuronGraph, operator: NormalizedAdjacency, k: int
) -> NDArray[np.float64]:
    """Orthonormal eigenvectors of M for eigenvalue 1: D^1/2 times a component's indicator.

    One column for each connected component, at most k, the largest volumes first, in the
    operator's numbering.
    """
    component = np.empty(graph.n_vertices, dtype=np.int64)
    component[operator.place] = kernels.components(graph.n_vertices, graph.placed_blocks())
    volumes = np.bincount(component, weights=operator.root_degrees**2)
    largest = np.argsort(-volumes, kind="stable")[:k]
    vectors = np.zeros((operator.n_vertices, largest.size))
    for column, number in enumerate(largest):
        members = component == number
        vectors[members, column] = operator.root_degrees[members] / np.sqrt(volumes[number])
    return vectors
