"""The paper's tables: their published rows, and the required training and measurements."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources

from ncut.arguments import check_choice
from ncut.errors import InputError
from ncut.paper.networks import NETWORKS
from ncut.paper.recipes import Recipe
from ncut.paper.records import INITIAL, PRUNED, UNPRUNED, Analysis
from ncut.types import Null

SHUFFLES = 50
"""Default number of shuffles if the paper uses none, except for untrained networks."""

TITLES = {
    "1": "The clusterability regularizer: MLPs 49-64-64-64-10 on 7 x 7 MNIST",
    "A.1": "MLPs, k = 4",
    "A.2": "MLPs, k = 7",
    "A.3": "MLPs, k = 10",
    "A.4": "MLPs, k = 2",
    "A.5": "MLPs on MNIST",
    "A.6": "MLPs on Fashion-MNIST",
    "A.7": "MLPs on halves data sets",
    "A.8": "Small CNNs on MNIST",
    "A.9": "Small CNNs on Fashion-MNIST",
    "A.10": "VGGs on CIFAR-10",
    "A.11": "ImageNet models, from weight files",
    "A.12": "Small CNNs on stack data sets",
    "A.13": "MLPs, clusterably initialized",
    "A.14": "Small CNNs, clusterably initialized",
    "A.15": "VGGs, clusterably initialized",
    "A.16": "MLPs on random images: unlearnable",
    "A.17": "MLPs on random images: 1000 epochs",
    "A.18": "MLPs on random images: memorization of 3,000",
    "A.19": "MLPs on polynomial regression",
    "A.20": "MLPs on LINES, MNIST and mixtures, without dropout",
    "A.21": "MLPs on LINES, MNIST and mixtures, with dropout",
    "figure A.1": "MLPs at initialization",
    "figure A.2": "Small CNNs at initialization",
    "figure A.3": "VGGs at initialization",
    "figure A.6": "Pruned MLPs against shuffles that keep their topology, and against others",
    "figure 1": "A pruned MLP, drawn in its clusters",
}

IMAGENET = "A.11"
"""The table of pretrained networks, which are read from files."""

NULLS: tuple[Null, ...] = ("layer", "layer-nonzero")
"""The null models that a row's variant may name; the paper's usual one first."""

EPOCHS = {"kilo-epoch": (1000, 20), "memorization": (100, 100), "initialization": (0, 0)}
"""Epochs that differ from the network's usual numbers."""


@dataclass(frozen=True)
class Published:
    """A row of a published table; None: not in the paper.

    Attributes
    ----------
    ncut, ncut_std : float or None
        Mean of the networks' n-cuts and their standard deviation; `std_from` is "paper", or "code"
        where it is computed from the results per network in the authors' repository.
    shuffled_mean, shuffled_std : float or None
        Averages over networks of the mean and standard deviation over a network's shuffles.
    significant : int or None
        Networks that are more clusterable than all their shuffles, among `runs`.
    low, high : float or None
        The range of n-cuts, for untrained networks.
    """

    table: str
    row: int
    network: str
    dataset: str
    regularization: str
    variant: str
    pruned: str
    k: int
    shuffles: int | None
    runs: int
    ncut: float | None
    ncut_std: float | None
    std_from: str
    shuffled_mean: float | None
    shuffled_std: float | None
    significant: int | None
    train_accuracy: float | None
    test_accuracy: float | None
    train_loss: float | None
    test_loss: float | None
    low: float | None
    high: float | None

    @property
    def label(self) -> str:
        """The row in words."""
        what = self.variant if self.variant not in ("", "initialization") else ""
        parts = (self.network, self.dataset, what, self.regularization)
        return " ".join(part for part in parts if part)


@dataclass(frozen=True)
class Row:
    """A published row, and the training phase in which its networks are measured."""

    published: Published
    phase: str
    analysis: Analysis


@dataclass(frozen=True)
class TrainedRow(Row):
    """A row of networks that are trained here."""

    recipe: Recipe


