"""Readers of models and files that return a NeuronGraph, a file per kind of source."""

from ncut.extract.options import FILE_OPTIONS, GRAPH_OPTIONS, FileOptions, GraphOptions
from ncut.extract.read import read_graph

__all__ = ["FILE_OPTIONS", "GRAPH_OPTIONS", "FileOptions", "GraphOptions", "read_graph"]
