"""The spectral embedding of a graph: eigenvectors of the normalized Laplacian."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ncut import kernels
from ncut.arguments import check_choice
from ncut.randomness import Purpose, numpy_generator
from ncut.spectral import solvers
from ncut.spectral.accuracy import ACCEPTED, goals
from ncut.spectral.krylov import room_needed
from ncut.spectral.operator import WIDTH, NormalizedAdjacency
from ncut.spectral.weak_vertices import corrected

ALIKE = 1e-10
"""Relative difference below which a solver may confuse two eigenvalues."""


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """The k smallest eigenvalues of L_norm, and the graph's vertices as points.

    Attributes
    ----------
    points : ndarray of float64, shape (n, k)
        Row i is vertex i: the entries of the eigenvectors D^-1/2 u of L_norm, for orthonormal
        eigenvectors u of L_sym and D in the operator's unit, in the order of their eigenvalues.
    eigenvalues : ndarray of float64, shape (k,), ascending
    solver : str
    residuals : ndarray of float64, shape (k, k)
        R' R for the residuals R = M U - U diag(mu) of the eigenvectors U, computed in float64.
    following : float
        The smallest eigenvalue whose eigenvector was not computed, as well as it is known.
    missed : bool
        Whether an eigenvalue is known to be missing.
    solved : bool
        Whether the points of weak vertices solve their equations; see `weak_vertices`.
    """

    points: NDArray[np.float64]
    eigenvalues: NDArray[np.float64]
    solver: str
    residuals: NDArray[np.float64]
    following: float
    missed: bool = False
    solved: bool = True

    @property
    def residual(self) -> float:
        """Largest |M u - mu u| over the eigenvectors u."""
        return math.sqrt(self.residuals.diagonal().max())

    def first(self, k: int) -> Embedding:
        """The embedding in the first k eigenvectors."""
        return replace(
            self,
            points=self.points[:, :k],
            eigenvalues=self.eigenvalues[:k],
            residuals=self.residuals[:k, :k],
        )

    def lower_bound(self) -> float:
        """A lower bound of the n-cut of every partition into k clusters.

        The sum of the k smallest eigenvalues bounds every k-way n-cut from below. The computed
        eigenvalues are the exact eigenvalues of M - R U' - U R', whose sum is off by at most the
        sum of the singular values of R. That sum is subtracted, with an allowance for rounding and
        for indistinguishable eigenvalues. Residuals cannot reveal a missed eigenvalue; a partition
        with a lower n-cut can, see `spectral.clustering`. If the eigenvectors have not converged,
        the bound is 0.

        Source: Fan (1949), On a theorem of Weyl concerning eigenvalues; Zha, He, Ding, Gu, Simon
        (2001), Spectral relaxation for k-means clustering; Stewart and Sun (1990), Matrix
        perturbation theory, chapter IV.
        """
        return self.bound_by_residuals() if self.converged else 0.0

    def bound_by_residuals(self) -> float:
        """The bound, assuming that these approximate the smallest eigenvalues."""
        n, k = self.points.shape
        singular = np.sqrt(np.maximum(np.linalg.eigvalsh(self.residuals), 0.0))
        total = float(self.eigenvalues.sum())
        rounding: float = n * k * float(np.finfo(np.float64).eps) + ALIKE * total
        return max(0.0, total - float(singular.sum()) - rounding)

    def allows(self, ncut: float, n_clusters: int) -> bool:
        """Check whether a partition can have this n-cut; if not, an eigenvalue was missed.

        `n_clusters`: number of clusters with members, to which the bound refers.
        """
        return ncut >= self.first(n_clusters).lower_bound()

    def completed(self, other: Embedding) -> Embedding:
        """Another embedding of the same graph if it is better, else this one marked incomplete."""
        n, k = self.points.shape
        allowance = n * k * float(np.finfo(np.float64).eps)
        better = other.eigenvalues.sum() < self.eigenvalues.sum() - allowance
        return other if better else replace(self, missed=True)

    @property
    def converged(self) -> bool:
        """Check whether each residual is at most `accuracy.ACCEPTED` times its goal."""
        return not self.missed and self.solved and self.excess <= ACCEPTED

    @property
    def excess(self) -> float:
        """The largest ratio of a residual to its goal; see `accuracy.goals`."""
        norms = np.sqrt(self.residuals.diagonal())
        return float((norms / goals(self.eigenvalues, self.following)).max())


def embed(
    operator: NormalizedAdjacency,
    k: int,
    *,
    solver: str,
    seed: int,
    graph_number: int,
) -> Embedding:
    """Spectral embedding of the operator's graph, in which every vertex has edges.

    The eigenvalue 0 has one eigenvector per connected component, known without a solver: these are
    taken from the components (largest volume first), and the solver computes only the rest, so
    repeated zero eigenvalues are never missed. One Rayleigh-Ritz step in float64 improves the pairs
    of every solver and measures the residuals. If they are too large after krylov in float32,
    krylov is repeated in float64; if they are still too large and the choice is "auto", other
    solvers are tried.
    """
    check_solver(solver)
    known = component_vectors(operator, k)
    n_known = known.shape[1]
    n_wanted = k - n_known
    if not n_wanted:
        return _embedding(operator, known, "components", 0.0, n_known=k)
    first = solvers.choose_solver(operator, n_known, n_wanted) if solver == "auto" else solver
    tries = [first, *(["krylov-float64"] if first == "krylov" else [])]
    if solver == "auto":
        tries += solvers.last_resorts(operator, n_known, n_wanted, first)
    rng = numpy_generator(seed, Purpose.START_VECTORS, graph_number)

    def attempt(name: str) -> Embedding:
        vectors, following = solvers.ALL[name](operator, known, n_wanted, rng)
        both = np.hstack([known, vectors])
        return _embedding(operator, both, name, 1.0 - following, n_known=n_known)

    return first_converged(tries, attempt)


def first_converged(names: Sequence[str], attempt: Callable[[str], Embedding]) -> Embedding:
    """The first converged embedding of the given solvers, or else the best."""
    found: list[Embedding] = []
    for name in names:
        found.append(attempt(name))
        if found[-1].converged:
            return found[-1]
    return min(found, key=lambda one: one.excess)


def look_again(
    operator: NormalizedAdjacency, embedding: Embedding, look: int, *, seed: int, graph_number: int
) -> Embedding:
    """Complete the embedding of a solver that missed an eigenvalue.

    Searches in float64 for as many further eigenvectors orthogonal to those found, and keeps the
    best of both; LAPACK on the whole matrix does this if the graph is too small for block Lanczos.
    If nothing smaller is found, the result is marked with `missed`. `look`: 1, 2, ...
    """
    k = embedding.eigenvalues.size
    vectors = np.empty((operator.n_vertices, k))
    vectors[operator.place] = embedding.points
    vectors, _ = np.linalg.qr(vectors * operator.root_degrees[:, None])
    rng = numpy_generator(seed, Purpose.START_VECTORS, graph_number, look)
    if operator.n_vertices <= solvers.LAST_DENSE or k + room_needed(k) > operator.n_vertices:
        nothing = vectors[:, :0]
        both, following = solvers.dense(operator, nothing, k, rng)
        found = _embedding(operator, both, "dense", 1.0 - following)
    else:
        more, following = solvers.krylov(operator, vectors, k, rng, np.float64, whole=True)
        found = _embedding(
            operator, np.hstack([vectors, more]), "krylov-float64", 1.0 - following, k
        )
    return embedding.completed(found)


def _embedding(
    operator: NormalizedAdjacency,
    vectors: NDArray[np.float64],
    solver: str,
    following: float,
    k: int | None = None,
    *,
    n_known: int = 0,
) -> Embedding:
    """The embedding by the best k vectors in the span of the given ones (by default all).

    The first `n_known` are those of `component_vectors`. If there are several, their points are
    exactly those of the components: next to a component whose weights are 10^-40 of the others,
    whose points lie far outside, rounding errors of these points would exceed the distances among
    all others.
    """
    supports = vectors[:, : n_known if n_known > 1 else 0] > 0
    n_exact = supports.shape[1]
    values, vectors, residuals = rayleigh_ritz(operator, vectors, n_exact)
    if k is not None:
        following = min(following, float(1.0 - values[k]))
        values, vectors, residuals = values[:k], vectors[:, :k], residuals[:k, :k]
    eigenvalues = np.maximum(1.0 - values, 0.0)
    points = vectors / operator.root_degrees[:, None]
    points[:, :n_exact] = supports / np.sqrt(operator.degrees @ supports)
    points, solved = corrected(operator.graph, points[operator.place], eigenvalues)
    return Embedding(
        points=points,
        eigenvalues=eigenvalues,
        solver=solver,
        residuals=residuals,
        following=following,
        solved=solved,
    )


def check_solver(solver: str) -> str:
    """Return the solver's name; refuse an unknown one."""
    return check_choice("solver", solver, ("auto", *solvers.SOLVERS))


