"""M = D^-1/2 A D^-1/2 as an operator on blocks of vectors, never assembled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ncut import kernels
from ncut.errors import InputError
from ncut.graphs import NeuronGraph
from ncut.graphs.colouring import two_colours
from ncut.spectral.namespaces import HOST, Arrays
from ncut.types import Block

if TYPE_CHECKING:
    from scipy import sparse

Float = TypeVar("Float", np.float32, np.float64)

WIDTH = 16
"""Blocks of vectors have a multiple of this width, which the kernel keeps in vector registers."""


class NormalizedAdjacency:
    """The normalized adjacency matrix M of a graph in which every vertex has edges.

    In a layered network every edge joins an even and an odd layer, so that with the even layers
    numbered first M = [[0, C], [C', 0]]: all its eigenpairs follow from C' C on the smaller side.
    If the layers allow two colours, the operator numbers the vertices of one colour first, and
    callers can multiply one side at a time.

    Attributes
    ----------
    n_vertices : int
    n_first : int
        Number of vertices of the first colour, the larger side; 0 if the layers cannot be coloured.
    place : ndarray of intp, shape (n,)
        The operator's number of each vertex of the graph.
    degrees : ndarray of float64, shape (n,)
        The degrees in the operator's numbering, in a unit that is a power of two and puts the
        largest between 1/2 and 1, so that multiplying all weights by a power of two changes no bit
        of any result.
    root_degrees : ndarray of float64, shape (n,)
        Square roots of the degrees.
    arrays : Arrays
        The namespace of the arrays of `apply` and `apply_gram`.
    """

    arrays: Arrays = HOST

    def __init__(self, graph: NeuronGraph, threads: int) -> None:
        self.graph = graph
        self.threads = threads
        self.n_vertices = graph.n_vertices
        order, n_first_layers = _layer_order(graph)
        sizes = [graph.layers[layer].size for layer in order]
        starts = np.concatenate([[0], np.cumsum(sizes)])
        self.n_first = int(starts[n_first_layers])
        first_vertex = {layer: int(start) for layer, start in zip(order, starts, strict=False)}
        self.place: NDArray[np.intp] = np.empty(self.n_vertices, dtype=np.intp)
        for layer, start in first_vertex.items():
            self.place[graph.layers[layer].slice] = np.arange(graph.layers[layer].size) + start
        self.degrees = np.empty(self.n_vertices)
        self.degrees[self.place], self._exponent = in_own_unit(graph.degrees)
        self.root_degrees = np.sqrt(self.degrees)
        self._scale = 1.0 / self.root_degrees
        self._scales: dict[tuple[Any, int, int], NDArray[np.floating]] = {}
        self._dense, self._sparse = split_blocks(graph.blocks, first_vertex, graph.n_vertices)

    @property
    def bipartite(self) -> bool:
        """Check whether the layers have a two-colouring."""
        return self.n_first > 0

    def multiply(self, x: NDArray[Float], out: NDArray[Float], rows: slice, power: int = 1) -> None:
        """out[rows] = (D^-power/2 A x)[rows], for x and out of shape (n, multiple of WIDTH)."""
        scale = self._scale_as(x.dtype, power, -self._exponent)
        kernels.multiply(self._dense, self._sparse, x, scale, rows, out, self.threads)

    def scaled(self, x: NDArray[Float], rows: slice) -> NDArray[Float]:
        """D^-1/2 x for the given rows, x of shape (number of rows, any)."""
        product: NDArray[Float] = x * self._scale_as(x.dtype, 1)[rows, None]
        return product

    def apply(self, x: NDArray[Float]) -> NDArray[Float]:
        """M x, for x of shape (n, multiple of WIDTH)."""
        everything = slice(0, self.n_vertices)
        out = np.empty_like(x)
        self.multiply(self.scaled(x, everything), out, everything)
        return out

    def apply_gram(self, x: NDArray[Float]) -> NDArray[Float]:
        """C' C x, for x of shape (n - n_first, multiple of WIDTH): two products, half each."""
        large, small = slice(0, self.n_first), slice(self.n_first, self.n_vertices)
        there = np.empty((self.n_vertices, x.shape[1]), dtype=x.dtype)
        there[small] = self.scaled(x, small)
        self.multiply(there, there, large, power=2)
        back = np.empty_like(there)
        self.multiply(there, back, small)
        return back[small]

    def refine(self, labels: NDArray[np.int32], k: int, max_passes: int) -> NDArray[np.int32]:
        """Refined labels, in the graph's numbering, with a normalized cut that is not higher."""
        width = -(-k // WIDTH) * WIDTH
        links = kernels.links(self.n_vertices, self.graph.placed_blocks(), labels, k, width)
        placed_links, placed = np.empty_like(links), np.empty_like(labels)
        placed_links[self.place], placed[self.place] = links, labels
        kernels.refine(
            self._dense,
            self._sparse,
            np.ldexp(self.degrees, self._exponent),
            k,
            max_passes,
            placed_links,
            placed,
        )
        return placed[self.place]

    def sparse_only(self) -> sparse.csr_array | None:
        """A in the operator's numbering, if all blocks are sparse."""
        if self._dense:
            return None
        from scipy import sparse

        indptr, indices, data = self._sparse
        shape = (self.n_vertices, self.n_vertices)
        return sparse.csr_array((data, indices, indptr), shape=shape)

    def matrix(self) -> sparse.csr_array:
        """M in float64, in the graph's own numbering."""
        scale = self._scale[self.place]
        left = np.ldexp(scale, -self._exponent)
        matrix = self.graph.assembled().astype(np.float64, copy=False)
        matrix.data *= np.repeat(left, np.diff(matrix.indptr))
        matrix.data *= scale[matrix.indices]
        return matrix

    def corner(self) -> NDArray[np.float64]:
        """C in float64, for a graph of two colours, in the operator's numbering."""
        first, (indptr, indices, data) = self.n_first, self._sparse
        A = np.zeros((first, self.n_vertices - first), dtype=kernels.wide_type(self.graph.blocks))
        for weights, row, column in self._dense:
            if row >= first:
                weights, row, column = weights.T, column, row
            n_rows, n_columns = weights.shape
            there = A[row : row + n_rows, column - first : column - first + n_columns]
            there += weights.astype(A.dtype, copy=False)
        if data.size:
            from scipy import sparse

            shape = (self.n_vertices, self.n_vertices)
            whole = sparse.csr_array((data, indices, indptr), shape=shape)
            A += whole[:first, first:].toarray()
        C = A.astype(np.float64)
        C *= np.ldexp(self._scale[:first, None], -self._exponent)
        C *= self._scale[first:]
        return C

    def _scale_as(self, dtype: Any, power: int, exponent: int = 0) -> Any:
        """D^-power/2 times a power of two."""
        key = (dtype, power, exponent)
        if key not in self._scales:
            # Tiny degrees may put the scale beyond single precision.
            largest = np.finfo(dtype).max
            scale = np.ldexp(self._scale**power, exponent)
            self._scales[key] = np.minimum(scale, largest).astype(dtype)
        return self._scales[key]


def in_own_unit(degrees: NDArray[np.float64]) -> tuple[NDArray[np.float64], int]:
    """Degrees times 2^-exponent with the largest between 1/2 and 1, and the exponent.

    Raises
    ------
    InputError
        If float64 cannot hold the smallest next to the largest.
    """
    exponent = int(np.frexp(degrees.max())[1])
    scaled = np.ldexp(degrees, -exponent)
    if not scaled.all():
        raise InputError(
            f"graph: a vertex with edges of {degrees.min():.3g} in total, next to one with "
            f"{degrees.max():.3g}, exceeds the range of float64; leave out such edges"
        )
    return scaled, exponent


def _layer_order(graph: NeuronGraph) -> tuple[list[int], int]:
    """The layers, larger colour first, and the number of layers of that colour.

    (natural order, 0) if some block joins two layers of one colour.
    """
    colours = two_colours(graph)
    layers = range(len(graph.layers))
    if colours is None:
        return list(layers), 0
    sides = [[layer for layer in layers if colours[layer] == side] for side in (0, 1)]
    sides.sort(key=lambda side: -sum(graph.layers[layer].size for layer in side))
    return sides[0] + sides[1], len(sides[0])


def split_blocks(
    blocks: Sequence[Block], first_vertex: Mapping[int, int], n_vertices: int
) -> tuple[list[tuple[NDArray[np.floating], int, int]], Any]:
    """The dense blocks with their positions, and all sparse blocks as one symmetric CSR matrix.

    blocks: sorted by source and target. first_vertex: of each layer, by its position. n_vertices:
    of all layers together.
    """
    # 16-bit weights stay so if they are of one kind and no other block has 64 bits.
    wide = kernels.wide_type(blocks)
    kinds = {b.weights.dtype for b in blocks if isinstance(b.weights, np.ndarray)}
    narrow = {dtype for dtype in kinds if dtype.itemsize == 2}
    kept = narrow if len(narrow) == 1 and wide == np.float32 else set()
    dense: list[tuple[NDArray[np.floating], int, int]] = []
    pruned: list[tuple[int, int, Block]] = []
    for block in blocks:
        row, column = first_vertex[block.source], first_vertex[block.target]
        if isinstance(block.weights, np.ndarray):
            dtype = block.weights.dtype if block.weights.dtype in kept else np.dtype(wide)
            dense.append((block.weights.astype(dtype, copy=False), row, column))
        else:
            pruned.append((row, column, block))
    if not pruned:
        index = np.empty(0, dtype=np.int32)
        return dense, (index, index, np.empty(0, dtype=wide))
    indptr, indices, data = kernels.assemble_csr(n_vertices, _summed(pruned))
    return dense, (indptr, indices, data.astype(wide, copy=False))


def _summed(placed: list[tuple[int, int, Block]]) -> list[tuple[int, int, Block]]:
    """Sparse blocks in order, with blocks between the same two layers added up."""
    sums: dict[tuple[int, int], Block] = {}
    for row, column, block in placed:
        before = sums.get((row, column))
        weights: Any = block.weights if before is None else before.weights + block.weights
        sums[row, column] = replace(block, weights=weights)
    return [(*place, block) for place, block in sorted(sums.items(), key=lambda item: item[0])]
