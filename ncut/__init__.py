"""ncut: how clusterable is a trained neural network?

`ncut.analyze(model)` turns a network's weights into a graph of neurons, finds the best partition
into k groups by spectral clustering, and compares its normalized cut with those of networks whose
weights were shuffled. Names are imported when they are first used, so that `import ncut` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ncut.analysis import AnalysisInterrupted, analyze
    from ncut.errors import InputError, MissingExtraError, ModelError, NcutError
    from ncut.extract import read_graph as graph
    from ncut.graphs import NeuronGraph
    from ncut.nulls import shuffle
    from ncut.report import Report
    from ncut.spectral import cluster, normalized_cut
    from ncut.types import Block, Clustering, Layer, LeftOut

_HOMES = {
    "AnalysisInterrupted": "analysis",
    "analyze": "analysis",
    "InputError": "errors",
    "MissingExtraError": "errors",
    "ModelError": "errors",
    "NcutError": "errors",
    "NeuronGraph": "graphs",
    "shuffle": "nulls",
    "Report": "report",
    "cluster": "spectral",
    "normalized_cut": "spectral",
    "Block": "types",
    "Clustering": "types",
    "Layer": "types",
    "LeftOut": "types",
}

__all__ = [
    "AnalysisInterrupted",
    "Block",
    "Clustering",
    "InputError",
    "Layer",
    "LeftOut",
    "MissingExtraError",
    "ModelError",
    "NcutError",
    "NeuronGraph",
    "Report",
    "analyze",
    "cluster",
    "graph",
    "normalized_cut",
    "shuffle",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("ncut")
    if name == "graph":
        from ncut.extract import read_graph

        return read_graph
    if name in _HOMES:
        return getattr(importlib.import_module(f"ncut.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'ncut' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
