"""cluster(): recovers planted clusters, keeps its invariants, and names bad arguments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from checks import check_same_partition
from hypothesis import given
from hypothesis import strategies as st
from ml_dtypes import bfloat16
from samples import (
    Matrices,
    chain_graph,
    planted_chain,
    random_chain,
    side_by_side,
    side_by_side_labels,
    skip_graph,
    small_chains,
    with_isolated,
)
from scipy import sparse
from sklearn.metrics import adjusted_rand_score

from ncut import reference
from ncut.errors import InputError
from ncut.graphs import NeuronGraph
from ncut.spectral import cluster, normalized_cut
from ncut.types import Clustering

SIZES = (120, 200, 90)


def assert_equal(one: Clustering, other: Clustering) -> None:
    np.testing.assert_array_equal(one.labels, other.labels)
    np.testing.assert_array_equal(one.eigenvalues, other.eigenvalues)
    assert one.ncut == other.ncut
    assert (one.solver, one.residual, one.n_init) == (other.solver, other.residual, other.n_init)


def blocks(number: int) -> tuple[NeuronGraph, np.ndarray]:
    chains = [random_chain(3 + i, (30, 50, 25)) for i in range(number)]
    return chain_graph(side_by_side(*chains)), side_by_side_labels(*chains)


@pytest.mark.parametrize("number", [2, 4, 7])
def test_disconnected_blocks_are_found_and_cut_nothing(solver: str, number: int) -> None:
    graph, groups = blocks(number)
    found = cluster(graph, number, solver=solver)
    check_same_partition(found.labels, groups)
    assert found.ncut == 0.0
    np.testing.assert_allclose(found.eigenvalues, 0, atol=1e-12)


def test_more_blocks_than_clusters_cut_nothing() -> None:
    graph, groups = blocks(7)
    found = cluster(graph, 4)
    assert found.ncut == 0.0
    for group in range(7):
        assert len(set(found.labels[groups == group])) == 1


def test_more_clusters_than_blocks_cut_inside_them() -> None:
    graph, groups = blocks(3)
    found = cluster(graph, 5)
    assert 0 < found.ncut < 2
    for label in range(5):
        assert len(set(groups[found.labels == label])) == 1


@pytest.mark.parametrize("noise", [0.01, 0.05, 0.1])
def test_planted_blocks_are_recovered(solver: str, noise: float) -> None:
    weights, groups = planted_chain(5, n_groups=4, per_group=55, n_layers=3, noise=noise)
    found = cluster(chain_graph(weights), 4, solver=solver)
    assert adjusted_rand_score(groups, found.labels) > 0.99
    assert found.ncut == pytest.approx(normalized_cut(chain_graph(weights), groups), rel=0.01)


def test_the_recovery_test_would_notice_noise() -> None:
    weights, groups = planted_chain(5, n_groups=4, per_group=55, n_layers=3, noise=1.0)
    found = cluster(chain_graph(weights), 4)
    assert adjusted_rand_score(groups, found.labels) < 0.5


@given(small_chains(), st.integers(2, 6), st.booleans())
def test_promises_hold_for_any_small_graph(weights: Matrices, k: int, refine: bool) -> None:
    graph = chain_graph(weights)
    connected = graph.degrees > 0
    if k >= np.count_nonzero(connected):
        with pytest.raises(InputError, match="k: must be less than"):
            cluster(graph, k, refine=refine)
        return
    found = cluster(graph, k, refine=refine)
    assert found.labels.dtype == np.int32
    np.testing.assert_array_equal(found.labels == -1, ~connected)
    assert found.labels.max() < k
    expected = reference.normalized_cut(graph.adjacency.toarray(), found.labels)
    assert found.ncut == pytest.approx(expected, rel=1e-12, abs=1e-13)
    assert 0 <= found.ncut <= k
    assert found.eigenvalues.shape == (k,)
    # The relaxation bounds the cut from below, when all clusters are used.
    if len(set(found.labels[connected])) == k:
        assert found.ncut >= found.eigenvalues.sum() - 1e-6
    assert found.k == k
    assert found.converged


@given(small_chains(), st.integers(2, 6))
def test_refinement_never_makes_it_worse(weights: Matrices, k: int) -> None:
    graph = chain_graph(weights)
    if k >= np.count_nonzero(graph.degrees):
        return
    plain, refined = cluster(graph, k), cluster(graph, k, refine=True)
    assert refined.ncut <= plain.ncut + 1e-12
    assert set(refined.labels) == set(plain.labels)


def test_refinement_stops_where_no_single_move_helps() -> None:
    graph = skip_graph(7, (20, 25, 15))
    found = cluster(graph, 4, refine=True)
    plain = cluster(graph, 4)
    assert found.ncut < plain.ncut
    for vertex in range(graph.n_vertices):
        for label in range(4):
            moved = found.labels.copy()
            moved[vertex] = label
            if len(set(moved)) == 4:
                assert normalized_cut(graph, moved) >= found.ncut - 1e-9


@pytest.mark.parametrize("refine", [False, True])
def test_the_seed_decides_and_threads_do_not(solver: str, refine: bool) -> None:
    graph = chain_graph(random_chain(9, SIZES))
    first = cluster(graph, 6, solver=solver, seed=3, threads=1, refine=refine)
    for threads in (1, 2, 3):
        again = cluster(graph, 6, solver=solver, seed=3, threads=threads, refine=refine)
        assert_equal(again, first)
    other = cluster(graph, 6, solver=solver, seed=4, refine=refine, n_init=1)
    once = cluster(graph, 6, solver=solver, seed=3, refine=refine, n_init=1)
    assert not np.array_equal(other.labels, once.labels)


@pytest.mark.parametrize("kind", [sparse.csr_array, sparse.coo_matrix, np.asarray])
def test_an_adjacency_gives_what_its_graph_gives(kind: Any) -> None:
    weights, groups = planted_chain(11, n_groups=3, per_group=8, n_layers=3, noise=0.02)
    adjacency = kind(chain_graph(weights).adjacency.toarray())
    found = cluster(adjacency, 3)
    check_same_partition(found.labels, groups)


def test_isolated_vertices_do_not_change_the_rest() -> None:
    weights = with_isolated(random_chain(13, (30, 40, 20)), 15, n_per_layer=4)
    graph = chain_graph(weights)
    rest, kept = graph.without_isolated()
    whole, alone = cluster(graph, 5), cluster(rest, 5)
    np.testing.assert_array_equal(whole.labels[kept], alone.labels)
    assert whole.ncut == alone.ncut
    assert np.count_nonzero(whole.labels == -1) == graph.n_vertices - kept.size >= 12


def test_scaling_the_weights_changes_only_rounding() -> None:
    weights, _ = planted_chain(17, n_groups=5, per_group=20, n_layers=4, noise=0.1)
    one = cluster(chain_graph(weights), 5)
    for scale in (1e-8, 1e8):
        other = cluster(chain_graph([matrix * scale for matrix in weights]), 5)
        check_same_partition(other.labels, one.labels)
        assert other.ncut == pytest.approx(one.ncut, rel=1e-10)


@pytest.mark.parametrize("dtype", [np.float16, bfloat16])
@pytest.mark.parametrize("refine", [False, True])
def test_weights_of_16_bits_match_the_same_numbers_in_64(dtype: Any, refine: bool) -> None:
    weights, _ = planted_chain(17, n_groups=5, per_group=20, n_layers=4, noise=0.1)
    short = [matrix.astype(dtype) for matrix in weights]
    one = cluster(chain_graph(short), 5, refine=refine)
    other = cluster(chain_graph([matrix.astype(float) for matrix in short]), 5, refine=refine)
    check_same_partition(one.labels, other.labels)
    assert one.ncut == pytest.approx(other.ncut, rel=1e-12)
    np.testing.assert_allclose(one.eigenvalues, other.eigenvalues, atol=1e-7)


def test_restarts_follow_the_size() -> None:
    small = chain_graph(random_chain(19, (40, 50)))
    large = chain_graph(random_chain(19, (1001, 1000), 0.01))
    assert cluster(small, 3).n_init == 25
    assert cluster(large.without_isolated()[0], 3).n_init == 100
    assert cluster(small, 3, n_init=7).n_init == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 1}, r"k: must be at least 2, got 1"),
        ({"k": 0}, r"k: must be at least 2"),
        ({"k": -3}, r"k: must be at least 2"),
        ({"k": 15}, "k: must be less than 15, the number of vertices .*, got 15"),
        ({"k": 16}, "k: must be less than 15, .*, got 16"),
        ({"k": 2.0}, r"k: must be a whole number"),
        ({"k": "2"}, r"k: must be a whole number"),
        ({"k": None}, r"k: must be a whole number"),
        ({"k": True}, r"k: must be a whole number"),
        ({"n_init": 0}, r"n_init: "),
        ({"n_init": -1}, r"n_init: "),
        ({"n_init": 2.5}, r"n_init: "),
        ({"n_init": "many"}, r"n_init: "),
        ({"n_init": None}, r"n_init: "),
        ({"solver": "magic"}, r"solver: "),
        ({"solver": None}, r"solver: "),
        ({"seed": -1}, r"seed: "),
        ({"seed": 2**64}, r"seed: "),
        ({"seed": 1.0}, r"seed: "),
        ({"seed": None}, r"seed: "),
        ({"threads": 0}, r"threads: "),
        ({"threads": -2}, r"threads: "),
        ({"threads": 1.5}, r"threads: "),
    ],
    ids=str,
)
def test_bad_arguments_are_refused_by_name(arguments: dict[str, Any], message: str) -> None:
    graph = chain_graph(with_isolated(random_chain(21, (8, 9)), 23, n_per_layer=1))
    with pytest.raises(InputError, match=message):
        cluster(graph, **({"k": 3} | arguments))


@pytest.mark.parametrize("k", [np.int32(3), np.int64(3)])
def test_numpy_numbers_are_numbers(k: Any) -> None:
    graph = chain_graph(random_chain(21, (8, 9)))
    found = cluster(graph, k, seed=np.uint64(2**63), n_init=np.int16(2))
    assert found.k == 3
    assert type(found.k) is int


def test_a_partition_with_an_empty_cluster_proves_no_missed_eigenvalue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The two groups lie near each other, next to the pair's points."""
    pair = sparse.csr_array([[0.0, 1e-160], [1e-160, 0.0]])
    dense = np.ones((20, 20)) - np.eye(20)
    two = sparse.block_diag([dense, dense]).tolil()
    two[0, 20] = two[20, 0] = 0.01
    graph = sparse.block_diag([two, pair])
    assert np.unique(cluster(graph, 3).labels).size == 3
    monkeypatch.setattr(
        "ncut.spectral.clustering.partition",
        lambda points, *_, **__: np.repeat([0, 1], [40, 2]).astype(np.int32),
    )
    found = cluster(graph, 3, refine=False)
    assert np.unique(found.labels).size == 2
    assert found.converged
    assert found.lower_bound == pytest.approx(found.eigenvalues.sum(), rel=1e-6)


def test_degrees_beyond_the_range_of_numbers_are_refused() -> None:
    chain = np.diag([1.0, 8.0, 5e-324], 1)
    with pytest.raises(InputError, match=r"graph: a vertex with edges of 4.94e-324 in total"):
        cluster(sparse.csr_array(chain + chain.T), 2)
