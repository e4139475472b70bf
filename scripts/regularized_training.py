"""Train networks with and without a clusterability penalty; measure them unpruned and pruned.

    python scripts/regularized_training.py FOLDER OUT.csv --network small-mlp --penalty eigenvalues
        --weight 0.05 [--runs 10] [--epochs 10] [--pruning-epochs 10] [--images 60000] ...
    python scripts/regularized_training.py OUT.csv --summary

FOLDER holds the four IDX files of MNIST or of a data set like it; its name is the data set's. Run
r has seed r: a network is trained and measured, then trained on while it is pruned from 50 to 90
percent, and measured again. Both rows are appended to OUT.csv together; runs that are there are
not repeated. `--summary` prints a table in Markdown, means and standard deviations over runs, with
the published figures where the settings are those of the paper's table 1.

Table 1 is `--network small-mlp`, once `--penalty none` and once `--penalty eigenvalues --weight
0.05`: the authors' gradient is half the true one, so that their weight of 0.1 is 0.05 here. Their
networks without penalty are not normalized; those with it are, before each batch. While pruning,
their normalization took the norm of the weights times the pruning threshold, instead of times the
mask: `--normalize authors` does as their code did, `--normalize paper` as the paper says.
Source: Filan et al. (2021), section 4.1, appendices A.2, A.9, A.10, and the code published with it.
"""

from __future__ import annotations

import argparse
import csv
import io
import itertools
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from torch import Tensor, nn
from torch.nn import functional
from train_cnn import read_idx

import ncut
from ncut.training.normalize import Normalization
from ncut.training.partitions import PartitionRegularizer, SoftCutRegularizer

INITIAL_SPARSITY, FINAL_SPARSITY, STEPS_BETWEEN_MASKS = 0.5, 0.9, 10
K = 12
"""Clusters of the soft and of the fixed partitions."""

CONVENTIONS = ("l2", "balanced")
"""Scales of neurons under which Z is measured too; see docs/verdict.md."""

SIGNIFICANT = 0.02
"""Below it a p-value from 50 shuffles says that none was as clusterable."""

BATCHES = {"small-mlp": 128, "mlp": 128, "cnn": 64}
WIDTHS = {"small-mlp": (49, 64, 64, 64, 10), "mlp": (784, 256, 256, 256, 256, 10)}

SETTINGS = ("network", "data", "penalty", "weight", "eigenvalues", "normalize", "batch_norm",
            "epochs", "pruning_epochs", "images", "k", "shuffles")  # fmt: skip
RESULTS = ("ncut", "shuffled_mean", "shuffled_std", "z_score", "p_value", "lambda_2", "lambda_3",
           "lambda_4", "train_accuracy", "running_accuracy", "test_accuracy",
           "seconds", "z_l2", "z_balanced", "z_bound")  # fmt: skip
COLUMNS = (*SETTINGS, "seed", "pruned", *RESULTS)

TABLE_1 = {
    ("none", "no"): (10.020, 10.035, 0.030, "2/10", 0.955, 0.957),
    ("none", "yes"): (7.11, 7.43, 0.12, "4/10", 0.930, 0.934),
    ("eigenvalues", "no"): (8.93, 8.14, 0.23, "1/10", 0.961, 0.959),
    ("eigenvalues", "yes"): (5.51, 6.31, 0.20, "7/10", 0.888, 0.896),
}
"""By penalty and pruning: n-cut, the shuffles' mean and standard deviation, significant networks,
training accuracy (the running mean of the last epoch) and test accuracy."""

PENALTIES = ("none", "eigenvalues", "soft-cut", "partition")

Row = dict[str, str]
Term = Callable[[], Tensor]
Action = Callable[[], None]


@dataclass(frozen=True)
class Data:
    """Images and labels, all in memory."""

    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def load(folder: Path, network: str, n_images: int) -> Data:
    """The first `n_images` for training and the whole test set, as the network reads them."""
    images, tests = (read_idx(folder, f"{part}-images") for part in ("train", "t10k"))
    labels, test_labels = (
        torch.tensor(read_idx(folder, f"{part}-labels")).long() for part in ("train", "t10k")
    )
    return Data(
        shaped(images[:n_images], network), labels[:n_images], shaped(tests, network), test_labels
    )


