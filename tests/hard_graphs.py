"""Graphs that eigensolvers get wrong, with their exact spectra: long, repetitive, nearly apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial import cKDTree

import ncut
from ncut.graphs import NeuronGraph, from_adjacency
from ncut.spectral.accuracy import ACCEPTED, LARGEST_GOAL, OF_SIZE, SMALLEST
from ncut.threads import single_threaded_blas
from ncut.types import Clustering

Random = np.random.Generator
Spectrum = NDArray[np.float64]

MAX_K = 40
ROUNDING = 1e-11
"""Accuracy of eigenvalues in the dense reference, and of comparisons with it."""


@dataclass(frozen=True)
class Hard:
    """A graph before it is given a scale.

    Attributes
    ----------
    family : str
    weights : csr_array or list of ndarray
        An adjacency matrix, or the matrices of a layered network.
    labels : ndarray of int, shape (n,), or None
        A good partition, where the family has one.
    spectrum : ndarray of float64 or None
        All eigenvalues of the normalized Laplacian, where there is a formula.
    """

    family: str
    weights: Any
    labels: NDArray[np.intp] | None = None
    spectrum: Spectrum | None = None

    def graph(self, scale: float) -> NeuronGraph:
        """The graph with all weights multiplied."""
        if isinstance(self.weights, list):
            return ncut.graph([scale * matrix for matrix in self.weights])
        return from_adjacency(self.weights * scale)


@dataclass(frozen=True)
class Task:
    """A graph, in a scale, to cluster into k parts, with the k smallest eigenvalues."""

    seed: int
    hard: Hard
    plain: NeuronGraph
    kept: NDArray[np.intp]
    k: int
    scale: float
    exact: Spectrum

    @property
    def scaled(self) -> NeuronGraph:
        """The graph in its scale, without isolated vertices."""
        if self.scale == 1.0:
            return self.plain
        return self.hard.graph(self.scale).without_isolated()[0]


@dataclass(frozen=True)
class Outcome:
    """A clustering compared with exact eigenvalues.

    Attributes
    ----------
    family, solver : str
    n_vertices, k : int
    converged : bool
    share : float
        The largest error of an eigenvalue, as a share of what "converged" allows.
    looseness : float
        How far the lower bound is below the sum of the eigenvalues, as a share of it.
    faults : tuple of str
        What is wrong; empty where nothing is.
    """

    family: str
    solver: str
    n_vertices: int
    k: int
    converged: bool
    share: float
    looseness: float
    faults: tuple[str, ...]


def task(seed: int, largest: int) -> Task:
    """A graph of 50 to about `largest` vertices, of a family, a k and a scale drawn at random."""
    random = np.random.default_rng(seed)
    names = sorted(FAMILIES)
    name = names[random.integers(len(names))]
    hard = FAMILIES[name](random, int(np.exp(random.uniform(np.log(50), np.log(largest)))))
    plain, kept = hard.graph(1.0).without_isolated()
    k = int(random.integers(2, min(MAX_K, plain.n_vertices - 1) + 1))
    scale = float(10 ** random.uniform(-200, 200)) if random.random() < 0.5 else 1.0
    return Task(seed, hard, plain, kept, k, scale, exact_eigenvalues(hard, plain, k))


def clustered(one: Task, solver: str = "auto") -> Clustering:
    """The task's graph, clustered on the CPU."""
    return ncut.cluster(one.scaled, one.k, threads=1, n_init=2, seed=one.seed, solver=solver)


def judged(one: Task, found: Clustering, *, must_converge: bool) -> Outcome:
    """Compare a clustering of the task's graph with exact eigenvalues and known cuts."""
    faults = []
    error = np.abs(found.eigenvalues - one.exact)
    shares = error / allowed_errors(one.exact)
    at = int(shares.argmax())
    if found.converged and shares[at] > 1:
        faults.append(
            f"eigenvalue {at} is {found.eigenvalues[at]:.6g} instead of {one.exact[at]:.6g}, "
            f"called converged (residual {found.residual:.1e})"
        )
    if must_converge and not found.converged:
        faults.append(f"did not converge (residual {found.residual:.1e})")
    total = float(one.exact.sum())
    limits = {
        "sum": total + ROUNDING,
        "refined": found.refined_ncut,
        "spectral": found.spectral_ncut,
    }
    labels = one.hard.labels
    if labels is not None and len(set(labels[one.kept])) == one.k:
        limits["planted"] = ncut.normalized_cut(one.plain, labels[one.kept])
    for name, value in limits.items():
        if found.lower_bound > value:
            faults.append(f"lower bound {found.lower_bound:.9g} above the {name}'s {value:.9g}")
    again = ncut.normalized_cut(one.plain, found.labels)
    if abs(again - found.ncut) > 1e-9 * max(again, 1e-3):
        faults.append(f"n-cut {found.ncut:.12g} at scale {one.scale:.3g}, {again:.12g} at scale 1")
    return Outcome(
        one.hard.family,
        found.solver,
        one.plain.n_vertices,
        one.k,
        found.converged,
        float(shares[at]),
        (total - found.lower_bound) / total if total > ROUNDING else 0.0,
        tuple(faults),
    )


