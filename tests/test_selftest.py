"""`ncut selftest`: all is well here, and it would notice if not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from places import DEVICES, device_named
from typer.testing import CliRunner

from ncut import selftest
from ncut.cli.app import app


def test_the_command_reports_and_passes() -> None:
    done = CliRunner().invoke(app, ["selftest"])
    assert done.exit_code == 0, done.output
    assert "CPython" in done.output
    assert done.output.count("passed") == 4
    assert "784-256x4-10, random:" in done.output


def test_without_a_gpu_it_says_so() -> None:
    if "cuda" in DEVICES:
        pytest.skip("there is a GPU here: run pytest tests/test_selftest.py without NCUT_TEST_CUDA")
    done = CliRunner().invoke(app, ["selftest", "--device", "cuda"])
    assert done.exit_code == 1
    assert "ncut[gpu]" in done.output or "no CUDA GPU" in done.output


def test_a_device_is_compared_with_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for room in ("selftest", "clusters"):
        monkeypatch.setattr(
            f"ncut.{room}.check_device",
            lambda asked: None if asked == "cpu" else device_named("numpy"),
        )
    found = {check.name: check for check in selftest.checks("cuda")}
    assert not found.pop("gradients").passed  # torch finds no such device
    assert len(found) == 4
    assert all(check.passed for check in found.values()), found


@pytest.mark.parametrize(
    ("broken", "name"),
    [("eigenvalues", "eigenvalues"), ("ncut", "n-cut")],
)
def test_wrong_numbers_are_noticed(broken: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    right = selftest.cluster

    def wrong(*args: Any, **options: Any) -> Any:
        found = right(*args, **options)
        return replace(found, **{broken: getattr(found, broken) * 1.001})

    monkeypatch.setattr(selftest, "cluster", wrong)
    failed = [check.name for check in selftest.checks("cpu") if check.passed is False]
    assert failed == [name]


def test_shuffles_that_lose_weights_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = selftest._shuffled
    monkeypatch.setattr(selftest, "_shuffled", lambda *args: [np.sqrt(one) for one in right(*args)])
    failed = [check.name for check in selftest.checks("cpu") if check.passed is False]
    assert failed == ["shuffles keep the weights"]


def test_a_check_that_breaks_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*args: object) -> None:
        raise RuntimeError("out of order")

    monkeypatch.setattr(selftest, "_ncut", breaks)
    found = list(selftest.checks("cpu"))
    assert [check.passed for check in found] == [True, False, True, True]
    assert found[1].found == "RuntimeError: out of order"
