"""Train MLPs on MNIST and save a checkpoint after each epoch, to follow their clusterability.

    python scripts/training_course.py FOLDER [--data DATA] [--epochs 10]

The network is the paper's (784-256-256-256-256-10), once plain and once with dropout, each in a
folder of its own: checkpoints before training, early in the first epoch and after each epoch; in
the second half 90 % of the weights are pruned. `accuracy.csv` has the accuracy on test images.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

import ncut
from ncut.paper.datasets import Data, load
from ncut.paper.networks import build
from ncut.paper.training import evaluate

BATCH = 128
EARLY = (0, 30, 100, 250)


def batches(data: Data, epochs: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Each epoch in a new order."""
    for _ in range(epochs):
        for chosen in torch.randperm(len(data.targets)).split(BATCH):
            yield data.inputs[chosen], data.targets[chosen]


def train(model: nn.Sequential, data: Data, epochs: int, folder: Path) -> list[tuple[int, float]]:
    """Train, then train on while pruning; the accuracy at each checkpoint, by its step."""
    folder.mkdir(parents=True, exist_ok=True)
    per_epoch = -(-len(data.targets) // BATCH)
    accuracies: list[tuple[int, float]] = []

    def save(step: int) -> None:
        torch.save(model.state_dict(), folder / f"step-{step:05d}.pt")
        _, accuracy = evaluate(model, data.test_inputs, data.test_targets)
        accuracies.append((step, float(accuracy or 0)))
        print(f"{folder.name}: step {step}, test accuracy {accuracy:.4f}", flush=True)

    step = 0
    for pruned in (False, True):
        pruning = None
        if pruned:
            pruning = ncut.PolynomialPruning(model, end_step=int(0.7 * epochs * per_epoch))
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        for inputs, targets in batches(data, epochs):
            if step in EARLY:
                save(step)
            model.train()
            if pruning is not None:
                pruning.step()
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
            step += 1
            if step % per_epoch == 0:
                save(step)
    return accuracies


def main() -> None:
    """Train both networks."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, default=Path("data"), help="as for `ncut paper`")
    parser.add_argument("--epochs", type=int, default=10, help="before pruning, and during it")
    args = parser.parse_args()
    data = load("mnist", args.data)
    rows = []
    for name in ("plain", "dropout"):
        torch.manual_seed(0)
        model = build("mlp", dropout=name == "dropout")
        for step, accuracy in train(model, data, args.epochs, args.folder / name):
            rows.append((name, step, accuracy))
    with (args.folder / "accuracy.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("network", "step", "accuracy"), *rows])


if __name__ == "__main__":
    main()
