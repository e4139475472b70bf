"""The spectral embedding of a graph on a device."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncut.device import solve
from ncut.device.components import components
from ncut.device.devices import concat
from ncut.device.graph import DeviceGraph
from ncut.device.operator import DeviceOperator
from ncut.device.weights import DeviceCSR, HostBlock, select, widened
from ncut.randomness import Purpose, numpy_generator
from ncut.spectral.embedding import Embedding, check_solver, first_converged
from ncut.spectral.krylov import room_needed
from ncut.spectral.solvers import LAST_DENSE
from ncut.spectral.weak_vertices import SHARE, Part, settle_vertices


def embed_on_device(
    operator: DeviceOperator, k: int, *, solver: str, seed: int, graph_number: int
) -> Embedding:
    """As `ncut.spectral.embedding.embed`, with the points on the device."""
    solve.check_device_solver(check_solver(solver))
    known = component_vectors(operator, k)
    n_known = known.shape[1]
    n_wanted = k - n_known
    if not n_wanted:
        return _embedding(operator, known, "components", 0.0)
    first = solve.choose_solver(operator, n_known, n_wanted) if solver == "auto" else solver
    tries = [first, *(["krylov-float64"] if first == "krylov" else [])]
    if solver == "auto":
        tries += solve.last_resorts(operator, n_known, n_wanted, first)
    rng = numpy_generator(seed, Purpose.START_VECTORS, graph_number)

    def attempt(name: str) -> Embedding:
        found, following = solve.ALL[name](operator, known, n_wanted, rng)
        vectors = concat([known, found], operator.device.xp, axis=1)
        return _embedding(operator, vectors, name, 1.0 - following)

    return first_converged(tries, attempt)


def look_again_on_device(
    operator: DeviceOperator, embedding: Embedding, look: int, *, seed: int, graph_number: int
) -> Embedding:
    """As `ncut.spectral.embedding.look_again`."""
    xp, n, k = operator.device.xp, operator.n_vertices, embedding.eigenvalues.size
    vectors, _ = xp.linalg.qr(embedding.points * operator.root_degrees[:, None])
    rng = numpy_generator(seed, Purpose.START_VECTORS, graph_number, look)
    if n <= LAST_DENSE or k + room_needed(k) > n:
        nothing = vectors[:, :0]
        both, following = solve.dense(operator, nothing, k, rng)
        found = _embedding(operator, both, "dense", 1.0 - following)
    else:
        more, following = solve.krylov(operator, vectors, k, rng, np.float64, whole=True)
        both = concat([vectors, more], xp, axis=1)
        found = _embedding(operator, both, "krylov-float64", 1.0 - following, k)
    return embedding.completed(found)


def _embedding(
    operator: DeviceOperator, vectors: Any, solver: str, following: float, k: int | None = None
) -> Embedding:
    """The embedding in the best k vectors of the span of those given (all of them by default)."""
    device = operator.device
    values, vectors, residuals = solve.rayleigh_ritz(operator, vectors)
    if k is not None:
        following = min(following, float(1.0 - values[k]))
        values, vectors, residuals = values[:k], vectors[:, :k], residuals[:k, :k]
    eigenvalues = np.maximum(1.0 - values, 0.0)
    points = vectors / operator.root_degrees[:, None]
    degrees = operator.graph.host_degrees
    if (degrees < SHARE * degrees.mean()).any():
        settled = settle_vertices(
            degrees,
            lambda chosen, others: _rows(operator.graph, chosen, others),
            device.to_host(points),
            eigenvalues,
        )
        points = device.asarray(settled)
    return Embedding(points, eigenvalues, solver, residuals, following)


def component_vectors(operator: DeviceOperator, k: int) -> Any:
    """Orthonormal eigenvectors of M for eigenvalue 1, a column per component, at most k.

    As on the CPU: D^1/2 times a component's indicator, the largest volumes first.
    """
    degrees = operator.degrees
    component = components(operator.graph)
    volumes = np.bincount(component, weights=degrees)
    largest = np.argsort(-volumes, kind="stable")[:k]
    vectors = np.zeros((degrees.size, largest.size))
    for column, number in enumerate(largest):
        members = component == number
        vectors[members, column] = np.sqrt(degrees[members] / volumes[number])
    return operator.device.asarray(vectors)


def _rows(
    graph: DeviceGraph, chosen: NDArray[np.intp], points: NDArray[np.float64]
) -> tuple[NDArray[np.float64], list[Part]]:
    """(A points) for the chosen vertices, and A between them."""
    device = graph.device
    pulls = device.to_host(graph.product(device.asarray(points)))[chosen]
    own: list[Part] = []
    places = [
        np.flatnonzero((chosen >= layer.start) & (chosen < layer.start + layer.size))
        for layer in graph.layers
    ]
    for block in graph.blocks:
        rows, columns = places[block.source], places[block.target]
        if not (rows.size and columns.size):
            continue
        in_source = chosen[rows] - graph.layers[block.source].start
        in_target = chosen[columns] - graph.layers[block.target].start
        part = _on_host(graph, block.weights, in_source, in_target)
        own += [(rows, columns, part), (columns, rows, part.T)]
    return pulls, own


def _on_host(
    graph: DeviceGraph, weights: Any, rows: NDArray[np.intp], columns: NDArray[np.intp]
) -> Any:
    """Some rows and columns of a block, in float64, dense or sparse as they are."""
    from scipy import sparse

    device = graph.device
    some = select(device, weights, (rows, device.asarray(rows)), (columns, device.asarray(columns)))
    if isinstance(some, HostBlock):
        return some.weights.astype(np.float64)
    if isinstance(some, DeviceCSR):
        parts = (device.to_host(part) for part in (some.data, some.indices, some.indptr))
        return sparse.csr_array(tuple(parts), shape=some.shape).astype(np.float64)
    return device.to_host(widened(device, some, device.xp.float64))
