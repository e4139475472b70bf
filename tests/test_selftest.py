"""`ncut selftest`: all is well here, and it would notice if not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from places import device_named
from typer.testing import CliRunner

from ncut.cli.app import app
from ncut.device.devices import Device
from ncut.selftest import cases, checks, machine, timings

NOT_HERE = "cuda:99"
"""No machine has so many."""


def test_the_command_reports_and_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timings, "CASES", dict.fromkeys(timings.CASES, cases.mlp))
    monkeypatch.setattr(timings, "STEPS", 2)
    done = CliRunner().invoke(app, ["selftest"])
    assert done.exit_code == 0, done.output
    assert "CPython" in done.output
    assert "compiled core: " in done.output
    assert done.output.count("passed") == 4
    for name in (*timings.CASES, "training step of the MLP, regularized"):
        assert f"{name}: " in done.output
    assert done.output.count(" ms on the CPU") == 5


def test_the_report_as_a_file(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    done = CliRunner().invoke(app, ["selftest", "--no-timings", "--json", str(file)])
    assert done.exit_code == 0, done.output
    found = json.loads(file.read_text())
    assert found["passed"] is True
    assert found["device"] == "cpu"
    assert found["environment"]["numpy"] == np.__version__
    assert [check["passed"] for check in found["checks"]] == [True] * 4
    assert found["timings"] == []


def test_the_report_on_standard_output_is_json_alone() -> None:
    done = CliRunner().invoke(app, ["selftest", "--no-timings", "--json", "-"])
    assert json.loads(done.stdout)["passed"] is True


def test_a_failed_check_is_reported_and_the_exit_code_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "_ncut", lambda *_: checks.CheckResult("n-cut", False, "wrong"))
    file = tmp_path / "report.json"
    done = CliRunner().invoke(app, ["selftest", "--no-timings", "--json", str(file)])
    assert done.exit_code == 1
    assert "FAILED   n-cut: wrong" in done.output
    assert json.loads(file.read_text())["passed"] is False


def test_without_such_a_gpu_it_says_so() -> None:
    done = CliRunner().invoke(app, ["selftest", "--device", NOT_HERE])
    assert done.exit_code == 1
    assert any(word in done.output for word in ("ncut[gpu]", "no CUDA GPU", "this machine has"))


@pytest.fixture
def host_as_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of devices, on NumPy."""
    for room in ("selftest.checks", "clusters"):
        monkeypatch.setattr(
            f"ncut.{room}.check_device",
            lambda asked: None if asked == "cpu" else device_named("numpy"),
        )


@pytest.mark.usefixtures("host_as_cuda")
def test_a_device_is_compared_with_the_cpu() -> None:
    found = {check.name: check for check in checks.checks(NOT_HERE)}
    assert not found.pop("gradients").passed  # torch finds no such device
    assert list(found) == [
        *("eigenvalues", "n-cut", "shuffles keep the weights", "shuffles' distribution"),
        "blocks from the host",
    ]
    assert all(check.passed for check in found.values()), found


@pytest.mark.usefixtures("host_as_cuda")
def test_a_device_is_timed_beside_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timings, "CASES", {"a chain": lambda: cases.chain([np.ones((9, 9))] * 3)})
    monkeypatch.setattr(timings, "K", 2)
    clustering, *steps = timings.timings(NOT_HERE)
    assert clustering.name == "a chain"
    assert clustering.on_cpu and clustering.on_device  # noqa: PT018
    assert not clustering.error
    # A step that the device cannot make leaves the CPU's time and says why.
    assert len(steps) == 2
    for step in steps:
        assert step.on_cpu
        assert step.on_device is None
        assert step.error.startswith(f"{NOT_HERE}: ")


@pytest.mark.parametrize(
    ("broken", "name"),
    [("eigenvalues", "eigenvalues"), ("ncut", "n-cut")],
)
def test_wrong_numbers_are_noticed(broken: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = checks.cluster

    def wrong(*args: Any, **options: Any) -> Any:
        found = right(*args, **options)
        return replace(found, **{broken: getattr(found, broken) * 1.001})

    monkeypatch.setattr(checks, "cluster", wrong)
    assert _failed() == [name]


def test_shuffles_that_lose_weights_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = checks._shuffled
    monkeypatch.setattr(checks, "_shuffled", lambda *args: [np.sqrt(one) for one in right(*args)])
    assert _failed() == ["shuffles keep the weights"]


def test_wrong_gradients_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from ncut.training import eigenvalues

    right = eigenvalues.laplacian_eigenvalues
    monkeypatch.setattr(
        eigenvalues,
        "laplacian_eigenvalues",
        lambda weights, **options: right(
            [1.001 * w - 0.001 * w.detach() for w in weights], **options
        ),
    )
    assert _failed() == ["gradients"]


def test_a_check_that_breaks_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*args: object) -> None:
        raise RuntimeError("out of order")

    monkeypatch.setattr(checks, "_ncut", breaks)
    found = list(checks.checks("cpu"))
    assert [check.passed for check in found] == [True, False, True, True]
    assert found[1].found == "RuntimeError: out of order"


def test_the_machine_is_described() -> None:
    found = machine.environment("cpu")
    assert found["system"].endswith(" cores")
    assert "ncut" in found
    assert "device" not in found


class _Cuda:
    """CuPy's description of two GPUs; memory is that of the current one."""

    def __init__(self) -> None:
        self.current = 0
        self.runtime = self

    @contextmanager
    def Device(self, index: int) -> Iterator[None]:  # noqa: N802
        self.current, before = index, self.current
        yield
        self.current = before

    def getDeviceProperties(self, index: int) -> dict[str, Any]:  # noqa: N802
        return {"name": f"GPU {index}".encode(), "major": 9, "minor": 0}

    def memGetInfo(self) -> tuple[int, int]:  # noqa: N802
        return (self.current + 1) * 2**30, 80 * 2**30

    def driverGetVersion(self) -> int:  # noqa: N802
        return 13020

    def runtimeGetVersion(self) -> int:  # noqa: N802
        return 12090


def test_the_gpu_that_is_asked_for_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device("cuda:1", SimpleNamespace(cuda=_Cuda()), 0, index=1)
    monkeypatch.setattr(machine, "check_device", lambda _: device)
    found = machine.environment("cuda:1")
    assert found["device"] == (
        "GPU 1 (compute capability 9.0), driver for CUDA 13.2, CuPy's CUDA 12.9, "
        "2.0 of 80.0 GiB free"
    )


@pytest.mark.parametrize(
    ("make", "n_vertices", "n_weights"),
    [
        (cases.mlp, 1_818, 399_872),
        (cases.vgg16, 4_224, 1_634_304),
        pytest.param(cases.resnet50, 24_576, 30_703_616, marks=pytest.mark.slow),
    ],
)
def test_the_cases_have_the_sizes_of_the_networks(
    make: Any, n_vertices: int, n_weights: int
) -> None:
    graph = make()
    assert graph.n_vertices == n_vertices
    assert sum(np.prod(block.weights.shape) for block in graph.blocks) == n_weights


def _failed() -> list[str]:
    return [check.name for check in checks.checks("cpu") if check.passed is False]
