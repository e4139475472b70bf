"""Null models: what each keeps of a network, and that nothing else remains."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from checks import check_adjacency, check_same_multiset
from hypothesis import given
from hypothesis import strategies as st
from ml_dtypes import bfloat16
from samples import (
    Matrices,
    chain_graph,
    placed_blocks,
    random_chain,
    skip_graph,
    small_chains,
    with_isolated,
)
from scipy import stats

from ncut import reference
from ncut.errors import InputError
from ncut.graphs import NeuronGraph, from_adjacency
from ncut.nulls import NULL_MODELS, check_null, shuffle
from ncut.spectral import normalized_cut

# test_init.py and test_residual.py are about those that not every graph has, or that change it.
NULLS = sorted(set(NULL_MODELS) - {"init", "residual", "alignment"})
KEEP_TOPOLOGY = ["layer-nonzero", "layer-nonzero-kde"]
KEEP_VALUES = ["layer", "layer-nonzero"]
PERMUTATIONS = [*KEEP_VALUES, "tied"]

GRAPHS = {
    "dense": lambda: chain_graph(random_chain(3, (12, 15, 10))),
    "half": lambda: chain_graph(random_chain(5, (12, 15, 10), 0.5)),
    "sparse": lambda: chain_graph(random_chain(7, (60, 70, 50), 0.1)),
    "float32": lambda: chain_graph(random_chain(9, (12, 15, 10), dtype=np.float32)),
    "float16": lambda: chain_graph(random_chain(9, (12, 15, 10), dtype=np.float16)),
    "bfloat16": lambda: chain_graph(random_chain(9, (12, 15, 10), dtype=bfloat16)),
    "isolated": lambda: chain_graph(with_isolated(random_chain(11, (12, 15, 10)), 13)),
    "skip": lambda: skip_graph(15, (12, 15, 10), 0.6),
    "one layer": lambda: from_adjacency(chain_graph(random_chain(17, (12, 15, 10))).adjacency),
}


def dense(graph: NeuronGraph) -> list[np.ndarray]:
    """The blocks' weights as float64 matrices."""
    return [reference.dense(block.weights) for block in graph.blocks]


@pytest.fixture(params=GRAPHS)
def connected(request: pytest.FixtureRequest) -> NeuronGraph:
    return GRAPHS[request.param]().without_isolated()[0]


@pytest.mark.parametrize("null", NULLS)
def test_the_shape_of_the_network_stays(null: str, connected: NeuronGraph) -> None:
    shuffled = shuffle(connected, null, seed=3)
    check_adjacency(shuffled.adjacency)
    assert shuffled.layers == connected.layers
    assert shuffled.name == connected.name
    assert shuffled.left_out == connected.left_out
    assert shuffled.n_edges == connected.n_edges
    assert shuffled.adjacency.dtype == connected.adjacency.dtype
    for block, original in zip(shuffled.blocks, connected.blocks, strict=True):
        assert (block.source, block.target) == (original.source, original.target)
        assert block.name == original.name
        assert type(block.weights) is type(original.weights)
        assert block.weights.shape == original.weights.shape
        kept = block.weights.dtype == original.weights.dtype
        assert kept or (null not in PERMUTATIONS and block.weights.dtype == np.float32)
        if not isinstance(block.weights, np.ndarray):
            assert block.weights.indices.dtype == original.weights.indices.dtype


@pytest.mark.parametrize("null", NULLS)
def test_a_shuffle_is_another_network_and_leaves_the_first_alone(
    null: str, connected: NeuronGraph
) -> None:
    before = dense(connected)
    shuffled = dense(shuffle(connected, null, seed=3))
    for block, original, unchanged in zip(shuffled, dense(connected), before, strict=True):
        assert not np.array_equal(block, original)
        np.testing.assert_array_equal(original, unchanged)


@pytest.mark.parametrize("null", PERMUTATIONS)
def test_permutations_keep_the_weights_of_each_layer(null: str, connected: NeuronGraph) -> None:
    shuffled = shuffle(connected, null, seed=5)
    for block, original in zip(dense(shuffled), dense(connected), strict=True):
        check_same_multiset(block, original)


