"""Draw the results of scripts/regularized_training.py, for docs/training.md.

    python scripts/training_figures.py [FOLDER]

FOLDER, docs/training by default, holds penalties.csv and mlp.csv; it gets penalties.png (a front of
accuracy against Z for each penalty) and weights.png (n-cut, Z and accuracy against the weight).
"""

from __future__ import annotations

import csv
import statistics
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "training"
Row = dict[str, str]


def rows(path: Path) -> list[Row]:
    with path.open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["normalize"] == "none"]


def label(row: Row) -> str:
    if row["penalty"] != "eigenvalues":
        return row["penalty"]
    numbers = row["eigenvalues"].split()
    return f"eigenvalues {numbers[0]} to {numbers[-1]}"


def grouped(chosen: Iterable[Row], key: Callable[[Row], Any]) -> dict[Any, list[Row]]:
    found: dict[Any, list[Row]] = {}
    for row in chosen:
        found.setdefault(key(row), []).append(row)
    return found


def mean(group: list[Row], column: str) -> float:
    return statistics.fmean(float(row[column]) for row in group)


def fronts(measured: list[Row], path: Path) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axis, pruned in zip(axes, ("no", "yes"), strict=True):
        chosen = [row for row in measured if row["pruned"] == pruned]
        for name, ours in grouped(chosen, label).items():
            points = grouped(ours, lambda row: float(row["weight"]))
            z = [mean(group, "z_score") for group in points.values()]
            accuracy = [mean(group, "test_accuracy") for group in points.values()]
            axis.plot(z, accuracy, "*" if name == "none" else "o-", label=name, markersize=7)
            for weight, x, y in zip(points, z, accuracy, strict=True):
                if name != "none":
                    axis.annotate(f"{weight:g}", (x, y), textcoords="offset points", xytext=(4, 3))
        axis.set(
            xlabel="Z of the n-cut (left: more clusterable)",
            ylabel="test accuracy",
            title="pruned" if pruned == "yes" else "unpruned",
        )
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=110)


def curves(measured: list[Row], path: Path) -> None:
    figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    columns = (("ncut", "n-cut"), ("z_score", "Z"), ("test_accuracy", "test accuracy"))
    ours = [row for row in measured if row["penalty"] == "eigenvalues"]
    plain = [row for row in measured if row["penalty"] == "none"]
    for axis, (column, title) in zip(axes, columns, strict=True):
        series = grouped(ours, lambda row: (row["data"], label(row), row["pruned"]))
        for color, (key, group) in enumerate(series.items()):
            points = grouped(group, lambda row: float(row["weight"]))
            weights = sorted(points)
            name = f"{key[0]}, {key[1]}{', pruned' if key[2] == 'yes' else ''}"
            axis.plot(weights, [mean(points[w], column) for w in weights], "o-",
                      color=f"C{color}", label=name)  # fmt: skip
            base = [row for row in plain if (row["data"], row["pruned"]) == (key[0], key[2])]
            axis.axhline(mean(base, column), color=f"C{color}", linestyle=":", linewidth=0.8)
        axis.set(xscale="log", xlabel="weight (dotted: without)", title=title)
    axes[0].legend(fontsize=6)
    figure.savefig(path, dpi=110)


def main(folder: Path) -> None:
    fronts(rows(folder / "penalties.csv"), folder / "penalties.png")
    curves(rows(folder / "mlp.csv"), folder / "weights.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
