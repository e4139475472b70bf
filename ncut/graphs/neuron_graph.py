"""NeuronGraph: a weighted, undirected graph of neurons, kept as blocks between layers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ncut.errors import InputError
from ncut.graphs.data import GraphData
from ncut.graphs.export import layers_to_networkx, neurons_to_networkx, to_dot
from ncut.graphs.normalize import normalized, rescaled
from ncut.graphs.storage import load_graph, save_graph

if TYPE_CHECKING:
    import networkx


@dataclass(frozen=True, eq=False)
class NeuronGraph(GraphData):
    """A weighted, undirected graph whose vertices are the neurons of a network.

    Use `ncut.graph(model)` to make one. The vertices of a layer are numbered consecutively,
    layer after layer; the weights are stored once, as blocks between layers, and `adjacency` is
    assembled from them on first use.

    Attributes
    ----------
    layers : tuple of Layer
        Name, first vertex and size of each layer.
    blocks : tuple of Block
        The edges between two layers, sorted by (source, target). If several join the same two
        layers (a residual stream and a hidden layer that reads it and writes to it), their weights
        add up.
    left_out : tuple of LeftOut
        Parameters and neurons of the model that are not in the graph, and why.
    name : str
        The model's name.
    parameters : tuple of Parameter
        All parameter tensors of the model and their roles, if known.
    sums : str
        Treatment of residual sums (and attention heads): "readers" or "stream", see `ncut.graph`;
        empty if there are none, so that both are the same.
    exponent : int
        The weights of the blocks, and quantities computed from them (degrees, adjacency), are in
        units of 2^exponent. It is 0 unless the model's weights are above 1e18 or all below 1e-18,
        so that their squares could overflow or underflow. No statistic depends on it.
    scratch : Path or None
        The folder whose files hold the weights of this graph and of graphs derived from it; None if
        they are in memory.
    check : Check or None
        Result of changing single neurons of the model, if `ncut.graph` was asked to check.
    """

    def normalized(self, convention: str) -> NeuronGraph:
        """The graph with the network's weights under a convention of scale.

        Multiplying a ReLU neuron's incoming weights by a positive factor and dividing its outgoing
        weights by it changes the weights, but not the network's function. A convention selects one
        of these equivalent networks, so that its n-cut (but not its shuffles') does not depend on
        scale, except for neurons that a convention cannot rescale, such as dead neurons.

        Parameters
        ----------
        convention : {"none", "l2", "l1", "balanced", "residual"}
            "none": the graph itself. "l2", "l1": each hidden neuron's incoming weights get a
            Euclidean norm, or a sum, of 1. "balanced": each hidden neuron's incoming and outgoing
            weights get the same Euclidean norm. "residual": every row and column of each block gets
            a mean of 1 over its edges, which removes every effect of the scales of neurons; neurons
            with weights on one side only are left out.

        Raises
        ------
        InputError
            If the convention is unknown, or no layer can be rescaled: all activations are known not
            to be positively homogeneous, there are no hidden layers, or the graph comes from an
            adjacency matrix.

        Source: Stock, Graham, Gribonval and Jégou (2019), Equi-normalization of neural networks
        ("balanced").
        """
        return normalized(self, convention)

    def rescaled(self, seed: int = 0, sigma: float = 1.0) -> NeuronGraph:
        """A network with the same function and randomly rescaled neurons.

        Parameters
        ----------
        seed : int, default 0
            The same seed gives the same factors; the factors of a layer do not depend on other
            layers.
        sigma : float, default 1.0
            Standard deviation of the logarithm of each hidden neuron's factor.

        Raises
        ------
        InputError
            If sigma is negative or not finite, or no layer can be rescaled.

        Source: Neyshabur, Salakhutdinov and Srebro (2015), Path-SGD, section 2.
        """
        return rescaled(self, seed, sigma)

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
            If the level is unknown.
        MissingExtraError
            If networkx is not installed.
        """
        if level not in ("neurons", "layers"):
            raise InputError(f"level: must be 'neurons' or 'layers', got {level!r}")
        return neurons_to_networkx(self) if level == "neurons" else layers_to_networkx(self)

    def to_dot(self) -> str:
        """The layers and blocks in the DOT language, for Graphviz.

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
        return to_dot(self)

    def save(self, path: str | Path) -> None:
        """Write the graph to an `.npz` file that `NeuronGraph.load` and `ncut.graph` read."""
        save_graph(self, path)

    @staticmethod
    def load(path: str | Path) -> NeuronGraph:
        """Read a graph that `save` wrote.

        Raises
        ------
        ModelError
            If the file cannot be read or does not contain a saved graph.
        """
        return load_graph(path, NeuronGraph)

    def __repr__(self) -> str:
        sizes = "-".join(str(layer.size) for layer in self.layers)
        return (
            f"NeuronGraph({self.name!r}, {self.n_vertices} vertices, {self.n_edges} edges, "
            f"layers {sizes})"
        )
