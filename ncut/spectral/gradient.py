"""eigenvalues_and_gradient(): eigenvalues of L_norm and their gradient, from arrays to arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ncut.arguments import suggests_names
from ncut.chebyshev import Unwanted, filtered
from ncut.errors import InputError
from ncut.graphs import NeuronGraph, build_graph
from ncut.randomness import check_seed
from ncut.spectral.embedding import component_vectors, embed
from ncut.spectral.operator import WIDTH, NormalizedAdjacency
from ncut.threads import n_threads, single_threaded_blas

SPARE = 4
"""Smallest number of eigenvectors computed beyond the requested ones."""

DENSE = 1024
"""Largest number of vertices for which LAPACK solves the whole matrix."""

RESIDUAL = 1e-10
"""Residuals |M v - mu v| of the requested unit eigenvectors v."""

EQUAL = 1e-9
"""Distance below which eigenvalues count as one repeated eigenvalue."""

DEGREE, MAX_ROUNDS = 12, 200
"""Degree of the Chebyshev filter, and its largest number of applications."""


class EigenvaluesAndGradient(NamedTuple):
    """Eigenvalues of a graph's Laplacian, and the gradient of their weighted sum.

    Attributes
    ----------
    eigenvalues : ndarray of float64, shape (m,)
        The eigenvalues in the requested order.
    gradient : list of ndarray
        For each array of weights, an array of its shape and dtype.
    """

    eigenvalues: NDArray[np.float64]
    gradient: list[NDArray[np.floating]]


@suggests_names()
def eigenvalues_and_gradient(
    blocks: Iterable[Any],
    which: Sequence[int] = (2, 3, 4),
    *,
    slopes: ArrayLike | None = None,
    seed: int = 0,
    threads: int | None = None,
) -> EigenvaluesAndGradient:
    """Eigenvalues of L_norm = I - D^-1 A and the gradient of a sum of them, in closed form.

    For libraries other than torch: every argument is a NumPy array, or is converted by
    `np.asarray`. Edge weights are magnitudes of weights. For a unit eigenvector v of L_sym and u =
    D^-1/2 v,

        d lambda / d w_ij = sign(w_ij) ((1 - lambda) (u_i^2 + u_j^2) - 2 u_i u_j).

    Parameters
    ----------
    blocks : sequence of array_like, or of (source, target, array_like)
        Matrices (fan_in, fan_out) of a chain of layers; or triples of numbers of two different
        layers and a matrix (size of source, size of target), for any graph of layers. float32 or
        float64.
    which : sequence of int, default (2, 3, 4)
        Numbers of the eigenvalues, from 1 for the smallest eigenvalue, 0, up to the number of
        vertices with edges.
    slopes : array_like of float, shape (len(which),), optional
        Factors of the eigenvalues in the sum whose gradient is returned, such as the cotangents of
        a backward pass; by default 1 / len(which) each, for the gradient of the mean.
    seed : int, default 0
        Seed of the start vectors, used for more than 1,024 vertices.
    threads : int, optional
        Threads to use; all cores by default.

    Returns
    -------
    EigenvaluesAndGradient
        `eigenvalues`, float64 of shape (len(which),), to about 1e-10; `gradient`, a list with an
        array of the shape and dtype of each matrix. Vertices without edges have gradient 0;
        copies of a repeated eigenvalue share the mean of their slopes, since a single copy has no
        gradient.

    Raises
    ------
    InputError
        If an argument cannot be used, weights are not finite or all zero, or the eigenvectors do
        not converge.

    Source: Filan et al. (2021), Clusterability in Neural Networks, appendix A.9; repeated
    eigenvalues: Lewis (1996), Derivatives of spectral functions.

    Examples
    --------
    >>> weights = [np.ones((4, 3)), np.ones((3, 2))]
    >>> values, gradient = eigenvalues_and_gradient(weights, which=(2, 3))
    >>> values.round(6).tolist()
    [1.0, 1.0]
    >>> [array.shape for array in gradient]
    [(4, 3), (3, 2)]
    """
    numbers = _numbers(which)
    factors = _slopes(slopes, len(numbers))
    seed = check_seed(seed)
    weights, ends, sizes = _read(blocks)
    graph = build_graph(
        [(f"layer {layer}", size) for layer, size in sizes.items()],
        [
            (*pair, np.abs(w), f"blocks[{at}]")
            for at, (w, pair) in enumerate(zip(weights, ends, strict=True))
        ],
    )
    with single_threaded_blas():
        values, vectors = _eigenpairs(graph, max(numbers), seed, n_threads(threads))
    by_vector = np.zeros(len(values))
    np.add.at(by_vector, np.array(numbers) - 1, factors)
    by_vector = _shared(by_vector, values)
    starts = [layer.start for layer in graph.layers]
    vectors *= _inverse_roots(weights, ends, starts, graph.n_vertices)[:, None]
    gradient = [
        _gradient(matrix, values, vectors, by_vector, starts[source], starts[target])
        for matrix, (source, target) in zip(weights, ends, strict=True)
    ]
    return EigenvaluesAndGradient(values[np.array(numbers) - 1], gradient)


def _eigenpairs(
    graph: NeuronGraph, n_wanted: int, seed: int, threads: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The smallest eigenvalues, some beyond those wanted, and unit eigenvectors (n, m) of L_sym."""
    connected, kept = graph.without_isolated()
    n = connected.n_vertices
    if n_wanted > n:
        raise InputError(
            f"which: must be at most the number of vertices with edges, {n}, got {n_wanted}"
        )
    operator = NormalizedAdjacency(connected, threads)
    m = min(n_wanted + max(n_wanted // 4, SPARE), n)
    while n > DENSE and 4 * m <= n:
        embedding = embed(operator, m, solver="auto", seed=seed, graph_number=0)
        start = np.empty((n, m))
        start[operator.place] = embedding.points
        mu, placed = _improved(operator, start * operator.root_degrees[:, None], n_wanted)
        own = placed[operator.place]
        if mu[n_wanted - 1] - mu[-1] > EQUAL:
            break
        m *= 2  # there may be further copies of the last wanted eigenvalue
    else:
        found, basis = np.linalg.eigh(operator.matrix().toarray())
        mu, own = found[::-1], basis[:, ::-1]
    eigenvalues = np.maximum(1.0 - mu, 0.0)
    m = max(m, _with_copies(eigenvalues, n_wanted))
    vectors = np.zeros((graph.n_vertices, m))
    vectors[kept] = own[:, :m]
    return eigenvalues[:m], vectors


def _with_copies(eigenvalues: NDArray[np.float64], n_wanted: int) -> int:
    """Number of eigenvalues up to the last copy of the last wanted one."""
    apart = np.flatnonzero(np.diff(eigenvalues[n_wanted - 1 :]) > EQUAL)
    return n_wanted + int(apart[0]) if apart.size else eigenvalues.size


def _inverse_roots(
    weights: list[NDArray[np.floating]],
    ends: list[tuple[int, int]],
    starts: list[int],
    n_vertices: int,
) -> NDArray[np.float64]:
    """D^-1/2 in the unit of the weights, which may differ from the graph's unit; (n,)."""
    degrees = np.zeros(n_vertices)
    for matrix, (source, target) in zip(weights, ends, strict=True):
        magnitudes = np.abs(matrix)
        rows, columns = (
            slice(starts[at], starts[at] + n)
            for at, n in zip((source, target), matrix.shape, strict=False)
        )
        degrees[rows] += magnitudes.sum(1, dtype=np.float64)
        degrees[columns] += magnitudes.sum(0, dtype=np.float64)
    return np.divide(1.0, np.sqrt(degrees), out=np.zeros(n_vertices), where=degrees > 0)


def _improved(
    operator: NormalizedAdjacency, vectors: NDArray[np.float64], n_wanted: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eigenpairs of M, the first `n_wanted` to a residual of RESIDUAL: subspace iteration.

    Uses a Chebyshev filter on [-1, mu_m]; the components' eigenvectors are already exact.
    """
    n, m = vectors.shape
    known = component_vectors(operator, m)
    n_known = known.shape[1]

    def apply(x: NDArray[np.float64]) -> NDArray[np.float64]:
        block = np.zeros((n, -(-x.shape[1] // WIDTH) * WIDTH))
        block[:, : x.shape[1]] = x
        return operator.apply(block)[:, : x.shape[1]]

    basis = vectors
    for _ in range(MAX_ROUNDS):
        basis = np.linalg.qr(np.hstack([known, basis[:, n_known:]]))[0]
        product = apply(basis)
        projected = basis.T @ product
        values, mixture = np.linalg.eigh((projected + projected.T) / 2)
        values, mixture = values[::-1], mixture[:, ::-1]
        basis, product = basis @ mixture, product @ mixture
        residuals = np.linalg.norm(product - basis * values, axis=0)
        if not residuals[:n_wanted].max(initial=0.0) > RESIDUAL:
            return values, basis
        basis = filtered(apply, basis, product, Unwanted.below(float(values[-1])), DEGREE)
        basis /= np.linalg.norm(basis, axis=0)
    raise InputError(
        f"blocks: eigenvectors reached a residual of only {residuals[:n_wanted].max():.1e}, not "
        f"{RESIDUAL:.0e}; ask for fewer eigenvalues"
    )


def _gradient(
    weights: NDArray[np.floating],
    values: NDArray[np.float64],
    vectors: NDArray[np.float64],
    slopes: NDArray[np.float64],
    first_row: int,
    first_column: int,
) -> NDArray[np.floating]:
    """The gradient of sum(slopes * values) for a block of weights."""
    rows = vectors[first_row : first_row + weights.shape[0]]
    columns = vectors[first_column : first_column + weights.shape[1]]
    factors = slopes * (1.0 - values)
    found = -2 * (rows * slopes) @ columns.T
    found += ((rows * rows) @ factors)[:, None]
    found += (columns * columns) @ factors
    found *= np.sign(weights)
    return found.astype(weights.dtype, copy=False)


def _shared(slopes: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Slopes with those of a repeated eigenvalue replaced by their mean over all its copies."""
    ends = np.flatnonzero(np.diff(values) > EQUAL) + 1
    groups = np.split(slopes, ends)
    return np.concatenate([np.full(group.size, group.mean()) for group in groups])


def _numbers(which: Sequence[int]) -> list[int]:
    given = list(which) if isinstance(which, Iterable) and not isinstance(which, str) else []
    whole = all(isinstance(n, int | np.integer) and not isinstance(n, bool) for n in given)
    if not given or not whole or min(given) < 1:
        raise InputError(f"which: must be a sequence of whole numbers from 1, got {which!r}")
    return [int(number) for number in given]


def _slopes(slopes: ArrayLike | None, n: int) -> NDArray[np.float64]:
    if slopes is None:
        return np.full(n, 1.0 / n)
    given = np.asarray(slopes)
    if given.shape != (n,) or given.dtype.kind not in "fiu" or not np.isfinite(given).all():
        raise InputError(
            f"slopes: must be {n} finite numbers, one for each eigenvalue, got {slopes!r}"
        )
    return given.astype(np.float64)


def _read(
    blocks: Iterable[Any],
) -> tuple[list[NDArray[np.floating]], list[tuple[int, int]], dict[Any, int]]:
    """The matrices, the positions of the layers joined by each, and the layers' sizes."""
    items = list(blocks) if isinstance(blocks, Iterable) and not isinstance(blocks, str) else []
    triples = [item for item in items if isinstance(item, tuple) and len(item) == 3]
    if not items or (triples and len(triples) < len(items)):
        raise InputError(
            "blocks: must be a sequence of matrices, or of triples (source, target, matrix)"
        )
    ends = [(a, b) for a, b, _ in triples] or [(at, at + 1) for at in range(len(items))]
    weights = []
    for at, item in enumerate(items):
        matrix = np.asarray(item[2] if triples else item)
        if matrix.ndim != 2 or matrix.dtype not in (np.float32, np.float64):
            raise InputError(
                f"blocks: number {at} must be a matrix of float32 or float64, got shape "
                f"{matrix.shape} of dtype {matrix.dtype}"
            )
        weights.append(matrix)
    sizes: dict[Any, int] = {}
    for at, (matrix, pair) in enumerate(zip(weights, ends, strict=True)):
        if pair[0] == pair[1]:
            raise InputError(f"blocks: number {at} joins layer {pair[0]} with itself")
        for layer, size in zip(pair, matrix.shape, strict=True):
            if sizes.setdefault(layer, size) != size:
                raise InputError(
                    f"blocks: layer {layer} has {sizes[layer]} vertices in one matrix, {size} in "
                    f"number {at}"
                )
    place = {layer: number for number, layer in enumerate(sizes)}
    return weights, [(place[a], place[b]) for a, b in ends], sizes
