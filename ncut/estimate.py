"""Predicted cost of an analysis, from the graph's size and a short measurement of the machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from ncut import kernels
from ncut.graphs import NeuronGraph
from ncut.nulls.distribution import BYTES_PER_VERTEX, at_once_and_inside
from ncut.spectral.kmeans import restarts
from ncut.spectral.operator import WIDTH
from ncut.threads import n_threads

if TYPE_CHECKING:
    from ncut.types import Weights

# Block products until convergence, and Lloyd's iterations: typical of trained networks.
PRODUCTS = 15
# For a graph of any size: some hundreds of calls of NumPy.
SECONDS_PER_GRAPH = 5e-3
# Share added by refinement, bounds, other measures and repeats of k-means, by the benchmarks.
CERTIFICATE = 4 / 3
PROBE_ENTRIES = 512
PROBE_POINTS = 2048


@dataclass(frozen=True, slots=True)
class Estimate:
    """Predicted cost of an analysis.

    Attributes
    ----------
    seconds : float
        Time, good to a factor of two or three.
    peak_bytes : int
        Memory for the graph and everything derived from it, without Python and its libraries.
    """

    seconds: float
    peak_bytes: int


def estimate(
    graph: NeuronGraph,
    *,
    k: int = 12,
    shuffles: int = 50,
    n_init: int | Literal["auto"] = "auto",
    threads: int | None = None,
) -> Estimate:
    """Predict the time and memory of `ncut.analyze` on a graph, in some hundredths of a second.

    Parameters
    ----------
    graph : NeuronGraph
    k, shuffles, n_init, threads
        As for `ncut.analyze`.
    """
    threads = n_threads(threads)
    per_product, per_point, per_value = _rates(k)
    entries = sum(_entries(block.weights) for block in graph.blocks)
    n = graph.n_vertices
    one = (
        SECONDS_PER_GRAPH
        + PRODUCTS * per_product * (entries + 40 * n)
        + restarts(n_init, n) * per_point * n
        + per_value * entries
    )
    copies = 1 + (at_once_and_inside(graph, threads)[0] if shuffles else 0)
    return Estimate(
        seconds=CERTIFICATE * one * (1 + shuffles) / threads,
        peak_bytes=copies * graph.n_bytes + copies * n * (BYTES_PER_VERTEX + 24 * k),
    )


def _entries(weights: Weights) -> int:
    """Entries of a block; sparse entries count fourfold, since their products gather."""
    return weights.size if isinstance(weights, np.ndarray) else 4 * int(weights.nnz)


def _rates(k: int) -> tuple[float, float, float]:
    """Seconds for an entry of a product, a point of a restart of k-means, a shuffled value."""
    size = PROBE_ENTRIES
    weights = np.ones((size, size), dtype=np.float32)
    x, y = np.ones((2, 2 * size, WIDTH), dtype=np.float32)
    scale = np.ones(2 * size, dtype=np.float32)
    nothing = np.empty(0, dtype=np.int32)
    sparse_part = (nothing, nothing, np.empty(0, dtype=np.float32))
    product = _fastest(
        lambda: kernels.multiply(
            [(weights, 0, size)], sparse_part, x, scale, slice(0, 2 * size), y, 1
        )
    )
    points = np.random.default_rng(1).standard_normal((PROBE_POINTS, k), dtype=np.float32)
    clustering = _fastest(
        lambda: kernels.kmeans(
            points,
            k,
            n_init=1,
            max_iterations=300,
            tolerance=1e-4 * k,
            seed=1,
            stream=0,
            threads=1,
        )
    )
    shuffling = _fastest(lambda: kernels.permuted(weights, 1, 0, 0))
    return product / weights.size, clustering / PROBE_POINTS, shuffling / weights.size


def _fastest(work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
