"""Slow, obvious NumPy references of the fast code, for tests and benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from ncut.types import Block

if TYPE_CHECKING:
    from ncut.types import Weights

Floats = NDArray[np.float64]


def dense(weights: Weights) -> Floats:
    """A block's weights as a float64 matrix, a copy."""
    matrix = weights if isinstance(weights, np.ndarray) else weights.toarray()
    return np.array(matrix, dtype=np.float64)


def adjacency(n_vertices: int, blocks: Sequence[tuple[int, int, Block]]) -> Floats:
    """Dense symmetric adjacency A, shape (n_vertices, n_vertices).

    `blocks` come with the first vertex of their source and of their target layer.
    """
    A = np.zeros((n_vertices, n_vertices))
    for first_row, first_col, block in blocks:
        weights = dense(block.weights)
        n_rows, n_cols = weights.shape
        A[first_row : first_row + n_rows, first_col : first_col + n_cols] += weights
    return A + A.T


def degrees(A: Floats) -> Floats:
    """Row sums of an adjacency, shape (n,)."""
    return np.array([row.sum() for row in A])


def components(A: Floats) -> NDArray[np.intp]:
    """Number of each vertex's connected component, in the order of their first vertices."""
    found = np.full(len(A), -1)
    for root in range(len(A)):
        if found[root] < 0:
            reached = {root}
            grown = True
            while grown:
                neighbours = np.flatnonzero(A[list(reached)].any(axis=0)).tolist()
                grown = not reached.issuperset(neighbours)
                reached.update(neighbours)
            found[list(reached)] = found.max() + 1
    return found


def volumes_and_cuts(A: Floats, labels: NDArray[np.integer], k: int) -> tuple[Floats, Floats]:
    """vol(X) and W(X, V \\ X) of each of the k clusters X, each of shape (k,).

    A vertex with a negative label is in no cluster: its edges leave those at their other ends.
    """
    volumes, cuts = np.zeros(k), np.zeros(k)
    for cluster in range(k):
        inside = labels == cluster
        volumes[cluster] = A[inside].sum()
        cuts[cluster] = A[np.ix_(inside, ~inside)].sum()
    return volumes, cuts


def normalized_cut(A: Floats, labels: NDArray[np.integer]) -> float:
    """Sum over clusters X of W(X, V \\ X) / vol(X); a cluster without edges adds nothing."""
    volumes, cuts = volumes_and_cuts(A, labels, int(labels.max()) + 1)
    return float(sum(cut / volume for volume, cut in zip(volumes, cuts, strict=True) if volume > 0))


def inner_squares(
    weights: Floats, rows: NDArray[np.integer], cols: NDArray[np.integer]
) -> tuple[float, float]:
    """Sums of the squared weights between equal labels, and in total."""
    squares = weights**2
    return float(squares[rows[:, None] == cols[None, :]].sum()), float(squares.sum())


def symmetric_laplacian(A: Floats) -> Floats:
    """L_sym = I - D^-1/2 A D^-1/2 of a graph in which every vertex has edges."""
    root = np.sqrt(degrees(A))
    matrix: Floats = np.eye(len(A)) - A / np.outer(root, root)
    return matrix


def laplacian_eigenvalues(A: Floats) -> Floats:
    """All eigenvalues of L_sym, ascending, shape (n,)."""
    return np.asarray(np.linalg.eigvalsh(symmetric_laplacian(A)), dtype=np.float64)


def squared_distances(points: Floats, centres: Floats) -> Floats:
    """Squared distance of each point (n, d) to each centre (k, d), shape (n, k)."""
    differences = points[:, None, :] - centres[None, :, :]
    return np.asarray((differences**2).sum(axis=2))


def lloyd(
    points: Floats, centres: Floats, max_iterations: int = 300
) -> tuple[NDArray[np.intp], float]:
    """Lloyd's algorithm from given centres until nothing changes: labels (n,), inertia.

    A centre that loses all its points stays where it is.
    """
    centres = np.array(centres, dtype=np.float64)
    labels = squared_distances(points, centres).argmin(axis=1)
    for _ in range(max_iterations):
        for cluster in np.unique(labels):
            centres[cluster] = points[labels == cluster].mean(axis=0)
        moved = squared_distances(points, centres).argmin(axis=1)
        if np.array_equal(moved, labels):
            break
        labels = moved
    return labels, float(squared_distances(points, centres)[np.arange(len(points)), labels].sum())


def shuffle(
    weights: Floats, null: Literal["layer", "layer-nonzero"], random: np.random.Generator
) -> Floats:
    """A block's weights permuted freely ("layer") or among their positions ("layer-nonzero")."""
    shuffled = np.array(weights, dtype=np.float64)
    if null == "layer":
        return random.permutation(shuffled.ravel()).reshape(shuffled.shape)
    places = np.nonzero(shuffled)
    shuffled[places] = random.permutation(shuffled[places])
    return shuffled
