"""Test whether clusters are modules: train networks in several ways and cut them apart.

    python scripts/modules.py docs/training/modules.csv --data digits [--clusters 2] [--seeds 5]
    python scripts/modules.py docs/training/modules.csv --data mnist mnist-cnn --mnist FOLDER
    python scripts/modules.py docs/training/modules.csv --data cifar-8x8 --cifar FOLDER
    python scripts/modules.py docs/training/modules.csv --data text

Each line of the CSV is one network: its accuracy on held-out data, the n-cut of the partition that
ncut finds (k clusters, refined) and the mean of its shuffles', the accuracy with all weights
between these clusters removed, the share kept above chance, the share kept at random partitions
with the same sizes, and the effective number of clusters in the worst hidden layer. `graph` is the
measured part: "whole"; "tail", the layers behind a free first layer, whose inputs belong to no
cluster; "channels" of convolutions; "blocks" of a transformer. Existing lines are not recomputed,
and no new line is started after `--seconds`.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy

import ncut

FIELDS = (
    *("data", "training", "graph", "seed", "k", "accuracy", "ncut", "shuffled_ncut"),
    *("cut_accuracy", "kept", "random_kept", "p_value", "worst_layer"),
)


class Task(NamedTuple):
    """Training and test data, and a network for it.

    `parts` are the slices of the network that are graphs, by name; `free` are the layers that no
    training cuts. `rate` is Adam's learning rate, or with `cycle` its maximum, from which it falls
    to 0.
    """

    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor
    make: Callable[[], nn.Sequential]
    k: int
    steps: int
    batch: int = 128
    rate: float = 1e-3
    cycle: bool = False
    parts: dict[str, slice] = {"whole": slice(None), "tail": slice(2, None)}  # noqa: RUF012
    free: tuple[str, ...] = ()
    chance: float = 0.1

    @property
    def sample(self) -> Tensor:
        """One example."""
        return self.test_x[:1]


def digits(_: argparse.Namespace) -> Task:
    """The 8 x 8 digits of scikit-learn, four fifths for training."""
    from sklearn.datasets import load_digits

    found = load_digits()
    order = np.random.default_rng(0).permutation(len(found.target))
    x = torch.tensor(found.data[order] / 16, dtype=torch.float32)
    y = torch.tensor(found.target[order])
    n = len(y) * 4 // 5
    return Task(x[:n], y[:n], x[n:], y[n:], partial(mlp, 64, 64, 64, 64, 10), 4, 1500)


def synthetic(_: argparse.Namespace) -> Task:
    """Gaussian clusters in 40 features, all informative, in 8 classes."""
    from sklearn.datasets import make_classification

    found, target = make_classification(
        n_samples=8000, n_features=40, n_informative=30, n_redundant=10, n_classes=8,
        class_sep=2.0, random_state=0,
    )  # fmt: skip
    x = torch.tensor((found - found.mean(0)) / found.std(0), dtype=torch.float32)
    y = torch.tensor(target)
    make = partial(mlp, 40, 64, 64, 64, 8)
    return Task(x[:6000], y[:6000], x[6000:], y[6000:], make, 4, 1500, chance=1 / 8)


def mnist(given: argparse.Namespace) -> Task:
    """MNIST in IDX files."""

    def read(name: str) -> Tensor:
        content = gzip.decompress((given.mnist / f"{name}.gz").read_bytes())
        n_axes = content[3]
        shape = np.frombuffer(content, ">i4", n_axes, 4)
        values = np.frombuffer(content, np.uint8, offset=4 + 4 * n_axes).reshape(shape)
        return torch.tensor(values)

    x, test_x = (read(f"{part}-images-idx3-ubyte").flatten(1) / 255 for part in ("train", "t10k"))
    y, test_y = (read(f"{part}-labels-idx1-ubyte").long() for part in ("train", "t10k"))
    make = partial(mlp, 784, 128, 128, 128, 10)
    return Task(x, y, test_x, test_y, make, 5, 1400, rate=3e-3, cycle=True)


def mnist_cnn(given: argparse.Namespace) -> Task:
    """MNIST at 14 x 14 for a small convolutional network; 2,000 test images."""
    task = mnist(given)
    x, test_x = (avg_pool2d(x.reshape(-1, 1, 28, 28), 2) for x in (task.x, task.test_x[:2000]))
    parts = {"channels": slice(None)}
    return task._replace(
        x=x, test_x=test_x, test_y=task.test_y[:2000], make=cnn, k=4, steps=500, parts=parts
    )


def cifar(given: argparse.Namespace) -> Task:
    """A fifth of CIFAR-10 at 8 x 8 pixels, without dead pixels."""

    def read(name: str) -> tuple[Tensor, Tensor]:
        rows = np.fromfile(given.cifar / name, np.uint8).reshape(-1, 3073)
        images = torch.tensor(rows[:, 1:]).reshape(-1, 3, 32, 32) / 255
        return avg_pool2d(images, 4).flatten(1) - 0.5, torch.tensor(rows[:, 0]).long()

    train, test = read("data_batch_1.bin"), read("test_batch.bin")
    return Task(*train, *test, partial(mlp, 192, 128, 128, 128, 10), 4, 1500)


def text(_: argparse.Namespace) -> Task:
    """Characters of the standard library's sources for a tiny transformer, cut in its blocks."""
    parts = {"blocks": slice(1, -1)}
    transformer = _transformer()

    def windows(modules: str, stride: int) -> tuple[Tensor, Tensor]:
        found = transformer.text(modules).unfold(0, transformer.CONTEXT + 1, stride)
        return found[:, :-1], found[:, 1:]

    x, y = windows(transformer.TRAINING, 16)
    test_x, test_y = (part[:200] for part in windows(transformer.HELD_OUT, 257))
    chance = float((test_y == y[::7].flatten().mode().values).double().mean())
    return Task(x, y, test_x, test_y, gpt, 4, 400, 16, 3e-3, True, parts, ("0.*", "3.*"), chance)