@dataclass(frozen=True)
class Deviations:
    """Deviations from the paper, for all rows of a table.

    Attributes
    ----------
    epochs_scale : float
        A factor for the numbers of epochs, which stay at least 1.
    shuffles : int or None
        Number of shuffled networks; None: the table's number.
    images : int or None
        Number of training examples; None: all.
    procedure, precision : str
        See `Recipe`.
    """

    epochs_scale: float = 1.0
    shuffles: int | None = None
    images: int | None = None
    procedure: str = "authors"
    precision: str = "float32"

    def __post_init__(self) -> None:
        if not 0 < self.epochs_scale < float("inf"):
            raise InputError(f"epochs_scale: must be above 0, got {self.epochs_scale}")
        if self.images is not None and self.images < 1:
            raise InputError(f"images: must be at least 1, got {self.images}")
        if self.shuffles is not None and self.shuffles < 1:
            raise InputError(f"shuffles: must be at least 1, got {self.shuffles}")


AS_PUBLISHED = Deviations()


@cache
def published() -> tuple[Published, ...]:
    """All rows of all tables, as published."""
    text = resources.files("ncut.paper").joinpath("published.csv").read_text("utf-8")
    return tuple(_parse(row) for row in csv.DictReader(text.splitlines()))


def _parse(row: dict[str, str]) -> Published:
    whole = {"row", "k", "shuffles", "runs"}
    words = {"table", "network", "dataset", "regularization", "variant", "pruned", "std_from"}
    values: dict[str, object] = {}
    for name, text in row.items():
        if name in words:
            values[name] = text
        elif not text:
            values[name] = None
        elif name == "significant":
            values[name] = _significant(text, int(row["shuffles"]))
        else:
            values[name] = int(text) if name in whole else float(text)
    return Published(**values)  # type: ignore[arg-type]


def _significant(text: str, shuffles: int) -> int:
    """Number of networks without shuffles below them: 4 for "4/5", 1 or 0 for a single p-value."""
    if "/" in text:
        return int(text.partition("/")[0])
    return int(round(float(text) * (shuffles + 1)) == 1)


def check_table(table: str) -> str:
    """The canonical name of a table; also accepts "a.6", "table 1" and "fig A.1"."""
    wanted = table.strip().lower().removeprefix("table ").replace("fig.", "fig")
    wanted = wanted.replace("fig ", "figure ")
    for name in TITLES:
        if name.lower() == wanted:
            return name
    return check_choice("table", table, TITLES)


def rows_of(table: str, options: Deviations = AS_PUBLISHED) -> list[TrainedRow]:
    """The rows of a table of trained networks, in the published order."""
    return [_row(each, options) for each in published() if each.table == table]


def _row(row: Published, options: Deviations) -> TrainedRow:
    network = {"small-mlp-7x7": "small-mlp", "vgg-cifar10": "vgg"}.get(row.network, row.network)
    if row.dataset == "polynomial":
        network = "polynomial-mlp"
    epochs, pruning_epochs = EPOCHS.get(row.variant, NETWORKS[network].epochs)
    recipe = Recipe(
        network,
        _data(row),
        row.regularization or "none",
        epochs,
        pruning_epochs,
        reordered=row.variant != "memorization",
        images=options.images,
        procedure=options.procedure,
        precision=options.precision,
    ).scaled(options.epochs_scale)
    if row.variant == "initialization":
        # Data and training settings do not matter here.
        recipe = replace(recipe, images=None, precision="float32")
        return TrainedRow(row, INITIAL, Analysis(row.k, 0), recipe)
    phase = PRUNED if row.pruned == "yes" else UNPRUNED
    shuffles = options.shuffles or row.shuffles or SHUFFLES
    null = next((name for name in NULLS if name == row.variant), NULLS[0])
    return TrainedRow(row, phase, Analysis(row.k, shuffles, null), recipe)


def _data(row: Published) -> str:
    if row.variant == "initialization":
        return "cifar10" if row.network == "vgg-cifar10" else "mnist"
    if row.variant == "downsampled-7x7":
        return "mnist-7x7"
    if row.variant == "memorization":
        return "random-3000"
    if row.variant.startswith(("halves", "stack")):
        return f"{row.dataset}-{row.variant}"
    return row.dataset


def n_runs(rows: Sequence[Row]) -> int:
    """Number of networks per row in the paper."""
    return max(row.published.runs for row in rows)
