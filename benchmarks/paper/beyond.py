"""The paper's networks under every statistic, convention of scale and null model.

    ncut paper run A.5 A.6 A.7 A.13 A.16 A.18 A.19 A.20 A.21 --runs 1 --data DATA --out RECORDS
    python benchmarks/paper/beyond.py RECORDS results/beyond.csv [--runs 1] [--tables A.5 A.6 ...]
    python benchmarks/paper/beyond.py RECORDS results/beyond.csv --summary

Each trained network of these tables, before and after pruning, is measured by `ncut.verdict`; its
cells are appended to the CSV file, and networks in the file are not measured again. The summary
shows for each of the paper's conclusions the combinations under which it holds.
"""

from __future__ import annotations

import argparse
import csv
import io
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

import ncut
from ncut.paper.measure import graph_options
from ncut.paper.records import Record
from ncut.paper.tables import TrainedRow, rows_of
from ncut.paper.training import network_of

TABLES = ("A.5", "A.6", "A.7", "A.13", "A.16", "A.18", "A.19", "A.20", "A.21")
COMBINATIONS = {
    "as the paper": ("spectral_ncut", "none", "layer"),
    "l2": ("spectral_ncut", "l2", "layer"),
    "balanced": ("spectral_ncut", "balanced", "layer"),
    "layer-nonzero": ("spectral_ncut", "none", "layer-nonzero"),
    "strength": ("spectral_ncut", "none", "strength"),
    "refined n-cut": ("refined_ncut", "none", "layer"),
    "lower bound": ("lower_bound", "none", "layer"),
    "lower bound, l2": ("lower_bound", "l2", "layer"),
    "lower bound, balanced": ("lower_bound", "balanced", "layer"),
}
"""Statistic, convention of scale and null model of the summary's columns."""

COLUMNS = ("table", "row", "data", "regularization", "phase", "seed", "statistic", "normalize",
           "null", "value", "mean", "z_score", "p_value")  # fmt: skip

Line = dict[str, str]


@dataclass(frozen=True)
class Claim:
    """A conclusion of the paper: the first kind of network has a lower Z than the second.

    Without a second kind: its networks are more clusterable than their shuffles (Z < 0).
    """

    text: str
    first: dict[str, str]
    second: dict[str, str] | None = None


PRUNED = {"phase": "pruned"}
CLAIMS = (
    Claim("pruned networks, no regularization: more clusterable than shuffles",
          PRUNED | {"table": "A.5 A.6", "regularization": "none"}),
    Claim("pruned networks, dropout: more clusterable than shuffles",
          PRUNED | {"table": "A.5 A.6", "regularization": "dropout"}),
    Claim("unpruned networks, no regularization: more clusterable than shuffles",
          {"phase": "unpruned", "table": "A.5 A.6", "regularization": "none"}),
    Claim("dropout promotes relative clusterability (pruned)",
          PRUNED | {"table": "A.5 A.6", "regularization": "dropout"},
          PRUNED | {"table": "A.5 A.6", "regularization": "none"}),
    Claim("L1 costs relative clusterability (pruned; the claim is none below L1)",
          PRUNED | {"table": "A.5 A.6", "regularization": "none"},
          PRUNED | {"table": "A.5 A.6", "regularization": "l1"}),
    Claim("halves-diff more relatively clusterable than halves-same (pruned)",
          PRUNED | {"table": "A.7", "data": "mnist-halves-diff fashion-halves-diff"},
          PRUNED | {"table": "A.7", "data": "mnist-halves-same fashion-halves-same"}),
    Claim("clusterable initialization: more clusterable than shuffles (pruned)",
          PRUNED | {"table": "A.13"}),
    Claim("clusterable initialization promotes relative clusterability (pruned)",
          PRUNED | {"table": "A.13"},
          PRUNED | {"table": "A.5 A.6", "regularization": "none"}),
    Claim("memorized random images: more clusterable than shuffles (pruned, no dropout)",
          PRUNED | {"table": "A.18", "regularization": "none"}),
    Claim("memorization more than no learning at all (pruned, no dropout)",
          PRUNED | {"table": "A.18", "regularization": "none"},
          PRUNED | {"table": "A.16", "regularization": "none"}),
    Claim("polynomial regression: more clusterable than shuffles (pruned, no regularization)",
          PRUNED | {"table": "A.19", "regularization": "none"}),
)  # fmt: skip
"""Values that a line may have are separated by spaces."""