DATA = {
    "digits": digits,
    "synthetic": synthetic,
    "mnist": mnist,
    "mnist-cnn": mnist_cnn,
    "cifar-8x8": cifar,
    "text": text,
}


def mlp(*widths: int) -> nn.Sequential:
    """Linear layers with ReLUs between them."""
    parts: list[nn.Module] = []
    for n_in, n_out in pairwise(widths):
        parts += [nn.Linear(n_in, n_out), nn.ReLU()]
    return nn.Sequential(*parts[:-1])


def cnn() -> nn.Sequential:
    """Three convolutions with 32 channels each and two linear layers, for images of 14 x 14."""
    parts: list[nn.Module] = []
    for n_in, pool in ((1, 2), (32, 2), (32, 1)):
        parts += [nn.Conv2d(n_in, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(pool)]
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(288, 64), nn.ReLU(), nn.Linear(64, 10))


class Embedded(nn.Module):
    """Characters and their positions as vectors."""

    def __init__(self, n_characters: int, width: int, context: int) -> None:
        super().__init__()
        self.characters = nn.Embedding(n_characters, width)
        self.positions = nn.Parameter(torch.zeros(context, width))

    def forward(self, tokens: Tensor) -> Tensor:
        found: Tensor = self.characters(tokens) + self.positions[: tokens.shape[1]]
        return found


def gpt() -> nn.Sequential:
    """Two blocks of four-head attention and an MLP, 64 wide, predicting the next character."""
    source = _transformer()
    n, width = len(source.CHARACTERS), source.WIDTH
    end = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, n, bias=False))
    return nn.Sequential(
        Embedded(n, width, source.CONTEXT), *(source.Block() for _ in range(2)), end
    )


def _transformer() -> Any:
    """The transformer of `benchmarks/paper`, 64 wide."""
    folder = str(Path(__file__).parents[1] / "benchmarks" / "paper")
    if folder not in sys.path:
        sys.path.append(folder)
    import transformer

    transformer.WIDTH = 64
    return transformer