@pytest.mark.parametrize("null", [*KEEP_TOPOLOGY, "strength"])
def test_some_keep_the_topology(null: str, connected: NeuronGraph) -> None:
    shuffled = shuffle(connected, null, seed=7)
    for block, original in zip(dense(shuffled), dense(connected), strict=True):
        np.testing.assert_array_equal(block != 0, original != 0)


@pytest.mark.parametrize("name", ["half", "sparse", "isolated", "skip", "one layer"])
@pytest.mark.parametrize("null", ["layer", "layer-kde", "tied"])
def test_others_do_not(null: str, name: str) -> None:
    graph, _ = GRAPHS[name]().without_isolated()
    shuffled = shuffle(graph, null, seed=7)
    for block, original in zip(dense(shuffled), dense(graph), strict=True):
        if (original == 0).any():
            assert not np.array_equal(block != 0, original != 0)


@pytest.mark.parametrize("null", ["layer-kde", "layer-nonzero-kde"])
def test_redrawn_weights_lie_near_those_of_their_layer(null: str, connected: NeuronGraph) -> None:
    shuffled = shuffle(connected, null, seed=9)
    for block, original in zip(dense(shuffled), dense(connected), strict=True):
        drawn, sample = block[block != 0], original[original != 0]
        assert drawn.size == sample.size
        assert (drawn > 0).all()
        # A bandwidth of 0.01; six standard deviations; drawn with replacement.
        nearest = np.abs(drawn[:, None] - sample[None, :]).min(axis=1)
        assert 0 < nearest.max() < 0.06
        assert np.unique(drawn).size > 0.9 * drawn.size
        assert not np.isin(drawn, sample).all()
        assert abs(drawn.mean() - sample.mean()) < 5 * sample.std() / np.sqrt(drawn.size)


@given(small_chains(), st.sampled_from(NULLS), st.integers(0, 2**64 - 1))
def test_any_chain(weights: Matrices, null: str, seed: int) -> None:
    graph = chain_graph(weights)
    shuffled = shuffle(graph, null, seed)
    connected, _ = graph.without_isolated()
    check_adjacency(shuffled.adjacency)
    assert shuffled.layers == connected.layers
    assert shuffled.n_edges == graph.n_edges
    if null in PERMUTATIONS:
        for block, original in zip(dense(shuffled), dense(connected), strict=True):
            check_same_multiset(block, original)


# test_strength.py says when it gives up, as it does for some of these.
@given(placed_blocks(), st.sampled_from(sorted({*NULLS} - {"strength"})), st.integers(0, 10_000))
def test_any_blocks(placed: Any, null: str, seed: int) -> None:
    n_vertices, blocks = placed
    adjacency = reference.adjacency(n_vertices, blocks)
    if not adjacency.any():
        return
    shuffled = shuffle(adjacency, null, seed)
    check_adjacency(shuffled.adjacency)
    assert shuffled.n_vertices == np.count_nonzero(adjacency.sum(axis=0))
    if null in PERMUTATIONS:
        ours = shuffled.adjacency.toarray()
        check_same_multiset(ours[ours != 0], adjacency[adjacency != 0])


@pytest.mark.parametrize("null", NULLS)
def test_isolated_neurons_are_removed_before(null: str) -> None:
    graph = GRAPHS["isolated"]()
    connected, _ = graph.without_isolated()
    assert connected.n_vertices < graph.n_vertices
    one, two = shuffle(graph, null, seed=11), shuffle(connected, null, seed=11)
    assert one.layers == connected.layers
    np.testing.assert_array_equal(one.adjacency.toarray(), two.adjacency.toarray())


@pytest.mark.parametrize("null", NULLS)
def test_seed_and_number_decide(null: str, connected: NeuronGraph) -> None:
    def shuffled(**which: int) -> list[np.ndarray]:
        return dense(shuffle(connected, null, **which))

    first = shuffled(seed=3, number=4)
    for block, again in zip(first, shuffled(seed=3, number=4), strict=True):
        np.testing.assert_array_equal(block, again)
    for other in ({"seed": 4, "number": 4}, {"seed": 3, "number": 5}, {"seed": 4, "number": 3}):
        for block, different in zip(first, shuffled(**other), strict=True):
            assert not np.array_equal(block, different)