def shaped(images: np.ndarray, network: str) -> Tensor:
    """Images of bytes as numbers in [0, 1], resized and flattened as the network needs them."""
    numbers = torch.tensor(images).float().div(255)
    if network == "cnn":
        return numbers[:, None]
    if network == "small-mlp":
        rows = torch.tensor(resizing(numbers.shape[1], 7)).float()
        numbers = rows @ numbers @ rows.T
    return numbers.flatten(1)


def resizing(n: int, n_out: int) -> np.ndarray:
    """The matrix (n_out, n) that resizes one axis as scikit-image's `resize` does.

    A Gaussian of standard deviation (factor - 1) / 2 against aliasing, then linear interpolation.
    """
    factor = n / n_out
    smooth = gaussian_filter1d(np.eye(n), (factor - 1) / 2, axis=0, mode="mirror")
    centres = (np.arange(n_out) + 0.5) * factor - 0.5
    left = np.floor(centres).astype(int)
    share = (centres - left)[:, None]
    resized: np.ndarray = (1 - share) * smooth[left] + share * smooth[left + 1]
    return resized


def build(network: str, batch_norm: bool) -> nn.Sequential:
    """The network as Keras initializes it: Glorot's uniform weights, biases of zero."""
    model = nn.Sequential(*(_cnn(batch_norm) if network == "cnn" else _mlp(network, batch_norm)))
    for module in model:
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            assert module.bias is not None
            nn.init.zeros_(module.bias)
    return model


def _mlp(network: str, batch_norm: bool) -> Iterator[nn.Module]:
    *hidden, last = WIDTHS[network]
    for n_in, n_out in itertools.pairwise(hidden):
        yield nn.Linear(n_in, n_out)
        if batch_norm:
            yield nn.BatchNorm1d(n_out, eps=1e-3, momentum=0.01)
        yield nn.ReLU()
    yield nn.Linear(hidden[-1], last)


def _cnn(batch_norm: bool) -> Iterator[nn.Module]:
    for n_in, pooled in ((1, False), (64, True), (64, True)):
        yield nn.Conv2d(n_in, 64, 3, padding=1)
        if batch_norm:
            yield nn.BatchNorm2d(64, eps=1e-3, momentum=0.01)
        yield nn.ReLU()
        if pooled:
            yield nn.MaxPool2d(2)
    yield from (nn.Flatten(), nn.Linear(64 * 49, 128), nn.ReLU(), nn.Linear(128, 10))


def make_penalty(
    name: str, model: nn.Module, weight: float, eigenvalues: Sequence[int], seed: int
) -> Term | None:
    """What is added to the loss, as a function without arguments."""
    if name == "none":
        return None
    if name == "eigenvalues":
        return ncut.EigenvalueRegularizer(model, eigenvalues, weight, seed=seed)
    if name == "soft-cut":
        return SoftCutRegularizer(model, K, weight, seed=seed)
    if name == "partition":
        return PartitionRegularizer(model, K, weight)
    raise ValueError(f"unknown penalty {name!r}")


def make_normalization(name: str, model: nn.Sequential, pruned: bool) -> Action | None:
    """What is done to the weights before each batch."""
    if name == "none":
        return None
    if name == "authors" and pruned:
        return ThresholdNormalization(model)
    return Normalization(model).apply_