def allowed_errors(exact: Spectrum) -> Spectrum:
    """Largest error of each eigenvalue in a result marked as converged."""
    relative: Spectrum = ACCEPTED * OF_SIZE * np.maximum(exact, SMALLEST)
    return np.minimum(relative, ACCEPTED * LARGEST_GOAL) + ROUNDING


def exact_eigenvalues(hard: Hard, plain: NeuronGraph, k: int) -> Spectrum:
    """The k smallest, by the family's formula or by LAPACK in float64."""
    if hard.spectrum is not None:
        return np.sort(hard.spectrum)[:k]
    adjacency = plain.adjacency.toarray().astype(np.float64)
    scale = 1 / np.sqrt(adjacency.sum(axis=1))
    with single_threaded_blas():
        values = 1.0 - np.linalg.eigvalsh(scale[:, None] * adjacency * scale)[::-1]
    return np.maximum(values[:k], 0.0)


def path(n: int) -> sparse.csr_array:
    return sparse.csr_array(sparse.diags_array([np.ones(n - 1)] * 2, offsets=[1, -1]))


def ring(n: int) -> sparse.csr_array:
    ends = sparse.csr_array(([1.0, 1.0], ([0, n - 1], [n - 1, 0])), shape=(n, n))
    return sparse.csr_array(path(n) + ends)


def product(a: sparse.csr_array, b: sparse.csr_array) -> sparse.csr_array:
    """The Cartesian product of two graphs."""
    one, other = (sparse.eye_array(matrix.shape[0]) for matrix in (a, b))
    return sparse.csr_array(sparse.kron(a, other) + sparse.kron(one, b))


