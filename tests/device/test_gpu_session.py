"""The GPU checks, run on NumPy, and the page with their counts."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from ncut.selftest import cases

ROOT = Path(__file__).resolve().parents[2]
COUNTED = json.loads((ROOT / "docs" / "gpu" / "transfers.json").read_text())


@pytest.fixture
def script() -> Iterator[ModuleType]:
    path = ROOT / "scripts" / "gpu_session.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # `patch` looks for it there
    spec.loader.exec_module(module)
    yield module
    del sys.modules[path.stem]


def test_a_dry_run_covers_every_step(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script.timings, "STEPS", 1)
    small = cases.chain(map(abs, cases.random_layers((330, 300, 310, 290))))
    script.CASES.clear()
    script.CASES["a chain"] = lambda: small
    out = tmp_path / "session.json"
    options = ["--device", "numpy", "--runs", "1", "--only", "a chain"]
    assert script.main([str(out), *options]) == 0
    found = json.loads(out.read_text())
    assert list(found["parts"]) == [
        *("selftest", "transfers: a chain", "shuffling: a chain", "clustering: a chain"),
        "training",
    ]
    assert all(part.get("passed", True) for part in found["parts"].values()), found
    counted = found["parts"]["transfers: a chain"]
    assert counted["weights"]["to the device"] == small.n_bytes
    assert counted["a shuffle"] == {"to the device": 0, "back": small.n_bytes}


def test_wrong_results_fail_the_session(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = script.shuffle_on_device
    small = cases.chain([np.ones((30, 20), np.float32) + np.arange(20, dtype=np.float32)] * 1)
    monkeypatch.setitem(script.CASES, "a chain", lambda: small)

    def halved(*given: object) -> object:
        found = right(*given)
        found.host.blocks[0].weights[:] /= 2
        return found

    monkeypatch.setattr(script, "shuffle_on_device", halved)
    out = tmp_path / "session.json"
    options = ["--device", "numpy", "--only", "a chain", "--parts", "shuffling"]
    assert script.main([str(out), *options]) == 1
    assert json.loads(out.read_text())["passed"] is False


def test_the_page_has_what_was_counted() -> None:
    page = (ROOT / "docs" / "gpu.md").read_text()
    for name, part in COUNTED["parts"].items():
        assert f"| {name.removeprefix('transfers: ')} | {row(part)} |" in page


def row(part: dict) -> str:
    """Megabytes: weights, a shuffle back, vectors there and back, panels if they moved."""
    moved = part["eigenvectors"]
    numbers = (
        part["weights"]["to the device"],
        part["a shuffle"]["back"],
        moved["to the device"] + moved["back"],
        2 * part["panels each way, if they moved"],
    )
    return f"{' | '.join(f'{number / 1e6:,.1f}' for number in numbers)} | {part['products']}"


def test_counted_copies_match_the_code(script: ModuleType) -> None:
    found = script.transfers(cases.mlp(), script.host_device())
    then = COUNTED["parts"]["transfers: MLP 784-256x4-10"]
    assert found["weights"] == then["weights"]
    assert found["a shuffle"] == then["a shuffle"]
    # Rounding may decide on a step more or less of the iteration.
    assert found["products"] == pytest.approx(then["products"], abs=2)
    for way, n_bytes in found["eigenvectors"].items():
        assert n_bytes == pytest.approx(then["eigenvectors"][way], rel=0.05)