def prepared(training: str, model: nn.Module, task: Task) -> tuple[nn.Module, Any, Any]:
    """The module to run, the loss term or None, and the object to step or None."""
    k, given = task.k, {"example_inputs": task.sample}
    free = [*task.free, *(["0"] if "first" in training else [])]
    if training == "none":
        return model, None, None
    if training.startswith("annealing"):
        annealed = ncut.PartitionAnnealing(model, k, task.steps // 2, free, **given)
        return annealed, None, annealed
    share = 0.25 if "share 0.25" in training else 0.5
    modules = ncut.CutDropout(model, k, share=share, weight=2.0, free=free, **given)
    if training.startswith("cut-dropout"):
        return modules, modules.penalty, modules
    layers = ["1.*", "2.*"] if task.free else None
    if training.startswith("eigenvalues"):
        numbers = range(2, k + 1)
        term: Any = ncut.EigenvalueRegularizer(
            model, numbers, 0.1, layers=layers, disconnect="ignore", **given
        )
    else:
        labels = {name: modules.labels[at].numpy() for name, at in modules.layers.items()}
        term = ncut.PartitionRegularizer(model, k, 2.0, labels=labels, layers=layers, **given)
    return model, term, None


def trained(training: str, task: Task, seed: int) -> nn.Sequential:
    """A network after its training."""
    torch.manual_seed(seed)
    model = task.make()
    run, term, stepped = prepared(training, model, task)
    optimizer = torch.optim.Adam(model.parameters(), task.rate)
    cycle: Any = None
    if task.cycle:
        cycle = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, task.rate, task.steps, pct_start=0.1, cycle_momentum=False
        )
    for _ in range(task.steps):
        if stepped is not None:
            stepped.step()
        rows = torch.randint(0, len(task.y), (task.batch,))
        loss = cross_entropy(run(task.x[rows]).flatten(0, -2), task.y[rows].flatten())
        if term is not None:
            loss = loss + term()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if cycle is not None:
            cycle.step()
    if isinstance(stepped, ncut.PartitionAnnealing):
        stepped.cut_()
    return model.eval()


def accuracy_of(model: nn.Module, task: Task) -> float:
    """Share of correctly predicted test labels."""
    with torch.no_grad():
        return float((model(task.test_x).argmax(-1) == task.test_y).double().mean())


def graph_of(training: str, task: Task) -> str:
    """The part of the network whose clusters count."""
    return "tail" if "first" in training else next(iter(task.parts))


def measured(model: nn.Sequential, task: Task, graph: str) -> dict[str, Any]:
    """Measurements of the clusters that ncut finds in the graph."""
    start, stop, _ = task.parts[graph].indices(len(model))
    head, part, end = model[:start], model[start:stop], model[stop:]

    def accuracy(network: nn.Module) -> float:
        return accuracy_of(nn.Sequential(head, network, end), task)

    with torch.no_grad():
        example = head(task.sample)
    report = ncut.analyze(
        part, k=task.k, shuffles=10, refine=True, threads=1, example_inputs=example
    )
    found = report.separate(accuracy, keep=[], chance=task.chance)
    return {
        "accuracy": found.score,
        "ncut": report.ncut,
        "shuffled_ncut": report.shuffled_mean,
        "cut_accuracy": found.cut_score,
        "kept": found.kept,
        "random_kept": found.random_kept,
        "p_value": found.p_value,
        "worst_layer": found.worst_layer,
    }


