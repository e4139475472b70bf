"""Are the clusters modules? Networks trained in several ways, cut apart at the clusters ncut finds.

    python scripts/modules.py docs/training/modules.csv --data digits [--clusters 2] [--seeds 5]
    python scripts/modules.py docs/training/modules.csv --data mnist --mnist FOLDER

Each line of the CSV is one network: its accuracy on the test images, the n-cut of the partition
that ncut finds (k clusters, refined) and the mean of its shuffles', the accuracy with all weights
between these clusters removed, the share kept above chance, that at random partitions with the
same sizes, and the effective number of clusters in the worst hidden layer. Where the first layer is
left free, all that is of the graph behind it, "tail" in the column `graph`: the inputs belong to no
cluster. Lines that are there already are not made again, and no new one is begun once `--seconds`
are over.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import ncut

FIELDS = (
    *(
        "data",
        "training",
        "graph",
        "seed",
        "k",
        "accuracy",
        "ncut",
        "shuffled_ncut",
        "cut_accuracy",
    ),
    *("kept", "random_kept", "p_value", "worst_layer"),
)


class Data(NamedTuple):
    """Images and labels to train on and to test with, the widths of the network, k, the steps."""

    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor
    widths: tuple[int, ...]
    k: int
    steps: int


def digits() -> Data:
    """The 8 x 8 digits of scikit-learn, four fifths to train on."""
    from sklearn.datasets import load_digits

    found = load_digits()
    order = np.random.default_rng(0).permutation(len(found.target))
    x = torch.tensor(found.data[order] / 16, dtype=torch.float32)
    y = torch.tensor(found.target[order])
    n = len(y) * 4 // 5
    return Data(x[:n], y[:n], x[n:], y[n:], (64, 64, 64, 64, 10), 4, 1500)


def mnist(folder: Path) -> Data:
    """MNIST in IDX files."""

    def read(name: str) -> Tensor:
        content = gzip.decompress((folder / f"{name}.gz").read_bytes())
        n_axes = content[3]
        shape = np.frombuffer(content, ">i4", n_axes, 4)
        values = np.frombuffer(content, np.uint8, offset=4 + 4 * n_axes).reshape(shape)
        return torch.tensor(values)

    images = [read(f"{part}-images-idx3-ubyte").flatten(1) / 255.0 for part in ("train", "t10k")]
    labels = [read(f"{part}-labels-idx1-ubyte").long() for part in ("train", "t10k")]
    return Data(
        *images[:1], *labels[:1], *images[1:], *labels[1:], (784, 128, 128, 128, 10), 5, 1400
    )


def network(widths: tuple[int, ...]) -> nn.Sequential:
    """Linear layers with ReLUs between them."""
    parts: list[nn.Module] = []
    for n_in, n_out in pairwise(widths):
        parts += [nn.Linear(n_in, n_out), nn.ReLU()]
    return nn.Sequential(*parts[:-1])


def prepared(training: str, model: nn.Module, data: Data) -> tuple[nn.Module, Any, Any]:
    """What is run, the term of the loss or None, and what is stepped or None."""
    k = data.k
    if training == "none":
        return model, None, None
    if training.startswith("eigenvalues"):
        numbers = range(2, k + 1)
        return model, ncut.EigenvalueRegularizer(model, numbers, 0.1, disconnect="ignore"), None
    if training.startswith("partition penalty"):
        balanced = ncut.CutDropout(model, k)
        labels = {name: balanced.labels[at].numpy() for name, at in balanced.layers.items()}
        return model, ncut.PartitionRegularizer(model, k, 2.0, labels=labels), None
    if training.startswith("annealing"):
        free = ["0"] if "first" in training else []
        annealed = ncut.PartitionAnnealing(model, k, data.steps * 7 // 10, free)
        return annealed, None, annealed
    free = ["0"] if "first" in training else []
    modules = ncut.CutDropout(model, k, weight=2.0, free=free)
    return modules, modules.penalty, modules


def trained(training: str, data: Data, seed: int) -> nn.Sequential:
    """A network after its training."""
    torch.manual_seed(seed)
    model = network(data.widths)
    run, term, stepped = prepared(training, model, data)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(data.steps):
        if stepped is not None:
            stepped.step()
        rows = torch.randint(0, len(data.y), (128,))
        loss = cross_entropy(run(data.x[rows]), data.y[rows])
        if term is not None:
            loss = loss + term()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if isinstance(stepped, ncut.PartitionAnnealing):
        stepped.cut_()
    return model.eval()


def accuracy_of(model: nn.Module, data: Data) -> float:
    """Share of the test images whose label is right."""
    with torch.no_grad():
        return float((model(data.test_x).argmax(1) == data.test_y).double().mean())


def graph_of(training: str) -> str:
    """The part of the network whose clusters count."""
    return "tail" if "first" in training else "whole"


def measured(model: nn.Sequential, data: Data, graph: str) -> dict[str, Any]:
    """What the clusters that ncut finds in the graph are."""
    head, tail = (model[:2], model[2:]) if graph == "tail" else (nn.Identity(), model)

    def accuracy(network: nn.Module) -> float:
        return accuracy_of(nn.Sequential(head, network), data)

    report = ncut.analyze(tail, k=data.k, shuffles=10, refine=True, threads=1)
    found = report.separate(accuracy, keep=[], chance=0.1)
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
    """Draw two networks on digits, trained plainly and for modules, whole and cut apart.

    The weights between the hidden layers, neurons sorted by the clusters that ncut finds.
    """
    import matplotlib.pyplot as plt

    data = digits()
    shown, axes = plt.subplots(2, 2, figsize=(7.2, 7.6), layout="constrained")
    names = {"none": "trained as usual", "cut-dropout, penalty 2": "trained with cut-dropout"}
    for row, (training, name) in zip(axes, names.items(), strict=True):
        model = trained(training, data, 0)
        report = ncut.analyze(model, k=data.k, shuffles=0, refine=True, threads=1)
        found = report.separate(lambda network: accuracy_of(network, data), keep=[], chance=0.1)
        weight = model[2].weight.detach().abs().numpy()
        ends = [report.labels[layer.slice] for layer in report.layers[1:3]]
        orders = [np.argsort(labels, kind="stable") for labels in ends]
        between = ends[1][:, None] != ends[0]
        for axis, matrix, score, what in (
            (row[0], weight, found.score, "whole"),
            (row[1], np.where(between, 0, weight), found.cut_score, "cut apart"),
        ):
            axis.imshow(matrix[np.ix_(orders[1], orders[0])], cmap="Greys", vmax=weight.max() / 2)
            for labels, line in ((ends[0], axis.axvline), (ends[1], axis.axhline)):
                for at in np.cumsum(np.bincount(labels[labels >= 0], minlength=data.k))[:-1]:
                    line(at - 0.5, color="tab:red", linewidth=0.8)
            axis.set_title(f"{name}, {what}: accuracy {score:.2f}", fontsize=10)
            axis.set_xticks([])
            axis.set_yticks([])
        row[0].set_ylabel("second hidden layer")
    for axis in axes[1]:
        axis.set_xlabel("first hidden layer")
    shown.savefig(path, dpi=110)


TRAININGS = (
    "none",
    "eigenvalues, 0.1",
    "partition penalty, 2",
    "cut-dropout, penalty 2",
    "cut-dropout, first layer free",
    "annealing, first layer free",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("--data", choices=("digits", "mnist"), default="digits")
    parser.add_argument("--mnist", type=Path, help="folder of MNIST's IDX files")
    parser.add_argument("--clusters", type=int, help="by default 4 of digits, 5 of MNIST")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--training", nargs="*", default=TRAININGS)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--figure", type=Path, help="draw two networks cut apart, and no table")
    given = parser.parse_args()
    if given.figure is not None:
        figure(given.figure)
        return
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
    data = digits() if given.data == "digits" else mnist(given.mnist)
    if given.clusters is not None:
        data = data._replace(k=given.clusters)
    for seed in range(given.seeds):
        for training in given.training:
            graph = graph_of(training)
            if (given.data, str(data.k), training, graph, str(seed)) in done:
                continue
            if time.monotonic() - started > given.seconds:
                return
            values = measured(trained(training, data, seed), data, graph)
            row = {"data": given.data, "training": training, "graph": graph, "seed": seed}
            row |= {"k": data.k, **values}
            rounded = {k: f"{v:.4f}" if isinstance(v, float) else v for k, v in row.items()}
            with given.table.open("a", newline="") as file:
                csv.DictWriter(file, FIELDS, lineterminator="\n").writerow(rounded)
            print(*rounded.values(), flush=True)


if __name__ == "__main__":
    main()
