"""Train the two networks in ncut/networks on scikit-learn's digits; seconds on a laptop.

A fully connected network is trained with dropout and saved, then 90 % of each layer's weights
are pruned by magnitude while training goes on. The pruned share rises from 50 % to 90 % along
the cubic schedule of Zhu and Gupta (2017), "To prune, or not to prune", equation 1.

    python scripts/train_digits.py [folder]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

SEED = 0
WIDTHS = (64, 128, 128, 64, 10)
BATCH = 64
DROPOUT = 0.5
EPOCHS = 120
PRUNING_EPOCHS = 120
PRUNING_ENDS = 0.7  # share of the pruning epochs after which the masks stay
MASK_EVERY = 10
FIRST_SPARSITY, LAST_SPARSITY = 0.5, 0.9
FOLDER = Path(__file__).resolve().parents[1] / "ncut" / "networks"


def digits() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Training and test images in 0..1, and their labels."""
    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(
        images.astype(np.float32) / 16, labels, test_size=0.2, random_state=SEED, stratify=labels
    )
    x, x_test, y, y_test = (torch.as_tensor(part) for part in parts)
    return x, y, x_test, y_test


def make_network() -> nn.Sequential:
    """The network, with dropout after each hidden layer."""
    parts: list[nn.Module] = []
    for n_in, n_out in pairwise(WIDTHS[:-1]):
        parts += [nn.Linear(n_in, n_out), nn.ReLU(), nn.Dropout(DROPOUT)]
    return nn.Sequential(*parts, nn.Linear(WIDTHS[-2], WIDTHS[-1]))


def layers_of(network: nn.Sequential) -> list[nn.Linear]:
    """The linear layers in order."""
    return [part for part in network if isinstance(part, nn.Linear)]


def train(
    network: nn.Sequential,
    x: torch.Tensor,
    y: torch.Tensor,
    epochs: int,
    after_step: Callable[[int, int], None] = lambda step, n_steps: None,
) -> None:
    """Minimize the cross-entropy with a fresh Adam; `after_step(step, n_steps)` may prune."""
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    n_steps = epochs * -(-len(x) // BATCH)
    step = 0
    network.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x[batch]), y[batch]).backward()
            optimizer.step()
            after_step(step, n_steps)
            step += 1


class Pruning:
    """Keeps the smallest weights of each layer at zero, more of them as training goes on."""

    def __init__(self, layers: list[nn.Linear]) -> None:
        self.layers = layers
        self.masks = [torch.ones_like(layer.weight) for layer in layers]

    @torch.no_grad()
    def __call__(self, step: int, n_steps: int) -> None:
        """Renew the masks while the schedule runs, and apply them."""
        last = int(PRUNING_ENDS * n_steps) // MASK_EVERY * MASK_EVERY
        if step % MASK_EVERY == 0 and step <= last:
            done = step / last
            sparsity = LAST_SPARSITY + (FIRST_SPARSITY - LAST_SPARSITY) * (1 - done) ** 3
            self.masks = [smallest_removed(layer.weight, sparsity) for layer in self.layers]
        for layer, mask in zip(self.layers, self.masks, strict=True):
            layer.weight *= mask


def smallest_removed(weight: torch.Tensor, sparsity: float) -> torch.Tensor:
    """A mask that is 0 at the given share of the weights, those of smallest magnitude."""
    mask = torch.ones(weight.numel())
    mask[weight.abs().flatten().argsort()[: round(sparsity * weight.numel())]] = 0
    return mask.view_as(weight)


def accuracy(network: nn.Sequential, x: torch.Tensor, y: torch.Tensor) -> float:
    """Share of correct answers without dropout."""
    network.eval()
    with torch.no_grad():
        return float((network(x).argmax(dim=1) == y).float().mean())


def save(network: nn.Sequential, test_accuracy: float, path: Path) -> None:
    """Write the weights as (fan_in, fan_out) matrices."""
    weights = {
        f"w{number}": layer.weight.detach().T.numpy().copy()
        for number, layer in enumerate(layers_of(network))
    }
    np.savez_compressed(path, **weights, test_accuracy=np.float64(test_accuracy))
    print(f"{path.name}: test accuracy {test_accuracy:.4f}, {path.stat().st_size / 1024:.0f} KiB")


def main(folder: Path) -> None:
    """Train, save, prune, save."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    x, y, x_test, y_test = digits()
    network = make_network()
    train(network, x, y, EPOCHS)
    save(network, accuracy(network, x_test, y_test), folder / "digits-unpruned.npz")
    train(network, x, y, PRUNING_EPOCHS, after_step=Pruning(layers_of(network)))
    for layer in layers_of(network):
        zeros = float((layer.weight == 0).float().mean())
        assert abs(zeros - LAST_SPARSITY) < 1e-2, zeros
    save(network, accuracy(network, x_test, y_test), folder / "digits-pruned.npz")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
