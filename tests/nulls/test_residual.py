"""Null models on residuals: free of scale, dead ends left out, pairs drawn within strata."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from samples import chain_graph, random_chain, skip_graph
from scipy.sparse import csr_array

import ncut
from ncut import kernels, reference
from ncut.errors import InputError
from ncut.graphs import from_adjacency
from ncut.graphs.residual import residual
from ncut.nulls import fitted
from ncut.nulls.alignment import strata
from ncut.nulls.residual import efficient_exponent

NULLS = ("residual", "alignment")


def pruned(seed: int, share: float = 0.3) -> list[Any]:
    chain = random_chain(seed, (40, 32, 32, 10))
    return [w * (w > np.quantile(w, 1 - share)) for w in chain]


@pytest.mark.parametrize("share", [1.0, 0.3, 0.06])
def test_rows_and_columns_have_a_mean_of_one_over_their_edges(share: float) -> None:
    graph = chain_graph(pruned(3, share)).normalized("residual")
    for block in graph.blocks:
        weights = reference.dense(block.weights)
        for axis in (0, 1):
            counts = (weights > 0).sum(axis=axis)
            assert_allclose(weights.sum(axis=axis), counts, rtol=1e-10)


def test_inside_a_layer_every_vertex_has_a_mean_of_one() -> None:
    whole = from_adjacency(skip_graph(15, (12, 15, 10), 0.6).adjacency)
    weights = reference.dense(whole.normalized("residual").blocks[0].weights)
    both = weights + weights.T
    assert_allclose(both.sum(axis=0), (both > 0).sum(axis=0), rtol=1e-10)


def test_scales_of_rows_and_columns_do_not_matter() -> None:
    rng = np.random.default_rng(5)
    weights = rng.random((30, 20)) * (rng.random((30, 20)) < 0.15)
    scaled = np.exp(3 * rng.standard_normal(30))[:, None] * weights
    scaled = scaled * np.exp(3 * rng.standard_normal(20))
    assert_allclose(residual(scaled), residual(weights), rtol=1e-8)


@pytest.mark.parametrize("share", [1.0, 0.1, 0.03])
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("triangle", [False, True])
def test_residuals_match_scaling_rows_and_columns_in_turn(
    share: float, sparse: bool, triangle: bool
) -> None:
    """Against plain sweeps, those of Sinkhorn and Knopp."""
    rng = np.random.default_rng(8)
    weights = rng.lognormal(size=(60, 60)) * (rng.random((60, 60)) < share)
    if triangle:
        weights = np.triu(weights, 1)
    scaled = weights + weights.T if triangle else weights.copy()
    present = scaled > 0
    for _ in range(5_000):
        for axis in (1, 0):
            sums, counts = scaled.sum(axis=axis), present.sum(axis=axis)
            factor = np.divide(counts, sums, out=np.ones(60), where=counts > 0)
            scaled *= np.expand_dims(factor, axis)
    found = residual(csr_array(weights) if sparse else weights, triangle)
    expected = np.triu(scaled) if triangle else scaled
    assert_allclose(found.toarray() if sparse else found, expected, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("share", [0.03, 0.06, 0.2])
def test_sums_of_sparse_blocks_reach_the_tolerance(share: float) -> None:
    """Newton's method does not stand still where rounding begins."""
    for seed in range(100):
        rng = np.random.default_rng(seed)
        weights = np.abs(rng.standard_normal((40, 32))) * (rng.random((40, 32)) < share)
        _, left = kernels.sinkhorn(
            csr_array(weights), triangle=False, tolerance=1e-12, max_sweeps=30
        )
        assert left <= 1e-11


@pytest.mark.parametrize("null", NULLS)
@pytest.mark.parametrize("share", [1.0, 0.3])
def test_z_and_p_do_not_change_with_rescalings(null: str, share: float) -> None:
    graph = chain_graph(pruned(7, share))
    options: Any = {"k": 3, "shuffles": 9, "null": null, "threads": 1, "tests": ()}
    ours, other = (ncut.analyze(one, **options) for one in (graph, graph.rescaled(2)))
    assert ours.normalize == "residual"
    for name, compared in ours.statistics.items():
        assert other.statistics[name].z_score == pytest.approx(compared.z_score, abs=1e-8, rel=1e-8)
        assert other.statistics[name].p_value == compared.p_value


def test_dead_ends_are_left_out_again_and_again() -> None:
    w0, w1, w2 = (np.ones((3, 3)) for _ in range(3))
    w2[2] = 0  # nothing reads neuron 2 of the third layer,
    w1[1, :2] = 0  # so nothing depends on neuron 1 of the second
    report = ncut.analyze(
        chain_graph([w0, w1, w2]), k=2, shuffles=0, normalize="residual", threads=1
    )
    assert_array_equal(np.flatnonzero(report.labels < 0), [4, 8])
    assert any("2 neurons have no incoming or no outgoing weights" in w for w in report.warnings)


def test_networks_under_residual_are_residuals() -> None:
    graph = chain_graph(pruned(4))
    for block in fitted(graph, "residual", 1).shuffle(0).blocks:
        weights = reference.dense(block.weights)
        assert_allclose(weights.sum(axis=0), (weights > 0).sum(axis=0), rtol=1e-9)
        assert_allclose(weights.sum(axis=1), (weights > 0).sum(axis=1), rtol=1e-9)


