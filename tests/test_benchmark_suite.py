"""An analysis as a case of a pytest-benchmark suite: timed by it, and its result at hand.

Times are printed, never asserted. `pytest --benchmark-disable` runs each case once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ncut

pytest.importorskip("pytest_benchmark", reason="pip install pytest-benchmark")


def weights(n_clusters: int) -> list[Any]:
    """Three layers whose clusters are connected to each other a hundred times more weakly."""
    rng = np.random.default_rng(2)
    inside = np.kron(np.eye(n_clusters), np.ones((8, 8)))
    return [(inside + 0.01) * rng.uniform(0.5, 1.0, inside.shape) for _ in range(3)]


@pytest.mark.benchmark(group="ncut", min_rounds=2, max_time=0.1)
@pytest.mark.parametrize("k", [2, 4])
def test_analyze_is_a_case_of_a_suite(benchmark: Any, k: int) -> None:
    report = benchmark(ncut.analyze, weights(4), k=k, shuffles=5, seed=1, threads=1)
    assert isinstance(report, ncut.Report)
    assert report.z_score < -10
    assert report.p_value == pytest.approx(1 / 6)
    assert report.ncut == ncut.analyze(weights(4), k=k, shuffles=5, seed=1).ncut
    benchmark.extra_info.update(ncut=report.ncut, z_score=report.z_score, version=ncut.__version__)


@pytest.mark.benchmark(min_rounds=2, max_time=0.1)
def test_a_graph_that_is_read_once(benchmark: Any) -> None:
    graph = ncut.graph(weights(3))
    found = benchmark(ncut.cluster, graph, 3, threads=1)
    assert found.ncut == pytest.approx(ncut.normalized_cut(graph, found.labels))
    assert sorted(np.bincount(found.labels)) == [32, 32, 32]
