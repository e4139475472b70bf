"""Training with torch: clusterability penalties, initialization, normalization and pruning."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ncut.training.eigenvalues import laplacian_eigenvalues
    from ncut.training.initialize import clusterable_init_
    from ncut.training.loggers import (
        CSVCallback,
        MLflowCallback,
        TensorBoardCallback,
        WandbCallback,
    )
    from ncut.training.modular import CutDropout, PartitionAnnealing
    from ncut.training.monitor import Monitor
    from ncut.training.partitions import PartitionRegularizer, SoftCutRegularizer
    from ncut.training.pruning import PolynomialPruning
    from ncut.training.regularizers import EigenvalueRegularizer, Regularizer

_HOMES = {
    "CSVCallback": "loggers",
    "CutDropout": "modular",
    "EigenvalueRegularizer": "regularizers",
    "MLflowCallback": "loggers",
    "Monitor": "monitor",
    "PartitionAnnealing": "modular",
    "PartitionRegularizer": "partitions",
    "PolynomialPruning": "pruning",
    "Regularizer": "regularizers",
    "SoftCutRegularizer": "partitions",
    "TensorBoardCallback": "loggers",
    "WandbCallback": "loggers",
    "clusterable_init_": "initialize",
    "laplacian_eigenvalues": "eigenvalues",
}

__all__ = [
    "CSVCallback",
    "CutDropout",
    "EigenvalueRegularizer",
    "MLflowCallback",
    "Monitor",
    "PartitionAnnealing",
    "PartitionRegularizer",
    "PolynomialPruning",
    "Regularizer",
    "SoftCutRegularizer",
    "TensorBoardCallback",
    "WandbCallback",
    "clusterable_init_",
    "laplacian_eigenvalues",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"ncut.training.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'ncut.training' has no attribute {name!r}")
