"""What a GPU should need: the counts are right, and the documentation's are those of the code."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from ncut.selftest import cases

ROOT = Path(__file__).resolve().parents[2]
FOUND = json.loads((ROOT / "docs" / "gpu" / "roofline.json").read_text())


@pytest.fixture
def roofline() -> Iterator[ModuleType]:
    path = ROOT / "scripts" / "gpu_roofline.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look for it there
    spec.loader.exec_module(module)
    yield module
    del sys.modules[path.stem]


def counted(roofline: ModuleType, run: Any) -> Any:
    with roofline.stage("here"):
        run()
    return roofline.WORK["here"]


def test_a_product_is_counted(roofline: ModuleType) -> None:
    device = roofline.CountingDevice("counted", roofline.NAMESPACE, 2**40)
    a, b = (device.asarray(np.ones(s, dtype=np.float32)) for s in ((3, 4), (4, 2)))
    work = counted(roofline, lambda: a.T[:, :3].T @ b)  # views are free
    assert (work.operations, work.bytes) == (1, 4 * (12 + 8 + 6))
    assert (work.flops32, work.flops64) == (2 * 3 * 4 * 2, 0)


def test_functions_are_counted(roofline: ModuleType) -> None:
    device, xp = roofline.CountingDevice("counted", roofline.NAMESPACE, 2**40), roofline.NAMESPACE
    x = device.asarray(np.arange(6.0).reshape(2, 3))
    total = None

    def run() -> None:
        nonlocal total
        x[:1, :] += 1.0
        total = xp.sum(xp.reshape(x, (-1,)).astype(np.float64, copy=False))

    work = counted(roofline, run)
    assert float(total) == 18
    assert work.flops32 == 0
    # The sum of a view, and its assignment, which is one more operation.
    assert work.operations == 3
    least = max(work.bytes / roofline.BANDWIDTH, work.flops64 / roofline.FLOAT64)
    assert work.seconds == least


def test_the_page_has_what_was_counted(roofline: ModuleType) -> None:
    page = (ROOT / "docs" / "gpu.md").read_text()
    assert "\n".join(roofline.table(FOUND)) in page


def test_what_was_counted_is_what_the_code_does(roofline: ModuleType) -> None:
    """Up to a few steps more or less of the iterations, which rounding decides."""
    now = roofline.measured(cases.mlp())
    then = FOUND["cases"]["MLP 784-256x4-10"]
    assert (now["vertices"], now["edges"]) == (then["vertices"], then["edges"])
    for stage, work in now["stages"].items():
        before = then["stages"][stage]
        assert work["operations"] == pytest.approx(before["operations"], rel=0.25), stage
        assert work["bytes"] == pytest.approx(before["bytes"], rel=0.25), stage
