"""Callbacks that log to TensorBoard, W&B, MLflow and CSV files."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from models import mlp

import ncut
from ncut.errors import InputError
from ncut.training import (
    CSVCallback,
    MLflowCallback,
    Monitor,
    TensorBoardCallback,
    WandbCallback,
)

NAMES = {"ncut/ncut", "ncut/lower_bound", "ncut/lambda_2", "ncut/lambda_3"}


class Recorder:
    """Has the methods of the three libraries, with their signatures."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def add_scalar(
        self,
        tag: str,
        scalar_value: float,
        global_step: int | None = None,
        walltime: float | None = None,
        new_style: bool = False,
    ) -> None:
        self.calls.append((tag, scalar_value, global_step))

    def log(
        self, data: dict[str, Any], step: int | None = None, commit: bool | None = None
    ) -> None:
        self.calls.append((data, step))

    def log_metrics(
        self, metrics: dict[str, float], step: int | None = None, synchronous: bool | None = None
    ) -> None:
        self.calls.append((metrics, step))


def monitor(**options: Any) -> Monitor:
    return Monitor(**({"k": 3, "shuffles": 0} | options))


def test_tensorboard_gets_scalars() -> None:
    model, recorder = mlp(9, 12, 6), Recorder()
    callback = TensorBoardCallback(recorder, monitor(), every=5)
    values = [callback(model, step) for step in range(11)]
    assert [step for step, found in enumerate(values) if found] == [0, 5, 10]
    assert set(values[0]) == NAMES
    assert recorder.calls == [
        (name, value, step) for step in (0, 5, 10) for name, value in values[step].items()
    ]
    report = ncut.analyze(model, k=3, shuffles=0)
    assert values[0]["ncut/lower_bound"] == report.lower_bound


def test_a_summary_writer_writes_them(tmp_path: Path) -> None:
    tensorboard = pytest.importorskip("torch.utils.tensorboard", reason="pip install tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with tensorboard.SummaryWriter(tmp_path) as writer:
        values = TensorBoardCallback(writer, monitor(), every=1)(mlp(9, 12, 6), 7)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    for name, value in values.items():
        (scalar,) = events.Scalars(name)
        assert (scalar.step, scalar.value) == (7, pytest.approx(value))


def test_wandb_and_mlflow_get_dictionaries() -> None:
    model = mlp(9, 12, 6)
    regularizer = ncut.EigenvalueRegularizer(model, layers={"0": 1.0, "*": 0.5})
    term = float(regularizer().detach())
    run, mlflow = Recorder(), Recorder()
    found = WandbCallback(run, monitor(), every=1, regularizer=regularizer)(model, 3)
    assert run.calls == [(found, 3)]
    assert found["ncut/regularizer/value"] == pytest.approx(term)
    MLflowCallback(mlflow, monitor(), every=1, regularizer=regularizer)(model, 4)
    ((metrics, step),) = mlflow.calls
    assert step == 4
    assert [*metrics.values()] == [*found.values()]
    # What mlflow.utils.validation allows in names of metrics.
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-. /") for name in metrics)
    assert "ncut/regularizer/value of _" in metrics


def test_alignment_is_logged_where_it_is_tested() -> None:
    model, recorder = mlp(20, 24, 24, 12), Recorder()
    options: dict[str, Any] = {"shuffles": 4, "tests": ["alignment"]}
    values = WandbCallback(recorder, monitor(**options), every=1)(model, 0)
    compared = ncut.analyze(model, k=3, **options).tests["alignment"]
    assert values["ncut/alignment_shuffled_mean"] == compared.mean
    assert values["ncut/alignment_z_score"] == compared.z_score
    assert values["ncut/alignment_p_value"] == compared.p_value


def test_a_csv_file_grows_and_is_gone_on_with(tmp_path: Path) -> None:
    model, path = mlp(9, 12, 6), tmp_path / "run.csv"
    first = CSVCallback(path, monitor(), every=2)
    found = {step: first(model, step) for step in range(3)}
    found |= {4: CSVCallback(path, monitor(), every=2)(model, 4)}
    with path.open(newline="") as file:
        rows = [*csv.DictReader(file)]
    assert [row["step"] for row in rows] == ["0", "2", "4"]
    for row in rows:
        own = found[int(row["step"])]
        assert {name: float(row[name]) for name in own} == own


def test_a_new_value_is_a_new_column_of_the_csv_file(tmp_path: Path) -> None:
    model, path = mlp(9, 12, 6), tmp_path / "run.csv"
    few = CSVCallback(path, monitor(), every=1)
    first = few(model, 0)
    with path.open("a") as file:
        file.write("1,0.5")  # cut short
    found = CSVCallback(path, monitor(shuffles=2), every=1)(model, 2)
    few(model, 3)
    with path.open(newline="") as file:
        rows = [*csv.DictReader(file)]
    assert list(rows[0]) == ["step", *first, *(name for name in found if name not in first)]
    assert found.keys() > first.keys()
    kept = [{name: float(value) for name, value in row.items() if value} for row in rows]
    assert kept[0] == {"step": 0, **first}
    assert kept[1] == {"step": 1, next(iter(first)): 0.5}
    assert kept[2] == {"step": 2, **found}
    assert kept[3].keys() == {"step", *first}
    assert [one.name for one in tmp_path.iterdir()] == ["run.csv"]


@pytest.mark.filterwarnings("ignore:measuring clusterability failed")
def test_a_failed_measurement_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "run.csv"
    assert CSVCallback(path, monitor(), every=1)("no model", 0) == {}
    assert not path.exists()


def test_bad_arguments_are_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("epoch,loss\n1,2\n")
    for make, message in (
        (lambda: CSVCallback(other), "path: .*must begin with a column 'step', got"),
        (lambda: TensorBoardCallback(3), r"writer: must have a method add_scalar\(\), got int"),
        (lambda: WandbCallback(None), r"run: must have a method log\(\)"),
        (lambda: MLflowCallback("m"), r"mlflow: must have a method log_metrics\(\)"),
        (lambda: CSVCallback(tmp_path / "a.csv", every=-1), "every: "),
        (lambda: CSVCallback(tmp_path / "a.csv", regularizer=3), r"regularizer: .*log\(\)"),
    ):
        with pytest.raises(InputError, match=f"^{message}"):
            make()
