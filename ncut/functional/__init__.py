"""Whether clusters of neurons are functional modules: silencing them, and what fires together."""

from ncut.functional.ablation import (
    Ablation,
    AblationInterrupted,
    AblationPair,
    AblationRow,
    ablate,
)
from ncut.functional.activations import Agreement, activation_graph, correlate
from ncut.functional.silence import silenced

__all__ = [
    "Ablation",
    "AblationInterrupted",
    "AblationPair",
    "AblationRow",
    "Agreement",
    "ablate",
    "activation_graph",
    "correlate",
    "silenced",
]