def test_blocks_of_one_shape_are_permuted_differently() -> None:
    (weights,) = random_chain(19, (9, 9))
    shuffled = shuffle(chain_graph([weights, weights]), seed=3)
    one, two = dense(shuffled)
    assert not np.array_equal(one, two)


@pytest.mark.parametrize("null", sorted({*NULLS} - {"strength"}))
@pytest.mark.parametrize("name", ["half", "skip", "one layer"])
def test_mean_degrees_follow_from_the_weights_alone(null: str, name: str) -> None:
    graph, _ = GRAPHS[name]().without_isolated()
    degrees = np.mean([shuffle(graph, null, 13, i).degrees for i in range(300)], axis=0)
    expected = np.zeros(graph.n_vertices)
    spread = np.zeros(graph.n_vertices)
    for block, weights in zip(graph.blocks, dense(graph), strict=True):
        rows, cols = graph.layers[block.source].slice, graph.layers[block.target].slice
        if null in KEEP_TOPOLOGY:
            mean = np.where(weights != 0, weights[weights != 0].mean(), 0)
        elif block.source == block.target:
            n_pairs = len(weights) * (len(weights) - 1) / 2
            mean = np.triu(np.full(weights.shape, weights.sum() / n_pairs), k=1)
        else:
            mean = np.full(weights.shape, weights.mean())
        expected[rows] += mean.sum(axis=1)
        expected[cols] += mean.sum(axis=0)
        variance = (weights**2).mean() * 2
        spread[rows] += variance * weights.shape[1]
        spread[cols] += variance * weights.shape[0]
    assert (np.abs(degrees - expected) < 5 * np.sqrt(spread / 300)).all()


@pytest.mark.parametrize("null", KEEP_VALUES)
@pytest.mark.parametrize("density", [1.0, 0.5, 0.15])
def test_the_distribution_equals_numpys(null: Any, density: float) -> None:
    weights = random_chain(21, (9, 8, 7), density)
    graph, _ = chain_graph(weights).without_isolated()
    blocks = dense(graph)
    labels = np.arange(graph.n_vertices) % 3
    rng = np.random.default_rng(23)
    ours = [normalized_cut(shuffle(graph, null, 25, number), labels) for number in range(400)]
    theirs = [
        normalized_cut(
            chain_graph([reference.shuffle(block, null, rng) for block in blocks]), labels
        )
        for _ in range(400)
    ]
    assert stats.ks_2samp(ours, theirs).pvalue > 1e-4


def test_the_distribution_test_notices_the_wrong_null_model() -> None:
    weights = random_chain(21, (9, 8, 7), 0.5)
    graph, _ = chain_graph(weights).without_isolated()
    labels = np.arange(graph.n_vertices) % 3
    one, two = (
        [normalized_cut(shuffle(graph, null, 25, number), labels) for number in range(400)]
        for null in KEEP_VALUES
    )
    assert stats.ks_2samp(one, two).pvalue < 1e-4


@pytest.mark.parametrize("wrong", ["", "Layer", "layers", None, 3])
def test_unknown_null_models_are_refused(wrong: Any) -> None:
    with pytest.raises(InputError, match=r"null: must be one of layer, .*layer-kde"):
        check_null(wrong)
    with pytest.raises(InputError, match="null: "):
        shuffle(GRAPHS["dense"](), wrong)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, "seed: "),
        ({"seed": 0.5}, "seed: "),
        ({"number": -1}, "number: "),
        ({"number": -5}, "number: "),
        ({"number": 1.5}, "number: "),
        ({"number": "1"}, "number: "),
        ({"number": 2**31}, "number: "),
        ({"null": ["layer"]}, "null: "),
    ],
    ids=str,
)
def test_bad_arguments_are_refused_by_name(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        shuffle(GRAPHS["dense"](), **arguments)
