"""Clusters made by a penalty: their neurons by layer, and the network without weights between.

    python scripts/regularized_clusters.py FOLDER [--epochs 2]

FOLDER holds MNIST's four IDX files. A 784-256x4-10 network is trained with each penalty; printed
are its n-cut, the neurons of each cluster in each layer, and the test accuracy without any weight
between two clusters.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import numpy as np
import torch
from regularized_training import build, load, train
from torch import nn

import ncut
from ncut.paper.training import evaluate
from ncut.training import PartitionRegularizer, SoftCutRegularizer

K = 12
PENALTIES = {
    "eigenvalues 2 to 12, weight 0.1": lambda model: ncut.EigenvalueRegularizer(
        model, range(2, K + 1), 0.1
    ),
    "eigenvalues 2 to 12, weight 0.5": lambda model: ncut.EigenvalueRegularizer(
        model, range(2, K + 1), 0.5
    ),
    "soft-cut, weight 2": lambda model: SoftCutRegularizer(model, K, 2.0),
    "partition, weight 2": lambda model: PartitionRegularizer(model, K, 2.0),
}


@torch.no_grad()
def without_links(model: nn.Sequential, report: ncut.Report) -> nn.Sequential:
    """The network without any weight between two clusters."""
    cut = copy.deepcopy(model)
    layers = report.graph.layers
    linear = [module for module in cut if isinstance(module, nn.Linear)]
    for module, before, after in zip(linear, layers, layers[1:], strict=False):
        inside = report.labels[after.slice][:, None] == report.labels[before.slice]
        module.weight.mul_(torch.as_tensor(inside))
    return cut


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = load(arguments.folder, "mlp", 60_000)
    for title, make in PENALTIES.items():
        torch.manual_seed(0)
        model = build("mlp", batch_norm=False)
        generator = torch.Generator().manual_seed(0)
        penalty = make(model)
        train(model, data, penalty, [], epochs=arguments.epochs, batch=128, generator=generator)
        report = ncut.analyze(model, k=K, shuffles=10)
        test = (data.test_inputs, data.test_targets)
        print(f"{title}: n-cut {report.ncut:.2f}, shuffled {report.shuffled_mean:.2f}")
        print(f"  test accuracy {evaluate(model, *test)[1]:.3f}, without weights between clusters "
              f"{evaluate(without_links(model, report), *test)[1]:.3f}")  # fmt: skip
        for layer in report.graph.layers:
            labels = report.labels[layer.slice]
            counts = np.bincount(labels[labels >= 0], minlength=K)
            print(f"  {layer.name:>6}", *(f"{count:4d}" for count in counts))


if __name__ == "__main__":
    main()
