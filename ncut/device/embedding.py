"""The spectral embedding of a graph on a device."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncut.device.components import components
from ncut.device.devices import concat
from ncut.device.graph import DeviceGraph
from ncut.device.operator import DeviceOperator
from ncut.device.solve import (
    SOLVERS,
    check_device_solver,
    choose_solver,
    krylov,
    rayleigh_ritz,
)
from ncut.device.weights import DeviceCSR, HostBlock, select, widened
from ncut.randomness import Purpose, numpy_generator
from ncut.spectral.embedding import Embedding, check_solver
from ncut.spectral.faint import faint_vertices, settle_vertices
from ncut.spectral.solvers import TOLERANCE


def embed_on_device(
    operator: DeviceOperator, k: int, *, solver: str, seed: int, graph_number: int
) -> Embedding:
    """As `ncut.spectral.embedding.embed`, with the points on the device."""
    check_device_solver(check_solver(solver))
    device, xp = operator.device, operator.device.xp
    known = component_vectors(operator, k)
    vectors = known
    n_known = known.shape[1]
    n_wanted = k - n_known
    used = "components"
    rng = numpy_generator(seed, Purpose.START_VECTORS, graph_number)
    if n_wanted:
        used = choose_solver(operator, n_known, n_wanted) if solver == "auto" else solver
        _, found = SOLVERS[used](operator, known, n_wanted, rng)
        vectors = concat([known, found], xp, axis=1)
    values, vectors, residuals = rayleigh_ritz(operator, vectors)
    if used == "krylov" and residuals.diagonal().max() > TOLERANCE**2:
        used = "krylov-float64"
        _, found = krylov(operator, known, n_wanted, rng, np.float64)
        values, vectors, residuals = rayleigh_ritz(operator, concat([known, found], xp, axis=1))
    eigenvalues = np.maximum(1.0 - values, 0.0)
    points = vectors / operator.root_degrees[:, None]
    faint = faint_vertices(operator.graph.host_degrees)
    if faint.size:
        settled = settle_vertices(
            faint,
            operator.graph.host_degrees,
            lambda chosen, others: _rows(operator.graph, chosen, others),
            device.to_host(points),
            eigenvalues,
        )
        points = device.asarray(settled)
    return Embedding(points, eigenvalues, used, residuals)


def component_vectors(operator: DeviceOperator, k: int) -> Any:
    """Orthonormal eigenvectors of M for eigenvalue 1, a column per component, at most k.

    As on the CPU: D^1/2 times a component's indicator, the largest volumes first.
    """
    degrees = operator.graph.host_degrees
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
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(A points) for the chosen vertices, and their own part of A."""
    device = graph.device
    pulls = device.to_host(graph.product(device.asarray(points)))[chosen]
    own = np.zeros((chosen.size, chosen.size))
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
        part = _dense(graph, block.weights, in_source, in_target)
        own[np.ix_(rows, columns)] += part
        own[np.ix_(columns, rows)] += part.T
    return pulls, own


def _dense(
    graph: DeviceGraph, weights: Any, rows: NDArray[np.intp], columns: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Some rows and columns of a block as a host array."""
    device = graph.device
    some = select(device, weights, (rows, device.asarray(rows)), (columns, device.asarray(columns)))
    if isinstance(some, HostBlock):
        some = some.weights
        return np.asarray(some if isinstance(some, np.ndarray) else some.toarray(), np.float64)
    if isinstance(some, DeviceCSR):
        return device.to_host(some.matrix(device, np.float64).toarray())
    return device.to_host(widened(device, some, device.xp.float64))
