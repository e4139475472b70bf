"""Seconds per epoch of `ncut paper`'s training beside a plain PyTorch DataLoader loop.

    python benchmarks/paper/speed.py DATA [--out FILE] [--repeats 3] [--cases REGEX]

DATA holds MNIST's files. Each line: the same network, data, batches and settings of Adam (fused in
ours, torch's default in the loop), medians of repeats that take turns; one thread, but for the last
lines, which train two networks: after each other on two threads, and side by side on one thread
each. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from ncut.paper.datasets import Data, load
from ncut.paper.networks import Dropout, build
from ncut.paper.recipes import Recipe
from ncut.paper.records import Record
from ncut.paper.training import train

CASES = {
    "mlp": (Recipe("mlp", "mnist", "none", 1, 0), 60_000),
    "mlp, dropout": (Recipe("mlp", "mnist", "dropout", 1, 0), 60_000),
    "mlp, l1": (Recipe("mlp", "mnist", "l1", 1, 0), 60_000),
    "mlp, bfloat16": (Recipe("mlp", "mnist", "none", 1, 0, precision="bfloat16"), 60_000),
    "small CNN": (Recipe("small-cnn", "mnist", "none", 1, 0), 6_400),
    "small CNN, dropout": (Recipe("small-cnn", "mnist", "dropout", 1, 0), 6_400),
    "small CNN, bfloat16": (
        Recipe("small-cnn", "mnist", "none", 1, 0, precision="bfloat16"),
        6_400,
    ),
}
"""Recipes, and how many of the training examples are used."""


def part_of(data: Data, n: int) -> Data:
    return Data(data.inputs[:n], data.targets[:n], data.test_inputs[:100], data.test_targets[:100],
                data.is_original)  # fmt: skip


def ours(recipe: Recipe, data: Data) -> float:
    with tempfile.TemporaryDirectory() as folder:
        record = Record(Path(folder), recipe, 0)
        train(record, data)
        return float(record.metrics("unpruned")["seconds"])


def plain(recipe: Recipe, data: Data) -> float:
    """A loop as tutorials have it: DataLoader, Adam, the penalty in the loss."""
    model = build(recipe.network, recipe.has_dropout)
    model = nn.Sequential(*(_plain(module) for module in model))
    loader = DataLoader(
        TensorDataset(data.inputs, data.targets), recipe.architecture.batch, shuffle=True
    )
    optimizer = torch.optim.Adam(model.parameters(), eps=1e-7)
    weights = [weight for name, weight in model.named_parameters() if name.endswith("weight")]
    l1 = recipe.penalties(len(weights))[0][0]
    start = time.perf_counter()
    hits = 0
    for inputs, targets in loader:
        outputs = model(inputs)
        loss = functional.cross_entropy(outputs, targets)
        if l1:
            loss = loss + l1 * sum(weight.abs().sum() for weight in weights)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        hits += int((outputs.argmax(1) == targets).sum())
    return time.perf_counter() - start


def _plain(module: nn.Module) -> nn.Module:
    return nn.Dropout(module.p) if isinstance(module, Dropout) else module


def timed_pair(recipe: Recipe, data: Data, repeats: int) -> dict[str, float]:
    pairs = [(plain(recipe, data), ours(recipe, data)) for _ in range(repeats)]
    loop, mine = (statistics.median(column) for column in zip(*pairs, strict=True))
    return {
        "dataloader_s": round(loop, 3),
        "ours_s": round(mine, 3),
        "ratio": round(loop / mine, 2),
    }


def two_networks(folder: Path, data: Data) -> dict[str, float]:
    """Two MLPs: one after the other on two threads, and two processes of one thread."""

    def timed(work: Callable[[], object]) -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    torch.set_num_threads(2)
    recipe = CASES["mlp"][0]
    after_each_other = timed(lambda: [ours(recipe, data) for _ in range(2)])
    torch.set_num_threads(1)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.map(_load_only, [str(folder)] * 2, chunksize=1)
        beside = timed(lambda: pool.map(_train_kept, range(2), chunksize=1))
    return {"two_threads_s": round(after_each_other, 3), "side_by_side_s": round(beside, 3),
            "ratio": round(after_each_other / beside, 2)}  # fmt: skip


_KEPT: list[Data] = []


def _load_only(folder: str) -> None:
    torch.set_num_threads(1)
    _KEPT.append(load("mnist", Path(folder)))
    time.sleep(1)  # so that each process loads once


def _train_kept(_: int) -> None:
    ours(CASES["mlp"][0], _KEPT[0])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cases", default="", help="a regular expression: only these lines")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, object] = {
        "torch": torch.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }
    sets = {flat: load("mnist", arguments.data, flat=flat) for flat in (True, False)}
    for name, (recipe, n) in CASES.items():
        if not re.search(arguments.cases, name):
            continue
        data = part_of(sets[not recipe.architecture.is_convolutional], n)
        found[name] = timed_pair(recipe, data, arguments.repeats) | {"images": n}
        print(name, found[name], flush=True)
    found["two MLPs"] = two_networks(arguments.data, part_of(sets[True], 60_000))
    print("two MLPs", found["two MLPs"])
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
