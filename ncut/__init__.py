"""ncut: how clusterable is a trained neural network?

`ncut.analyze(model)` turns a network's weights into a graph of neurons, finds the best partition
into k groups by spectral clustering, and compares its normalized cut with those of networks whose
weights were shuffled. Names are imported on first use, so that `import ncut` is fast.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ncut.analysis import analyze
    from ncut.clusters import cluster
    from ncut.comparing import ModelComparison, compare
    from ncut.errors import (
        InputError,
        Interrupted,
        MissingExtraError,
        ModelError,
        NcutError,
        ShuffleError,
        UnknownArgumentError,
    )
    from ncut.estimator import NormalizedCutClustering as NormalizedCutClustering
    from ncut.extract import read_graph as graph
    from ncut.extract.read import read_program as program
    from ncut.extract.registry import register_operation
    from ncut.graphs import NeuronGraph
    from ncut.nulls import shuffle
    from ncut.nulls.multiple import adjusted_p_values
    from ncut.profiles import profile
    from ncut.report import Profile, Report, Verdict
    from ncut.scans import Scan, scan
    from ncut.spectral import normalized_cut, partition_measures
    from ncut.spectral.gradient import EigenvaluesAndGradient, eigenvalues_and_gradient
    from ncut.training.eigenvalues import laplacian_eigenvalues
    from ncut.training.initialize import clusterable_init_
    from ncut.training.modular import CutDropout, PartitionAnnealing
    from ncut.training.normalize import normalize_
    from ncut.training.partitions import PartitionRegularizer, SoftCutRegularizer
    from ncut.training.pruning import PolynomialPruning
    from ncut.training.regularizers import EigenvalueRegularizer
    from ncut.types import Block, Clustering, Comparison, Layer, LeftOut, Parameter
    from ncut.verdicts import verdict

# Names of the training side, which load torch; without torch they are not public names.
_TRAINING = {
    "CutDropout": "training.modular",
    "EigenvalueRegularizer": "training.regularizers",
    "PartitionAnnealing": "training.modular",
    "PartitionRegularizer": "training.partitions",
    "PolynomialPruning": "training.pruning",
    "SoftCutRegularizer": "training.partitions",
    "clusterable_init_": "training.initialize",
    "laplacian_eigenvalues": "training.eigenvalues",
    "normalize_": "training.normalize",
}

# Loads scikit-learn, so that `from ncut import *` leaves it out.
_ESTIMATOR = "NormalizedCutClustering"

_HOMES = {
    "analyze": "analysis",
    "ModelComparison": "comparing",
    "compare": "comparing",
    "InputError": "errors",
    "Interrupted": "errors",
    "MissingExtraError": "errors",
    "ModelError": "errors",
    "NcutError": "errors",
    "ShuffleError": "errors",
    "UnknownArgumentError": "errors",
    "NeuronGraph": "graphs",
    "adjusted_p_values": "nulls.multiple",
    "shuffle": "nulls",
    "profile": "profiles",
    "Profile": "report",
    "Report": "report",
    "Verdict": "report",
    "Scan": "scans",
    "scan": "scans",
    "cluster": "clusters",
    "normalized_cut": "spectral",
    "EigenvaluesAndGradient": "spectral.gradient",
    "eigenvalues_and_gradient": "spectral.gradient",
    "partition_measures": "spectral",
    "Block": "types",
    "Clustering": "types",
    "Comparison": "types",
    "Layer": "types",
    "LeftOut": "types",
    "Parameter": "types",
    "register_operation": "extract.registry",
    "verdict": "verdicts",
}

__all__ = [
    "Block",
    "Clustering",
    "Comparison",
    "EigenvaluesAndGradient",
    "InputError",
    "Interrupted",
    "Layer",
    "LeftOut",
    "MissingExtraError",
    "ModelComparison",
    "ModelError",
    "NcutError",
    "NeuronGraph",
    "Parameter",
    "Profile",
    "Report",
    "Scan",
    "ShuffleError",
    "UnknownArgumentError",
    "Verdict",
    "adjusted_p_values",
    "analyze",
    "cluster",
    "compare",
    "eigenvalues_and_gradient",
    "graph",
    "normalized_cut",
    "partition_measures",
    "profile",
    "program",
    "register_operation",
    "scan",
    "shuffle",
    "verdict",
]
if importlib.util.find_spec("torch") is not None:
    __all__ += [
        "CutDropout",
        "EigenvalueRegularizer",
        "PartitionAnnealing",
        "PartitionRegularizer",
        "PolynomialPruning",
        "SoftCutRegularizer",
        "clusterable_init_",
        "laplacian_eigenvalues",
        "normalize_",
    ]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return globals().setdefault(name, version("ncut"))
    if name == "graph":
        from ncut.extract import read_graph

        return read_graph
    if name == "program":
        from ncut.extract.read import read_program

        return read_program
    if name in _TRAINING:
        from ncut.errors import import_extra

        import_extra("torch", "torch")
        return getattr(importlib.import_module(f"ncut.{_TRAINING[name]}"), name)
    if name == _ESTIMATOR:
        from ncut.errors import import_extra

        import_extra("sklearn", "sklearn")
        return getattr(importlib.import_module("ncut.estimator"), name)
    if name in _HOMES:
        return getattr(importlib.import_module(f"ncut.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'ncut' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, _ESTIMATOR])
