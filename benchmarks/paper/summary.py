"""The table of tables in REPRODUCTION.md, from the committed tables of networks.

    python benchmarks/paper/summary.py [--results benchmarks/paper/results] [--rewrite] [--costs]

One line for each TABLE-runs.csv from `ncut paper run`: the number of networks, what was scaled
down, the differences of our n-cuts from the published ones with their noise, and the agreement of
conclusions. `--rewrite` also makes each TABLE.csv and TABLE.md anew from its TABLE-runs.csv.
`--costs` prints what the tables that are scaled down, or have fewer networks than the paper's,
still need.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from ncut.paper import TITLES, Deviations, TableResult
from ncut.paper.datasets import n_examples
from ncut.paper.records import UNPRUNED
from ncut.paper.results import RowResult
from ncut.paper.runs import RUNS, RecordedRuns, Run, read_lines, read_runs
from ncut.paper.tables import IMAGENET, TrainedRow, n_runs, rows_of

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
    """Return a sentence on all tables in which nothing is scaled down."""
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


def cost(result: TableResult, recorded: RecordedRuns) -> str | None:
    """Return the cost of a table of all rows and networks at full length; None if it has none.

    By the median time of an epoch in the recorded runs, training alone.
    """
    runs = [(row.row.recipe, row.row.phase, run) for row in result.rows for run in row.runs
            if isinstance(row.row, TrainedRow)]  # fmt: skip
    timed = [
        run.metrics["seconds"] / (recipe.epochs if phase == UNPRUNED else recipe.pruning_epochs)
        for recipe, phase, run in runs
        if "seconds" in run.metrics
    ]
    if not timed:
        return None
    bfloat16 = any(recipe.precision == "bfloat16" for recipe, _, _ in runs)
    rows = rows_of(result.table, Deviations(precision="bfloat16" if bfloat16 else "float32"))
    n_seeds = n_runs(rows)
    missing = {
        (row.recipe, seed)
        for row in rows
        for seed in range(n_seeds)
        if (row.recipe, row.phase, row.analysis, seed) not in recorded
    }
    if not missing:
        return None
    recipe = rows[0].recipe
    epoch = statistics.median(timed) * (n_examples(recipe.data) / runs[0][2].metrics["images"])
    hours = epoch * (recipe.epochs + recipe.pruning_epochs) / 3600
    cells = (
        result.table,
        f"{recipe.epochs} + {recipe.pruning_epochs}",
        f"{epoch:.1f}",
        f"{hours:.2f}",
        f"{len(missing)} of {len({row.recipe for row in rows}) * n_seeds}",
        f"{len(missing) * hours:.1f}",
        "`--precision bfloat16`" if bfloat16 else "",
    )
    return f"| {' | '.join(cells)} |"


COSTS = ("Table", "Epochs", "Seconds per epoch", "Core hours per network", "Networks missing",
         "Core hours in all", "Option")  # fmt: skip


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
    parser.add_argument("--costs", action="store_true")
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
    if arguments.costs:
        recorded = read_runs(arguments.results)
        print(f"\n| {' | '.join(COSTS)} |\n|{'---|' * len(COSTS)}")
        print("\n".join(filter(None, (cost(result, recorded) for result in results))))


if __name__ == "__main__":
    main()
