"""Whether clusters of neurons are functional modules: silencing them, and what fires together."""

from ncut.functional.ablation import ablate
from ncut.functional.activations import activation_graph, correlate
from ncut.functional.results import Ablation, AblationPair, AblationRow, Agreement
from ncut.functional.silence import silenced

__all__ = [
    "Ablation",
    "AblationPair",
    "AblationRow",
    "Agreement",
    "ablate",
    "activation_graph",
    "correlate",
    "silenced",
]
