"""The null models made of trades: invariants, uniform arrangements, exact p-values."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest
from ml_dtypes import bfloat16
from numpy.testing import assert_array_equal
from samples import chain_graph, random_chain, skip_graph, with_isolated
from scipy import stats

import ncut
from ncut import kernels, reference
from ncut.graphs import NeuronGraph, from_adjacency
from ncut.nulls import fitted
from ncut.nulls.strength import WIDTH
from ncut.nulls.trades import grid_bins, places_of, rank_correlation
from ncut.types import Block

GRAPHS = {
    "dense": lambda: chain_graph(random_chain(3, (12, 15, 10))),
    "sparse": lambda: chain_graph(random_chain(7, (60, 70, 50), 0.1)),
    "float32": lambda: chain_graph(random_chain(9, (12, 15, 10), dtype=np.float32)),
    "float16": lambda: chain_graph(random_chain(9, (12, 15, 10), dtype=np.float16)),
    "bfloat16": lambda: chain_graph(random_chain(9, (12, 15, 10), dtype=bfloat16)),
    "isolated": lambda: chain_graph(with_isolated(random_chain(11, (12, 15, 10)), 13)),
    "skip": lambda: skip_graph(15, (12, 15, 10), 0.6),
    "one layer": lambda: from_adjacency(chain_graph(random_chain(17, (12, 15, 10))).adjacency),
    "not bipartite": lambda: from_adjacency(skip_graph(15, (12, 15, 10), 0.6).adjacency),
}


@pytest.fixture(params=GRAPHS)
def connected(request: pytest.FixtureRequest) -> NeuronGraph:
    return GRAPHS[request.param]().without_isolated()[0]


def sums(block: Block) -> list[Any]:
    weights = reference.dense(block.weights).astype(np.float64)
    rows, columns = weights.sum(axis=1), weights.sum(axis=0)
    return [rows + columns] if block.source == block.target else [rows, columns]


def test_weights_zeros_and_bins_stay(connected: NeuronGraph) -> None:
    shuffled = fitted(connected, "strength", 5).shuffle(2)
    moved = False
    for ours, theirs in zip(shuffled.blocks, connected.blocks, strict=True):
        a, b = reference.dense(ours.weights), reference.dense(theirs.weights)
        assert ours.weights.dtype == theirs.weights.dtype
        assert_array_equal(np.sort(a, axis=None), np.sort(b, axis=None))
        assert_array_equal(a != 0, b != 0)
        width = WIDTH * b[b != 0].astype(np.float64).std()
        for found, wanted in zip(sums(ours), sums(theirs), strict=True):
            assert np.abs(found - wanted).max() <= width + 1e-9
        moved |= bool((a != b).any())
    assert moved


def test_a_seed_gives_the_same_shuffle_after_any_draws(connected: NeuronGraph) -> None:
    one, other = fitted(connected, "strength", 5), fitted(connected, "strength", 5)
    one.shuffle(0)
    pairs = zip(one.shuffle(3).blocks, other.shuffle(3).blocks, strict=True)
    for a, b in pairs:
        assert_array_equal(reference.dense(a.weights), reference.dense(b.weights))


def _admissible(values: Any, bins: Any, shape: tuple[int, int]) -> set[Any]:
    """All arrangements of the values whose rows' and columns' sums lie in the bins."""
    orders = np.array(list(itertools.permutations(values.tolist())))
    matrices = orders.reshape(-1, *shape)
    allowed = np.ones(len(orders), dtype=bool)
    for axis, (low, high) in zip((2, 1), bins, strict=True):
        total = matrices.sum(axis=axis)
        allowed &= ((low <= total) & (total <= high)).all(axis=1)
    return set(map(tuple, orders[allowed].tolist()))


@pytest.mark.parametrize(("shape", "width"), [((2, 3), 4.0), ((3, 2), 3.0)])
def test_all_admissible_arrangements_are_equally_likely(
    shape: tuple[int, int], width: float
) -> None:
    weights = np.abs(np.random.default_rng(4).standard_normal(shape))
    places, values = places_of(Block(0, 1, weights))
    bins: Any = [grid_bins(total, width, np.full(total.size, 0.3)) for total in places.sums(values)]
    expected = _admissible(values, bins, shape)
    n = 40 * len(expected)
    counts = Counter(
        tuple(places.traded(values, bins, 7, number, 0, sweeps=150).tolist()) for number in range(n)
    )
    assert set(counts) == expected
    assert len(expected) > 50
    assert stats.chisquare([counts[one] for one in expected]).pvalue > 1e-3


def test_inside_one_layer_all_admissible_arrangements_are_equally_likely() -> None:
    weights = np.triu(np.random.default_rng(8).random((4, 4)), k=1)
    places, values = places_of(Block(0, 0, weights))
    total = places.sums(values)[0]
    bins = grid_bins(total, 0.9, np.full(4, 0.4))
    expected = set()
    for order in itertools.permutations(values.tolist()):
        sums_now = places.sums(np.array(order))[0]
        if ((bins[0] <= sums_now) & (sums_now <= bins[1])).all():
            expected.add(order)
    n = 80 * len(expected)
    counts = Counter(
        tuple(places.traded(values, (bins, bins), 7, number, 0, sweeps=30)) for number in range(n)
    )
    assert len(expected) > 3
    assert set(counts) <= expected
    # A chain that only ever exchanges two entries of two vertices need not reach all of them.
    assert stats.chisquare([counts[one] for one in expected if one in counts]).pvalue > 1e-3


@pytest.mark.parametrize("sweeps", [1, 10])
def test_p_is_exact_however_few_trades(sweeps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """For exchangeable weights the rank of the network among its shuffles is uniform."""
    monkeypatch.setattr("ncut.nulls.trades.SWEEPS", sweeps)
    n, ranks = 400, []
    for seed in range(n):
        weights = np.abs(np.random.default_rng([11, seed]).standard_t(3, (8, 8)))
        null = fitted(chain_graph([weights]), "strength", seed)
        found = [weights, *(null.shuffle(number).blocks[0].weights for number in range(4))]
        scores = [float(one[:4, :4].sum()) for one in found]  # type: ignore[index]
        noise = np.random.default_rng([12, seed]).random(5) * 1e-9  # ties broken fairly
        ranks.append(int(np.argsort(np.argsort(np.array(scores) + noise))[0]))
    counts = np.bincount(ranks, minlength=5)
    assert stats.chisquare(counts).pvalue > 1e-3


def test_heavy_tails_of_an_untrained_network_are_no_clusters() -> None:
    """Restoring sums by scaling found 87 % of such networks significant."""
    found = 0
    for seed in range(20):
        rng = np.random.default_rng([3, seed])
        weights = [np.abs(rng.standard_t(3, shape)) for shape in ((32, 32), (32, 32), (32, 8))]
        report = ncut.analyze(
            weights, k=3, shuffles=19, null="strength", seed=seed, n_init=1, threads=1, tests=()
        )
        p = report.statistics["lower_bound"].p_value
        assert p is not None
        found += p <= 0.05
    assert found <= 5  # P(more) = 3e-4 at the level


def test_a_chain_that_cannot_move_is_said_to_be_stuck() -> None:
    graph = chain_graph([np.diag([1.0, 2.0, 3.0]), np.diag([3.0, 2.0, 1.0])])
    _, note = fitted(graph, "strength", 0).notes()
    assert "hardly move" in note
    assert "little power" in note
    assert len(fitted(chain_graph(random_chain(3, (30, 30, 30))), "strength", 0).notes()) == 1


def test_every_report_and_verdict_says_that_p_values_are_not_calibrated() -> None:
    chain = random_chain(3, (20, 20, 20))
    report = ncut.analyze(chain, k=3, shuffles=2, null="strength", n_init=1, threads=1, tests=())
    said = "p-values are too small on networks whose neurons differ in scale"
    assert said in " ".join(str(report).split())
    assert said in report.to_json()
    assert said in report.to_html()
    verdict = ncut.verdict(
        chain, k=3, shuffles=19, null="strength", normalize="none", rescalings=0, n_init=1
    )
    assert said in " ".join(str(verdict).split())
    assert "strength" not in {test.name for test in verdict.tests}
    assert not any(said in one for one in ncut.analyze(chain, k=3, shuffles=2).warnings)


def test_rank_correlation_is_one_where_nothing_moved_and_small_for_other_numbers() -> None:
    places, values = places_of(Block(0, 1, np.random.default_rng(0).random((40, 40))))
    assert rank_correlation(places, values, values) == pytest.approx(1)
    assert rank_correlation(places, values, np.random.default_rng(1).permutation(values)) < 0.1


def test_kernel_refuses_other_arrays_than_matrices() -> None:
    values, bins = np.ones(2), np.zeros((2, 2))
    options: Any = {"triangle": False, "halves": 1, "seed": 0, "stream": 0, "substream": 0}
    for indptr, indices in (([0, 1], [0, 1]), ([0, 1, 2], [0, 2]), ([0, 2, 2], [1, 0])):
        with pytest.raises(ValueError, match=r"indptr|indices"):
            kernels.trade(np.array(indptr), np.array(indices), 2, values, (bins, bins), **options)
    with pytest.raises(ValueError, match="row_bins"):
        kernels.trade(
            np.array([0, 1, 2]), np.array([0, 1]), 2, values, (np.zeros((2, 3)), bins), **options
        )
