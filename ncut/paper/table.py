"""run_table(): a table of the paper from data to a CSV file, resumable."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ncut.errors import InputError
from ncut.paper import running
from ncut.paper.imagenet import measure_files
from ncut.paper.records import Record, keep
from ncut.paper.results import RowResult, TableResult
from ncut.paper.runs import RUNS, RecordedRuns, Run, read_runs, run_of
from ncut.paper.tables import (
    AS_PUBLISHED,
    IMAGENET,
    Deviations,
    TrainedRow,
    check_table,
    n_runs,
    rows_of,
)
from ncut.paper.training import device_named

NEAR_ZERO = 0.5
"""Limit of an n-cut for k = 12. The authors retrained L2-regularized networks below it, since a few
disconnected neurons are no sign of clusterability."""

MOST_TRIES = 3
"""Largest number of trained networks per wanted network."""

WorkCallback = Callable[[float, float], None]


def run_table(
    table: str,
    *,
    data: str | Path,
    out: str | Path,
    runs: int | None = None,
    options: Deviations = AS_PUBLISHED,
    jobs: int | None = None,
    device: str = "cpu",
    records: str | Path | None = None,
    weights: Mapping[str, str | Path] | None = None,
    progress: WorkCallback | None = None,
) -> TableResult:
    """Train, measure and compare the networks of a table; existing results are kept.

    Parameters
    ----------
    table : str
        The table's name, such as "A.6", "1" or "figure A.1"; see `TITLES`.
    data : path
        A folder with the published data sets in subfolders (mnist, fashion-mnist,
        cifar-10-batches-bin), or the folder of the only data set needed.
    out : path
        The folder for a record of each network, and for the table as `tables/TABLE.csv`,
        `TABLE-runs.csv` and `TABLE.md`. Several tables, and successive calls, may share it.
    runs : int or None
        Networks per row; None: as many as in the paper.
    options : Deviations
        Deviations from the paper: epochs, shuffles, images, procedure, precision.
    jobs : int or None
        Networks trained in parallel, each on one thread; None: one per core.
    device : {"cpu", "cuda", "cuda:N"}
        The device for training; networks are measured on the CPU.
    records : path or None
        A folder with `TABLE-runs.csv` of earlier runs, of any tables. Networks in these files are
        neither trained nor measured again.
    weights : mapping from str to path, or None
        Only for table A.11: files of its networks, as {"VGG-16": "vgg16.pth"}.
    progress : callable or None
        Called from time to time with the finished and the total work, in any unit.

    Returns
    -------
    TableResult
        Also written to `out`.

    Raises
    ------
    InputError
        If an argument is wrong, data are missing or damaged, or a record cannot be read. Finished
        networks are kept.
    MissingExtraError
        If torch or joblib are not installed.
    """
    name = check_table(table)
    home = Path(out)
    if name == IMAGENET:
        paths = {network: Path(path) for network, path in (weights or {}).items()}
        result = measure_files(paths, home, options)
        write_table(result, home)
        return result
    rows = rows_of(name, options)
    wanted = n_runs(rows) if runs is None else runs
    if wanted < 1:
        raise InputError(f"runs: must be at least 1, got {runs}")
    if jobs is not None and jobs < 1:
        raise InputError(f"jobs: must be at least 1, got {jobs}")
    n_jobs = running.n_cores() if jobs is None else jobs
    device_named(device)
    recorded = {} if records is None else read_runs(Path(records))
    n_seeds = dict.fromkeys((row.recipe for row in rows), wanted)
    while True:
        planned = running.jobs_for(rows, n_seeds, home, recorded)
        running.run(planned, Path(data), n_jobs, progress or (lambda done, total: None), device)
        found = (_row_result(row, n_seeds[row.recipe], home, wanted, recorded) for row in rows)
        result = TableResult(name, tuple(found))
        short = {
            row.recipe
            for row, found in zip(rows, result.rows, strict=True)
            if _is_short(found, wanted) and n_seeds[row.recipe] < MOST_TRIES * wanted
        }
        if not short:
            break
        n_seeds |= {recipe: n_seeds[recipe] + 1 for recipe in short}
    write_table(result, home)
    return result


def _is_short(found: RowResult, wanted: int) -> bool:
    good = [run for run in found.runs if run.ncut >= NEAR_ZERO]
    return len(good) < wanted and "l2" in found.row.published.regularization


def write_table(result: TableResult, out: Path) -> None:
    """Write a table's three files."""
    stem = result.table.replace(" ", "-")
    for ending, text in (
        (".csv", result.to_csv()),
        (RUNS, result.runs_to_csv()),
        (".md", result.to_markdown()),
    ):
        path = out / "tables" / f"{stem}{ending}"
        keep(path, lambda part, text=text: part.write_text(text, encoding="utf-8"))  # type: ignore[misc]


def _row_result(
    row: TrainedRow, n_seeds: int, out: Path, wanted: int, recorded: RecordedRuns
) -> RowResult:
    runs = [
        recorded.get((row.recipe, row.phase, row.analysis, seed))
        or run_of(Record(out, row.recipe, seed), row)
        for seed in range(n_seeds)
    ]
    if "l2" in row.published.regularization:
        # After this many attempts, near-zero n-cuts are accepted.
        runs = [run for run in runs if run.ncut >= NEAR_ZERO] or runs
    _check_same_data(row, runs)
    return RowResult(row, tuple(runs[:wanted]))


def _check_same_data(row: TrainedRow, runs: Sequence[Run]) -> None:
    """Raise if the networks of a row, recorded or trained, saw different data."""
    checksums = {run.metrics.get("data_checksum") for run in runs} - {None}
    if len(checksums) > 1:
        raise InputError(
            f"records: the recorded networks of row {row.published.row} were trained on data other "
            "than --data's; name the data they were trained on, or leave out --records"
        )
