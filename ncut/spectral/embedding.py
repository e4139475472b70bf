"""The spectral embedding of a graph: eigenvectors of the normalized Laplacian."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ncut.errors import InputError
from ncut.graphs import NeuronGraph
from ncut.randomness import Purpose, numpy_generator
from ncut.spectral import solvers

if TYPE_CHECKING:
    from scipy import sparse


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """The k smallest eigenvalues of L_norm, and the graph's vertices as points.

    Attributes
    ----------
    points : ndarray of float64, shape (n, k)
        Row i is vertex i: the entries of the eigenvectors D^-1/2 u of L_norm, for orthonormal
        eigenvectors u of L_sym, in the order of their eigenvalues.
    eigenvalues : ndarray of float64, shape (k,), ascending
    solver : str
    residual : float
        Largest |M u - mu u| over the eigenvectors u.
    """

    points: NDArray[np.float64]
    eigenvalues: NDArray[np.float64]
    solver: str
    residual: float

    @property
    def converged(self) -> bool:
        """Whether the residual is below `solvers.TOLERANCE`."""
        return self.residual <= solvers.TOLERANCE


def embed(graph: NeuronGraph, k: int, *, solver: str, seed: int, graph_number: int) -> Embedding:
    """Spectral embedding of a graph in which every vertex has edges.

    The eigenvalue 0 has one eigenvector per connected component, known without any solver: they
    are taken from the components (those of largest volume first), and the solver looks for the
    rest only. So repeated zero eigenvalues are never missed.
    """
    check_solver(solver)
    root_degrees = np.sqrt(graph.degrees)
    M = normalized_adjacency(graph.adjacency, root_degrees)
    known = component_vectors(graph.adjacency, root_degrees, k)
    n_known, n_vertices = known.shape[1], graph.n_vertices
    n_wanted = k - n_known
    values, vectors = np.ones(n_known), known
    used = "components"
    if n_wanted:
        used = solvers.choose_solver(n_vertices, k) if solver == "auto" else solver
        check_size(used, n_vertices, n_wanted)
        rng = numpy_generator(seed, Purpose.START_VECTORS, graph_number)
        found, found_vectors = solvers.SOLVERS[used](M, known, n_wanted, rng)
        order = np.argsort(found)[::-1]
        values = np.concatenate([values, found[order]])
        vectors = np.hstack([known, found_vectors[:, order]])
    residual = float(np.linalg.norm(M @ vectors - vectors * values, axis=0).max())
    return Embedding(
        points=vectors / root_degrees[:, None],
        eigenvalues=np.maximum(1.0 - values, 0.0),
        solver=used,
        residual=residual,
    )


def check_solver(solver: str) -> None:
    """Refuse a solver that does not exist."""
    names = ("auto", *solvers.SOLVERS)
    if solver not in names:
        raise InputError(f"solver: must be one of {', '.join(names)}, got {solver!r}")


def check_size(solver: str, n_vertices: int, k: int) -> None:
    """Refuse what the iterative solvers cannot do on tiny graphs."""
    if solver == "arpack" and k >= n_vertices:
        raise InputError(f"solver: arpack cannot find {k} eigenvectors of {n_vertices}; use dense")


def normalized_adjacency(
    adjacency: sparse.csr_array, root_degrees: NDArray[np.float64]
) -> sparse.csr_array:
    """M = D^-1/2 A D^-1/2 in float64."""
    from scipy import sparse

    scale = sparse.diags_array(1.0 / root_degrees)
    return sparse.csr_array(scale @ adjacency.astype(np.float64) @ scale)


def component_vectors(
    adjacency: sparse.csr_array, root_degrees: NDArray[np.float64], k: int
) -> NDArray[np.float64]:
    """Orthonormal eigenvectors of M for eigenvalue 1: D^1/2 times a component's indicator.

    One column for each connected component, at most k, the largest volumes first.
    """
    from scipy.sparse import csgraph

    n_components, component = csgraph.connected_components(adjacency, directed=False)
    volumes = np.bincount(component, weights=root_degrees**2, minlength=n_components)
    largest = np.argsort(-volumes, kind="stable")[:k]
    vectors = np.zeros((root_degrees.size, largest.size))
    for column, number in enumerate(largest):
        members = component == number
        vectors[members, column] = root_degrees[members] / np.sqrt(volumes[number])
    return vectors
