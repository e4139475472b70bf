"""The example for continuous integration: a drifted model fails, an unchanged one does not."""

from __future__ import annotations

import dataclasses
import importlib.util
import shlex
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import ncut
from ncut import networks

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "github-action"


@pytest.fixture(scope="module")
def check_drift() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_drift", FOLDER / "check_drift.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["check_drift"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Reports of the pruned network and of what became of it, as files."""
    weights = networks.load("digits-pruned")
    rng = np.random.default_rng(5)
    models = {
        "baseline": ncut.analyze(weights, shuffles=30),
        "other seed": ncut.analyze(weights, shuffles=30, seed=1),
        "other training": ncut.analyze(networks.load("digits-unpruned"), shuffles=30),
        "shuffled": ncut.analyze(
            [rng.permutation(w.ravel()).reshape(w.shape) for w in weights], shuffles=30
        ),
        "other k": ncut.analyze(weights, k=8, shuffles=30),
        "other layers": ncut.analyze(weights[:-1], shuffles=30),
        "no shuffles": ncut.analyze(weights, shuffles=0),
    }
    folder = tmp_path_factory.mktemp("reports")
    for name, report in models.items():
        report.to_json(folder / f"{name}.json")
    return {name: folder / f"{name}.json" for name in models}


@pytest.mark.parametrize("now", ["baseline", "other seed"])
def test_the_same_network_has_not_drifted(
    check_drift: ModuleType,
    reports: dict[str, Path],
    now: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert check_drift.main([str(reports["baseline"]), str(reports[now])]) == 0
    assert "no drift" in capsys.readouterr().out


@pytest.mark.parametrize("now", ["shuffled", "other training"])
def test_another_network_has_drifted(
    check_drift: ModuleType,
    reports: dict[str, Path],
    now: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown = tmp_path / "summary.md"
    shown.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(shown))
    assert check_drift.main([str(reports["baseline"]), str(reports[now])]) == 1
    printed = capsys.readouterr().out
    assert "| lower_bound |" in printed
    assert "**drifted**" in printed
    assert shown.read_text() == "before\n" + printed


def test_a_shuffled_network_drifts_in_everything(
    check_drift: ModuleType, reports: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    check_drift.main([str(reports["baseline"]), str(reports["shuffled"])])
    headline = capsys.readouterr().out.splitlines()[0]
    for name in ("ncut", "refined_ncut", "lower_bound", "z_score", "p_value"):
        assert name in headline


def test_tolerances_forgive(check_drift: ModuleType, reports: dict[str, Path]) -> None:
    wide = ["--tolerance", "1", "--z-tolerance", "2", "--level", "1"]
    assert check_drift.main([str(reports["baseline"]), str(reports["shuffled"]), *wide]) == 0


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        ("other k", "k was 12, and is 8"),
        ("other layers", "layers had sizes 64-128-128-64-10, and have 64-128-128-64"),
    ],
)
def test_incomparable_reports_are_not_drift(
    check_drift: ModuleType,
    reports: dict[str, Path],
    now: str,
    reason: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert check_drift.main([str(reports["baseline"]), str(reports[now])]) == 2
    assert reason in capsys.readouterr().err


def test_a_missing_file_is_named(
    check_drift: ModuleType, reports: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert check_drift.main([str(reports["baseline"]), "missing.json"]) == 2
    assert "missing.json" in capsys.readouterr().err


def test_without_shuffles_the_cuts_are_compared(
    check_drift: ModuleType, reports: dict[str, Path]
) -> None:
    both = [str(reports["no shuffles"])] * 2
    assert check_drift.main(both) == 0
    baseline = ncut.Report.from_json(reports["no shuffles"])
    assert [row.name for row in check_drift.compare(baseline, baseline)] == [
        *("ncut", "refined_ncut", "lower_bound")
    ]


def test_the_error_of_z_is_that_of_repeated_shuffles(
    check_drift: ModuleType, reports: dict[str, Path]
) -> None:
    """Normal shuffles, drawn again and again, spread Z as the formula says."""
    report = ncut.Report.from_json(reports["baseline"])
    quiet = dataclasses.replace(report, repeated_ncuts=np.array([]))
    rng = np.random.default_rng(1)
    draws = rng.normal(quiet.shuffled_mean, quiet.shuffled_std, (4000, quiet.n_shuffles))
    scores = (quiet.ncut - draws.mean(axis=1)) / draws.std(axis=1)
    assert check_drift.z_error(quiet) == pytest.approx(scores.std(), rel=0.15)


def test_the_workflow_runs_commands_that_exist(check_drift: ModuleType) -> None:
    yaml = pytest.importorskip("yaml", reason="comes with mkdocs: make test installs it")
    workflow = yaml.safe_load((FOLDER / "clusterability.yml").read_text())
    commands = [
        shlex.split(step["run"]) for step in workflow["jobs"]["drift"]["steps"] if "run" in step
    ]
    assert commands[1][:3] == ["ncut", "analyze", "$MODEL"]
    assert commands[1][commands[1].index("--json") + 1] == commands[2][3] == "now.json"
    assert commands[2][:2] == ["python", "$CHECK"]
    assert Path(workflow["env"]["CHECK"]).name == "check_drift.py"
    assert {"MODEL", "BASELINE", "CHECK"} == set(workflow["env"])
