"""The table of tables in REPRODUCTION.md, from the committed tables of networks.

    python benchmarks/paper/summary.py [--results benchmarks/paper/results] [--rewrite]

One line for each TABLE-runs.csv from `ncut paper run`: the number of networks, what was scaled
down, the differences of our n-cuts from the published ones with their noise, and the agreement of
conclusions. `--rewrite` also makes each TABLE.csv and TABLE.md anew from its TABLE-runs.csv.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from ncut.paper import TITLES, TableResult
from ncut.paper.results import RowResult
from ncut.paper.runs import RUNS, Run, read_lines
from ncut.paper.tables import IMAGENET, TrainedRow, rows_of

HEAD = ("Table", "What", "Networks per row, ours (paper)", "Scaled down",
        "Difference of n-cuts in standard errors, median (largest)",
        "Rows that differ beyond noise (by chance)", "Half-width of the interval, median",
        "Difference of shuffled means, largest", "Conclusions as published (beyond noise)",
        "Order of rows as published (an exact reproduction)")  # fmt: skip


def read(path: Path) -> TableResult:
    """The table of a TABLE-runs.csv."""
    rows: dict[TrainedRow, list[Run]] = {}
    for row, run in read_lines(path):
        rows.setdefault(row, []).append(run)
    name = next(name for name in TITLES if f"{name.replace(' ', '-')}{RUNS}" == path.name)
    return TableResult(name, tuple(RowResult(row, tuple(runs)) for row, runs in rows.items()))


def line(result: TableResult) -> str:
    rows = result.rows
    found = [row.difference for row in rows if row.difference is not None]
    errors = [abs(each.value) / each.standard_error for each in found]
    n_beyond = sum(each.excludes_zero for each in found)
    shuffled = [
        abs(row.ours.shuffled_mean - row.published.shuffled_mean)
        for row in rows
        if row.ours.shuffled_mean is not None and row.published.shuffled_mean is not None
    ]
    agreeing, known = result.agreement()
    decided = sum(bool(row.agrees) and row.is_decided for row in rows)
    cells = (
        result.table,
        TITLES[result.table],
        f"{numbers(len(row.runs) for row in rows)} ({numbers(row.published.runs for row in rows)})",
        scaled_down(result.table, rows),
        f"{statistics.median(errors):.1f} ({max(errors):.1f})" if errors else "",
        f"{n_beyond} of {len(found)} ({0.05 * len(found):.1f})" if found else "",
        f"{statistics.median(each.half_width for each in found):.2f}" if found else "",
        f"{max(shuffled):.2f}" if shuffled else "",
        f"{agreeing} of {known} ({decided})" if known else "none published",
        order(result),
    )
    return f"| {' | '.join(cells)} |"


def numbers(values: object) -> str:
    return "/".join(map(str, sorted(set(values))))  # type: ignore[call-overload]


def scaled_down(table: str, rows: tuple[RowResult, ...]) -> str:
    """Deviations from the paper: rows left out, epochs, examples, precision."""
    whole = {(row.published.row, row.phase): row.recipe for row in rows_of(table)}
    recipes = [row.row.recipe for row in rows if isinstance(row.row, TrainedRow)]
    usual = next(iter(whole.values()))
    parts = []
    epochs = {(recipe.epochs, recipe.pruning_epochs) for recipe in recipes}
    for first, second in sorted(epochs - {(usual.epochs, usual.pruning_epochs)}):
        parts.append(f"{first} + {second} epochs of {usual.epochs} + {usual.pruning_epochs}")
    if any(recipe.precision == "bfloat16" for recipe in recipes):
        parts.append("bfloat16")
    if len(rows) < len(whole):
        parts.append(f"{len(rows)} of {len(whole)} rows")
    if any(run.metrics.get("images") == 10_000 for row in rows for run in row.runs):
        parts.append("a fifth of the training images")
    return "; ".join(parts) or "nothing"


def totals(results: list[TableResult]) -> str:
    """What the tables with nothing scaled down have in common, in a sentence."""
    whole = [each for each in results if scaled_down(each.table, each.rows) == "nothing"]
    found = [row.difference for each in whole for row in each.rows if row.difference is not None]
    agreeing, known = map(sum, zip(*(each.agreement() for each in whole), strict=True))
    same, pairs = map(sum, zip(*(each.order() for each in whole), strict=True))
    by_noise = sum(noise[0] for each in whole if (noise := each.order_by_noise()) is not None)
    return (
        f"Tables with nothing scaled down: {sum(each.excludes_zero for each in found)} of "
        f"{len(found)} rows differ beyond noise ({0.05 * len(found):.1f} by chance); {agreeing} of "
        f"{known} conclusions as published; {same} of {pairs} pairs of rows in the published order "
        f"({by_noise:.1f} in an exact reproduction)."
    )


def order(result: TableResult) -> str:
    same, pairs = result.order()
    noise = result.order_by_noise()
    if not pairs:
        return ""
    return f"{same} of {pairs}" + (f" ({noise[0]:.1f}: {noise[1]} to {noise[2]})" if noise else "")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--rewrite", action="store_true")
    arguments = parser.parse_args()
    results = []
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    for table in TITLES:
        path = arguments.results / f"{table.replace(' ', '-')}{RUNS}"
        if table == IMAGENET or not path.exists():
            continue
        result = read(path)
        results.append(result)
        print(line(result))
        if arguments.rewrite:
            stem = path.name.removesuffix(RUNS)
            (path.parent / f"{stem}.csv").write_text(result.to_csv())
            (path.parent / f"{stem}.md").write_text(result.to_markdown())
    print(f"\n{totals(results)}")


if __name__ == "__main__":
    main()
