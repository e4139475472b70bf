"""GraphData: a graph's layers and blocks of weights, its degrees and matrices."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from ncut import kernels
from ncut.errors import InputError
from ncut.graphs.scratch import in_scratch_file
from ncut.types import Block, Check, Layer, LeftOut, Parameter

if TYPE_CHECKING:
    from scipy import sparse

LaplacianKind = Literal["unnormalized", "sym", "norm"]


@dataclass(frozen=True, eq=False)
class GraphData:
    """The fields of a `NeuronGraph`, documented there, and quantities derived from them."""

    layers: tuple[Layer, ...]
    blocks: tuple[Block, ...]
    left_out: tuple[LeftOut, ...] = ()
    name: str = ""
    parameters: tuple[Parameter, ...] = ()
    sums: str = ""
    exponent: int = 0
    scratch: Path | None = None
    check: Check | None = None

    @property
    def n_vertices(self) -> int:
        """Number of vertices, including isolated vertices."""
        return self.layers[-1].start + self.layers[-1].size

    @cached_property
    def n_edges(self) -> int:
        """Number of undirected edges: the non-zero weights of all blocks.

        Two neurons joined by several blocks have one edge for each.
        """
        return sum(kernels.count_edges(block.weights) for block in self.blocks)

    @property
    def n_bytes(self) -> int:
        """Memory of the weights, in bytes."""
        return sum(
            block.weights.nbytes
            if isinstance(block.weights, np.ndarray)
            else block.weights.data.nbytes
            + block.weights.indices.nbytes
            + block.weights.indptr.nbytes
            for block in self.blocks
        )

    @cached_property
    def degrees(self) -> NDArray[np.float64]:
        """Sum of the weights of each vertex's edges, shape (n_vertices,), float64."""
        return kernels.degrees(self.n_vertices, self.placed_blocks())

    @cached_property
    def adjacency(self) -> sparse.csr_array:
        """Symmetric adjacency matrix A, shape (n_vertices, n_vertices), zero diagonal.

        Indices are int32 if the matrix allows it, else int64; the data have the blocks' type
        (float64 if any block has it).
        """
        return self.assembled()

    def assembled(self) -> sparse.csr_array:
        """A new copy of `adjacency`, which the graph does not keep."""
        from scipy import sparse

        indptr, indices, data = kernels.assemble_csr(self.n_vertices, self.placed_blocks())
        matrix = sparse.csr_array((data, indices, indptr), shape=(self.n_vertices, self.n_vertices))
        ends = [(block.source, block.target) for block in self.blocks]
        if len(set(ends)) < len(ends):
            matrix.has_canonical_format = False
            matrix.sum_duplicates()
        matrix.has_canonical_format = True
        return matrix

    def laplacian(self, kind: LaplacianKind = "sym") -> sparse.csr_array:
        """Laplacian of the graph as a sparse float64 matrix.

        Parameters
        ----------
        kind : {"sym", "norm", "unnormalized"}
            I - D^-1/2 A D^-1/2, I - D^-1 A, or D - A, with D the diagonal matrix of degrees.
            Rows of vertices without edges are zero in all three.

        Raises
        ------
        InputError
            If `kind` is none of these.

        Source: von Luxburg (2007), A tutorial on spectral clustering, section 3.
        """
        from scipy import sparse

        adjacency = self.adjacency.astype(np.float64)
        if kind == "unnormalized":
            return sparse.csr_array(sparse.diags_array(self.degrees) - adjacency)
        if kind not in ("sym", "norm"):
            raise InputError(f"kind: must be 'sym', 'norm' or 'unnormalized', got {kind!r}")
        connected = self.degrees > 0
        inverse = np.zeros(self.n_vertices)
        np.divide(1.0, np.sqrt(self.degrees), out=inverse, where=connected)
        root = sparse.diags_array(inverse)  # the inverse of a degree may exceed float64
        identity = sparse.diags_array(connected.astype(np.float64))
        if kind == "norm":
            return sparse.csr_array(identity - root @ (root @ adjacency))
        return sparse.csr_array(identity - root @ adjacency @ root)

    def without_isolated(self) -> tuple[Self, NDArray[np.intp]]:
        """The graph without isolated vertices, and the numbers of the vertices kept.

        Each layer's matrices shrink accordingly. Returns the graph itself if nothing is
        isolated.
        """
        connected = self.degrees > 0
        kept = np.flatnonzero(connected)
        if kept.size == self.n_vertices:
            return self, kept
        rows = [np.flatnonzero(connected[layer.slice]) for layer in self.layers]
        starts = np.concatenate([[0], np.cumsum([r.size for r in rows])])
        layers = tuple(
            replace(layer, start=int(start), size=r.size)
            for layer, start, r in zip(self.layers, starts, rows, strict=False)
        )
        blocks = tuple(
            replace(
                block,
                weights=in_scratch_file(
                    _select(block.weights, rows[block.source], rows[block.target]), self.scratch
                ),
            )
            for block in self.blocks
        )
        return replace(self, layers=layers, blocks=blocks), kept

    def placed_blocks(self) -> list[tuple[int, int, Block]]:
        """Each block with the first vertex of its source and of its target layer."""
        return [
            (self.layers[block.source].start, self.layers[block.target].start, block)
            for block in self.blocks
        ]

    @property
    def placed_share(self) -> float | None:
        """Share of the numbers in the model's weight matrices and kernels that are edges.

        None if the model's parameters are unknown (lists of arrays, adjacency matrices).
        """
        matrices = [p for p in self.parameters if len(p.shape) > 1 and p.role != "bias"]
        total = sum(math.prod(parameter.shape) for parameter in matrices)
        placed = sum(math.prod(parameter.shape) for parameter in matrices if parameter.placed)
        return placed / total if total else None


G = TypeVar("G", bound=GraphData)
"""A class of graphs that a function returns unchanged."""


def _select(
    weights: NDArray[np.floating] | sparse.csr_array, rows: NDArray[np.intp], cols: NDArray[np.intp]
) -> NDArray[np.floating] | sparse.csr_array:
    if weights.shape == (rows.size, cols.size):
        return weights
    if isinstance(weights, np.ndarray):
        return np.ascontiguousarray(weights[np.ix_(rows, cols)])
    from scipy import sparse

    selected = sparse.csr_array(weights[rows][:, cols])
    selected.indptr = selected.indptr.astype(weights.indptr.dtype, copy=False)
    selected.indices = selected.indices.astype(weights.indices.dtype, copy=False)
    selected.sort_indices()
    return selected


def in_scratch(graph: G, scratch: Path | None) -> G:
    """The graph with its large blocks moved; the graph itself if there is no folder."""
    if scratch is None:
        return graph
    blocks = tuple(replace(b, weights=in_scratch_file(b.weights, scratch)) for b in graph.blocks)
    return replace(graph, blocks=blocks, scratch=scratch)