class ThresholdNormalization:
    """The normalization of the authors' code while it prunes, for networks of linear layers.

    Incoming weights w and bias b of a hidden neuron are divided by sqrt(|c w|^2 + b^2) / sqrt(2),
    where c is the layer's pruning threshold when its mask was last renewed, 0 before the first.
    """

    def __init__(self, model: nn.Sequential) -> None:
        if any(isinstance(module, nn.Conv2d) for module in model):
            raise ValueError("--normalize authors: their code normalizes only linear layers")
        self.layers = [module for module in model if isinstance(module, nn.Linear)]
        self.thresholds = [0.0] * len(self.layers)

    def read_thresholds(self) -> None:
        """The magnitude of the smallest weight of each layer that its mask leaves."""
        self.thresholds = [
            float(_original(layer).detach().abs()[_mask(layer) > 0].min()) for layer in self.layers
        ]

    @torch.no_grad()
    def __call__(self) -> None:
        for number, (layer, following) in enumerate(itertools.pairwise(self.layers)):
            weight, bias = _original(layer), layer.bias
            norms = (weight * _mask(layer)).norm(dim=1)
            divisors = torch.hypot(self.thresholds[number] * norms, bias) / math.sqrt(2)
            # Like theirs: a neuron whose norm is 0 loses its outgoing weights.
            _original(following).mul_(divisors)
            divisors = torch.where(divisors > 0, divisors, 1.0)
            weight.div_(divisors[:, None])
            bias.div_(divisors)


def _original(layer: nn.Linear) -> Tensor:
    """The weights of a layer under its mask."""
    return layer.get_parameter("weight_orig")


def _mask(layer: nn.Linear) -> Tensor:
    return layer.get_buffer("weight_mask")


def train(
    model: nn.Sequential,
    data: Data,
    penalty: Term | None,
    actions: Sequence[Action],
    *,
    epochs: int,
    batch: int,
    generator: torch.Generator,
) -> float:
    """Train with a fresh Adam, the actions before each batch.

    Returns the accuracy while training, its mean over the last epoch: what Keras reports.
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-7)
    model.train()
    hits = torch.zeros(())
    for _ in range(epochs):
        hits.zero_()
        order = torch.randperm(len(data.labels), generator=generator)
        for chosen in torch.split(order, batch):
            for action in actions:
                action()
            labels = data.labels.index_select(0, chosen)
            outputs = model(data.images.index_select(0, chosen))
            loss = functional.cross_entropy(outputs, labels)
            if penalty is not None:
                loss = loss + penalty()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            hits += (outputs.detach().argmax(1) == labels).sum()
    return float(hits) / len(data.labels)


@torch.no_grad()
def accuracy(model: nn.Sequential, images: Tensor, labels: Tensor) -> float:
    model.eval()
    parts = zip(torch.split(images, 1000), torch.split(labels, 1000), strict=True)
    return sum(int((model(x).argmax(1) == y).sum()) for x, y in parts) / len(labels)


def pruning_actions(model: nn.Sequential, normalize: str, n_steps: int) -> tuple[Action, ...]:
    """What is done before each batch of the second training: normalize, renew masks."""
    pruning = ncut.PolynomialPruning(
        model,
        end_step=n_steps - 1,
        initial_sparsity=INITIAL_SPARSITY,
        final_sparsity=FINAL_SPARSITY,
        every=STEPS_BETWEEN_MASKS,
    )
    normalization = make_normalization(normalize, model, pruned=True)
    if not isinstance(normalization, ThresholdNormalization):
        return (pruning.step,) if normalization is None else (normalization, pruning.step)
    step = 0

    def renew() -> None:
        nonlocal step
        pruning.step()
        if step % STEPS_BETWEEN_MASKS == 0:
            normalization.read_thresholds()
        step += 1

    return normalization, renew


def measured(
    model: nn.Sequential, data: Data, running: float, seconds: float, arguments: argparse.Namespace
) -> dict[str, float]:
    """The figures of a row."""
    train_accuracy = accuracy(model, data.images, data.labels)
    test_accuracy = accuracy(model, data.test_images, data.test_labels)
    report, *others = (
        ncut.analyze(
            model,
            k=arguments.k,
            shuffles=arguments.shuffles,
            seed=arguments.seed,
            threads=arguments.threads,
            normalize=convention,
        )
        for convention in ("none", *CONVENTIONS)
    )
    values = (report.ncut, report.shuffled_mean, report.shuffled_std, report.z_score,
              report.p_value, *report.eigenvalues[1:4], train_accuracy, running, test_accuracy,
              seconds, *(other.z_score for other in others),
              report.statistics["lower_bound"].z_score)  # fmt: skip
    return {
        name: math.nan if value is None else float(value)
        for name, value in zip(RESULTS, values, strict=True)
    }


def run(data: Data, arguments: argparse.Namespace) -> list[dict[str, float]]:
    """The figures of one network, unpruned and pruned."""
    torch.manual_seed(arguments.seed)
    generator = torch.Generator().manual_seed(arguments.seed)
    batch = BATCHES[arguments.network]
    model = build(arguments.network, arguments.batch_norm)
    penalty = make_penalty(
        arguments.penalty, model, arguments.weight, arguments.eigenvalues, arguments.seed
    )
    figures = []
    for pruned, epochs in ((False, arguments.epochs), (True, arguments.pruning_epochs)):
        if pruned and epochs == 0:
            break
        start = time.perf_counter()
        actions: tuple[Action, ...]
        if pruned:
            n_steps = epochs * math.ceil(len(data.labels) / batch)
            actions = pruning_actions(model, arguments.normalize, n_steps)
        else:
            normalization = make_normalization(arguments.normalize, model, pruned=False)
            actions = () if normalization is None else (normalization,)
        running = train(
            model, data, penalty, actions, epochs=epochs, batch=batch, generator=generator
        )
        seconds = time.perf_counter() - start
        figures.append(measured(model, data, running, seconds, arguments))
    return figures


def settings(arguments: argparse.Namespace, data: str) -> Row:
    """The columns of a row that say what was done."""
    without = arguments.penalty == "none"
    numbers = " ".join(map(str, arguments.eigenvalues))
    values = (arguments.network, data, arguments.penalty, "0" if without else arguments.weight,
              numbers if arguments.penalty == "eigenvalues" else "", arguments.normalize,
              "yes" if arguments.batch_norm else "no", arguments.epochs, arguments.pruning_epochs,
              arguments.images, arguments.k, arguments.shuffles)  # fmt: skip
    return {name: str(value) for name, value in zip(SETTINGS, values, strict=True)}


def read_rows(path: Path) -> list[Row]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def append(path: Path, rows: Sequence[Row]) -> None:
    """Append rows in one write, so that other processes may append to the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x") as file:
            file.write(",".join(COLUMNS) + "\n")
    except FileExistsError:
        pass
    with path.open(newline="") as file:
        columns = next(csv.reader(file))
    text = io.StringIO()
    csv.DictWriter(text, columns, lineterminator="\n", extrasaction="ignore").writerows(rows)
    with path.open("a") as file:
        file.write(text.getvalue())


