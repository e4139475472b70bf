"""Networks of earlier runs, from the tables that were kept of them: nothing is trained again."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path

import pytest

from ncut.errors import InputError

pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
from paper_data import write_all

from ncut.paper import Deviations, run_table
from ncut.paper.datasets import load, n_examples
from ncut.paper.figures import save_table
from ncut.paper.results import RowResult, TableResult
from ncut.paper.runs import Run, read_runs
from ncut.paper.tables import TITLES, rows_of

KEPT = Path(__file__).parents[2] / "benchmarks" / "paper" / "results"

TINY = Deviations(epochs_scale=0.001, shuffles=2, images=64)

METRICS = {
    "train_accuracy": 0.75, "test_accuracy": 0.5, "train_loss": 1.5, "test_loss": 2.5,
    "seconds": 12.25, "images": 60_000, "original_data": True, "data_checksum": 123,
}  # fmt: skip


def a_run(seed, **metrics):
    return Run(seed, 8.5 + seed, 9.0, 0.125, -4.0, 0.25, True, METRICS | metrics)


def keep(folder, result):
    folder.mkdir(exist_ok=True)
    path = folder / f"{result.table.replace(' ', '-')}-runs.csv"
    path.write_text(result.runs_to_csv())
    return path


def table_of(name, runs, options=None):
    rows = rows_of(name, options or Deviations())
    return TableResult(name, tuple(RowResult(row, tuple(runs)) for row in rows))


def lines_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# --- from files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["1", "A.2", "A.18", "A.19", "figure A.6"])
def test_networks_come_back_with_their_recipes_and_numbers(name, tmp_path):
    runs = [a_run(0), a_run(3)]
    options = Deviations(0.5, shuffles=7, procedure="text", precision="bfloat16")
    rows = rows_of(name, options)
    runs = [replace(run, metrics=run.metrics | {"images": n_examples(rows[0].recipe.data)})
            for run in runs]  # fmt: skip
    keep(tmp_path, table_of(name, runs, options))
    found = read_runs(tmp_path)
    expected = {(row.recipe, row.phase, row.analysis, run.seed): run
                for row in rows for run in runs}  # fmt: skip
    assert found == expected


def test_untrained_networks_have_no_metrics(tmp_path):
    run = Run(5, 10.5, None, None, None, None, False, {})
    keep(tmp_path, table_of("figure A.3", [run]))
    (row,) = rows_of("figure A.3")
    assert read_runs(tmp_path) == {(row.recipe, "initial", row.analysis, 5): run}


def test_networks_of_fewer_examples_are_not_those_of_all(tmp_path):
    """For every number of examples of a mixture."""
    options = Deviations(images=500)
    for n in (500, 1000, 60_000):
        keep(tmp_path, table_of("A.20", [a_run(0, images=n, original_data=False)], options))
        found = read_runs(tmp_path)
        assert {key[0] for key in found} == {row.recipe for row in rows_of("A.20", options)}
        assert not {key[0] for key in found} & {row.recipe for row in rows_of("A.20")}


def test_networks_of_other_than_the_published_data_do_not_count(tmp_path):
    runs = [a_run(0, original_data=False), a_run(1), a_run(2, original_data=None),
            a_run(3, original_data=None, images=10_000)]  # fmt: skip
    keep(tmp_path, table_of("A.5", runs))
    assert {key[3] for key in read_runs(tmp_path)} == {1, 2}


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text.replace("A.5", "A.99"),
        lambda text: text.replace("\nA.5,1,", "\nA.5,17,"),
        lambda text: text.replace("unpruned", "unpruned,"),
        lambda text: text[: len(text) * 2 // 3 - 60],
        lambda text: text.replace("8.5", "much"),
        lambda text: text.replace("authors", "author"),
        lambda text: text.replace("yes", "maybe"),
        lambda text: text + "\0",
    ],
)
def test_a_damaged_file_is_refused_by_name(damage, tmp_path):
    path = keep(tmp_path, table_of("A.5", [a_run(0)]))
    path.write_text(damage(path.read_text()))
    with pytest.raises(InputError, match=f"^records: {re.escape(str(path))}: .*restore it"):
        read_runs(tmp_path)


@pytest.mark.parametrize("folder", ["empty", "missing"])
def test_a_folder_without_tables_is_refused(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"records: .* has no file TABLE-runs\.csv"):
        run_table("A.5", data=tmp_path, out=tmp_path, records=tmp_path / folder)


# --- whole tables -------------------------------------------------------------------------------


def kept_tables():
    """Tables of all rows, trained on all data, for as long as in the paper or not."""
    for name in TITLES:
        path = KEPT / f"{name.replace(' ', '-')}.csv"
        if name not in ("A.8", "A.9", "A.10", "A.11", "A.15"):
            yield pytest.param(path, id=name)


@pytest.mark.parametrize("path", list(kept_tables()))
def test_a_kept_table_is_made_again_without_data_or_training(path, tmp_path):
    expected = lines_of(path)
    first = expected[0]
    usual = rows_of(first["table"])[0].recipe
    options = Deviations(
        epochs_scale=int(first["epochs"]) / usual.epochs if usual.epochs else 1.0,
        precision=first["precision"],
    )
    run_table(
        first["table"], data=tmp_path / "no data", out=tmp_path, runs=int(first["runs"]),
        options=options, records=KEPT,
    )  # fmt: skip
    assert {each.name for each in tmp_path.iterdir()} == {"tables"}
    found = lines_of(tmp_path / "tables" / path.name)
    for line, wanted in zip(found, expected, strict=True):
        assert line.keys() == wanted.keys()
        for name, cell in wanted.items():
            if re.fullmatch(r"-?\d.*\..*", cell):
                assert float(line[name]) == pytest.approx(float(cell), rel=1e-4, abs=1e-4), name
            else:
                assert line[name] == cell, name


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_all(folder)
    return folder


def test_only_missing_networks_are_trained(data, tmp_path):
    def run(out, runs, **changes):
        return run_table(
            "A.16", data=data, out=tmp_path / out, runs=runs, options=TINY, jobs=1, **changes
        )

    whole = run("whole", 2)
    run("first", 1)
    found = run("second", 2, records=tmp_path / "first" / "tables")
    trained = {path.name for path in (tmp_path / "second" / "networks").glob("*/*")}
    assert trained == {"run-1"}
    for a, b in zip(found.rows, whole.rows, strict=True):
        assert [run.seed for run in a.runs] == [0, 1]
        assert [run.ncut for run in a.runs] == pytest.approx([run.ncut for run in b.runs], rel=1e-5)
    # The new table of networks holds them all.
    run("third", 2, records=tmp_path / "second" / "tables")
    assert not (tmp_path / "third" / "networks").exists()


def test_networks_without_the_measurement_asked_for_are_trained_again(data, tmp_path):
    run_table("A.5", data=data, out=tmp_path / "first", runs=1, options=TINY, jobs=1)
    run_table(
        "A.2", data=data, out=tmp_path / "second", runs=1, options=TINY, jobs=1,
        records=tmp_path / "first" / "tables",
    )  # fmt: skip
    found = list((tmp_path / "second" / "networks").glob("*/run-0/pruned.safetensors"))
    assert len(found) == 4


def test_recorded_networks_of_other_data_are_not_mixed_with_new_ones(data, tmp_path):
    run_table("A.16", data=data, out=tmp_path / "first", runs=1, options=TINY, jobs=1)
    path = tmp_path / "first" / "tables" / "A.16-runs.csv"
    path.write_text(path.read_text().replace(lines_of(path)[0]["data_checksum"], "17"))
    with pytest.raises(InputError, match=r"records: the recorded networks of row 1 .* other"):
        run_table(
            "A.16", data=data, out=tmp_path / "second", runs=2, options=TINY, jobs=1,
            records=path.parent,
        )  # fmt: skip


@pytest.mark.parametrize("name", ["figure 1", "figure A.6"])
def test_drawings_of_weights_need_them(name, tmp_path):
    result = run_table(name, data=tmp_path, out=tmp_path, runs=1, records=KEPT)
    with pytest.raises(InputError, match=f"figures: {name} is drawn from a network's weights"):
        save_table(result, tmp_path)


@pytest.mark.parametrize("name", ["random", "random-3000", "lines", "polynomial"])
def test_sizes_of_whole_synthetic_data_sets(name, tmp_path):
    """Sizes of the other sets are in the stored tables, which are reproduced above."""
    assert len(load(name, tmp_path).targets) == n_examples(name)