@pytest.mark.parametrize(
    ("draw", "low", "high"),
    [
        (lambda rng: np.abs(rng.standard_normal(200_000)), 1.8, 2.3),
        (lambda rng: rng.random(200_000), 4.5, 8.0),
        (lambda rng: np.abs(rng.standard_t(3, 200_000)), 0.4, 0.9),
        (lambda rng: np.exp(rng.standard_normal(200_000)), 0.1, 0.25),
    ],
    ids=["normal", "uniform", "t(3)", "log-normal"],
)
def test_efficient_exponents(draw: Any, low: float, high: float) -> None:
    assert low <= efficient_exponent(draw(np.random.default_rng(6))) <= high


def test_alignment_keeps_every_matrix_but_for_the_order_of_its_rows() -> None:
    graph = chain_graph(pruned(9))
    null = fitted(graph, "alignment", 3)
    shuffled = null.shuffle(0)
    first, *rest = zip(null.graph.blocks, shuffled.blocks, strict=True)
    assert_array_equal(*(reference.dense(block.weights) for block in first))
    for ours, theirs in rest:
        a, b = (reference.dense(block.weights) for block in (ours, theirs))
        assert (a != b).any()
        assert_array_equal(np.sort(a, axis=0), np.sort(b, axis=0))
        assert sorted(map(tuple, a)) == sorted(map(tuple, b))


def test_all_outgoing_blocks_of_a_layer_are_paired_anew_together() -> None:
    rng = np.random.default_rng(2)
    graph = skip_graph(15, (12, 15, 10), 1.0)
    shuffled = fitted(graph, "alignment", int(rng.integers(9))).shuffle(0)
    joined = [
        np.hstack([reference.dense(b.weights) for b in one.blocks if b.source == 1])
        for one in (fitted(graph, "alignment", 0).graph, shuffled)
    ]
    assert sorted(map(tuple, joined[0].tolist())) == sorted(map(tuple, joined[1].tolist()))


def test_strata_hold_similar_neurons_and_never_split_equal_ones() -> None:
    counts = np.random.default_rng(1).integers(0, 30, 200)
    groups = strata(counts)
    assert_array_equal(np.sort(np.concatenate(groups)), np.arange(200))
    assert len(groups) <= 8
    assert min(map(len, groups)) >= 25
    limits = [(counts[group].min(), counts[group].max()) for group in groups]
    assert all(before[1] < after[0] for before, after in pairwise(limits))
    assert len(strata(np.full(100, 7))) == 1
    assert len(strata(np.arange(5))) == 1


def test_alignment_says_what_it_cannot_pair() -> None:
    weights = random_chain(3, (8, 9, 8))
    with pytest.raises(InputError, match="no direction"):
        ncut.shuffle(chain_graph(weights).adjacency, "alignment")
    with pytest.raises(InputError, match="needs a layer with incoming and outgoing"):
        ncut.shuffle(chain_graph(weights[:1]), "alignment")


def test_alignment_refuses_streams_and_copies() -> None:
    import torch
    from torch import nn

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.a(x)
            return self.c(x + torch.relu(self.b(x)))

    inputs = torch.zeros(1, 8)
    with pytest.raises(InputError, match="residual='readers'"):
        ncut.shuffle(ncut.graph(Residual(), example_inputs=inputs, residual="stream"), "alignment")
    ncut.shuffle(ncut.graph(Residual(), example_inputs=inputs, residual="readers"), "alignment")

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(6, 8))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(x @ self.weight.T) @ self.weight

    with pytest.raises(InputError, match="copies of each other"):
        ncut.shuffle(ncut.graph(Tied(), example_inputs=inputs), "alignment")


@pytest.mark.parametrize("null", NULLS)
def test_other_conventions_are_refused(null: str) -> None:
    with pytest.raises(InputError, match="normalize: null="):
        ncut.analyze(random_chain(3, (8, 9, 8)), k=2, shuffles=1, null=null, normalize="l2")


def planted(seed: int, effects: float) -> list[Any]:
    """Two planted groups through all layers, and neurons of any scale."""
    rng = np.random.default_rng(seed)
    chain = []
    for rows, columns in ((32, 32), (32, 32), (32, 16)):
        weights = np.abs(rng.standard_normal((rows, columns)))
        same = (np.arange(rows) % 2)[:, None] == np.arange(columns) % 2
        weights *= np.where(same, 1.6, 1.0)
        weights *= np.exp(effects * rng.standard_normal(rows))[:, None]
        chain.append(weights * np.exp(effects * rng.standard_normal(columns)))
    return chain


@pytest.mark.parametrize("null", NULLS)
def test_planted_clusters_are_found_at_any_scale_of_neurons(null: str) -> None:
    # Four layers have two small eigenvalues of depth, the groups have the third.
    report = ncut.analyze(planted(5, 1.0), k=3, shuffles=19, null=null, threads=1, tests=())
    assert report.statistics["lower_bound"].p_value == 0.05


def test_eigenvalues_of_depth_are_no_clusters() -> None:
    """With k = 2 the bounds of all re-pairings are equal, and no rounding error decides."""
    report = ncut.analyze(planted(5, 1.0), k=2, shuffles=19, threads=1)
    assert report.tests["alignment"].p_value == 1


@pytest.mark.parametrize("sweeps", [-1, 2**40])
def test_sweeps_without_an_end_are_refused(sweeps: int) -> None:
    with pytest.raises(ValueError, match="max_sweeps"):
        kernels.sinkhorn(np.ones((3, 2)), triangle=False, tolerance=1e-9, max_sweeps=sweeps)
