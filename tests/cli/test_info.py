"""`ncut info`: the description of a model without clustering."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import ncut
from ncut.cli import app

runner = CliRunner()


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path / "net.npz"
    arrays = {
        "b.weight": rng.normal(size=(5, 4)),
        "b.bias": np.ones(5),
        "c.weight": rng.normal(size=(3, 5)),
        "c.bias": np.ones(3),
    }
    np.savez(path, **arrays)
    return path


def test_every_parameter_and_the_share_that_is_placed(weights: Path) -> None:
    result = runner.invoke(app, ["info", str(weights)])
    assert result.exit_code == 0, result.output
    assert "100.0% of the numbers in weight matrices and kernels are edges" in result.output
    assert "edges into 'b'" in result.output
    assert "2 vectors" in result.output
    assert "a bias or another vector" in result.output


def test_layers_and_dot(weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "net.dot"
    arguments = ["info", str(weights), "--layers", "b.weight, c.weight", "--dot", str(out)]
    result = runner.invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert out.read_text(encoding="utf-8") == ncut.graph(weights).to_dot()


def test_residual_has_no_effect_on_weights_alone(weights: Path) -> None:
    result = runner.invoke(app, ["info", str(weights), "--residual", "stream"])
    assert result.exit_code == 1
    assert "residual: has no effect on" in result.output


def test_unknown_convention(weights: Path) -> None:
    result = runner.invoke(app, ["info", str(weights), "--residual", "river"])
    assert result.exit_code == 1
    assert "residual: must be 'readers' or 'stream', got 'river'" in result.output


def test_architectures_by_name_need_weights() -> None:
    result = runner.invoke(app, ["info", "torchvision:resnet18"])
    assert result.exit_code == 1
    assert "weights: name the file with the weights of torchvision:resnet18" in result.output


def test_repeats_of_a_block_are_one_row():
    from ncut.report.console import folded

    rows = [
        [f"m.layers.{at}.{name}", f"m.layers.{at + 1}.in" if name == "out" else "stream", "8 x 8"]
        for at in range(12)
        for name in ("query", "out")
    ]
    rows.append(["head", "out", "8 x 4"])
    assert folded(rows) == [
        ["m.layers.{0..11}.query", "stream", "8 x 8"],
        ["m.layers.{0..11}.out", "m.layers.{1..12}.in", "8 x 8"],
        ["head", "out", "8 x 4"],
    ]
    assert folded(rows[:5]) == rows[:5]
    odd = [*rows, ["m.layers.3.query", "stream", "8 x 9"]]
    assert folded(odd)[-1] == ["m.layers.3.query", "stream", "8 x 9"]
