"""Train networks with and without a clusterability penalty; measure them unpruned and pruned.

    python scripts/regularized_training.py FOLDER OUT.csv --network small-mlp --penalty eigenvalues
        --weight 0.05 [--runs 10] [--epochs 10] [--pruning-epochs 10] [--images 60000] ...
    python scripts/regularized_training.py OUT.csv --summary

FOLDER holds the four IDX files of MNIST or Fashion-MNIST (the small MLP: of MNIST); its name is the
data set's. Run r has seed r: a network is trained and measured, then trained further while it is
pruned from 50 to 90 percent, and measured again. Both rows are appended to OUT.csv together;
existing runs are not repeated. `--summary` prints a table in Markdown, means and standard
deviations over runs. The paper's own table of its regularizer is `ncut paper run 1`.
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
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

import ncut
from ncut.paper import datasets, networks
from ncut.paper.datasets import Data
from ncut.paper.training import evaluate
from ncut.training import PartitionRegularizer, SoftCutRegularizer
from ncut.training.normalize import Normalization

INITIAL_SPARSITY, FINAL_SPARSITY, STEPS_BETWEEN_MASKS = 0.5, 0.9, 10
K = 12
"""Clusters of the soft and of the fixed partitions."""

CONVENTIONS = ("l2", "balanced")
"""Scales of neurons under which Z is measured too; see docs/verdict.md."""

SIGNIFICANT = 0.02
"""Limit below which a p-value from 50 shuffles means that none was as clusterable."""

BATCHES = {"small-mlp": 128, "mlp": 128, "cnn": 64}

SETTINGS = ("network", "data", "penalty", "weight", "eigenvalues", "normalize", "batch_norm",
            "epochs", "pruning_epochs", "images", "k", "shuffles")  # fmt: skip
RESULTS = ("ncut", "shuffled_mean", "shuffled_std", "z_score", "p_value", "lambda_2", "lambda_3",
           "lambda_4", "train_accuracy", "running_accuracy", "test_accuracy",
           "seconds", "z_l2", "z_balanced", "z_bound")  # fmt: skip
COLUMNS = (*SETTINGS, "seed", "pruned", *RESULTS)

PENALTIES = ("none", "eigenvalues", "soft-cut", "partition")

Row = dict[str, str]
Term = Callable[[], Tensor]
Action = Callable[[], None]


def load(folder: Path, network: str, n_images: int) -> Data:
    """The first `n_images` for training and the whole test set, as the network reads them."""
    name = "fashion" if "fashion" in folder.resolve().name.lower() else "mnist"
    if network == "small-mlp":
        name = "mnist-7x7"
    return datasets.load(name, folder, n_images, flat=network != "cnn")


def build(network: str, batch_norm: bool) -> nn.Sequential:
    """The paper's network; with batch norms if requested, in CNNs after convolutions."""
    model = networks.build("small-cnn" if network == "cnn" else network)
    kind = nn.Conv2d if network == "cnn" else nn.Linear
    return nn.Sequential(*_normed(model, kind)) if batch_norm else model


def _normed(model: nn.Sequential, kind: type[nn.Module]) -> Iterator[nn.Module]:
    *hidden, last = model
    for module in hidden:
        yield module
        if isinstance(module, kind):
            norm = nn.BatchNorm2d if isinstance(module, nn.Conv2d) else nn.BatchNorm1d
            yield norm(len(module.weight), eps=1e-3, momentum=0.01)
    yield last


def make_penalty(
    name: str, model: nn.Module, weight: float, eigenvalues: Sequence[int], seed: int
) -> Term | None:
    """The penalty added to the loss, as a function without arguments."""
    if name == "none":
        return None
    if name == "eigenvalues":
        return ncut.EigenvalueRegularizer(model, eigenvalues, weight, seed=seed)
    if name == "soft-cut":
        return SoftCutRegularizer(model, K, weight, seed=seed)
    if name == "partition":
        return PartitionRegularizer(model, K, weight)
    raise ValueError(f"unknown penalty {name!r}")


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
        order = torch.randperm(len(data.targets), generator=generator)
        for chosen in torch.split(order, batch):
            for action in actions:
                action()
            labels = data.targets.index_select(0, chosen)
            outputs = model(data.inputs.index_select(0, chosen))
            loss = functional.cross_entropy(outputs, labels)
            if penalty is not None:
                loss = loss + penalty()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            hits += (outputs.detach().argmax(1) == labels).sum()
    return float(hits) / len(data.targets)


def before_batches(model: nn.Sequential, normalize: str, n_steps: int | None) -> list[Action]:
    """The actions before each batch: normalize, and with a number of steps renew masks."""
    actions: list[Action] = [Normalization(model).apply_] if normalize == "paper" else []
    if n_steps is not None:
        pruning = ncut.PolynomialPruning(
            model,
            end_step=n_steps - 1,
            initial_sparsity=INITIAL_SPARSITY,
            final_sparsity=FINAL_SPARSITY,
            every=STEPS_BETWEEN_MASKS,
        )
        actions.append(pruning.step)
    return actions


def measured(
    model: nn.Sequential, data: Data, running: float, seconds: float, arguments: argparse.Namespace
) -> dict[str, float]:
    """The figures of a row."""
    _, train_accuracy = evaluate(model, data.inputs, data.targets)
    _, test_accuracy = evaluate(model, data.test_inputs, data.test_targets)
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
        n_steps = epochs * math.ceil(len(data.targets) / batch) if pruned else None
        actions = before_batches(model, arguments.normalize, n_steps)
        running = train(
            model, data, penalty, actions, epochs=epochs, batch=batch, generator=generator
        )
        seconds = time.perf_counter() - start
        figures.append(measured(model, data, running, seconds, arguments))
    return figures


def settings(arguments: argparse.Namespace, data: str) -> Row:
    """The columns of a row that hold its settings."""
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
    """Train every weight and seed that the file lacks."""
    torch.set_num_threads(arguments.threads)
    name = arguments.folder.resolve().name
    data = load(arguments.folder, arguments.network, arguments.images)
    arguments.images = len(data.targets)
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
    """A table in Markdown, a line for each setting."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in (*SETTINGS, "pruned")), []).append(row)
    lines = [
        "| Network | Data | Penalty | Weight | Normalized | Images, epochs | Pruned | Runs | N-cut "
        "| Shuffled n-cuts | Z | Significant | lambda 2, 3, 4 | Train acc. | Test acc. |",
        "|" + "---|" * 15,
    ]
    lines += map(_summary_line, groups.values())
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
        choices=("paper", "none"),
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
