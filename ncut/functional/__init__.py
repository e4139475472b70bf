"""Functional tests of clusters: silencing, separation, correlation."""

from ncut.functional.ablation import ablate
from ncut.functional.activations import activation_graph, correlate
from ncut.functional.results import Ablation, AblationPair, AblationRow, Agreement
from ncut.functional.separate import Separation, SeparationRow, separate
from ncut.functional.silence import silenced

__all__ = [
    "Ablation",
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
