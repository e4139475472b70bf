"""The null model "strength": every vertex keeps its sums, every zero its place, nothing else."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_dtypes import bfloat16
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from samples import (
    Matrices,
    as_csr,
    chain_graph,
    random_chain,
    skip_graph,
    small_chains,
    stored_blocks,
    with_isolated,
)

from ncut import analyze, reference
from ncut.errors import InputError
from ncut.graphs import NeuronGraph, from_adjacency
from ncut.nulls import null_notes, shuffle, strength
from ncut.nulls.strength import ACCEPTED, with_strengths_of
from ncut.types import Block


def strength_deviation(original: Block, shuffled: Block) -> float:
    """Largest relative difference between a vertex's sums in a block and in its shuffle."""
    deviations = []
    for axes in [(0, 1)] if original.source == original.target else [(0,), (1,)]:
        found, wanted = (
            sum(np.asarray(one.weights.sum(axis=axis, dtype=np.float64)).ravel() for axis in axes)
            for one in (shuffled, original)
        )
        off = np.abs(np.subtract(found, wanted))
        deviations.append(
            np.divide(off, wanted, out=off.copy(), where=np.asarray(wanted) > 0).max()
        )
    return float(max(deviations))


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


def sums(block: Block) -> list[NDArray[np.float64]]:
    """What is kept of each vertex: row and column sums, inside a layer degrees."""
    weights = reference.dense(block.weights)
    rows, columns = weights.sum(axis=1), weights.sum(axis=0)
    return [rows + columns] if block.source == block.target else [rows, columns]


def check_kept(block: Block, original: Block, rtol: float) -> None:
    ours, theirs = reference.dense(block.weights), reference.dense(original.weights)
    np.testing.assert_array_equal(ours > 0, theirs > 0)
    for found, wanted in zip(sums(block), sums(original), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=rtol)


def test_sums_and_zeros_stay_and_weights_do_not(connected: NeuronGraph) -> None:
    shuffled = shuffle(connected, "strength", seed=3)
    for block, original in zip(shuffled.blocks, connected.blocks, strict=True):
        check_kept(block, original, 1e-5)
        ours, theirs = reference.dense(block.weights), reference.dense(original.weights)
        assert np.abs(ours - theirs).max() > 0.1
        assert not np.array_equal(np.sort(ours, axis=None), np.sort(theirs, axis=None))


def test_degrees_stay(connected: NeuronGraph) -> None:
    degrees = shuffle(connected, "strength", seed=5).degrees
    np.testing.assert_allclose(degrees, connected.degrees, rtol=1e-5)


@given(small_chains(), st.integers(0, 2**64 - 1))
def test_any_chain(weights: Matrices, seed: int) -> None:
    connected, _ = chain_graph(weights).without_isolated()
    shuffled = shuffle(connected, "strength", seed)
    for block, original in zip(shuffled.blocks, connected.blocks, strict=True):
        assert strength_deviation(original, block) < 1e-5
        check_kept(block, original, 1e-5)


@given(st.data(), st.booleans(), st.integers(0, 2**32))
def test_any_block_keeps_its_sums_or_is_refused(data: Any, triangle: bool, seed: int) -> None:
    weights = data.draw(stored_blocks(5, 5 if triangle else 4, triangle))
    block = Block(0, 0 if triangle else 1, weights)
    matrix = reference.dense(weights)
    values = np.random.default_rng(seed).permutation(matrix[matrix > 0])
    mixed = np.zeros_like(matrix)
    mixed[matrix > 0] = values
    shuffled = mixed if isinstance(weights, np.ndarray) else as_csr(mixed)
    try:
        scaled = with_strengths_of(block, shuffled)
    except InputError:
        return
    check_kept(replace(block, weights=scaled), block, 2 * ACCEPTED)


@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sparse_blocks_keep_their_form(index: Any, dtype: Any) -> None:
    graph = chain_graph(random_chain(7, (60, 70, 50), 0.1, dtype)).without_isolated()[0]
    blocks = tuple(
        replace(block, weights=as_csr(reference.dense(block.weights).astype(dtype), index))
        for block in graph.blocks
    )
    shuffled = shuffle(replace(graph, blocks=blocks), "strength", seed=3)
    for block, original in zip(shuffled.blocks, blocks, strict=True):
        found: Any = block.weights
        wanted: Any = original.weights
        assert found.dtype == dtype
        assert found.indices.dtype == found.indptr.dtype == index
        assert_array_equal(found.indices, wanted.indices)
        assert_array_equal(found.indptr, wanted.indptr)
        check_kept(block, original, 1e-5)
        assert strength_deviation(original, block) < 1e-5


