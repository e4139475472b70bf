"""Shuffled networks measured in one compiled call each, without intermediate Python.

The Python functions of this package are the reference: they handle settings outside the compiled
path (other null models and conventions, float64 or 16-bit weights, more clusters than a block of
vectors is wide), and shuffles that need more care.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncut import kernels
from ncut.graphs import NeuronGraph
from ncut.graphs.colouring import two_colours
from ncut.randomness import Purpose, numpy_generator, random_stream
from ncut.spectral.accuracy import LARGEST_GOAL, goals
from ncut.spectral.clustering import MAX_PASSES
from ncut.spectral.cut import ncut_of
from ncut.spectral.embedding import Embedding
from ncut.spectral.kmeans import MAX_ITERATIONS, RELATIVE_TOLERANCE
from ncut.spectral.measures import measures_of
from ncut.spectral.operator import WIDTH, NormalizedAdjacency
from ncut.spectral.solvers import MAX_PRODUCTS, choose_solver
from ncut.types import Block, Clustering

NULLS = ("layer", "layer-nonzero")

NOT_MOVED = np.empty(0, dtype=np.intp)

LARGEST_BYTES = 2**28
"""Largest weights of a network that are copied for the compiled path."""


class CompiledNetwork:
    """A network copied for the compiled eigensolver, and networks derived from it.

    Parameters
    ----------
    graph : NeuronGraph
        Without isolated vertices; see `suits`.
    k, seed
        As `ncut.cluster` takes them.
    substreams : sequence of int, optional
        The first of the two substreams of random numbers of each block, if it is shuffled.
    """

    def __init__(
        self, graph: NeuronGraph, *, k: int, seed: int, substreams: Sequence[int] | None = None
    ) -> None:
        colours = two_colours(graph)
        self.colours = None if colours is None else [int(c) for c in colours]
        sizes = [layer.size for layer in graph.layers]
        self.weights = kernels.NetworkWeights(sizes, self.colours or [])
        for at, block in enumerate(graph.blocks):
            self.weights.add(block, substreams[at] if substreams else 0)
        self._n_start = graph.n_vertices
        if self.colours is not None:
            first = sum(size for size, c in zip(sizes, self.colours, strict=True) if c == 0)
            self._n_start = min(first, graph.n_vertices - first)
        self._n_layers, self._k, self._seed = len(sizes), k, seed

    @staticmethod
    def suits(graph: NeuronGraph, k: int) -> bool:
        """Tell whether a graph without isolated vertices can be embedded this way."""
        if k > WIDTH:
            return False
        if graph.scratch is not None or graph.n_bytes > LARGEST_BYTES:
            return False
        if not all(_is_plain(block) for block in graph.blocks):
            return False
        places = [
            (b.source, b.target) for b in graph.blocks if not isinstance(b.weights, np.ndarray)
        ]
        if len(set(places)) < len(places):
            return False
        return choose_solver(NormalizedAdjacency(graph, 1), 1, k - 1) == "krylov"

    def solving(self, number: int, threads: int) -> dict[str, Any]:
        """Arguments of the eigensolver for graph `number`."""
        rng = numpy_generator(self._seed, Purpose.START_VECTORS, number)
        return {
            "start": rng.standard_normal((self._n_start, WIDTH), dtype=np.float32),
            "k": self._k,
            "residual": LARGEST_GOAL,
            "max_products": MAX_PRODUCTS,
            "dsyevd": _dsyevd(),
            "n_threads": threads,
        }

    def embedding(
        self, number: int, orders: Mapping[int, NDArray[np.intp]], threads: int
    ) -> Embedding | None:
        """The spectrum of graph `number`; None if left to the reference.

        orders: for some layers, another row order for the blocks whose source they are.
        """
        rows = [orders.get(layer, NOT_MOVED) for layer in range(self._n_layers)]
        found = self.weights.embed(orders=rows, **self.solving(number, threads))
        if found is None:
            return None
        embedding = self.checked(found, found["n_vertices"])
        return embedding if embedding is not None and embedding.converged else None

    def checked(self, found: dict[str, Any], n_vertices: int) -> Embedding | None:
        """The spectrum without points; None if it is not accurate enough."""
        embedding = Embedding(
            points=np.empty((n_vertices, self._k)),
            eigenvalues=np.maximum(1.0 - found["values"], 0.0),
            solver="krylov",
            residuals=found["residuals"],
            following=1.0 - found["following"],
        )
        # Smaller eigenvalues and gaps require smaller residuals than the target.
        looked_for = embedding.eigenvalues[found["n_known"] :]
        careful = goals(looked_for, embedding.following).min() < LARGEST_GOAL
        return None if careful else embedding


class CompiledShuffles:
    """Shuffles of one network, clustered by compiled code.

    Parameters
    ----------
    graph : NeuronGraph
        Without isolated vertices; see `suits`.
    null : {"layer", "layer-nonzero"}
    k, n_init, refine, seed
        As `ncut.cluster` takes them.
    substreams : sequence of int
        The first of the two substreams of random numbers of each block.
    """

    def __init__(
        self,
        graph: NeuronGraph,
        null: str,
        substreams: list[int],
        *,
        k: int,
        n_init: int,
        refine: bool,
        seed: int,
    ) -> None:
        self._network = CompiledNetwork(graph, k=k, seed=seed, substreams=substreams)
        self._null, self._k, self._seed = null, k, seed
        self._n_init, self._refine = n_init, refine

    @staticmethod
    def suits(graph: NeuronGraph, null: str, solver: str, k: int) -> bool:
        """Tell whether shuffles of a graph without isolated vertices can be measured this way."""
        known = null in NULLS and solver in ("auto", "krylov")
        return known and CompiledNetwork.suits(graph, k)

    def measure(self, number: int, *, repeats: int, threads: int) -> Clustering | None:
        """The clustering of shuffle `number`, counted from 1; None if left to the reference.

        `repeats`: number of repeats of k-means, to measure its noise in the n-cut.
        """
        streams = [
            random_stream(Purpose.KMEANS, number),
            *(random_stream(Purpose.KMEANS_REPEATS, again) for again in range(repeats)),
        ]
        found = self._network.weights.measure(
            null=self._null,
            stream=random_stream(Purpose.SHUFFLE, number),
            n_init=self._n_init,
            max_iterations=MAX_ITERATIONS,
            tolerance=RELATIVE_TOLERANCE,
            max_passes=MAX_PASSES,
            seed=self._seed,
            kmeans_streams=streams,
            refine=self._refine,
            **self._network.solving(number, threads),
        )
        return None if found is None else self._clustering(found)

    def _clustering(self, found: dict[str, Any]) -> Clustering | None:
        degrees = found["degrees"]
        embedding = self._network.checked(found, degrees.size)
        if embedding is None:
            return None
        ncuts = {
            kind: [ncut_of(volume, cut) for _, volume, cut in found[kind]]
            for kind in ("spectral", "refined")
        }
        spectral_ncut, refined_ncut = ncuts["spectral"][0], ncuts["refined"][0]
        n_clusters = int(np.count_nonzero(found["spectral"][0][1]))
        allowed = embedding.allows(min(spectral_ncut, refined_ncut), n_clusters)
        if not embedding.converged or not allowed:
            return None
        own = "refined" if self._refine else "spectral"
        labels, volume, cut = found[own][0]
        shares = tuple(inside / total if total else 0.0 for inside, total in found["squares"])
        measures = measures_of(
            self._network.colours, found["sizes"], degrees, labels, volume, cut, shares
        )
        return Clustering(
            labels=labels,
            ncut=measures.ncut,
            spectral_ncut=spectral_ncut,
            refined_ncut=refined_ncut,
            lower_bound=embedding.lower_bound(),
            **measures.shared(),
            eigenvalues=embedding.eigenvalues,
            k=self._k,
            solver=embedding.solver,
            residual=embedding.residual,
            converged=True,
            n_init=self._n_init,
            repeated_ncuts=np.array(ncuts[own][1:]),
            repeated_labels=tuple(labels for labels, _, _ in found[own][1:]),
        )


def _is_plain(block: Block) -> bool:
    """Tell whether a block's weights have the dtypes of the compiled path."""
    weights: Any = block.weights
    plain = weights.dtype == np.float32
    if not isinstance(weights, np.ndarray):
        plain = plain and weights.indices.dtype == np.int32
    return bool(plain)


@cache
def _dsyevd() -> Any:
    """The eigensolver of SciPy's LAPACK, as a pointer in a capsule."""
    from scipy.linalg import cython_lapack

    return cython_lapack.__pyx_capi__["dsyevd"]
