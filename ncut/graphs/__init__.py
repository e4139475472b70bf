"""The graph of neurons: assembly from blocks of weights, validation, save and load."""

from ncut.graphs.adjacency import from_adjacency
from ncut.graphs.build import build_graph
from ncut.graphs.neuron_graph import NeuronGraph

__all__ = ["NeuronGraph", "build_graph", "from_adjacency"]
