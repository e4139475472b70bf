"""Points of vertices that have next to no edge weight, such as neurons that weight decay emptied.

An eigenvector D^-1/2 u of L_norm is found by dividing u, which solvers give to about seven digits
of its largest entries. Where a degree is 10^-30 of the others', so small is the entry of u that
nothing but error is left of it, and the division makes that error a point far from all others.
The eigenvector's own equation gives such points from those of their neighbours.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ncut.graphs import NeuronGraph

SHARE = 1e-6
"""Of the mean degree, below which a vertex is faint."""

OWN_MASS = 1e-6
"""The share of |u|^2 on faint vertices above which the eigenvector is about them, and stays."""

SINGULAR = 1e-8
"""How near to an eigenvalue of the faint vertices' own graph nothing can be solved for."""


Rows = Callable[
    [NDArray[np.intp], NDArray[np.float64]], tuple[NDArray[np.float64], NDArray[np.float64]]
]
"""(vertices, points of all) -> (A points) for these vertices, and their own part of A."""


def settle(
    graph: NeuronGraph, points: NDArray[np.float64], eigenvalues: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The points, those of faint vertices computed anew.

    Parameters
    ----------
    graph : NeuronGraph
    points : ndarray of float64, shape (n, k)
        Eigenvectors y = D^-1/2 u of L_norm, for orthonormal u.
    eigenvalues : ndarray of float64, shape (k,)

    Returns
    -------
    ndarray of float64, shape (n, k)
        For faint vertices T the solution of (D^-1 A y)_T = (1 - lambda) y_T, given all others.
    """
    faint = faint_vertices(graph.degrees)
    if not faint.size:
        return points
    return settle_vertices(faint, graph.degrees, partial(_rows, graph), points, eigenvalues)


def faint_vertices(degrees: NDArray[np.float64]) -> NDArray[np.intp]:
    """The vertices that have next to no edge weight."""
    return np.flatnonzero(degrees < SHARE * degrees.mean())


def settle_vertices(
    faint: NDArray[np.intp],
    degrees: NDArray[np.float64],
    rows: Rows,
    points: NDArray[np.float64],
    eigenvalues: NDArray[np.float64],
) -> NDArray[np.float64]:
    """`settle`, given the faint vertices and what reads their rows of A."""
    roots = np.sqrt(degrees[faint])
    mass = ((roots[:, None] * points[faint]) ** 2).sum(axis=0)
    columns = np.flatnonzero(mass < OWN_MASS)
    others = points[:, columns].copy()
    others[faint] = 0.0
    pulls, own = rows(faint, others)
    values, vectors = np.linalg.eigh(own / roots[:, None] / roots)
    gaps = (1.0 - eigenvalues[columns]) - values[:, None]
    inverse = np.where(np.abs(gaps) > SINGULAR, 1.0 / np.where(gaps, gaps, 1.0), 0.0)
    solved = vectors @ (inverse * (vectors.T @ (pulls / roots[:, None])))
    settled = points.copy()
    settled[np.ix_(faint, columns)] = solved / roots[:, None]
    return settled


def _rows(
    graph: NeuronGraph, chosen: NDArray[np.intp], points: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(A points) for the chosen vertices, and their own part of A."""
    pulls = np.zeros((chosen.size, points.shape[1]))
    own = np.zeros((chosen.size, chosen.size))
    layers = [
        (layer, np.flatnonzero((chosen >= layer.start) & (chosen < layer.start + layer.size)))
        for layer in graph.layers
    ]
    for block in graph.blocks:
        for start, end, weights in (
            (block.source, block.target, block.weights),
            (block.target, block.source, block.weights.T),
        ):
            (from_layer, rows), (to_layer, columns) = layers[start], layers[end]
            if not rows.size:
                continue
            some = weights[chosen[rows] - from_layer.start]
            part = np.asarray(some if isinstance(some, np.ndarray) else some.toarray(), np.float64)
            pulls[rows] += part @ points[to_layer.slice]
            own[np.ix_(rows, columns)] += part[:, chosen[columns] - to_layer.start]
    return pulls, own
