"""Ablation, correlation and tails of a report, and p-values of several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from analyses import run, sample
from samples import (
    Matrices,
    planted_chain,
    random_chain,
)

import ncut
from ncut.axes import STATISTICS
from ncut.functional import ablate, activation_graph
from ncut.nulls.tail import fit_tail


def test_a_report_tests_its_clusters_on_the_model() -> None:
    torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(12, 20), torch.nn.ReLU(), torch.nn.Linear(20, 4)
    ).eval()
    x = torch.randn(50, 12)
    report = ncut.analyze(model, k=3, shuffles=0)

    def loss(network: Any) -> float:
        with torch.no_grad():
            return float(((network(x) - expected) ** 2).mean())

    expected = model(x).detach()
    ablation = report.ablate(loss, random_sets=5)
    assert ablation.baseline == 0
    assert all(row.importance > 0 for row in ablation.rows)
    assert torch.equal(model(x), expected)
    assert -1 <= report.correlate(x).adjusted_rand_index <= 1
    again = ncut.Report.from_json(report.to_json())
    with pytest.raises(ncut.InputError, match="model: the report does not have the model"):
        again.ablate(loss)
    assert again.ablate(loss, model=model, random_sets=5).to_dict() == ablation.to_dict()


def test_p_values_of_many_reports_are_adjusted() -> None:
    reports = [run(seed=seed) for seed in range(3)]
    adjusted = ncut.adjusted_p_values(reports)
    assert (adjusted >= [report.p_value for report in reports]).all()


def test_tails_match_the_statistics() -> None:
    weights, _ = planted_chain(5, 3, 8, 3, 0.8)
    report = run(weights, k=3, shuffles=120)
    for name, one in report.statistics.items():
        low = STATISTICS[name].low_is_clusterable
        assert report.tail(name) == fit_tail(one.value, one.shuffled, low=low)
    assert report.tail() == report.tail("spectral_ncut")
    fit = report.tail("lower_bound")
    assert fit is not None
    assert 0 < fit.low <= fit.p_value <= fit.high <= 1
    assert ncut.Report.from_json(report.to_json()).tail("lower_bound") == fit
    assert run(weights, k=3, shuffles=19).tail() is None
    assert run(random_chain(3, (20, 25, 15)), k=3, shuffles=60).tail() is None
    for name in ("z_score", "", "ncut"):
        with pytest.raises(ncut.InputError, match="statistic: must be one of spectral_ncut, "):
            report.tail(name)


def small_mlp() -> Any:
    torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
    nn = torch.nn
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(10, 14), nn.ReLU(), nn.Linear(14, 12), nn.ReLU(), nn.Linear(12, 4)
        ).eval()


def test_ablation_by_the_report_is_that_of_its_clusters() -> None:
    torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
    model = small_mlp()
    x = torch.randn(40, 10, generator=torch.Generator().manual_seed(1))
    report = ncut.analyze(model, k=3, shuffles=0, seed=5)
    calls: list[tuple[int, int]] = []

    def mean_square(network: Any) -> float:
        with torch.no_grad():
            return float(network(x).square().mean())

    found = report.ablate(
        mean_square, random_sets=4, progress=lambda done, total: calls.append((done, total))
    )
    assert found.baseline == pytest.approx(mean_square(model))
    hidden = np.zeros(report.n_vertices, dtype=bool)
    for layer in report.layers[1:-1]:
        hidden[layer.slice] = True
    for row in found.rows:
        assert row.n_neurons == np.count_nonzero((report.labels == row.cluster) & hidden)
        assert row.random_losses.size == 4
    total = 1 + len(found.rows) * 5
    assert calls == [(done, total) for done in range(1, total + 1)]
    expected = ablate(model, report.layers, report.labels, mean_square, random_sets=4, seed=5)
    assert found.to_dict() == expected.to_dict()
    layers = report.ablate(mean_square, per_layer=True, random_sets=0)
    assert {row.layer for row in layers.rows} <= {layer.name for layer in report.layers[1:-1]}
    inputs = report.ablate(mean_square, inputs=True, random_sets=0)
    assert sum(row.n_neurons for row in inputs.rows) == 10 + 14 + 12
    assert len(report.ablate(mean_square, pairs=True, random_sets=0).pairs) == 3
    for bad, message in (
        (lambda network: "loss", "evaluate: must return"),
        (lambda network: 1.0, "evaluate: did not run the model"),
    ):
        with pytest.raises(ncut.InputError, match=message):
            report.ablate(bad)
    with pytest.raises(ncut.InputError, match="random_sets: "):
        report.ablate(mean_square, random_sets=-1)


def test_correlation_by_the_report_is_that_of_its_clusters() -> None:
    torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
    model = small_mlp()
    x = torch.randn(40, 10, generator=torch.Generator().manual_seed(1))
    report = ncut.analyze(model, k=3, shuffles=0, seed=5)
    found = report.correlate(x)
    assert (found.k, found.n_examples, found.seed) == (3, 40, 5)
    with torch.no_grad():
        values = [x, model[:2](x), model[:4](x), model(x)]
    given = report.correlate(activations=[value.numpy() for value in values], threads=1)
    assert given.adjusted_rand_index == found.adjusted_rand_index
    assert given.ncut == pytest.approx(found.ncut, abs=1e-6)
    graph = activation_graph(model, report.layers, x)
    assert found.ncut == pytest.approx(ncut.normalized_cut(graph, found.labels), abs=1e-9)
    with pytest.raises(ncut.InputError, match="give one of the two"):
        report.correlate()
    with pytest.raises(ncut.InputError, match="3 arrays for 4 layers"):
        report.correlate(activations=[value.numpy() for value in values[:3]])


def test_reports_without_a_model_say_so(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
    model = small_mlp()
    x = torch.ones(5, 10)
    report = ncut.Report.from_json(ncut.analyze(model, k=3, shuffles=0).to_json())
    np.savez(tmp_path / "mlp.npz", *random_chain(3, (10, 9, 8)))
    of_file = run(tmp_path / "mlp.npz", shuffles=0)
    of_graph = run(ncut.graph(sample()), shuffles=0)
    for one, message in (
        (report, "model: the report does not have the model"),
        (of_file, "pass the model"),
        (of_graph, "pass the model"),
    ):
        with pytest.raises(ncut.InputError, match=message):
            one.ablate(lambda network: 0.0)
    for one in (report, of_file, of_graph):
        with pytest.raises(ncut.InputError, match=r"model|cannot be run"):
            one.correlate(x)
    # The activations are enough where there is no model.
    rng = np.random.default_rng(1)
    values = [rng.normal(size=(30, layer.size)) for layer in report.layers]
    assert report.correlate(activations=values).n_examples == 30


def test_the_model_of_weights_is_silenced_too() -> None:
    weights = [matrix - 0.5 for matrix in random_chain(3, (10, 12, 11, 6))]
    report = run(weights, k=3, shuffles=0)

    def loss(network: Matrices) -> float:
        x = np.ones(10)
        for matrix in network[:-1]:
            x = np.maximum(x @ matrix, 0)
        return float(np.square(x @ network[-1]).sum())

    found = report.ablate(loss, random_sets=3)
    assert found.baseline == pytest.approx(loss(weights))
    assert sum(row.n_neurons for row in found.rows) == 12 + 11


def test_adjusted_p_values_are_benjamini_and_hochbergs() -> None:
    reports = [
        run(planted_chain(seed, 3, 8, 3, noise)[0], k=3, shuffles=19, n_init=2)
        for seed, noise in enumerate((0.05, 0.1, 1.0, 1.0, 1.0))
    ]
    p = np.array([report.p_value for report in reports])
    order = np.argsort(p)
    ranked = p[order] * p.size / np.arange(1, p.size + 1)
    expected = np.empty(p.size)
    expected[order] = np.minimum.accumulate(ranked[::-1])[::-1]
    adjusted = ncut.adjusted_p_values(reports)
    np.testing.assert_allclose(adjusted, np.minimum(expected, 1))
    np.testing.assert_array_equal(ncut.adjusted_p_values(p.tolist()), adjusted)
    bounds = [report.statistics["lower_bound"] for report in reports]
    assert ncut.adjusted_p_values(bounds).shape == (5,)
    with pytest.raises(ncut.InputError, match=r"p_values\[1\]: has no p-value"):
        ncut.adjusted_p_values([reports[0], run(shuffles=0)])