def rayleigh_ritz(
    operator: NormalizedAdjacency, vectors: NDArray[np.float64], n_exact: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The best eigenpairs of M in the span of `vectors`: values descending, vectors, R' R.

    The first `n_exact` vectors are eigenvectors of the largest eigenvalue 1, and stay apart.
    """
    k = vectors.shape[1]
    block = np.zeros((operator.n_vertices, -(-k // WIDTH) * WIDTH))
    block[:, :k], _ = np.linalg.qr(vectors)
    arrays = operator.arrays
    product = arrays.to_host(operator.apply(arrays.asarray(block)))[:, :k]
    projected = block[:, :k].T @ product
    values, mixture = np.ones(k), np.eye(k)
    rest = (projected + projected.T)[n_exact:, n_exact:] / 2
    if rest.size:
        found, turned = np.linalg.eigh(rest)
        values[n_exact:], mixture[n_exact:, n_exact:] = found[::-1], turned[:, ::-1]
    vectors = block[:, :k] @ mixture
    residuals = product @ mixture - vectors * values
    return values, vectors, residuals.T @ residuals


def component_vectors(operator: NormalizedAdjacency, k: int) -> NDArray[np.float64]:
    """Orthonormal eigenvectors of M for eigenvalue 1: D^1/2 times a component's indicator.

    One column for each connected component, at most k, the largest volumes first, in the
    operator's numbering.
    """
    graph = operator.graph
    component = np.empty(graph.n_vertices, dtype=np.int64)
    component[operator.place] = kernels.components(graph.n_vertices, graph.placed_blocks())
    volumes = np.bincount(component, weights=operator.degrees)
    largest = np.argsort(-volumes, kind="stable")[:k]
    vectors = np.zeros((operator.n_vertices, largest.size))
    for column, number in enumerate(largest):
        members = component == number
        vectors[members, column] = operator.root_degrees[members] / np.sqrt(volumes[number])
    return vectors