def figure(path: Path) -> None:
    """Draw two networks on digits, with standard training and for modules, whole and cut apart.

    Left: the weights between the first two hidden layers, neurons sorted by the clusters that ncut
    finds behind the first layer. Right: the accuracy of the remaining network.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    task = digits(argparse.Namespace())
    shown, axes = plt.subplots(2, 2, figsize=(8, 6.4), width_ratios=(1, 1.5), layout="constrained")
    names = {
        "none": "trained as usual",
        "cut-dropout, first layer free": "trained with cut-dropout",
    }
    for (left, right), (training, name) in zip(axes, names.items(), strict=True):
        model = trained(training, task, 0)
        head, tail = model[:2], model[2:]

        def accuracy(network: nn.Module, head: nn.Module = head) -> float:
            return accuracy_of(nn.Sequential(head, network), task)

        report = ncut.analyze(tail, k=task.k, shuffles=0, refine=True, threads=1)
        found = report.separate(accuracy, chance=task.chance)
        ends = [report.labels[layer.slice] for layer in report.layers[:2]]
        rows, columns = (np.argsort(labels, kind="stable") for labels in reversed(ends))
        left.imshow(tail[0].weight.detach().abs().numpy()[np.ix_(rows, columns)], cmap="Greys")
        for labels, line in zip(ends, (left.axvline, left.axhline), strict=True):
            for at in np.cumsum(np.bincount(labels[labels >= 0], minlength=task.k))[:-1]:
                line(at - 0.5, color="tab:red", linewidth=0.8)
        left.set(title=name, xlabel="first hidden layer", ylabel="second hidden layer")
        left.set(xticks=[], yticks=[])
        alone = {f"cluster {row.clusters[0]}\nalone": row.score for row in found.rows}
        bars = {"whole": found.score, "cut\napart": found.cut_score, **alone}
        colours = ["black", "tab:red", *["tab:blue"] * len(alone), "lightgrey"]
        drawn = right.bar(
            [*bars, "cut at\nrandom"], [*bars.values(), found.random_scores.mean()], color=colours
        )
        right.bar_label(drawn, fmt="%.2f", fontsize=9)
        right.axhline(task.chance, color="grey", linewidth=0.8, linestyle=":")
        right.set(title="accuracy on test images", ylim=(0, 1.1))
        right.tick_params(axis="x", labelsize=8)
    shown.savefig(path, dpi=110)


TRAININGS = {
    "mlp": (
        "none",
        "eigenvalues, 0.1",
        "partition penalty, 2",
        "cut-dropout",
        "cut-dropout, first layer free",
        "cut-dropout, share 0.25, first layer free",
        "annealing, first layer free",
    ),
    "other": ("none", "cut-dropout", "cut-dropout, share 0.25", "annealing"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("--data", nargs="+", choices=tuple(DATA), default=["digits"])
    parser.add_argument("--mnist", type=Path, help="folder of MNIST's IDX files")
    parser.add_argument("--cifar", type=Path, help="folder of CIFAR-10's binary files")
    parser.add_argument("--clusters", type=int, help="by default 4, and 5 of MNIST")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--training", nargs="*", help="by default all")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    given = parser.parse_args()
    started = time.monotonic()
    torch.set_num_threads(1)
    done = set()
    if given.table.exists():
        with given.table.open(newline="") as file:
            rows = [*csv.DictReader(file)]
            keys = ("data", "k", "training", "graph", "seed")
            done = {tuple(row[key] for key in keys) for row in rows}
    else:
        given.table.write_text(",".join(FIELDS) + "\n")
    tasks = {data: DATA[data](given) for data in given.data}
    for seed, (data, task) in product(range(given.seeds), tasks.items()):
        if given.clusters is not None:
            task = task._replace(k=given.clusters)
        for training in given.training or TRAININGS["mlp" if "tail" in task.parts else "other"]:
            graph = graph_of(training, task)
            if (data, str(task.k), training, graph, str(seed)) in done:
                continue
            if time.monotonic() - started > given.seconds:
                return
            values = measured(trained(training, task, seed), task, graph)
            row = {"data": data, "training": training, "graph": graph, "seed": seed}
            row |= {"k": task.k, **values}
            rounded = {k: f"{v:.4f}" if isinstance(v, float) else v for k, v in row.items()}
            with given.table.open("a", newline="") as file:
                csv.DictWriter(file, FIELDS, lineterminator="\n").writerow(rounded)
            print(*rounded.values(), f"{time.process_time():.0f} s", flush=True)


if __name__ == "__main__":
    main()
