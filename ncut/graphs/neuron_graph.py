"""NeuronGraph: a weighted, undirected graph of neurons, kept as blocks between layers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from ncut import kernels
from ncut.errors import InputError
from ncut.graphs.scratch import settled
from ncut.types import Block, Check, Layer, LeftOut, Parameter

if TYPE_CHECKING:
    import networkx
    from scipy import sparse

LaplacianKind = Literal["unnormalized", "sym", "norm"]


@dataclass(frozen=True, eq=False)
class NeuronGraph:
    """A weighted, undirected graph whose vertices are the neurons of a network.

    Use `ncut.graph(model)` to make one. The vertices of a layer are numbered consecutively,
    layer after layer; the weights are kept once, as blocks between layers, and `adjacency`
    is assembled from them when it is first asked for.

    Attributes
    ----------
    layers : tuple of Layer
        Name, first vertex and size of each layer.
    blocks : tuple of Block
        The edges between two layers, sorted by (source, target). Several may join the same two
        layers (a residual stream and a hidden layer that reads it and writes to it): their
        weights add up.
    left_out : tuple of LeftOut
        Parameters and neurons of the model that are not in the graph, and why.
    name : str
        The model's name.
    parameters : tuple of Parameter
        All parameter tensors of the model and what became of them, where the model tells.
    sums : str
        What residual sums (and heads of attention) are: "readers" or "stream", see `ncut.graph`;
        empty where there are none, so that both are the same.
    exponent : int
        The weights of the blocks, and what is computed of them (degrees, adjacency), are in units
        of 2^exponent: 0, unless the model's own are above 1e18 or all below 1e-18, so that their
        squares could leave the range of numbers. No statistic depends on it.
    scratch : Path or None
        The folder in whose files the weights lie, and those of the graphs that are made of this
        one; None where they are in memory.
    check : Check or None
        What came of changing single neurons of the model, where `ncut.graph` was asked to.
    """

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
        """Number of vertices, those without edges included."""
        return self.layers[-1].start + self.layers[-1].size

    @cached_property
    def n_edges(self) -> int:
        """Number of undirected edges: the non-zero weights of all blocks.

        Two neurons that several blocks join have as many edges.
        """
        return sum(kernels.count_edges(block.weights) for block in self.blocks)

    @property
    def n_bytes(self) -> int:
        """Memory that the weights take."""
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

        Indices are int32 where the matrix allows it and int64 where not; the data have the
        blocks' type (float64 if any block has it).
        """
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
        np.divide(1.0, self.degrees, out=inverse, where=connected)
        identity = sparse.diags_array(connected.astype(np.float64))
        if kind == "norm":
            return sparse.csr_array(identity - sparse.diags_array(inverse) @ adjacency)
        root = sparse.diags_array(np.sqrt(inverse))
        return sparse.csr_array(identity - root @ adjacency @ root)

    def without_isolated(self) -> tuple[NeuronGraph, NDArray[np.intp]]:
        """The graph without the vertices that have no edges, and the numbers of those kept.

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
                weights=settled(
                    _select(block.weights, rows[block.source], rows[block.target]), self.scratch
                ),
            )
            for block in self.blocks
        )
        return replace(self, layers=layers, blocks=blocks), kept

    def normalized(self, convention: str) -> NeuronGraph:
        """The graph with the weights that the network has under a convention of scale.

        Multiplying a ReLU neuron's incoming weights by a positive factor and dividing its
        outgoing ones by it changes the weights, not what the network computes. A convention
        chooses one of all these networks, so that its n-cut (not its shuffles') is free of scale
        (but for neurons that a convention cannot rescale, such as dead ones).

        Parameters
        ----------
        convention : {"none", "l2", "l1", "balanced", "residual"}
            "none": the graph itself. "l2", "l1": each hidden neuron's incoming weights get a
            Euclidean norm, or a sum, of 1. "balanced": each hidden neuron's incoming and outgoing
            weights get the same Euclidean norm. "residual": every row and column of each block
            gets a mean of 1 over its edges, which takes out all that scales of neurons can do;
            neurons with weights on one side only are left out.

        Raises
        ------
        InputError
            If there is no such convention, or no layer that can be rescaled: all activations are
            known not to be positively homogeneous, or there are no hidden layers, or the graph
            comes from an adjacency matrix.

        Source: Stock, Graham, Gribonval and Jégou (2019), Equi-normalization of neural networks
        ("balanced").
        """
        from ncut.graphs.normalize import normalized

        return normalized(self, convention)

    def rescaled(self, seed: int = 0, sigma: float = 1.0) -> NeuronGraph:
        """A network that computes the same with other weights: neurons rescaled at random.

        Parameters
        ----------
        seed : int, default 0
            The same seed gives the same factors; those of a layer depend on no other layer.
        sigma : float, default 1.0
            Standard deviation of the logarithm of each hidden neuron's factor.

        Raises
        ------
        InputError
            If sigma is negative or not finite, or there is no layer that can be rescaled.

        Source: Neyshabur, Salakhutdinov and Srebro (2015), Path-SGD, section 2.
        """
        from ncut.graphs.normalize import rescaled

        return rescaled(self, seed, sigma)

    def placed_blocks(self) -> list[tuple[int, int, Block]]:
        """Each block with the first vertex of its source and of its target layer."""
        return [
            (self.layers[block.source].start, self.layers[block.target].start, block)
            for block in self.blocks
        ]

    @property
    def placed_share(self) -> float | None:
        """Share of the numbers in the model's weight matrices and kernels that are edges.

        None where the model's parameters are not known (lists of arrays, adjacency matrices).
        """
        matrices = [p for p in self.parameters if len(p.shape) > 1 and p.role != "bias"]
        total = sum(math.prod(parameter.shape) for parameter in matrices)
        placed = sum(math.prod(parameter.shape) for parameter in matrices if parameter.placed)
        return placed / total if total else None

    def to_networkx(self, level: Literal["neurons", "layers"] = "neurons") -> networkx.Graph:
        """The graph as a `networkx.Graph`.

        Parameters
        ----------
        level : {"neurons", "layers"}
            `"neurons"`: a node per vertex, with attributes "layer" and "index" (in its layer), an
            edge per pair with attribute "weight". `"layers"`: a `networkx.MultiDiGraph` with a
            node per layer (attribute "size") and an edge per block (attributes "name", "weight":
            the sum of its weights, "n_edges").

        Raises
        ------
        InputError
            If there is no such level.
        MissingExtraError
            If networkx is not installed.
        """
        from ncut.graphs.export import layers_to_networkx, neurons_to_networkx

        if level not in ("neurons", "layers"):
            raise InputError(f"level: must be 'neurons' or 'layers', got {level!r}")
        return neurons_to_networkx(self) if level == "neurons" else layers_to_networkx(self)

    def to_dot(self) -> str:
        """The layers and blocks in the DOT language, to draw with Graphviz.

        Examples
        --------
        >>> import ncut
        >>> print(ncut.graph([[[1.0, 2.0]], [[3.0], [4.0]]]).to_dot())
        digraph "weights" {
          node [shape=box];
          0 [label="input\\n1"];
          1 [label="w0\\n2"];
          2 [label="w1\\n1"];
          0 -> 1 [label="w0"];
          1 -> 2 [label="w1"];
        }
        """
        from ncut.graphs.export import to_dot

        return to_dot(self)

    def save(self, path: str | Path) -> None:
        """Write the graph to an `.npz` file that `NeuronGraph.load` and `ncut.graph` read."""
        from ncut.graphs.storage import save_graph

        save_graph(self, path)

    @staticmethod
    def load(path: str | Path) -> NeuronGraph:
        """Read a graph that `save` wrote.

        Raises
        ------
        ModelError
            If the file cannot be read or holds something else.
        """
        from ncut.graphs.storage import load_graph

        return load_graph(path)

    def __repr__(self) -> str:
        sizes = "-".join(str(layer.size) for layer in self.layers)
        return (
            f"NeuronGraph({self.name!r}, {self.n_vertices} vertices, {self.n_edges} edges, "
            f"layers {sizes})"
        )


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
