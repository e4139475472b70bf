"""Programs: their text, and one reading for both conventions."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from onnx_nets import Net, saved
from torch import nn
from typer.testing import CliRunner

import ncut
from ncut import InputError, ModelError
from ncut.cli.app import app
from ncut.extract.assembly.assemble import assemble
from ncut.extract.lowering import kinds as lowering
from ncut.extract.program.record import Program
from ncut.extract.readers.traced import module as traced_module

PACKAGE = Path(ncut.__file__).parent


class Residual(nn.Module):
    """A sum of two branches, and attention if asked for."""

    def __init__(self, *, attends: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = nn.Linear(6, 5), nn.Linear(5, 5), nn.Linear(5, 3)
        self.attends = attends

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.a(x))
        if self.attends:
            h = torch.softmax(h @ h.transpose(-1, -2), -1) @ h
        out: torch.Tensor = self.c(h + self.b(h))
        return out


def test_a_program_says_what_each_module_does() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 4)).eval()
    text = str(ncut.program(model))
    assert text.splitlines() == [
        "%1 (5, 6) = input(name='input')",
        "# operation 'linear' in module '0' (Linear)",
        "  %2 (5, 5) = linear(%1, axis=1, weight=(6, 5) of 0.weight, name='0')",
        "# operation 'native_batch_norm' in module '1' (BatchNorm1d)",
        "  %3 (5, 5) = scale(%2, factors=(5) of 1.weight / sqrt(1.running_var + 1e-05), axis=1, "
        "name='1')",
        "# operation 'relu' in module '2' (ReLU)",
        "  %4 (5, 5) = pointwise(%3, homogeneous=True)",
        "# operation 'linear' in module '3' (Linear)",
        "  %5 (5, 4) = linear(%4, axis=1, weight=(5, 4) of 3.weight, name='3')",
        "output(%5, name='output')",
    ]


def test_the_command_line_prints_a_program(tmp_path: Path) -> None:
    file = tmp_path / "chain.npz"
    np.savez(file, a=np.ones((3, 4)), b=np.ones((4, 2)))
    result = CliRunner().invoke(app, ["info", str(file), "--program"])
    assert result.exit_code == 0
    assert "%2 (1, 4) = linear(%1, axis=1, weight=(3, 4) of a, name='a')" in result.stdout
    refused = CliRunner().invoke(app, ["info", str(file), "--program", "--norm", "l2"])
    assert refused.exit_code == 2


def test_a_graph_has_no_program() -> None:
    with pytest.raises(InputError, match="no program"):
        ncut.program(ncut.graph([np.ones((3, 4)), np.ones((4, 2))]))


@pytest.mark.parametrize("attends", [False, True])
def test_both_conventions_come_from_one_reading(
    attends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings: list[Program] = []
    original = traced_module._read

    def counted(program: Program, *args: Any) -> None:
        readings.append(program)
        original(program, *args)

    monkeypatch.setattr(traced_module, "_read", counted)
    model = Residual(attends=attends)
    options: dict[str, Any] = {"example_inputs": torch.zeros(2, 7, 6)}
    default = ncut.graph(model, **options)
    assert len(readings) == 1
    for residual in ("readers", "stream"):
        expected = ncut.graph(model, residual=residual, **options)
        again = assemble(lowering.lower(readings[0], residual))
        assert_allclose(again.adjacency.toarray(), expected.adjacency.toarray(), rtol=0)
    assert default.sums == ("stream" if attends else "readers")


def test_an_error_of_the_lowering_names_its_node() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.AvgPool1d(2), nn.Linear(4, 3))
    with pytest.raises(ModelError, match=r"operation 'avg_pool\w+' in module '1' \(AvgPool1d\): "):
        ncut.graph(model, example_inputs=torch.zeros(2, 6))


def test_every_method_of_a_program_makes_kinds_that_are_lowered() -> None:
    tree = ast.parse((PACKAGE / "extract/program/record.py").read_text())
    tree2 = ast.parse((PACKAGE / "extract/program/values.py").read_text())
    kinds = {
        call.args[0].value
        for root in (tree, tree2)
        for call in ast.walk(root)
        if isinstance(call, ast.Call)
        and (getattr(call.func, "attr", "") == "node" or getattr(call.func, "id", "") == "made")
        and call.args
        and isinstance(call.args[0], ast.Constant)
    }
    assert kinds | {"note"} == lowering.KINDS.keys()


def test_readers_see_no_neurons() -> None:
    files = [*(PACKAGE / "extract" / "readers").rglob("*.py")]
    assert len(files) > 70
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute):
                assert node.attr not in ("terms", "varies", "units"), (file, node.lineno)


class Computed(nn.Module):
    """Weights and factors that the forward pass computes from parameters."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm = nn.Linear(6, 5), nn.BatchNorm1d(5, eps=0.5)
        self.gain = nn.Parameter(torch.rand(5))
        self.down, self.up = nn.Parameter(torch.rand(5, 2)), nn.Parameter(torch.rand(2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.norm(self.first(x))) * (1 + self.gain)
        return h @ (self.down @ self.up * 2.0)


def test_computed_weights_are_printed_as_formulas() -> None:
    text = str(ncut.program(Computed().eval()))
    assert "factors=(5) of norm.weight / sqrt(norm.running_var + 0.5)" in text
    assert "factors=(5) of gain + 1" in text
    assert "weight=(5, 3) of (down @ up) * 2" in text


def test_formulas_of_files() -> None:
    keras = Path(__file__).parent / "keras_files" / "convolutional.keras"
    assert re.search(r"of (\S+)\.gamma / sqrt\(\1\.moving_variance \+ 0\.001\)",
                     str(ncut.program(keras)))  # fmt: skip


def test_formulas_of_norms_in_onnx(tmp_path: Path) -> None:
    net = Net()
    x = net.conv(net.input((1, 3, 8, 8)), 3, 4)
    factors = [net.array(np.ones(4, np.float32), f"bn.{name}") for name in "abcd"]
    y = net.conv(net("BatchNormalization", x, *factors, epsilon=0.25), 4, 2)
    text = str(ncut.program(saved(net.proto(y), tmp_path)))
    assert "of bn.a / sqrt(bn.d + 0.25)" in text