def train_all(arguments: argparse.Namespace) -> None:
    """Train what is not yet in the file: every weight, every seed."""
    torch.set_num_threads(arguments.threads)
    name = arguments.folder.resolve().name
    data = load(arguments.folder, arguments.network, arguments.images)
    arguments.images = len(data.labels)
    weights = arguments.weights if arguments.penalty != "none" else [0.0]
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.runs)
    for seed, weight in itertools.product(seeds, weights):
        one = argparse.Namespace(**vars(arguments) | {"seed": seed, "weight": weight})
        key = settings(one, name) | {"seed": str(seed)}
        if any(key.items() <= row.items() for row in read_rows(arguments.out)):
            continue
        rows = [
            key | {"pruned": pruned} | {name: f"{value:.6g}" for name, value in found.items()}
            for pruned, found in zip(("no", "yes"), run(data, one), strict=False)
        ]
        append(arguments.out, rows)
        for row in rows:
            print(_line(row), flush=True)


def _line(row: Row) -> str:
    return (
        f"seed {row['seed']}, {row['penalty']} {row['weight']}, pruned {row['pruned']}: "
        f"n-cut {row['ncut']}, shuffled {row['shuffled_mean']} +- {row['shuffled_std']}, "
        f"p {row['p_value']}, test accuracy {row['test_accuracy']}, {row['seconds']} s"
    )