def measure_all(records: Path, out: Path, tables: Sequence[str], runs: int) -> None:
    done = {tuple(line[name] for name in COLUMNS[:6]) for line in read(out)}
    seen = set()
    for table in tables:
        for row in rows_of(table):
            for seed in range(runs):
                record = Record(records, row.recipe, seed)
                key = (table, str(row.published.row), row.recipe.data, row.recipe.regularization,
                       row.phase, str(seed))  # fmt: skip
                same = (record, row.phase)
                if key in done or same in seen or not record.has(row.phase):
                    continue
                seen.add(same)
                append(out, [dict(zip(COLUMNS, (*key, *cell), strict=True))
                             for cell in cells(record, row)])  # fmt: skip
                print(*key, flush=True)


def cells(record: Record, row: TrainedRow) -> Iterator[tuple[str, ...]]:
    """Statistic, convention, null model and numbers of each cell of a network's verdict."""
    model = network_of(record, row.phase)
    found = ncut.verdict(model, seed=record.seed, threads=1, **graph_options(row.recipe))
    for cell in found.cells:
        numbers = (cell.value, cell.mean, cell.z_score, cell.p_value)
        texts = ("" if number is None else f"{number:.5g}" for number in numbers)
        yield (cell.statistic, cell.normalize, cell.null, *texts)


def read(path: Path) -> list[Line]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def append(path: Path, lines: Sequence[Line]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    if not path.exists():
        writer.writeheader()
    writer.writerows(lines)
    with path.open("a") as file:
        file.write(text.getvalue())


def summary(lines: Sequence[Line]) -> str:
    """A table in Markdown: for each conclusion, the numbers behind it in each combination."""
    rows = [
        "| Conclusion | " + " | ".join(COMBINATIONS) + " |",
        "|" + "---|" * (len(COMBINATIONS) + 1),
    ]
    for claim in CLAIMS:
        shown = [_shown(claim, lines, *combination) for combination in COMBINATIONS.values()]
        rows.append(f"| {claim.text} | " + " | ".join(shown) + " |")
    return "\n".join(rows)


def _shown(claim: Claim, lines: Sequence[Line], statistic: str, scale: str, null: str) -> str:
    cell = {"statistic": statistic, "normalize": scale, "null": null}
    first = _scores(lines, claim.first | cell)
    if not first:
        return ""
    if claim.second is None:
        mark = "yes" if all(score < 0 for score in first) else "**no**"
        return f"{mark} ({statistics.median(first):+.1f})"
    second = _scores(lines, claim.second | cell)
    if not second:
        return ""
    a, b = statistics.median(first), statistics.median(second)
    return f"{'yes' if a < b else '**no**'} ({a:+.1f}, {b:+.1f})"


def _scores(lines: Sequence[Line], wanted: dict[str, str]) -> list[float]:
    """The Z-scores of all lines that have these values."""
    return [
        float(line["z_score"])
        for line in lines
        if line["z_score"] and all(line[name] in value.split() for name, value in wanted.items())
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("records", type=Path, help="the --out of ncut paper run")
    parser.add_argument("out", type=Path, help="the CSV file")
    parser.add_argument("--tables", nargs="+", default=TABLES)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--summary", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.summary:
        print(summary(read(arguments.out)))
    else:
        measure_all(arguments.records, arguments.out, arguments.tables, arguments.runs)


if __name__ == "__main__":
    main()