@pytest.mark.parametrize("sparse", [False, True])
def test_rows_and_columns_without_weights_stay_without(sparse: bool) -> None:
    first, second = random_chain(3, (12, 15, 10))
    first[:, 4] = 0  # reads nothing, but is read
    second[6] = 0  # reads, but is not read
    first[2, 1:] = 0  # its one weight has no choice
    graph = chain_graph([first, second])
    assert graph.without_isolated()[0] is graph
    if sparse:
        blocks = (replace(b, weights=as_csr(reference.dense(b.weights))) for b in graph.blocks)
        graph = replace(graph, blocks=tuple(blocks))
    shuffled = shuffle(graph, "strength", seed=3)
    for block, original in zip(shuffled.blocks, graph.blocks, strict=True):
        check_kept(block, original, 1e-5)
    one, two = (reference.dense(block.weights) for block in shuffled.blocks)
    assert not one[:, 4].any()
    assert not two[6].any()
    assert one[2, 0] == pytest.approx(first[2, 0], rel=1e-5)


@pytest.mark.parametrize("sparse", [False, True])
def test_inside_a_layer_the_triangle_and_the_degrees_stay(sparse: bool) -> None:
    graph = GRAPHS["not bipartite"]()
    (original,) = graph.blocks
    dense = reference.dense(original.weights)
    graph = replace(graph, blocks=(replace(original, weights=as_csr(dense) if sparse else dense),))
    shuffled = shuffle(graph, "strength", seed=3)
    (block,) = shuffled.blocks
    assert isinstance(block.weights, np.ndarray) != sparse
    found = reference.dense(block.weights)
    assert not np.tril(found).any()
    assert_array_equal(found > 0, dense > 0)
    np.testing.assert_allclose(shuffled.degrees, graph.degrees, rtol=1e-5)
    # Only degrees are kept: inside a layer rows and columns of a triangle mean nothing.
    assert np.abs(found.sum(axis=1) / dense.sum(axis=1).clip(1e-9) - 1).max() > 0.01


def test_magnitude_pruned_layers_are_restored_to_1e_5() -> None:
    rng = np.random.default_rng(0)
    for seed, (share, spread) in enumerate(itertools.product((0.3, 0.1, 0.02), (0.0, 0.5, 1.0))):
        weights = []
        for n, m in itertools.pairwise((300, 100, 100, 10)):
            scales = np.exp(spread * rng.standard_normal((n, 1)))
            scales = scales * np.exp(spread * rng.standard_normal(m))
            magnitudes = np.abs(scales * rng.standard_normal((n, m)))
            least = np.quantile(magnitudes, 1 - share)
            weights.append(np.where(magnitudes > least, magnitudes, 0).astype(np.float32))
        graph, _ = chain_graph(weights).without_isolated()
        shuffled = shuffle(graph, "strength", seed)
        for block, original in zip(shuffled.blocks, graph.blocks, strict=True):
            check_kept(block, original, 1e-5)
        np.testing.assert_allclose(shuffled.degrees, graph.degrees, rtol=1e-5)


def test_the_seed_of_the_analysis_is_that_of_the_shuffles() -> None:
    graph = GRAPHS["dense"]()
    report = analyze(graph, k=3, shuffles=3, null="strength", seed=5)
    again = analyze(graph, k=3, shuffles=3, null="strength", seed=5, threads=1)
    for name, statistic in report.statistics.items():
        assert_array_equal(statistic.shuffled, again.statistics[name].shuffled)
    (note,) = null_notes(graph, "strength")
    assert note in report.warnings


def test_the_result_is_the_permutation_times_factors_of_rows_and_columns() -> None:
    graph = GRAPHS["dense"]()
    permuted = shuffle(graph, "layer-nonzero", seed=3)
    for block, mixed in zip(
        shuffle(graph, "strength", seed=3).blocks, permuted.blocks, strict=True
    ):
        logs = np.log(reference.dense(block.weights) / reference.dense(mixed.weights))
        logs -= logs.mean(axis=0)
        logs -= logs.mean(axis=1)[:, None]
        np.testing.assert_allclose(logs, 0, atol=1e-12)