def sides(random: Random, n: int, least: int = 3) -> tuple[int, int]:
    """Two sides of a rectangle of about n vertices, from square to very long."""
    short = int(np.exp(random.uniform(np.log(least), np.log(max(np.sqrt(n), least + 1)))))
    return short, max(n // short, least)


def _path(random: Random, n: int) -> Hard:
    spectrum = 1 - np.cos(np.pi * np.arange(n) / (n - 1))
    return Hard("path", path(n), spectrum=spectrum)


def _ring(random: Random, n: int) -> Hard:
    spectrum = 1 - np.cos(2 * np.pi * np.arange(n) / n)
    return Hard("ring", ring(n), spectrum=spectrum)


def _grid(random: Random, n: int) -> Hard:
    a, b = sides(random, min(n, 900), least=2)
    return Hard("grid", product(path(a), path(b)))


def _torus(random: Random, n: int) -> Hard:
    a, b = sides(random, n)
    waves = [np.cos(2 * np.pi * np.arange(m) / m) for m in (a, b)]
    return Hard("torus", product(ring(a), ring(b)), spectrum=1 - np.add.outer(*waves).ravel() / 2)


def _hypercube(random: Random, n: int) -> Hard:
    dimension = min(max(int(np.log2(n)), 6), 12)
    matrix = edge = path(2)
    for _ in range(dimension - 1):
        matrix = product(matrix, edge)
    bits = np.array([bin(number).count("1") for number in range(2**dimension)])
    return Hard("hypercube", matrix, spectrum=2 * bits / dimension)


def _barbell(random: Random, n: int) -> Hard:
    n = min(n, 600)
    bridge = int(random.integers(0, n // 2))
    clique = (n - bridge) // 2
    matrix = np.zeros((2 * clique + bridge,) * 2)
    matrix[:clique, :clique] = matrix[-clique:, -clique:] = 1
    at = np.arange(clique - 1, clique + bridge)
    matrix[at, at + 1] = matrix[at + 1, at] = 1
    np.fill_diagonal(matrix, 0)
    return Hard("barbell", sparse.csr_array(matrix))


def _copies(random: Random, n: int) -> Hard:
    """The same graph many times, each vertex joined weakly to its copies."""
    number = int(random.integers(2, 31))
    size = max(n // number, 6)
    parts = {
        "torus": lambda: product(ring(3), ring(max(size // 3, 3))),
        "ring": lambda: ring(size),
        "path": lambda: path(size),
        "grid": lambda: product(path(3), path(max(size // 3, 2))),
        "clique": lambda: sparse.csr_array(np.ones((size, size)) - np.eye(size)),
    }
    part = parts[list(parts)[random.integers(len(parts))]]()
    weight = float(10 ** random.uniform(-6, np.log10(5e-2)))
    between = sparse.csr_array(np.ones((number, number)) - np.eye(number))
    weights = sparse.kron(sparse.eye_array(number), part)
    weights += weight * sparse.kron(between, sparse.eye_array(part.shape[0]))
    labels = np.repeat(np.arange(number), part.shape[0])
    return Hard(
        "copies", sparse.csr_array(weights), labels, _spectrum_of_copies(part, number, weight)
    )


def _spectrum_of_copies(part: Any, number: int, weight: float) -> Spectrum | None:
    """With equal degrees, L of the whole has the eigenvalues of its parts and of the joints."""
    degrees = part.sum(axis=0)
    if degrees.min() < degrees.max() or part.shape[0] > 600:
        return None
    own = np.linalg.eigvalsh(part.toarray())
    among = np.concatenate([[number - 1.0], -np.ones(number - 1)])
    total = degrees[0] + weight * (number - 1)
    return np.asarray(1 - np.add.outer(weight * among, own).ravel() / total)


def _planted(random: Random, n: int) -> Hard:
    n = min(n, 600)
    number = int(random.integers(2, 21))
    labels = np.sort(random.integers(0, number, n))
    inside, across = random.uniform(0.1, 0.6), 10 ** random.uniform(-4, -1)
    alike = labels[:, None] == labels
    there = random.random((n, n)) < np.where(alike, inside, across)
    upper = np.triu(there * random.lognormal(0, random.uniform(0, 2), (n, n)), 1)
    upper[0, 1] = 1.0  # never without edges
    return Hard("planted partition", sparse.csr_array(upper + upper.T), labels)


def _neighbours(points: NDArray[np.float64], count: int) -> sparse.csr_array:
    """Each point joined with its nearest ones, either way."""
    n = len(points)
    _, nearest = cKDTree(points).query(points, count + 1)
    rows, columns = np.repeat(np.arange(n), count), nearest[:, 1:].ravel()
    matrix = sparse.csr_array((np.ones(rows.size), (rows, columns)), shape=(n, n))
    return sparse.csr_array(matrix.maximum(matrix.T))


def _curve(random: Random, n: int) -> Hard:
    n = min(n, 600)
    at = np.sort(random.uniform(0, 4 * np.pi, n))
    points = np.stack([at * np.cos(at), at * np.sin(at)], axis=1)
    points += 0.02 * random.standard_normal(points.shape)
    return Hard("neighbours on a curve", _neighbours(points, int(random.integers(2, 12))))


def _surface(random: Random, n: int) -> Hard:
    n = min(n, 600)
    at = random.uniform(1.5 * np.pi, 4.5 * np.pi, n)
    points = np.stack([at * np.cos(at), random.uniform(0, 20, n), at * np.sin(at)], axis=1)
    return Hard("neighbours on a surface", _neighbours(points, int(random.integers(4, 12))))


def _modules(random: Random, n: int) -> Hard:
    """A layered network of equal modules, joined weakly."""
    layers = int(random.integers(3, 6))
    number = int(random.integers(2, 25))
    size = max(min(n, 900) // (layers * number), 3)
    module = np.eye(size) + np.roll(np.eye(size), 1, 0) + np.roll(np.eye(size), -1, 0)
    if random.random() < 0.5:
        module = random.random((size, size))
    weight = float(10 ** random.uniform(-6, np.log10(5e-2)))
    between = np.kron(np.ones((number, number)) - np.eye(number), np.eye(size))
    matrix = np.kron(np.eye(number), module) + weight * between
    labels = np.tile(np.repeat(np.arange(number), size), layers)
    return Hard("layered modules", [matrix] * (layers - 1), labels)


FAMILIES: dict[str, Callable[[Random, int], Hard]] = {
    "path": _path,
    "ring": _ring,
    "grid": _grid,
    "torus": _torus,
    "hypercube": _hypercube,
    "barbell": _barbell,
    "copies": _copies,
    "planted": _planted,
    "curve": _curve,
    "surface": _surface,
    "modules": _modules,
}
