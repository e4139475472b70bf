"""Embedding of weak vertices, with almost no edge weight, such as neurons after weight decay.

An eigenvector D^-1/2 u of L_norm is computed by dividing u, which solvers give to about seven
digits of its largest entries. If a degree is 10^-30 of the others, its entry of u is pure rounding
error, and the division turns that error into a point far from all others. The eigenvector equation
gives such points from those of their neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ncut.graphs import NeuronGraph
from ncut.spectral.operator import in_own_unit

if TYPE_CHECKING:
    from scipy import sparse

SHARE = 1e-6
"""Share of the mean degree below which a vertex is weak."""

OWN_MASS = 1e-6
"""The share of |u|^2 on weak vertices above which an eigenvector describes them and is kept."""

SINGULAR = 1e-8
"""Distance to an eigenvalue of the weak vertices' subgraph below which the system is not solved."""

MANY = 400
"""Number of weak vertices from which their equations are solved by iteration, not by LAPACK."""

LAST_DENSE = 4000
"""Largest number of weak vertices whose equations LAPACK solves where iteration does not."""

MAX_ITERATIONS = (200, 2000)
"""Iterations of MINRES, and how many more if those did not solve the equations."""

RELATIVE_TOLERANCE = 1e-10

ACCEPTED = 1e-7
"""Largest residual of a solution, relative to its norm and the right-hand side's."""

Part = tuple[NDArray[np.intp], NDArray[np.intp], "NDArray[np.float64] | sparse.csr_array"]
"""Edges between chosen vertices, by their positions among these, once in each direction."""

Rows = Callable[[NDArray[np.intp], NDArray[np.float64]], tuple[NDArray[np.float64], Sequence[Part]]]
"""(vertices, points of all) -> (A points) for these vertices, and A between them."""


def corrected(
    graph: NeuronGraph, points: NDArray[np.float64], eigenvalues: NDArray[np.float64]
) -> tuple[NDArray[np.float64], bool]:
    """The points, with those of weak vertices recomputed, and whether their equations were solved.

    Parameters
    ----------
    graph : NeuronGraph
    points : ndarray of float64, shape (n, k)
        Eigenvectors y = D^-1/2 u of L_norm, for orthonormal u.
    eigenvalues : ndarray of float64, shape (k,)

    Returns
    -------
    ndarray of float64, shape (n, k)
        For weak vertices T the solution of (D^-1 A y)_T = (1 - lambda) y_T, given all other points.
    bool
    """
    return corrected_vertices(graph.degrees, partial(_rows, graph), points, eigenvalues)


def corrected_vertices(
    degrees: NDArray[np.float64],
    rows: Rows,
    points: NDArray[np.float64],
    eigenvalues: NDArray[np.float64],
) -> tuple[NDArray[np.float64], bool]:
    """`corrected`, given a function that reads rows of A.

    Vertices that are weak even among weak ones follow, given these, recursively.
    """
    degrees, exponent = in_own_unit(degrees)
    share, all_solved = SHARE, True
    while (weak := np.flatnonzero(degrees < share * degrees.mean())).size:
        roots = np.sqrt(degrees[weak])[:, None]
        columns = np.flatnonzero(((roots * points[weak]) ** 2).sum(axis=0) < OWN_MASS)
        others = points[:, columns].copy()
        others[weak] = 0.0
        pulls, parts = rows(weak, others)
        solve = _by_lapack if weak.size < MANY else _by_iteration
        solved, right = solve(
            [(i, j, np.ldexp(1.0, -exponent) * part) for i, j, part in parts],
            roots,
            np.ldexp(pulls, -exponent) / roots,
            1.0 - eigenvalues[columns],
            roots * points[np.ix_(weak, columns)],
        )
        points = points.copy()
        points[np.ix_(weak, columns)] = solved / roots
        all_solved &= right
        share *= SHARE
    return points, all_solved


def _by_lapack(
    parts: Sequence[Part],
    roots: NDArray[np.float64],
    pulls: NDArray[np.float64],
    mu: NDArray[np.float64],
    start: NDArray[np.float64],
) -> tuple[NDArray[np.float64], bool]:
    """(mu - M)^-1 pulls for each column's mu, M = D^-1/2 A D^-1/2 between the weak vertices.

    Directions in which the inverse is undefined are left out. Also whether this is the solution.
    """
    own = np.zeros((roots.size, roots.size))
    for i, j, part in parts:
        own[np.ix_(i, j)] += part if isinstance(part, np.ndarray) else part.toarray()
    values, vectors = np.linalg.eigh(own / roots / roots.T)
    gaps = mu - values[:, None]
    inverse = np.where(np.abs(gaps) > SINGULAR, 1.0 / np.where(gaps, gaps, 1.0), 0.0)
    solved: NDArray[np.float64] = vectors @ (inverse * (vectors.T @ pulls))
    return solved, True


def _by_iteration(
    parts: Sequence[Part],
    roots: NDArray[np.float64],
    pulls: NDArray[np.float64],
    mu: NDArray[np.float64],
    start: NDArray[np.float64],
) -> tuple[NDArray[np.float64], bool]:
    """Solve by MINRES, starting from the solver's values: O(edges) in time and memory.

    LAPACK solves what MINRES does not, unless there are too many vertices.
    """
    from scipy.sparse.linalg import LinearOperator, minres

    scale = 1.0 / roots[:, 0]

    def shifted(value: float, x: NDArray[np.float64]) -> NDArray[np.float64]:
        spread, out = scale * x.ravel(), np.zeros(scale.size)
        for i, j, part in parts:
            out[i] += part @ spread[j]
        difference: NDArray[np.float64] = value * x.ravel() - scale * out
        return difference

    solved = start.copy()
    unsolved: list[int] = []
    for column, value in enumerate(mu):
        operator: Any = LinearOperator(
            (scale.size, scale.size), matvec=partial(shifted, value), dtype=np.float64
        )
        x, b = start[:, column], pulls[:, column]
        for n_iterations in MAX_ITERATIONS:
            x, _ = minres(operator, b, x0=x, rtol=RELATIVE_TOLERANCE, maxiter=n_iterations)
            left = float(np.linalg.norm(b - shifted(value, x)))
            if left <= ACCEPTED * (np.linalg.norm(b) + np.linalg.norm(x)):
                break
        else:
            unsolved.append(column)
        solved[:, column] = x
    if unsolved and scale.size <= LAST_DENSE:
        solved[:, unsolved], _ = _by_lapack(parts, roots, pulls[:, unsolved], mu[unsolved], start)
        unsolved = []
    return solved, not unsolved


def _rows(
    graph: NeuronGraph, chosen: NDArray[np.intp], points: NDArray[np.float64]
) -> tuple[NDArray[np.float64], list[Part]]:
    """(A points) for the chosen vertices, and A between them."""
    from scipy import sparse

    pulls = np.zeros((chosen.size, points.shape[1]))
    own: list[Part] = []
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
            part: Any = weights.tocsr() if sparse.issparse(weights) else weights
            part = part[chosen[rows] - from_layer.start].astype(np.float64)
            pulls[rows] += part @ points[to_layer.slice]
            if columns.size:
                own.append((rows, columns, part[:, chosen[columns] - to_layer.start]))
    return pulls, own
