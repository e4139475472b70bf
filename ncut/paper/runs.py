"""The numbers of single networks, to and from `TABLE-runs.csv`.

The file has a line for each network of a table, with everything that the table needs: a later run
with these files trains only the networks that they lack.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ncut.errors import InputError
from ncut.files import reading, regular_file
from ncut.paper.datasets import n_examples
from ncut.paper.recipes import Recipe
from ncut.paper.records import Analysis, Record
from ncut.paper.tables import IMAGENET, Row, TrainedRow, rows_of
from ncut.report import Report

RUNS = "-runs.csv"
"""Ending of the files with a line for each network."""

_FROM_RECIPE = (
    "network", "data", "regularization", "epochs", "pruning_epochs", "procedure", "precision",
)  # fmt: skip
_FLOATS = ("train_accuracy", "test_accuracy", "train_loss", "test_loss", "seconds")
_WHOLES = ("images", "data_checksum")
_TRUTH = {"yes": True, "no": False}


@dataclass(frozen=True)
class Run:
    """One network of a row."""

    seed: int
    ncut: float
    shuffled_mean: float | None
    shuffled_std: float | None
    z_score: float | None
    p_value: float | None
    below_all: bool
    """True if its n-cut lies below the n-cuts of all its shuffles."""
    metrics: dict[str, Any]


RecordedRuns = dict[tuple[Recipe, str, Analysis, int], Run]
"""Networks by recipe, phase, analysis and seed."""


def run_of(record: Record, row: Row) -> Run:
    """The numbers of a trained and measured network."""
    report = record.report(row.phase, row.analysis)
    return run_from(record.seed, report, record.metrics(row.phase))


def run_from(seed: int, report: Report, metrics: dict[str, Any]) -> Run:
    """The numbers of a report."""
    n_shuffles = report.n_shuffles
    return Run(
        seed,
        report.ncut,
        report.shuffled_mean if n_shuffles else None,
        report.shuffled_std if n_shuffles else None,
        report.z_score if n_shuffles else None,
        report.p_value if n_shuffles else None,
        bool(n_shuffles and report.ncut < min(report.shuffled_ncuts)),
        metrics,
    )


def settings_of(table: str, row: Row) -> dict[str, Any]:
    """The first cells of a line: the row, its recipe and its analysis."""
    published = row.published
    recipe = row.recipe if isinstance(row, TrainedRow) else None
    how = {name: None if recipe is None else getattr(recipe, name) for name in _FROM_RECIPE}
    if recipe is None:
        how |= {"network": published.network, "data": published.dataset}
    return {
        "table": table,
        "row": published.row,
        **how,
        "max_images": None if recipe is None else recipe.images,
        "phase": row.phase,
        "k": row.analysis.k,
        "shuffles": row.analysis.shuffles,
    }


def cells_of(run: Run) -> dict[str, Any]:
    """The other cells of a network's line."""
    return {
        "seed": run.seed,
        "ncut": run.ncut,
        "shuffled_mean": run.shuffled_mean,
        "shuffled_std": run.shuffled_std,
        "z_score": run.z_score,
        "p_value": run.p_value,
        "below_all": run.below_all,
        **{name: run.metrics.get(name) for name in (*_FLOATS, *_WHOLES, "original_data")},
    }


def read_runs(folder: Path) -> RecordedRuns:
    """The networks of all tables' `TABLE-runs.csv` in a folder, except pretrained ones.

    Networks that were trained on data other than the published ones are left out.

    Raises
    ------
    InputError
        If the folder has no such file, or a file is damaged.
    """
    paths = sorted(folder.glob(f"*{RUNS}"))
    if not paths:
        raise InputError(f"records: {folder} has no file TABLE{RUNS} of an earlier run")
    return {
        (row.recipe, row.phase, row.analysis, run.seed): run
        for path in paths
        for row, run in read_lines(path)
        if row.recipe.images is not None or _saw_all(row.recipe.data, run.metrics)
    }


def read_lines(path: Path) -> list[tuple[TrainedRow, Run]]:
    """The networks of one `TABLE-runs.csv`, except pretrained ones, and their rows.

    Raises
    ------
    InputError
        If the file is damaged.
    """
    try:
        with reading(path, "a table of networks", InputError):
            text = regular_file(path, InputError).read_text(encoding="utf-8")
            if not text:
                raise InputError("is empty")
            lines = csv.DictReader(text.splitlines())
            return [(_row(line), _run(line)) for line in lines if line["table"] != IMAGENET]
    except InputError as error:
        raise InputError(f"records: {error}; restore it or remove it") from error


def _saw_all(data: str, metrics: dict[str, Any]) -> bool:
    """Check whether a network was trained on all of the published data; untrained networks pass."""
    return bool(metrics.get("original_data", metrics.get("images") in (None, n_examples(data))))


def _row(line: dict[str, str]) -> TrainedRow:
    """The published row, with the recipe and the analysis of the line."""
    row = next(
        row
        for row in rows_of(line["table"])
        if (str(row.published.row), row.phase) == (line["row"], line["phase"])
    )
    recipe = replace(
        row.recipe,
        network=line["network"],
        data=line["data"],
        regularization=line["regularization"],
        epochs=int(line["epochs"]),
        pruning_epochs=int(line["pruning_epochs"]),
        procedure=line["procedure"],
        precision=line["precision"],
        images=int(line["max_images"]) if line.get("max_images") else None,
    )
    analysis = replace(row.analysis, k=int(line["k"]), shuffles=int(line["shuffles"]))
    return replace(row, recipe=recipe, analysis=analysis)


def _run(line: dict[str, str]) -> Run:
    metrics: dict[str, Any] = {name: float(line[name]) for name in _FLOATS if line[name]}
    # Files of earlier versions have neither checksums nor "original_data" and "max_images".
    metrics |= {name: int(line[name]) for name in _WHOLES if line.get(name)}
    if line.get("original_data"):
        metrics["original_data"] = _TRUTH[line["original_data"]]
    mean, std, z_score, p_value = (
        float(line[name]) if line[name] else None
        for name in ("shuffled_mean", "shuffled_std", "z_score", "p_value")
    )
    return Run(
        int(line["seed"]),
        float(line["ncut"]),
        mean,
        std,
        z_score,
        p_value,
        _TRUTH[line["below_all"]],
        metrics,
    )