def summary(rows: Sequence[Row]) -> str:
    """A table in Markdown, a line for each setting, those of table 1 followed by the paper's."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in (*SETTINGS, "pruned")), []).append(row)
    lines = [
        "| Network | Data | Penalty | Weight | Normalized | Images, epochs | Pruned | Runs | N-cut "
        "| Shuffled n-cuts | Z | Significant | lambda 2, 3, 4 | Train acc. | Test acc. |",
        "|" + "---|" * 15,
    ]
    for group in groups.values():
        lines.append(_summary_line(group))
        published = _published(group[0])
        if published:
            lines.append(published)
    return "\n".join(lines)


def _summary_line(group: Sequence[Row]) -> str:
    first = group[0]
    n_significant = sum(float(row["p_value"]) < SIGNIFICANT for row in group)
    network = first["network"] + (" with batch norm" if first["batch_norm"] == "yes" else "")
    penalty = f"{first['penalty']} {first['eigenvalues']}".strip()
    eigenvalues = ", ".join(f"{_mean(group, f'lambda_{n}'):.4f}" for n in (2, 3, 4))
    cells = (
        network, first["data"], penalty, first["weight"], first["normalize"],
        f"{first['images']}, {first['epochs']} + {first['pruning_epochs']}", first["pruned"],
        str(len(group)), _spread(group, "ncut"),
        f"{_mean(group, 'shuffled_mean'):.3f} ± {_mean(group, 'shuffled_std'):.3f}",
        _spread(group, "z_score", 2), f"{n_significant}/{len(group)}", eigenvalues,
        _spread(group, "running_accuracy", 4), _spread(group, "test_accuracy", 4),
    )  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def _published(row: Row) -> str | None:
    """Table 1's line for these settings, if they are the paper's."""
    weight = {"none": 0.0, "eigenvalues": 0.05}.get(row["penalty"])
    plain = row["penalty"] == "none"
    same = (
        (row["network"], row["data"]) == ("small-mlp", "mnist")
        and (row["k"], row["shuffles"]) == ("12", "50")
        and (row["epochs"], row["pruning_epochs"], row["images"]) == ("10", "10", "60000")
        and row["batch_norm"] == "no"
        and float(row["weight"]) == weight
        and (row["normalize"] == "none") == plain
        and row["eigenvalues"] == ("" if plain else "2 3 4")
    )  # fmt: skip
    if not same:
        return None
    cut, mean, std, significant, train_acc, test_acc = TABLE_1[row["penalty"], row["pruned"]]
    cells = ("*published, table 1*", "", "", "", "", "", row["pruned"], "10", f"{cut}",
             f"{mean} ± {std}", "", significant, "", f"{train_acc}", f"{test_acc}")  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def _mean(group: Sequence[Row], column: str) -> float:
    return statistics.fmean(float(row[column]) for row in group)


def _spread(group: Sequence[Row], column: str, digits: int = 3) -> str:
    """Mean and standard deviation over runs."""
    values = [float(row[column]) for row in group]
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{deviation}"


def parsed(command_line: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", help="the four IDX files")
    parser.add_argument("out", type=Path, help="the CSV file")
    parser.add_argument("--network", choices=BATCHES, default="small-mlp")
    parser.add_argument("--penalty", default="none", choices=PENALTIES)
    parser.add_argument("--weight", type=float, nargs="+", default=[0.05], dest="weights")
    parser.add_argument("--eigenvalues", type=int, nargs="+", default=[2, 3, 4])
    parser.add_argument(
        "--normalize",
        choices=("paper", "authors", "none"),
        help="before each batch; by default paper with a penalty, none without",
    )
    parser.add_argument("--batch-norm", action="store_true")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--pruning-epochs", type=int, default=10)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--k", type=int, default=12)
    parser.add_argument("--shuffles", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--summary", action="store_true", help="print the table of OUT.csv")
    arguments = parser.parse_args(command_line)  # fmt: skip
    if arguments.normalize is None:
        arguments.normalize = "none" if arguments.penalty == "none" else "paper"
    if arguments.folder is None and not arguments.summary:
        parser.error("FOLDER is missing")
    return arguments


def main() -> None:
    arguments = parsed()
    if arguments.folder is not None:
        train_all(arguments)
    if arguments.summary:
        sys.stdout.write(summary(read_rows(arguments.out)) + "\n")


if __name__ == "__main__":
    main()
