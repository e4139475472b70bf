"""The table of tables in REPRODUCTION.md, from the committed results.

    python benchmarks/paper/summary.py [--results benchmarks/paper/results]

One line for each table's CSV file from `ncut paper run`: the number of networks, what was scaled
down, the differences of our n-cuts from the published ones, and the agreement of conclusions.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from pathlib import Path

from ncut.paper import TITLES
from ncut.paper.tables import AS_PUBLISHED, IMAGENET, rows_of

HEAD = ("Table", "What", "Networks per row, ours (paper)", "Scaled down",
        "Difference of n-cuts, median (largest), in std", "Difference of shuffled means, largest",
        "Conclusions as published", "Order of rows as published")  # fmt: skip

Row = dict[str, str]


def line(table: str, rows: list[Row]) -> str:
    differences = [abs(float(row["difference_in_std"])) for row in rows if row["difference_in_std"]]
    shuffled = [
        abs(float(row["shuffled_mean"]) - float(row["published_shuffled_mean"]))
        for row in rows
        if row["shuffled_mean"] and row["published_shuffled_mean"]
    ]
    agrees = [row["agrees"] for row in rows if row["agrees"]]
    cells = (
        table,
        TITLES[table],
        f"{_range(rows, 'runs')} ({_range(rows, 'published_runs')})",
        scaled_down(table, rows),
        f"{statistics.median(differences):.1f} ({max(differences):.1f})" if differences else "",
        f"{max(shuffled):.2f}" if shuffled else "",
        f"{agrees.count('yes')} of {len(agrees)}" if agrees else "none published",
        order(rows),
    )
    return f"| {' | '.join(cells)} |"


def _range(rows: list[Row], column: str) -> str:
    values = sorted({int(row[column]) for row in rows})
    return "/".join(map(str, values))


def scaled_down(table: str, rows: list[Row]) -> str:
    """Deviations from the paper: rows left out, epochs, examples, precision."""
    if table == IMAGENET:
        return "one network; HED's fine-tuned copy of it"
    whole = {row.published.row: row.recipe for row in rows_of(table, AS_PUBLISHED)}
    parts = []
    epochs = {
        f"{row['epochs']} + {row['pruning_epochs']} epochs"
        for row in rows
        if int(row["epochs"]) != whole[int(row["row"])].epochs
        or int(row["pruning_epochs"]) != whole[int(row["row"])].pruning_epochs
    }
    if epochs:
        recipe = next(iter(whole.values()))
        parts.append(f"{', '.join(sorted(epochs))} of {recipe.epochs} + {recipe.pruning_epochs}")
    if any(row["precision"] == "bfloat16" for row in rows):
        parts.append("bfloat16")
    n_rows = len(rows_of(table, AS_PUBLISHED))
    if len(rows) < n_rows:
        parts.append(f"{len(rows)} of {n_rows} rows")
    if any(row["data"] == "cifar10" and row["images"] == "10000" for row in rows):
        parts.append("a fifth of the training images")
    return "; ".join(parts) or "nothing"


def order(rows: list[Row]) -> str:
    known = [
        (float(row["ncut"]), float(row["published_ncut"])) for row in rows if row["published_ncut"]
    ]
    pairs = [(a, b) for i, a in enumerate(known) for b in known[i + 1 :]]
    if not pairs:
        return ""
    same = sum((a[0] - b[0]) * (a[1] - b[1]) > 0 for a, b in pairs)
    return f"{same} of {len(pairs)} pairs"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    folder = parser.parse_args().results
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    for table in TITLES:
        path = folder / f"{table.replace(' ', '-')}.csv"
        if path.exists():
            with path.open(newline="") as file:
                print(line(table, list(csv.DictReader(file))))


if __name__ == "__main__":
    main()
