"""Tables of the pages that scripts write from files agree with the files."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numpy.testing import assert_allclose

from ncut import reference
from ncut.nulls import fitted

ROOT = Path(__file__).resolve().parents[1]
PAGES = {"calibration": "p-values.md", "suggested_k": "k.md"}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    return importlib.import_module(request.param)


@pytest.mark.parametrize("script", PAGES, indirect=True)
def test_page_and_file_agree(script: ModuleType) -> None:
    page = (ROOT / "docs" / PAGES[script.__name__]).read_text(encoding="utf-8")
    written = page.split(script.BEGIN)[1].split(script.END)[0]
    assert written.strip() == script.table().strip()
    assert written.count("\n| ") > 5


@pytest.mark.parametrize("script", ["calibration"], indirect=True)
@pytest.mark.parametrize("null", ["layer", "strength", "residual", "alignment"])
@pytest.mark.parametrize("kept", [1.0, 0.2])
def test_bounds_of_the_calibration_match_whole_matrices(
    script: ModuleType, null: str, kept: float
) -> None:
    networks = script.Networks("mlp", "t(3)", 12, 0.7, kept)
    shuffles = fitted(script.dense(networks.made(1).without_isolated()[0]), null, 1)
    shuffled = [shuffles.shuffle(number) for number in range(3)]
    expected = []
    for graph in shuffled:
        matrix = reference.dense(graph.without_isolated()[0].adjacency).astype(np.float64)
        root = np.sqrt(matrix.sum(axis=0))
        values = np.linalg.eigvalsh(matrix / root / root[:, None])
        expected.append(script.K - values[-script.K :].sum())
    assert_allclose(script.bounds(shuffled), expected, rtol=1e-9)


@pytest.mark.parametrize("script", ["calibration"], indirect=True)
def test_counts_go_on_where_they_stopped(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = script.Task(script.Networks("mlp", "normal", 8), ("layer", "alignment"), 1.0)
    monkeypatch.setattr(script, "tasks", lambda: [task])
    for name, counts in (("once", [6]), ("twice", [4, 6])):
        monkeypatch.setattr(script, "PATH", tmp_path / f"{name}.csv")
        for n in counts:
            script.measure(n, seconds=1e9)
    assert (tmp_path / "once.csv").read_text() == (tmp_path / "twice.csv").read_text()
    assert sum(numbers[0] for numbers in script.read().values()) == 12
