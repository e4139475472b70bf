"""The null model "tied": copies of a block of weights stay copies, all else is as in "layer"."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checks import check_same_multiset
from hypothesis import given
from hypothesis import strategies as st
from ml_dtypes import bfloat16
from numpy.typing import NDArray
from samples import as_csr, chain_graph, random_chain

from ncut import analyze, reference
from ncut.extract import read_graph
from ncut.graphs import NeuronGraph, build_graph
from ncut.nulls import fitted, shuffle

# In arrays of more bytes than this, entries of different sizes are dealt out differently.
LARGE = (1100, 1000)


def tied_graph(first: Any, second: Any, transposed: bool = False) -> NeuronGraph:
    """Two copies of a block, and one of the same shape that has nothing to do with them."""
    other = np.random.default_rng(0).random(first.shape) + 0.1
    named = {"first": first, "second": second, "other": other}
    sizes = [size for weights in named.values() for size in weights.shape]
    graph = build_graph(
        [(f"layer{at}", size) for at, size in enumerate(sizes)],
        [(2 * at, 2 * at + 1, w, name) for at, (name, w) in enumerate(named.items())],
    )
    one, two, three = graph.blocks
    two = replace(two, tie="first", tie_transposed=transposed)
    return replace(graph, blocks=(replace(one, tie="first"), two, three))


def stored_as(graph: NeuronGraph, first: Any, second: Any) -> NeuronGraph:
    """The same graph with its copies kept in this form."""
    one, two, three = graph.blocks
    blocks = (replace(one, weights=first), replace(two, weights=second), three)
    return replace(graph, blocks=blocks)


def dense(graph: NeuronGraph) -> list[NDArray[np.float64]]:
    return [reference.dense(block.weights) for block in graph.blocks]


def weights_of(shape: tuple[int, int], density: float, dtype: Any) -> NDArray[np.floating]:
    """Weights without empty rows and columns, no two of them equal."""
    rng = np.random.default_rng(shape[0])
    values = 1 + np.arange(shape[0] * shape[1]).reshape(shape) / 8
    weights = np.where(rng.random(shape) < density, values, 0)
    weights[:, 0] = values[:, 0]
    weights[0, :] = values[0, :]
    return weights.astype(dtype)


@given(
    st.tuples(st.integers(2, 7), st.integers(2, 7)),
    st.sampled_from([1.0, 0.5]),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**64 - 1),
)
def test_copies_stay_copies(
    shape: tuple[int, int], density: float, sparse: bool, transposed: bool, seed: int
) -> None:
    weights = weights_of(shape, density, np.float64)
    copy = np.ascontiguousarray(weights.T) if transposed else weights.copy()
    graph = tied_graph(weights, copy, transposed)
    if sparse:
        graph = stored_as(graph, as_csr(weights), as_csr(copy))
    one, two, _ = dense(shuffle(graph, "tied", seed))
    np.testing.assert_array_equal(two.T if transposed else two, one)
    check_same_multiset(one, weights)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("density", [1.0, 0.5, 0.02])
def test_first_copy_and_all_else_match_layer(density: float, transposed: bool) -> None:
    weights = weights_of((60, 50), density, np.float64)
    graph = tied_graph(
        weights, np.ascontiguousarray(weights.T) if transposed else weights, transposed
    )
    tied, layer = shuffle(graph, "tied", 3, 1), shuffle(graph, "layer", 3, 1)
    for at, same in enumerate((True, False, True)):
        ours, theirs = tied.blocks[at].weights, layer.blocks[at].weights
        assert type(ours) is type(theirs) is type(graph.blocks[at].weights)
        assert ours.dtype == theirs.dtype
        assert np.array_equal(reference.dense(ours), reference.dense(theirs)) == same


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(
    ("first", "second"),
    [(np.float32, np.float64), (np.float64, np.float32), (np.float16, np.float32),
     (bfloat16, np.float64), (bfloat16, np.float16)],
)  # fmt: skip
@pytest.mark.parametrize("shape", [(9, 7), LARGE], ids=["small", "large"])
def test_number_types_may_differ(
    shape: tuple[int, int], first: Any, second: Any, transposed: bool
) -> None:
    # Small whole numbers, which all types hold.
    weights = np.random.default_rng(1).integers(1, 200, shape).astype(np.float64)
    copy = np.ascontiguousarray(weights.T) if transposed else weights
    graph = tied_graph(weights.astype(first), copy.astype(second), transposed)
    shuffled = shuffle(graph, "tied", 5)
    one, two, _ = dense(shuffled)
    np.testing.assert_array_equal(two.T if transposed else two, one)
    assert [block.weights.dtype for block in shuffled.blocks] == [first, second, np.float64]


def test_number_types_of_csr_and_of_its_indices_may_differ() -> None:
    weights = weights_of((60, 50), 0.05, np.float64)
    narrow = as_csr(weights.T.astype(np.float32), np.int64)
    graph = stored_as(tied_graph(weights, weights.T, transposed=True), as_csr(weights), narrow)
    one, two, _ = dense(shuffle(graph, "tied", 5))
    np.testing.assert_array_equal(two.T, one)


@pytest.mark.parametrize("density", [1.0, 0.05])
def test_copies_of_another_scale_are_permuted_alike(density: float) -> None:
    weights = weights_of((60, 50), density, np.float64)
    graph = tied_graph(weights, 4 * weights)
    one, two, _ = dense(shuffle(graph, "tied", 7))
    np.testing.assert_array_equal(two, 4 * one)
    # With a factor for each column, weights are found by their values.
    factors = 2.0 ** np.arange(50)
    one, two, _ = dense(shuffle(tied_graph(weights, weights * factors), "tied", 7))
    column = np.empty_like(weights)
    column[:] = factors
    at = np.argsort(weights, axis=None)[-np.count_nonzero(weights) :]
    moved = np.argsort(one, axis=None)[-at.size :]
    np.testing.assert_array_equal(two.flat[moved], (weights * column).flat[at])


def test_more_than_two_copies() -> None:
    (weights,) = random_chain(19, (9, 9))
    graph = chain_graph([weights, weights.T.copy(), weights, weights.T.copy()])
    ties = tuple(
        replace(block, tie="w0", tie_transposed=at % 2 == 1)
        for at, block in enumerate(graph.blocks)
    )
    one, two, three, four = dense(shuffle(replace(graph, blocks=ties), "tied", 3))
    assert not np.array_equal(one, weights)
    for other in (two.T, three, four.T):
        np.testing.assert_array_equal(other, one)


def test_two_ties_are_permuted_apart() -> None:
    (weights,) = random_chain(19, (9, 9))
    graph = chain_graph([weights] * 4)
    ties = tuple(replace(block, tie="ab"[at % 2]) for at, block in enumerate(graph.blocks))
    one, two, three, four = dense(shuffle(replace(graph, blocks=ties), "tied", 3))
    np.testing.assert_array_equal(one, three)
    np.testing.assert_array_equal(two, four)
    assert not np.array_equal(one, two)


def test_without_ties_it_is_layer_and_says_so() -> None:
    graph = chain_graph(random_chain(3, (12, 15, 10), 0.5))
    for ours, theirs in zip(
        dense(shuffle(graph, "tied", 3)), dense(shuffle(graph, "layer", 3)), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    (note,) = fitted(graph, "tied", 0).notes()
    assert "no layer's weights are used twice" in note
    assert "the same as 'layer'" in note
    assert fitted(graph, "layer", 0).notes() == []


def test_copies_of_other_shapes_are_shuffled_separately_and_named() -> None:
    weights = weights_of((6, 5), 1.0, np.float64)
    smaller = weights.copy()
    smaller[2] = 0
    graph, _ = tied_graph(weights, smaller).without_isolated()
    assert [block.weights.shape for block in graph.blocks] == [(6, 5), (5, 5), (6, 5)]
    (note,) = fitted(graph, "tied", 0).notes()
    assert "shuffles second independently" in note
    for ours, theirs in zip(
        dense(shuffle(graph, "tied", 3)), dense(shuffle(graph, "layer", 3)), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_copies_stored_differently_are_shuffled_separately_and_named() -> None:
    weights = weights_of((60, 50), 0.05, np.float64)
    more = weights.copy()
    more[5, 5:] = 1.0
    graph = tied_graph(weights, more)
    (note,) = fitted(graph, "tied", 0).notes()
    assert "shuffles second independently" in note
    for block, original in zip(dense(shuffle(graph, "tied")), dense(graph), strict=True):
        check_same_multiset(block, original)


def test_copies_that_stay_together_need_no_note() -> None:
    weights = weights_of((6, 5), 1.0, np.float64)
    assert fitted(tied_graph(weights, weights), "tied", 0).notes() == []
    assert fitted(tied_graph(weights, weights.astype(np.float32)), "tied", 0).notes() == []


# From models to shuffles.


@pytest.mark.parametrize("density", [1.0, 0.3, 0.05])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, bfloat16])
def test_lists_with_copies(density: float, dtype: Any) -> None:
    first, second = random_chain(7, (60, 50, 40), density, dtype)
    square = weights_of((60, 60), density, dtype)
    autoencoder = read_graph([first, second, second.T, first.T])
    one, two, three, four = dense(shuffle(autoencoder, "tied", 3))
    np.testing.assert_array_equal(three, two.T)
    np.testing.assert_array_equal(four, one.T)
    connected, _ = autoencoder.without_isolated()
    assert fitted(connected, "tied", 0).notes() == []
    for ours, theirs in zip(shuffle(autoencoder, "tied", 3).blocks, connected.blocks, strict=True):
        check_same_multiset(reference.dense(ours.weights), reference.dense(theirs.weights))
        assert ours.weights.dtype == theirs.weights.dtype
    # The first of the copies is as in "layer", the others are not.
    layer = dense(shuffle(autoencoder, "layer", 3))
    np.testing.assert_array_equal(one, layer[0])
    np.testing.assert_array_equal(two, layer[1])
    assert not np.array_equal(layer[2], layer[1].T)
    one, two = dense(shuffle(read_graph([square, square]), "tied", 3))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("null", ["layer", "layer-nonzero", "layer-kde"])
def test_other_null_models_know_no_copies(null: str) -> None:
    square = weights_of((30, 30), 0.8, np.float64)
    one, two = dense(shuffle(read_graph([square, square]), null, 3))
    assert not np.array_equal(one, two)


def test_copies_that_lose_other_neurons_are_shuffled_separately() -> None:
    square = weights_of((9, 9), 1.0, np.float64)
    square[4] = 0
    # As the first matrix it loses row 4; as the second it does not, because others write to it.
    graph = read_graph([square, square])
    connected, _ = graph.without_isolated()
    assert [block.weights.shape for block in connected.blocks] == [(8, 9), (9, 9)]
    (note,) = fitted(connected, "tied", 0).notes()
    assert "shuffles w1 independently" in note
    report = analyze(graph, k=2, shuffles=2, null="tied")
    assert note in report.warnings
    for ours, theirs in zip(
        dense(shuffle(graph, "tied", 3)), dense(shuffle(graph, "layer", 3)), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_a_saved_graph_is_shuffled_alike(tmp_path: Path) -> None:
    first, second = random_chain(7, (20, 15, 10), 0.5)
    graph = read_graph([first, second, second.T, first.T])
    graph.save(tmp_path / "graph.npz")
    loaded = dense(shuffle(NeuronGraph.load(tmp_path / "graph.npz"), "tied", 3))
    for ours, theirs in zip(loaded, dense(shuffle(graph, "tied", 3)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_torch_modules_that_are_called_twice() -> None:
    torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
    nn = torch.nn

    class Twice(nn.Module):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.start, self.twice, self.end = nn.Linear(9, 7), nn.Linear(7, 7), nn.Linear(7, 4)
            self.norm = nn.BatchNorm1d(7)
            nn.init.uniform_(self.norm.weight, 0.5, 2)

        def forward(self, x: Any) -> Any:
            x = torch.relu(self.twice(torch.relu(self.start(x))))
            return self.end(torch.relu(self.norm(self.twice(x))))

    torch.manual_seed(0)
    model = Twice().eval()
    graph = read_graph(model)
    assert [block.tie for block in graph.blocks] == ["", "twice", "twice", ""]
    tied, layer = dense(shuffle(graph, "tied", 3)), dense(shuffle(graph, "layer", 3))
    for at in (0, 1, 3):
        np.testing.assert_array_equal(tied[at], layer[at])
    # Each weight of the second call is where that of the first is, with its batch norm's factor.
    before, after = dense(graph)[1], tied[1]
    order, moved = np.argsort(before, axis=None), np.argsort(after, axis=None)
    np.testing.assert_array_equal(tied[2].flat[moved], dense(graph)[2].flat[order])
    assert fitted(graph, "tied", 0).notes() == []


def test_torch_convolutions_that_are_called_twice() -> None:
    torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
    torch.manual_seed(0)
    nn = torch.nn
    conv, relu = nn.Conv2d(6, 6, 3, padding=1), nn.ReLU()
    model = nn.Sequential(nn.Conv2d(3, 6, 3), relu, conv, relu, conv, relu, nn.Conv2d(6, 4, 3))
    one, two, three = dense(shuffle(read_graph(model), "tied", 3))
    np.testing.assert_array_equal(one, two)
    assert three.shape == (6, 4)