def test_inside_a_layer_each_vertex_has_one_factor() -> None:
    graph = GRAPHS["not bipartite"]()
    (mixed,) = shuffle(graph, "layer-nonzero", seed=3).blocks
    (block,) = shuffle(graph, "strength", seed=3).blocks
    ours, theirs = reference.dense(block.weights), reference.dense(mixed.weights)
    i, j = np.nonzero(theirs)
    # log of the ratio is x_i + x_j: a linear system with far more equations than unknowns.
    incidence = np.zeros((i.size, graph.n_vertices))
    incidence[np.arange(i.size), i] = incidence[np.arange(i.size), j] = 1
    logs = np.log(ours[i, j] / theirs[i, j])
    solution = np.linalg.lstsq(incidence, logs, rcond=None)[0]
    np.testing.assert_allclose(incidence @ solution, logs, atol=1e-10)


def test_where_the_sums_leave_no_choice_the_network_comes_back() -> None:
    star = np.array([[1.0, 2.0, 3.0, 4.0]])
    (block,) = shuffle(chain_graph([star]), "strength", seed=1).blocks
    np.testing.assert_allclose(reference.dense(block.weights), star, rtol=1e-5)


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32", "dense", "sparse"])
def test_number_types(name: str) -> None:
    graph = GRAPHS[name]()
    for block, original in zip(shuffle(graph, "strength").blocks, graph.blocks, strict=True):
        was_double = original.weights.dtype == np.float64
        assert block.weights.dtype == (np.float64 if was_double else np.float32)


@pytest.mark.parametrize("triangle", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, bfloat16])
def test_large_dense_blocks_are_scaled_in_their_own_precision(
    triangle: bool, dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (weights,) = random_chain(21, (70, 70), dtype=dtype)
    block = Block(0, int(not triangle), np.triu(weights, k=1) if triangle else weights)
    mixed = np.random.default_rng(0).permuted(weights)
    shuffled = np.where(block.weights > 0, mixed, mixed.dtype.type(0))
    monkeypatch.setattr(strength, "DOUBLE_ENTRIES", 1)
    scaled = with_strengths_of(block, shuffled)
    assert scaled.dtype == np.float32
    check_kept(replace(block, weights=scaled), block, 2e-4)


@pytest.mark.parametrize("sparse", [False, True])
def test_weights_too_small_for_the_type_stay_above_zero(sparse: bool) -> None:
    weights = np.array([[1e-30, 1.0], [1.0, 1e-30]], dtype=np.float32)
    mixed = np.array([[1.0, 1e-30], [1e-30, 1.0]], dtype=np.float32)
    scaled = strength._scaled(
        as_csr(mixed.astype(np.float64)) if sparse else mixed.astype(np.float64),
        np.array([1e-20, 1.0]),
        np.array([1.0, 1e-20]),
        np.float32,
    )
    assert (reference.dense(scaled) > 0).all()
    assert weights.dtype == scaled.dtype


def test_deviation_by_hand() -> None:
    weights = np.array([[1.0, 2.0], [3.0, 4.0]])
    block = Block(0, 1, weights)
    assert strength_deviation(block, block) == 0
    moved = replace(block, weights=np.array([[1.0, 2.0], [3.0, 4.7]]))
    assert strength_deviation(block, moved) == pytest.approx(0.7 / 6)
    inside = Block(0, 0, np.array([[0.0, 1, 2], [0, 0, 3], [0, 0, 0]]))
    turned = replace(inside, weights=np.array([[0.0, 1, 2], [0, 0, 4], [0, 0, 0]]))
    assert strength_deviation(inside, turned) == pytest.approx(1 / 4)


def test_deviation_counts_in_double_precision() -> None:
    ones = np.ones((5000, 1))
    for dtype in (np.float16, bfloat16, np.float32):
        assert strength_deviation(Block(0, 1, ones), Block(0, 1, ones.astype(dtype))) == 0


def test_seed_and_number_decide(connected: NeuronGraph) -> None:
    def shuffled(seed: int, number: int) -> list[NDArray[np.float64]]:
        blocks = shuffle(connected, "strength", seed, number).blocks
        return [reference.dense(block.weights) for block in blocks]

    for first, again, other in zip(shuffled(3, 4), shuffled(3, 4), shuffled(3, 5), strict=True):
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)


@pytest.mark.parametrize("name", ["dense", "one layer"])
def test_sums_that_are_not_reached_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strength, "MAX_SWEEPS", 1)
    message = r"^null: 'strength' cannot restore the sums of layer .*; use 'layer-nonzero'$"
    with pytest.raises(InputError, match=message):
        shuffle(GRAPHS[name](), "strength")
