"""Clusters of neurons tried on the function: silenced, cut apart, correlated."""

from ncut.functional.ablation import (
    Ablation,
    AblationInterrupted,
    AblationPair,
    AblationRow,
    ablate,
)
from ncut.functional.activations import Agreement, activation_graph, correlate
from ncut.functional.separate import Separation, SeparationRow, separate
from ncut.functional.silence import silenced

__all__ = [
    "Ablation",
    "AblationInterrupted",
    "AblationPair",
    "AblationRow",
    "Agreement",
    "Separation",
    "SeparationRow",
    "ablate",
    "activation_graph",
    "correlate",
    "separate",
    "silenced",
]
