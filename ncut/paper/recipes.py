"""Training recipes of the paper's networks: everything besides the seed that affects weights."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace

from ncut.arguments import check_choice
from ncut.paper.datasets import NAMES
from ncut.paper.networks import NETWORKS, Network

REGULARIZATIONS = (
    "none", "dropout", "l1", "l2", "dropout+l2", "clusterable-init", "clusterability",
)  # fmt: skip

PROCEDURES = ("authors", "text", "leaky")

TAGS = 10
"""Tags of the clusterable initialization; its beta is the network's."""

EIGENVALUES = (2, 3, 4)


@dataclass(frozen=True)
class Recipe:
    """The training settings of a network.

    Attributes
    ----------
    network, data : str
        Keys of `networks.NETWORKS` and `datasets.MAKERS`.
    regularization : str
        One of `REGULARIZATIONS`.
    epochs, pruning_epochs : int
        Numbers of epochs before and during pruning. 0 and 0: the network at initialization.
    reordered : bool
        Whether the examples are reshuffled in each epoch.
    images : int or None
        Number of training examples used; None: all.
    procedure : str
        "authors": as in the code behind the paper's numbers; "text": as in the paper. They differ
        in the L2 penalty of MLPs, in the strength of the clusterability penalty and its
        normalization, and in the edge weights of convolutions. "leaky": like "authors", but pruned
        weights take each optimizer step and are set to zero after the next forward pass.
    precision : str
        "float32", or "bfloat16" for products in the forward and backward pass.
    """

    network: str
    data: str
    regularization: str = "none"
    epochs: int = 20
    pruning_epochs: int = 20
    reordered: bool = True
    images: int | None = None
    procedure: str = "authors"
    precision: str = "float32"

    def __post_init__(self) -> None:
        choices = {
            "network": tuple(NETWORKS),
            "data": NAMES,
            "regularization": REGULARIZATIONS,
            "procedure": PROCEDURES,
            "precision": ("float32", "bfloat16"),
        }
        for name, allowed in choices.items():
            check_choice(name, getattr(self, name), allowed)

    @property
    def architecture(self) -> Network:
        return NETWORKS[self.network]

    @property
    def channels(self) -> int:
        """Number of channels of a convolutional network's images."""
        if self.data == "cifar10":
            return 3
        return 2 if "stack" in self.data else 1

    @property
    def has_dropout(self) -> bool:
        return "dropout" in self.regularization

    @property
    def follows_authors(self) -> bool:
        return self.procedure != "text"

    def penalties(self, n_layers: int) -> list[tuple[float, float]]:
        """The weights of sum |w| and of sum w^2 for each layer.

        In the authors' code an L2-regularized MLP has the L1 penalty on its first layer.
        """
        l1 = self.architecture.l1 if self.regularization == "l1" else 0.0
        l2 = self.architecture.l2 if self.regularization.endswith("l2") else 0.0
        found = [(l1, l2)] * n_layers
        if l2 and self.follows_authors and not self.architecture.is_convolutional:
            found[0] = (l2, 0.0)
        return found

    def scaled(self, factor: float) -> Recipe:
        """The recipe with scaled numbers of epochs; non-zero numbers stay at least 1."""
        epochs, pruning_epochs = (
            max(1, round(factor * n)) if n else 0 for n in (self.epochs, self.pruning_epochs)
        )
        return replace(self, epochs=epochs, pruning_epochs=pruning_epochs)

    def settings(self) -> dict[str, str | int | bool | None]:
        return asdict(self)

    def slug(self) -> str:
        """A short name for files, different for different recipes."""
        digest = hashlib.sha256(json.dumps(self.settings(), sort_keys=True).encode()).hexdigest()
        return f"{self.network}-{self.data}-{self.regularization}-{digest[:8]}"
