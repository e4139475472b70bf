"""The whole way on networks whose answer is known: planted groups are found, and only those."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from samples import Matrices, planted_chain, random_chain, side_by_side, side_by_side_labels
from scipy import stats

import ncut
from ncut.axes import NULL_MODELS, STATISTICS
from ncut.spectral.agreement import adjusted_rand_index

NCUTS = ("spectral_ncut", "refined_ncut", "lower_bound")
QUALITIES = ("modularity", "bipartite_modularity", "clusterability")
# Null models that need nothing but the weights, and leave planted groups no place to hide.
SCRAMBLING = ("layer", "layer-nonzero", "layer-nonzero-kde", "layer-kde", "strength")
SEEDS = range(6)


def run(model: Any, k: int, **options: Any) -> ncut.Report:
    settings: dict[str, Any] = {"shuffles": 19, "n_init": 5, "threads": 2, "tests": []}
    return ncut.analyze(model, k=k, **(settings | options))


def signed(weights: Matrices, seed: int) -> Matrices:
    """The same network with half of the weights negative, as the sign is not in the graph."""
    rng = np.random.default_rng(seed)
    return [matrix * rng.choice([-1, 1], matrix.shape) for matrix in weights]


def blocks(n_groups: int) -> tuple[Matrices, np.ndarray]:
    """Networks of different sizes side by side, without edges between them."""
    chains = [random_chain(31 + i, (9 + i, 12, 8 + 2 * i, 7), 0.8) for i in range(n_groups)]
    return side_by_side(*chains), side_by_side_labels(*chains)


@pytest.mark.parametrize("refine", [False, True])
@pytest.mark.parametrize("noise", [0.0, 0.02, 0.05, 0.1])
@pytest.mark.parametrize("n_groups", [2, 3, 4])
def test_planted_groups_are_recovered(n_groups: int, noise: float, refine: bool) -> None:
    weights, groups = planted_chain(37 + n_groups, n_groups, 10, 4, noise)
    report = run(signed(weights, 5), n_groups, refine=refine)
    assert adjusted_rand_index(report.labels, groups) == 1
    assert report.ncut == pytest.approx(ncut.normalized_cut(report.graph, groups), abs=1e-12)
    assert report.spectral_ncut == report.refined_ncut
    for name in NCUTS:
        compared = report.statistics[name]
        assert compared.p_value == 1 / 20
        assert compared.z_score is not None
        assert compared.z_score < -5
    for name in QUALITIES:
        compared = report.statistics[name]
        assert compared.p_value == 1 / 20
        assert compared.z_score is not None
        assert compared.z_score > 5
    assert str(report).splitlines()[1].startswith("More clusterable than all 19 shuffled networks")


@pytest.mark.parametrize("noise", [0.02, 0.1])
@pytest.mark.parametrize("n_groups", [3, 4])
@pytest.mark.parametrize("null", SCRAMBLING)
def test_planted_groups_stand_out_of_every_null_model(
    null: str, n_groups: int, noise: float
) -> None:
    # No weight is zero, so that no null model keeps the places of the strong ones.
    weights, groups = planted_chain(41, n_groups, 10, 4, noise)
    report = run(weights, n_groups, null=null)
    assert adjusted_rand_index(report.labels, groups) == 1
    for name in NCUTS:
        z = report.statistics[name].z_score
        assert z is not None
        assert z < -5, name


@pytest.mark.parametrize("normalize", ["l2", "l1", "balanced"])
def test_planted_groups_stand_out_at_every_scale(normalize: str) -> None:
    weights, groups = planted_chain(43, 3, 10, 4, 0.05)
    graph = ncut.graph(weights).rescaled(seed=3, sigma=0.7)
    report = run(graph, 3, normalize=normalize)
    assert adjusted_rand_index(report.labels, groups) == 1
    for name in NCUTS:
        z = report.statistics[name].z_score
        assert z is not None
        assert z < -5, name


def test_more_noise_makes_the_network_less_clusterable() -> None:
    reports = [run(planted_chain(45, 3, 10, 4, noise)[0], 3) for noise in (0, 0.02, 0.1, 0.3, 1)]
    for name in NCUTS:
        values = [report.statistics[name].value for report in reports]
        assert values == sorted(values)
    for name in QUALITIES[:2]:
        values = [report.statistics[name].value for report in reports]
        assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("normalize", ["none", "l2", "l1", "balanced"])
@pytest.mark.parametrize("n_groups", [2, 3, 4])
def test_the_certificate_closes_on_disconnected_blocks(n_groups: int, normalize: str) -> None:
    weights, groups = blocks(n_groups)
    report = run(weights, n_groups, normalize=normalize, shuffles=0)
    assert adjusted_rand_index(report.labels, groups) == 1
    assert 0 <= report.refined_ncut - report.lower_bound < 1e-6
    assert report.spectral_ncut < 1e-6
    np.testing.assert_allclose(report.eigenvalues, 0, atol=1e-9)
    assert report.statistics["clusterability"].value == pytest.approx(1)


@pytest.mark.parametrize("noise", [1e-4, 1e-3, 1e-2])
def test_the_certificate_nearly_closes_on_weakly_joined_blocks(noise: float) -> None:
    weights, _ = planted_chain(47, 4, 10, 4, noise)
    report = run(weights, 4, shuffles=0)
    assert 0 < report.refined_ncut - report.lower_bound < noise


@pytest.mark.parametrize("n_groups", [2, 3, 4])
@pytest.mark.parametrize("null", ["layer-nonzero", "layer-nonzero-kde", "strength"])
def test_groups_of_zeros_do_not_stand_out_where_zeros_are_kept(null: str, n_groups: int) -> None:
    weights, groups = blocks(n_groups)
    report = run(weights, n_groups, null=null)
    assert adjusted_rand_index(report.labels, groups) == 1
    for name in NCUTS:
        compared = report.statistics[name]
        assert compared.z_score is None or compared.z_score > -3, name
        assert compared.p_value is not None
        assert compared.p_value > 0.05
    assert "Not distinguishable" in str(report)
    # The same groups stand out where zeros move.
    elsewhere = run(weights, n_groups)
    for name in NCUTS:
        z = elsewhere.statistics[name].z_score
        assert z is not None
        assert z < -5


@pytest.mark.parametrize("null", ["layer-nonzero", "strength"])
def test_sparse_groups_with_noise_hide_where_zeros_are_kept(null: str) -> None:
    # Groups by the number of edges, all weights from one distribution.
    rng = np.random.default_rng(49)
    group = np.repeat(np.arange(3), 12)
    kept = np.where(group[:, None] == group, 0.8, 0.05)
    weights = [(0.5 + rng.random(kept.shape)) * (rng.random(kept.shape) < kept) for _ in range(3)]
    zeros_kept, zeros_moved = run(weights, 3, null=null), run(weights, 3, null="layer")
    for name in NCUTS:
        z = zeros_kept.statistics[name].z_score
        assert z is not None
        assert abs(z) < 4
        z = zeros_moved.statistics[name].z_score
        assert z is not None
        assert z < -5


def untrained(seed: int, kind: str) -> Any:
    """A network of 60-50-40-30 neurons with independent weights."""
    sizes = (60, 50, 40, 30)
    if kind == "torch":
        torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
        nn = torch.nn
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            linear = [nn.Linear(a, b) for a, b in pairwise(sizes)]
            return nn.Sequential(linear[0], nn.ReLU(), linear[1], nn.ReLU(), linear[2])
    rng = np.random.default_rng(seed)
    draw = {"normal": rng.normal, "heavy": lambda size: rng.standard_t(3, size)}[kind]
    return [draw(size=(a, b)) for a, b in pairwise(sizes)]


def check_unremarkable(reports: list[ncut.Report]) -> None:
    """No statistic is far from its shuffles, and p is any number from 0 to 1."""
    for name in STATISTICS:
        scores = np.array([report.statistics[name].z_score for report in reports], dtype=float)
        # A poor partition, or one that follows the layers, is far from the mean by chance alone:
        # upwards in an n-cut, upwards in the share of squared weight.
        assert scores.min() > -4, (name, scores)
        assert scores.max() < (4 if name == "lower_bound" else 6), (name, scores)
        p_values = np.array([report.statistics[name].p_value for report in reports], dtype=float)
        assert np.count_nonzero(p_values <= 0.05) <= len(reports) / 2, (name, p_values)
        assert abs(np.median(scores)) < 2, (name, scores)
        assert stats.kstest(p_values, "uniform").pvalue > 0.001, (name, p_values)


def untrained_reports(kind: str, null: str) -> list[ncut.Report]:
    return [
        run(untrained(seed, kind), 4, null=null, seed=seed, shuffles=39, n_init=3) for seed in SEEDS
    ]


@pytest.mark.parametrize("kind", ["normal", "heavy", "torch"])
@pytest.mark.parametrize("null", [name for name in NULL_MODELS if name != "init"])
def test_untrained_networks_are_nothing_special(null: str, kind: str) -> None:
    check_unremarkable(untrained_reports(kind, null))


def test_untrained_networks_are_like_other_untrained_ones() -> None:
    pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
    check_unremarkable(untrained_reports("torch", "init"))


def test_trained_scale_does_not_look_like_initialization() -> None:
    # Structure that "init" does not have: the planted groups put into a torch module.
    torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
    weights, groups = planted_chain(51, 4, 10, 3, 0.05)
    model = torch.nn.Sequential(
        torch.nn.Linear(40, 40, bias=False), torch.nn.ReLU(), torch.nn.Linear(40, 40, bias=False)
    )
    with torch.no_grad():
        for position, matrix in zip((0, 2), weights, strict=True):
            model[position].weight.copy_(torch.from_numpy(matrix.T))
    report = run(model, 4, null="init")
    assert adjusted_rand_index(report.labels, groups) == 1
    for name in NCUTS:
        z = report.statistics[name].z_score
        assert z is not None
        assert z < -5
