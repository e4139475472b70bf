"""Variants of table A.18's networks with dropout: which begin to memorize 3,000 random images?

    python benchmarks/paper/memorization.py memorization.csv [--seeds 0 1] [--variants base ...]

The paper has 6 of 10 networks that memorize in 100 + 100 epochs; with the same recipe ours do not.
Each variant changes one thing. A line per network: the accuracy over the last epoch of each phase
as Keras reports it (with dropout), that of the finished network on the same images (without), and
the first epoch, over both phases, whose training loss lies below that of guessing by `STARTED`.
Networks that the file has are not trained again.
"""

from __future__ import annotations

import argparse
import csv
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ncut.paper import composites
from ncut.paper.datasets import N_MEMORIZED, N_TRAIN, SEED
from ncut.paper.networks import Dropout, build, layers_of
from ncut.paper.pruning import Masks
from ncut.paper.training import EPSILON, LEARNING_RATE

BATCH = 128

STARTED = 0.05
"""Nats per image: a network that only knows how frequent the classes are gains 0.003."""


@dataclass(frozen=True)
class Variant:
    """A change of the recipe; the defaults are the recipe."""

    init: Callable[[Tensor], object] = nn.init.xavier_uniform_
    dropout: type[nn.Dropout] = Dropout
    rate: float = 0.5
    epsilon: float = EPSILON
    reordered: bool = False
    data_seed: int = SEED
    centered: bool = False
    label_noise: float = 0.0
    epochs: tuple[int, int] = (100, 100)


VARIANTS = {
    "base": Variant(),
    "torch's dropout": Variant(dropout=nn.Dropout),
    "reordered": Variant(reordered=True),
    "other images": Variant(data_seed=1),
    "epsilon 1e-3": Variant(epsilon=1e-3),
    "epsilon 1e-8": Variant(epsilon=1e-8),
    "normal init": Variant(init=nn.init.xavier_normal_),
    "He init": Variant(init=nn.init.kaiming_uniform_),
    "dropout 0.45": Variant(rate=0.45),
    "dropout 0.4": Variant(rate=0.4),
    "centered pixels": Variant(centered=True),
    "labels of half at random in each epoch": Variant(label_noise=0.5),
    "300 + 100 epochs": Variant(epochs=(300, 100)),
}


def images(variant: Variant) -> tuple[Tensor, Tensor]:
    pixels, labels = composites.noise(N_TRAIN, np.random.default_rng(variant.data_seed))
    inputs = torch.from_numpy(pixels[:N_MEMORIZED].astype(np.float32)).flatten(1) / 255
    return inputs - 0.5 * variant.centered, torch.from_numpy(labels[:N_MEMORIZED].astype(np.int64))


def network(variant: Variant) -> nn.Sequential:
    model = build("mlp", dropout=True)
    for layer in layers_of(model):
        variant.init(layer.weight)
    modules = (
        variant.dropout(variant.rate) if isinstance(each, nn.Dropout) else each for each in model
    )
    return nn.Sequential(*modules)


def trained(variant: Variant, seed: int) -> dict[str, float | int | str]:
    torch.manual_seed(seed)
    inputs, targets = images(variant)
    model = network(variant)
    weights = [layer.weight for layer in layers_of(model)]
    steps = -(-len(targets) // BATCH)
    found: dict[str, float | int | str] = {"started": ""}
    number = 0
    for phase, epochs in zip(("unpruned", "pruned"), variant.epochs, strict=True):
        optimizer = torch.optim.Adam(
            model.parameters(), lr=LEARNING_RATE, eps=variant.epsilon, fused=True
        )
        masks = Masks(weights, epochs * steps) if phase == "pruned" else None
        step = 0
        for _ in range(epochs):
            number += 1
            model.train()
            order = torch.arange(len(targets))
            if variant.reordered:
                order = torch.randperm(len(targets))
            loss_sum, hits = 0.0, 0
            for chosen in torch.split(order, BATCH):
                labels = targets[chosen]
                if variant.label_noise:
                    other = torch.rand(len(chosen)) < variant.label_noise
                    labels = torch.where(other, torch.randint(10, labels.shape), labels)
                if masks is not None:
                    masks.renew(step)
                    masks.apply()
                outputs = model(inputs[chosen])
                loss = functional.cross_entropy(outputs, labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                if masks is not None:
                    masks.apply()
                loss_sum += float(loss.detach()) * len(chosen)
                hits += int((outputs.argmax(1) == targets[chosen]).sum())
                step += 1
            if found["started"] == "" and loss_sum / len(targets) < math.log(10) - STARTED:
                found["started"] = number
        model.eval()
        with torch.no_grad():
            right = (model(inputs).argmax(1) == targets).float().mean()
        found[f"{phase}_accuracy"] = hits / len(targets)
        found[f"{phase}_accuracy_without_dropout"] = float(right)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    arguments = parser.parse_args()
    lines: list[dict[str, str]] = []
    if arguments.out.exists():
        with arguments.out.open(newline="") as file:
            lines = list(csv.DictReader(file))
    done = {(line["variant"], int(line["seed"])) for line in lines}
    torch.set_num_threads(1)
    for seed in arguments.seeds:
        for name in arguments.variants:
            if (name, seed) in done:
                continue
            start = time.process_time()
            found = trained(VARIANTS[name], seed)
            line = {"variant": name, "seed": seed, **found}
            line["cpu_seconds"] = time.process_time() - start
            lines.append({key: format(value, ".6g") if isinstance(value, float) else str(value)
                          for key, value in line.items()})  # fmt: skip
            print(lines[-1], flush=True)
            with arguments.out.open("w", newline="") as file:
                writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
                writer.writeheader()
                writer.writerows(lines)


if __name__ == "__main__":
    main()
