"""Train a small network on scikit-learn's digits to be clusterable, prune it, and measure it.

Runs in seconds:  python examples/plain_torch.py
"""

from __future__ import annotations

import argparse

import torch
from sklearn.datasets import load_digits
from torch import nn

import ncut

N_TEST = 360
CLUSTERS = 4


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """1,797 images of 8 x 8 pixels between 0 and 1, in random order, and their digits."""
    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    return torch.tensor(images / 16, dtype=torch.float32)[order], torch.tensor(labels)[order]


def trained(steps: int, weight: float) -> nn.Module:
    """A network after `steps` batches, pruned to 80% zeros in the second half of the steps."""
    torch.manual_seed(0)
    images, labels = digits()
    model = nn.Sequential(
        nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)
    )
    regularizer = ncut.EigenvalueRegularizer(model, weight=weight)
    optimizer = torch.optim.Adam(model.parameters())
    pruning = None
    for step in range(steps):
        if step == steps // 2:
            pruning = ncut.PolynomialPruning(model, end_step=steps // 4, final_sparsity=0.8)
            optimizer = torch.optim.Adam(model.parameters())
        if pruning is not None:
            pruning.step()
        regularizer.normalize_()
        batch = torch.randint(len(labels) - N_TEST, (64,))
        loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
        optimizer.zero_grad()
        (loss + regularizer()).backward()
        optimizer.step()
    if pruning is not None:
        pruning.remove()

    with torch.no_grad():
        right = model(images[-N_TEST:]).argmax(1) == labels[-N_TEST:]
    print(f"  accuracy on {N_TEST} other digits: {right.float().mean():.1%}")
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1500, help="batches of 64 images")
    steps = parser.parse_args().steps
    for title, weight in (("without the regularizer", 0.0), ("with it", 0.02)):
        print(f"{title}:")
        report = ncut.analyze(trained(steps, weight), k=CLUSTERS, shuffles=20)
        print("  eigenvalues:", ", ".join(f"{value:.3f}" for value in report.eigenvalues))
        print(
            f"  n-cut {report.ncut:.3f} into {CLUSTERS} clusters, that of its shuffles "
            f"{report.shuffled_mean:.3f} +- {report.shuffled_std:.3f}, p = {report.p_value:.3f}"
        )


if __name__ == "__main__":
    main()
