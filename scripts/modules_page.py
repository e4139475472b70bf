"""Write the tables of docs/modules.md and docs/training.md from docs/training/modules.csv.

    python scripts/modules_page.py            # the tables between the marks of both pages
    python scripts/modules_page.py --figure   # docs/training/apart.png too; trains two networks

Each row is a training method with means over the seeds, from three seeds on with half-widths of
95 % confidence intervals of the mean (Student's t). The points lost are the accuracy of standard
training minus the row's accuracy, paired by seed.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean, stdev

from scipy.stats import t

DOCS = Path(__file__).resolve().parents[1] / "docs"
TABLE = DOCS / "training" / "modules.csv"
BEGIN, END = "<!-- table: scripts/modules_page.py {} -->\n", "<!-- end of table -->"
LEVEL = 0.95

NAMES = {
    ("digits", "4"): "digits, k = 4",
    ("digits", "2"): "digits, k = 2",
    ("mnist", "5"): "MNIST, k = 5",
    ("cifar-8x8", "4"): "CIFAR-10 at 8 × 8, k = 4",
    ("synthetic", "4"): "synthetic, k = 4",
    ("mnist-cnn", "4"): "CNN on MNIST, k = 4 (channels)",
    ("text", "4"): "transformer on text, k = 4 (blocks)",
}
LOSS = {"mnist-cnn": 1.0}
"""Allowed loss of accuracy in points, if not 0.5."""

ORDER = ("none", "eigenvalues", "partition", "cut-dropout", "annealing")

HEAD = (
    *("training", "seeds", "accuracy", "points lost", "n-cut", "shuffles", "cut apart"),
    *("share kept", "at random", "worst layer", "short of the goal in"),
)

Row = dict[str, str]
Networks = dict[tuple[str, str], dict[int, Row]]


def tables(path: Path = TABLE) -> dict[str, str]:
    """The Markdown table of each data set and k, by its name."""
    found: dict[tuple[str, str], Networks] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            networks = found.setdefault((row["data"], row["k"]), {})
            networks.setdefault((row["training"], row["graph"]), {})[int(row["seed"])] = row
    return {
        name: "\n".join([_line(HEAD), _line(["---"] * len(HEAD)), *_lines(key[0], found[key])])
        for key, name in NAMES.items()
        if key in found
    }


def _lines(data: str, networks: Networks) -> Iterator[str]:
    usual = next(rows for (training, _), rows in networks.items() if training == "none")
    order = sorted(networks.items(), key=lambda item: (ORDER.index(_kind(item[0][0])), item[0]))
    for (training, _), rows in order:
        mean = {
            name: fmean(float(row[name]) for row in rows.values())
            for name in ("ncut", "shuffled_ncut", "cut_accuracy", "random_kept", "worst_layer")
        }
        accuracy = [float(row["accuracy"]) for row in rows.values()]
        kept = [float(row["kept"]) for row in rows.values()]
        lost = [
            100 * (float(usual[seed]["accuracy"]) - float(row["accuracy"]))
            for seed, row in rows.items()
            if seed in usual
        ]
        short = {
            "n-cut": mean["ncut"] >= mean["shuffled_ncut"] / 2,
            "kept": fmean(kept) < 0.95,
            "accuracy": fmean(lost) > LOSS.get(data, 0.5),
        }
        missed = ", ".join(name for name, is_short in short.items() if is_short)
        numbers = [
            *(f"{len(rows)}", with_interval(accuracy, 3)),
            "" if training == "none" else with_interval(lost, 1),
            *(f"{mean['ncut']:.2f}", f"{mean['shuffled_ncut']:.2f}", f"{mean['cut_accuracy']:.3f}"),
            with_interval(kept, 2),
            *(with_interval([mean["random_kept"]], 2), f"{mean['worst_layer']:.1f}"),
            "" if training == "none" else missed or "nothing",
        ]
        yield _line([training.replace("eigenvalues", "eigenvalues to λk"), *numbers])


def _kind(training: str) -> str:
    return next(kind for kind in ORDER if training.startswith(kind))


def with_interval(values: list[float], digits: int) -> str:
    """Mean and half-width of its confidence interval; only the mean of fewer than three values."""
    shown = f"{round(fmean(values), digits) + 0.0:.{digits}f}"  # never -0.0
    if len(values) < 3:
        return shown
    width = t.ppf((1 + LEVEL) / 2, len(values) - 1) * stdev(values) / len(values) ** 0.5
    return f"{shown} ± {width:.{digits}f}"


def _line(cells: list[str] | tuple[str, ...]) -> str:
    return "| " + " | ".join(cells) + " |"


def written(text: str, made: dict[str, str]) -> str:
    """A page with the tables between its marks."""
    for name, table in made.items():
        begin = BEGIN.format(name)
        if begin in text:
            before, _, rest = text.partition(begin)
            text = before + begin + table + "\n" + END + rest.partition(END)[2]
    return text


def main() -> None:
    made = tables()
    for page in ("modules.md", "training.md"):
        path = DOCS / page
        path.write_text(written(path.read_text(encoding="utf-8"), made), encoding="utf-8")
    if "--figure" in sys.argv:
        from modules import figure

        figure(DOCS / "training" / "apart.png")


if __name__ == "__main__":
    main()
