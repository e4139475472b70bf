"""Models and files -> NeuronGraph; a file per kind of source."""

from ncut.extract.read import read_graph

__all__ = ["read_graph"]
