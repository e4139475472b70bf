"""`ncut paper` from data files to tables: a miniature of every table, killed and resumed."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from paper_data import write_all, write_idx_set
from typer.testing import CliRunner

from ncut.cli import app
from ncut.errors import InputError
from ncut.paper import TITLES, Deviations, run_table
from ncut.paper.imagenet import ARCHITECTURES
from ncut.paper.tables import published, rows_of

TINY = Deviations(epochs_scale=0.001, shuffles=2, images=16)
ARGUMENTS = ("--runs", "1", "--epochs-scale", "0.001", "--shuffles", "2", "--images", "16")

TABLES = [table for table in TITLES if table != "A.11"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_all(folder)
    return folder


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared by all tables, as a user would: networks of A.1 to A.4 are those of A.5 and A.6."""
    return tmp_path_factory.mktemp("out")


def invoke(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["paper", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return f"{result.exit_code}: {result.output}"


# Regularized networks that have hardly been trained lose neurons as pruning begins.
@pytest.mark.filterwarnings("ignore:the regularizer is cutting the network apart")
@pytest.mark.filterwarnings("ignore:the network was in parts before the regularizer")
@pytest.mark.usefixtures("narrow_vgg")
@pytest.mark.parametrize("table", TABLES)
def test_miniature_of_every_table(table: str, data: Path, out: Path) -> None:
    result = run_table(table, data=data, out=out, runs=1, options=TINY, jobs=1)
    expected = [row for row in published() if row.table == table]
    assert [row.row.published for row in result.rows] == expected
    with (out / "tables" / f"{table.replace(' ', '-')}.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(expected)
    for row, wanted in zip(rows, expected, strict=True):
        assert row["runs"] == "1"
        assert 0 <= float(row["ncut"]) <= wanted.k
        if wanted.ncut is not None:
            assert float(row["published_ncut"]) == pytest.approx(wanted.ncut)
        if wanted.variant != "initialization":
            assert 0 < float(row["shuffled_mean"]) <= wanted.k
            assert row["images"] == {"lines-mnist": "32"}.get(row["data"], row["images"])
            measured = "train_loss" if row["data"] == "polynomial" else "train_accuracy"
            assert float(row[measured]) >= 0
    assert result.to_markdown().startswith(f"### {'Figure' if 'figure' in table else 'Table'}")


def test_tables_of_other_numbers_of_clusters_train_nothing_new(data: Path, out: Path) -> None:
    for table in ("A.5", "A.6"):
        run_table(table, data=data, out=out, runs=1, options=TINY, jobs=1)
    before = {path: path.stat().st_mtime_ns for path in out.glob("networks/*/*/*.safetensors")}
    for table in ("A.1", "A.2"):
        run_table(table, data=data, out=out, runs=1, options=TINY, jobs=1)
    after = {path: path.stat().st_mtime_ns for path in out.glob("networks/*/*/*.safetensors")}
    assert before == after


def test_more_runs_add_networks_and_keep_those_that_are_there(data: Path, tmp_path: Path) -> None:
    def run(runs: int) -> list[float]:
        result = run_table("A.16", data=data, out=tmp_path, runs=runs, options=TINY, jobs=1)
        return [run.ncut for row in result.rows for run in row.runs]

    two = run(2)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("networks/*/*/*")}
    three = run(3)
    assert [cut for i, cut in enumerate(three) if i % 3 < 2] == two
    assert all(path.stat().st_mtime_ns == when for path, when in times.items())
    # Two recipes, trained three times each, in two phases.
    assert len(list(tmp_path.glob("networks/*/*/*.safetensors"))) == 12


def test_several_networks_side_by_side_give_the_same_numbers(data: Path, tmp_path: Path) -> None:
    texts = []
    for jobs in (1, 2):
        out = tmp_path / str(jobs)
        result = run_table("A.13", data=data, out=out, runs=1, options=TINY, jobs=jobs)
        texts.append([(run.ncut, run.shuffled_mean) for row in result.rows for run in row.runs])
    assert texts[0] == texts[1]


def test_killed_in_the_middle_and_resumed(data: Path, tmp_path: Path) -> None:
    """The table is the same to the last digit as one that was never killed."""
    command = ["run", "A.7", *ARGUMENTS, "--no-figures", "--data", str(data), "--jobs", "1"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = subprocess.Popen(
        [sys.executable, "-m", "ncut", "paper", *command, "--out", str(killed)],
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not list(killed.glob("networks/*/*/pruned.json")) and time.monotonic() < deadline:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    finished = {path: path.read_bytes() for path in killed.glob("networks/*/*/*.json")}
    assert finished
    assert not (killed / "tables" / "A.7.csv").exists()
    for out in (killed, whole):
        assert invoke(*command, "--out", out).startswith("0: ")
    assert all(path.read_bytes() == content for path, content in finished.items())
    assert (killed / "tables" / "A.7.csv").read_text() == (whole / "tables" / "A.7.csv").read_text()
    assert not list(killed.rglob("*.part"))


def test_figures_of_single_networks_are_drawn_from_their_records(
    data: Path, tmp_path: Path
) -> None:
    options = (*ARGUMENTS, "--data", data, "--out", tmp_path, "--jobs", 1)
    assert invoke("run", "figure 1", "fig A.6", *options).startswith("0: ### Figure 1: A pruned")
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {
        "figure-1.png", "figure-A.6.png"
    }  # fmt: skip
    reports = {path.name for path in tmp_path.glob("networks/*/run-0/*-k12-*.json")}
    assert reports == {
        "pruned-k12-layer-none-2.json", "pruned-k12-layer-nonzero-none-2.json"
    }  # fmt: skip


def test_command_prints_the_table_and_writes_its_files(data: Path, tmp_path: Path) -> None:
    output = invoke("run", "A.6", *ARGUMENTS, "--data", data, "--out", tmp_path, "--jobs", 1)
    assert output.startswith("0: ### Table A.6: MLPs on Fashion-MNIST")
    assert "not the whole published data set" in output
    assert "8.110 ± 0.087" in output
    names = {path.name for path in (tmp_path / "tables").iterdir()}
    assert names == {"A.6.csv", "A.6-runs.csv", "A.6.md"}
    assert {path.name for path in (tmp_path / "figures").iterdir()} >= {"A.6.png"}
    with (tmp_path / "tables" / "A.6-runs.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 8


def test_list_names_every_table_and_what_it_needs() -> None:
    output = invoke("list")
    for table, title in TITLES.items():
        assert f"{table} " in output
        assert title in output
    (line,) = [line for line in output.splitlines() if line.startswith("A.7 ")]
    assert "MNIST, Fashion-MNIST" in line


def test_a_folder_of_the_four_files_alone(tmp_path: Path) -> None:
    write_idx_set(tmp_path / "here", gz=True)
    result = run_table(
        "A.6", data=tmp_path / "here", out=tmp_path / "out", runs=1, options=TINY, jobs=1
    )
    assert len(result.rows) == 8


def test_wrong_data_name_the_needed_files_and_keep_results(data: Path, tmp_path: Path) -> None:
    options = (*ARGUMENTS, "--no-figures", "--jobs", 1)
    for folder in (tmp_path / "nowhere", tmp_path):
        output = invoke("run", "A.5", *options, "--data", folder, "--out", tmp_path / "o")
        assert output.startswith("1: ncut: error: data: ")
        assert "train-images-idx3-ubyte" in output
        assert "https://" in output
    run_table("A.16", data=data, out=tmp_path / "out", runs=1, options=TINY, jobs=1)
    damaged = tmp_path / "damaged"
    write_idx_set(damaged)
    (damaged / "train-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01\0\0\0\x05abc")
    output = invoke("run", "A.20", *options, "--data", damaged, "--out", tmp_path)
    assert output.startswith("1: ncut: error: data: ")
    assert "train-labels-idx1-ubyte" in output
    assert "a25bea736e30d166cdddb491f175f624" in output
    assert list((tmp_path / "out").glob("networks/*/*/pruned.json"))


def test_networks_of_other_data_are_not_taken_for_these(data: Path, tmp_path: Path) -> None:
    write_idx_set(tmp_path / "other" / "fashion-mnist", seed=99)
    run_table("A.6", data=data, out=tmp_path, runs=1, options=TINY, jobs=1)
    for path in tmp_path.glob("networks/*/*/pruned.json"):
        path.unlink()
    with pytest.raises(InputError, match="trained on other data"):
        run_table("A.6", data=tmp_path / "other", out=tmp_path, runs=1, options=TINY, jobs=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("A.99",), "table: must be one of 1, A.1"),
        (("A.5", "--epochs-scale", "0"), "epochs_scale: must be above 0"),
        (("A.5", "--procedure", "mine"), "procedure: must be one of authors, text"),
        (("A.5", "--weights", "VGG-16=x.pth"), "--weights: has no effect"),
        (("A.11", "--weights", "VGG-16"), "--weights: must be like VGG-16=vgg16.pth"),
        (("A.11",), "weights: table A.11 measures networks from files"),
        (("A.11", "--weights", "VGG-99=x.pth"), "weights: must be for VGG-16"),
        (("A.11", "--weights", "VGG-16=missing.pth"), "does not exist"),
    ],
)
def test_wrong_arguments(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    output = invoke("run", *arguments, "--no-figures", "--out", tmp_path)
    assert output.startswith("1: ncut: error: ")
    assert message in output


def vgg_state(random: np.random.Generator) -> dict[str, np.ndarray]:
    """A VGG-16's convolutions as torchvision names them, with few channels."""
    widths = (3, 4, 4, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8)
    numbers = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    state = {}
    for number, n_in, n_out in zip(numbers, widths, widths[1:], strict=False):
        state[f"features.{number}.weight"] = random.standard_normal((n_out, n_in, 3, 3)).astype("f")
        state[f"features.{number}.bias"] = np.zeros(n_out, "f")
    return state


def test_imagenet_networks_from_files(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    path = tmp_path / "vgg16.safetensors"
    save_file(vgg_state(np.random.default_rng(7)), path)
    output = invoke(
        "run", "A.11", "--weights", f"VGG-16={path}", "--shuffles", 3, "--out", tmp_path,
        "--no-figures",
    )  # fmt: skip
    assert output.startswith("0: ### Table A.11")
    assert "Weights from vgg16.safetensors; norm of a kernel column-sum." in output
    assert "7.800" in output
    (kept,) = (tmp_path / "imagenet").iterdir()
    before = kept.stat().st_mtime_ns
    run_table(
        "A.11",
        data="unused",
        out=tmp_path,
        weights={"VGG-16": path},
        options=Deviations(shuffles=3),
    )
    assert kept.stat().st_mtime_ns == before
    assert set(ARCHITECTURES) == {row.network for row in published() if row.table == "A.11"}


def test_l2_networks_with_a_near_zero_ncut_are_trained_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in the paper; here every n-cut below the best counts as near zero."""
    from ncut.paper import table as tables

    def l2_seeds(threshold: float, out: Path) -> list[list[int]]:
        monkeypatch.setattr(tables, "NEAR_ZERO", threshold)
        result = run_table("A.5", data=data, out=out, runs=1, options=TINY, jobs=1)
        rows = [row for row in result.rows if row.row.published.regularization == "l2"]
        return [[run.seed for run in row.runs] for row in rows]

    assert l2_seeds(0.5, tmp_path) == [[0], [0]]
    assert l2_seeds(12.0, tmp_path) == [[0], [0]]
    recipes = {row.recipe for row in rows_of("A.5", TINY) if row.recipe.regularization == "l2"}
    (recipe,) = recipes
    assert len(list((tmp_path / "networks" / recipe.slug()).iterdir())) == tables.MOST_TRIES
