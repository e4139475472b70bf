"""Weights of any size: the unit that a graph keeps them in, and what does not depend on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from places import clustered_on
from samples import chain_graph, random_chain, skip_graph
from scipy import sparse

import ncut
from ncut.errors import InputError
from ncut.graphs import NeuronGraph, from_adjacency
from ncut.graphs.scale import FAR, in_own_unit

POWERS = [1, 3, -1, -7, 59, 61, -301, 640, -900, 1000]


def sparse_graph(factor: float = 1.0, n: int = 300) -> sparse.csr_array:
    """More vertices than LAPACK is asked for, so that block Lanczos in float32 solves it."""
    random = np.random.default_rng(3)
    upper = np.triu((random.random((n, n)) < 0.1) * random.random((n, n)), 1)
    return sparse.csr_array((upper + upper.T) * factor)


def layers(factor: float = 1.0) -> list[np.ndarray]:
    return [factor * matrix for matrix in random_chain(5, (40, 30, 20, 10))]


def check_same(ours: Any, theirs: Any) -> None:
    np.testing.assert_array_equal(ours.labels, theirs.labels)
    np.testing.assert_array_equal(ours.eigenvalues, theirs.eigenvalues)
    names = ("spectral_ncut", "refined_ncut", "lower_bound", "modularity", "clusterability")
    for name in (*names, "bipartite_modularity"):
        assert getattr(ours, name) == getattr(theirs, name), name


@pytest.mark.parametrize("power", POWERS)
def test_a_power_of_two_changes_no_bit(power: int) -> None:
    factor = 2.0**power
    check_same(ncut.cluster(sparse_graph(factor), 5), ncut.cluster(sparse_graph(), 5))
    for solver in ("gram", "dense"):
        ours = ncut.cluster(chain_graph(layers(factor)), 4, solver=solver)
        check_same(ours, ncut.cluster(chain_graph(layers()), 4, solver=solver))


@pytest.mark.parametrize("power", [1, 300, -700])
def test_a_power_of_two_changes_no_bit_on_a_device(power: int) -> None:
    weights = random_chain(5, (240, 200, 180))
    found = [
        clustered_on(chain_graph([factor * one for one in weights]), "numpy", 4, solver="krylov")
        for factor in (1.0, 2.0**power)
    ]
    check_same(*found)


@pytest.mark.parametrize("factor", [1e-300, 1e-200, 1e-39, 1e39, 1e60, 1e200, 1e306])
def test_any_factor_changes_rounding_only(factor: float) -> None:
    one, other = (ncut.cluster(sparse_graph(c), 5, n_init=20) for c in (1.0, factor))
    np.testing.assert_allclose(other.eigenvalues, one.eigenvalues, rtol=1e-6, atol=1e-12)
    assert other.ncut == pytest.approx(one.ncut, rel=1e-9)
    assert other.lower_bound <= other.refined_ncut


@pytest.mark.parametrize("null", ["layer", "layer-nonzero", "strength"])
@pytest.mark.parametrize("factor", [2.0**-700, 2.0**500])
def test_an_analysis_of_any_scale_is_the_same_and_can_be_saved(
    factor: float, null: str, tmp_path: Path
) -> None:
    ours, theirs = (
        ncut.analyze(layers(c), k=3, shuffles=3, null=null, threads=1) for c in (factor, 1.0)
    )
    for name, compared in theirs.statistics.items():
        assert ours.statistics[name].value == compared.value
        np.testing.assert_array_equal(ours.statistics[name].shuffled, compared.shuffled)
    np.testing.assert_array_equal(ours.degrees, theirs.degrees * factor)
    assert ncut.Report.from_json(ours.to_json()).ncut == ours.ncut
    ours.to_html(tmp_path / "report.html")
    assert "NaN" not in (tmp_path / "report.html").read_text(encoding="utf-8").split("<script>")[0]


def test_degrees_that_no_number_holds_are_in_another_unit() -> None:
    report = ncut.analyze(layers(1e307), k=3, shuffles=0)
    assert np.isfinite(report.degrees.sum())
    assert any("degrees are given in units of 2^1019" in text for text in report.warnings)


def test_layers_of_very_different_size_keep_their_clusterability() -> None:
    first, second, third = layers()
    labels = np.arange(100) % 3
    expected = ncut.partition_measures(chain_graph([first, second, third]), labels)
    ours = ncut.partition_measures(chain_graph([first * 1e-170, second, third * 1e130]), labels)
    assert ours.clusterability_by_block == pytest.approx(expected.clusterability_by_block)


def test_the_redrawn_weights_of_a_kde_keep_their_bandwidth() -> None:
    weights = [np.full((30, 20), 2.0**80), np.full((20, 10), 2.0**80)]
    drawn = ncut.shuffle(ncut.graph(weights), "layer-kde", seed=3)
    np.testing.assert_allclose(in_own_unit(drawn).blocks[0].weights, 2.0**80, rtol=1e-15)
    small = [np.full((30, 20), 2.0**-80), np.full((20, 10), 2.0**-80)]
    drawn = in_own_unit(ncut.shuffle(ncut.graph(small), "layer-kde", seed=3))
    assert np.std(drawn.blocks[0].weights) == pytest.approx(0.01 * np.sqrt(1 - 2 / np.pi), rel=0.1)


def test_weights_within_reach_are_left_alone() -> None:
    graph = chain_graph(layers(2.0 ** (FAR - 2)))
    assert graph.exponent == 0
    assert in_own_unit(graph) is graph
    assert chain_graph(layers(2.0 ** (FAR + 2))).exponent > FAR


@pytest.mark.parametrize("factor", [2.0**-700, 2.0**700])
def test_graphs_go_out_in_the_unit_they_came_in(factor: float, tmp_path: Path) -> None:
    graph = chain_graph(layers(factor))
    assert in_own_unit(graph).exponent == 0
    for block, matrix in zip(in_own_unit(graph).blocks, layers(factor), strict=True):
        np.testing.assert_array_equal(block.weights, matrix)
    graph.save(tmp_path / "graph.npz")
    loaded = NeuronGraph.load(tmp_path / "graph.npz")
    assert loaded.exponent == graph.exponent
    np.testing.assert_array_equal(loaded.degrees, graph.degrees)
    edge = next(iter(graph.to_networkx().edges(data="weight")))
    assert edge[2] == layers(factor)[0][edge[0], edge[1] - 40]


def test_float32_becomes_float64_where_it_would_lose_weights() -> None:
    kept = chain_graph([np.full((3, 3), 1e30, np.float32)] * 2)
    assert {block.weights.dtype.name for block in kept.blocks} == {"float32"}
    small = np.array([[1e30, 1e-30], [1e30, 1e30]], np.float32)
    widened = chain_graph([small, small])
    assert {block.weights.dtype.name for block in widened.blocks} == {"float64"}
    assert widened.blocks[0].weights is widened.blocks[1].weights or widened.n_edges == 8
    np.testing.assert_array_equal(in_own_unit(widened).blocks[0].weights, small)


def test_weights_beyond_any_unit_are_refused_by_layer() -> None:
    first, second, third = layers()
    with pytest.raises(InputError, match=r"layer 'w1': weights as small as .*e-30\d next to"):
        chain_graph([first, second * 1e-300, third * 1e300])


def test_subnormal_weights() -> None:
    pattern = (sparse_graph(n=60) > 0.5).astype(float) + (sparse_graph(n=60) > 0).astype(float)
    tiny = ncut.cluster(pattern * 5e-324, 3)
    check_same(tiny, ncut.cluster(pattern, 3))


def test_a_normalized_graph_may_need_another_unit() -> None:
    graph = skip_graph(3, (20, 15, 10))
    assert graph.normalized("none") is graph
    weights = layers(2.0**100)
    ours = chain_graph(weights).normalized("balanced")
    theirs = chain_graph(layers()).normalized("balanced")
    assert ncut.cluster(ours, 3).ncut == pytest.approx(ncut.cluster(theirs, 3).ncut, rel=1e-9)


def test_an_adjacency_matrix_of_integers() -> None:
    matrix = (np.ones((6, 6)) * 2**62).astype(np.int64)
    assert from_adjacency(matrix).exponent == 62
