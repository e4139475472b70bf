"""Conventions of scale and random rescaling: equalized and unchanged quantities."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_dtypes import bfloat16
from numpy.typing import NDArray
from samples import (
    Matrices,
    as_csr,
    chain_graph,
    planted_chain,
    random_chain,
    skip_graph,
    small_chains,
    with_isolated,
)
from scipy import optimize, sparse

import ncut
from ncut.errors import InputError
from ncut.graphs import NeuronGraph, balance, build_graph, from_adjacency, row_sums
from ncut.graphs.normalize import normalization_notes, rescalable_layers
from ncut.graphs.scale import in_own_unit
from ncut.types import Initial, LeftOut

CONVENTIONS = ["l2", "l1", "balanced"]
NORMS = {"l2": 2, "l1": 1}


def dense(weights: Any) -> NDArray[np.float64]:
    array = weights if isinstance(weights, np.ndarray) else weights.toarray()
    return array.astype(np.float64)  # type: ignore[no-any-return]


def norms(graph: NeuronGraph, order: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Norm of each vertex's incoming and of its outgoing weights."""
    into, out_of = np.zeros(graph.n_vertices), np.zeros(graph.n_vertices)
    for block in graph.blocks:
        powers = dense(block.weights) ** order
        into[graph.layers[block.target].slice] += powers.sum(axis=0)
        out_of[graph.layers[block.source].slice] += powers.sum(axis=1)
    return into ** (1 / order), out_of ** (1 / order)


def weights_of(graph: NeuronGraph) -> Matrices:
    """Each block of a chain as a dense float64 matrix."""
    return [dense(block.weights) for block in graph.blocks]


def reached(weights: Matrices) -> list[NDArray[np.bool_]]:
    """Masks of the vertices of each layer of a chain that a path joins to the first layer."""
    found = [np.ones(weights[0].shape[0], dtype=np.bool_)]
    for matrix in weights:
        found.append((matrix[found[-1]] > 0).any(axis=0))
    found[-1][:] = True  # the last layer's own scale is fixed
    return found


def touched(graph: NeuronGraph) -> list[NDArray[np.bool_]]:
    """Masks of the vertices of each layer that a path joins to the first or the last layer."""
    weights = weights_of(graph)
    heard = reached([matrix.T for matrix in weights[::-1]])[::-1]
    return [one | other for one, other in zip(reached(weights), heard, strict=True)]


def alive(graph: NeuronGraph) -> NeuronGraph:
    """The chain without the edges of neurons that no path joins to both of its ends."""
    weights = weights_of(graph)
    heard = reached([matrix.T for matrix in weights[::-1]])[::-1]
    living = [one & other for one, other in zip(reached(weights), heard, strict=True)]
    blocks = (
        replace(block, weights=matrix * np.outer(rows, cols))
        for block, matrix, rows, cols in zip(
            graph.blocks, weights, living, living[1:], strict=False
        )
    )
    return replace(graph, blocks=tuple(blocks))


def marked(graph: NeuronGraph, *rescalable: bool | None) -> NeuronGraph:
    """The graph with its layers marked."""
    layers = (
        replace(layer, rescalable=mark)
        for layer, mark in zip(graph.layers, rescalable, strict=True)
    )
    return replace(graph, layers=tuple(layers))


def check_same_weights(ours: NeuronGraph, expected: NeuronGraph, rtol: float = 1e-7) -> None:
    for mine, block in zip(ours.blocks, expected.blocks, strict=True):
        np.testing.assert_allclose(dense(mine.weights), dense(block.weights), rtol=rtol)


def with_row_scaled(graph: NeuronGraph, at: int, vertex: int, factor: float) -> NeuronGraph:
    """The chain with one neuron of layer `at` rescaled."""
    before, after = (graph.blocks[i].weights.copy() for i in (at - 1, at))
    before[:, vertex] *= factor
    after[vertex] /= factor
    blocks = list(graph.blocks)
    blocks[at - 1 : at + 1] = [
        replace(blocks[at - 1], weights=before),
        replace(blocks[at], weights=after),
    ]
    return replace(graph, blocks=tuple(blocks))


def transformed(graph: NeuronGraph, how: str) -> NeuronGraph:
    return graph.rescaled(3, 0.7) if how == "rescaled" else graph.normalized(how)


@pytest.mark.parametrize("how", [*CONVENTIONS, "rescaled"])
def test_a_relu_network_computes_the_same(how: str) -> None:
    rng = np.random.default_rng(5)
    signed = [rng.standard_normal(shape) for shape in ((6, 9), (9, 8), (8, 4))]
    biases = [rng.standard_normal(size) for size in (9, 8, 4)]
    graph = transformed(chain_graph([np.abs(w) for w in signed]), how)
    # A block has one factor per source and target, so that ratios tell them all, layer by layer.
    first = dense(graph.blocks[0].weights)[0] / np.abs(signed[0])[0]
    second = dense(graph.blocks[1].weights)[0] / np.abs(signed[1])[0] * first[0]
    factors = [np.ones(6), first, second, np.ones(4)]
    scaled = [w * factors[i + 1] / factors[i][:, None] for i, w in enumerate(signed)]
    for matrix, block in zip(scaled, graph.blocks, strict=True):
        np.testing.assert_allclose(np.abs(matrix), block.weights, rtol=1e-12)
    assert not np.allclose(first, 1)

    def output(weights: Matrices, offsets: Matrices) -> NDArray[np.floating]:
        values = np.linspace(-1, 2, 30).reshape(5, 6)
        for number, (matrix, offset) in enumerate(zip(weights, offsets, strict=True)):
            values = values @ matrix + offset
            values = np.maximum(values, 0) if number < 2 else values
        return values

    moved = [offset * factors[i + 1] for i, offset in enumerate(biases)]
    np.testing.assert_allclose(output(scaled, moved), output(signed, biases), rtol=1e-9)


@pytest.mark.parametrize("density", [1.0, 0.15])
@pytest.mark.parametrize("convention", NORMS)
def test_incoming_norms_are_one(convention: str, density: float) -> None:
    graph = chain_graph(random_chain(3, [30, 40, 35, 20], density))
    assert isinstance(graph.blocks[1].weights, np.ndarray) == (density == 1.0)
    into, _ = norms(graph.normalized(convention), NORMS[convention])
    before, _ = norms(graph, NORMS[convention])
    np.testing.assert_allclose(into[30:105][before[30:105] > 0], 1, rtol=1e-13)


@pytest.mark.parametrize("convention", NORMS)
def test_incoming_norms_are_taken_over_all_blocks(convention: str) -> None:
    graph = marked(skip_graph(7, (5, 6, 4)), False, True, True)
    result = graph.normalized(convention)
    into, _ = norms(result, NORMS[convention])
    np.testing.assert_allclose(into, [0] * 5 + [1] * 10, rtol=1e-13)
    assert len(result.blocks) == 3


@pytest.mark.parametrize("density", [1.0, 0.15])
def test_balanced_norms_are_equal(density: float) -> None:
    graph = chain_graph(random_chain(4, [30, 40, 35, 45, 20], density)).rescaled(2, 2.0)
    into, out_of = norms(alive(graph.normalized("balanced")), 2)
    both = (into > 0) & (out_of > 0)
    assert both.any()
    np.testing.assert_allclose(into[both], out_of[both], rtol=2e-9)


@given(small_chains())
def test_balanced_norms_are_equal_in_any_chain(weights: Matrices) -> None:
    graph = chain_graph(weights)
    balanced = graph.normalized("balanced")
    into, out_of = norms(alive(balanced), 2)
    both = (into > 0) & (out_of > 0)
    np.testing.assert_allclose(into[both], out_of[both], rtol=2e-9)
    assert sum((b**2).sum() for b in weights_of(alive(balanced))) <= sum(
        (b**2).sum() for b in weights_of(alive(graph))
    ) * (1 + 1e-12)
    assert balanced.n_edges == graph.n_edges


@given(small_chains(), st.integers(0, 100))
def test_no_rescaling_changes_the_balanced_network(weights: Matrices, seed: int) -> None:
    # Every neuron that a path joins to the input or to the output, dead ones too.
    graph = chain_graph(weights)
    settled = touched(graph)
    moved = graph.rescaled(seed, 1.5).normalized("balanced")
    for ours, theirs, rows, cols in zip(
        weights_of(moved),
        weights_of(graph.normalized("balanced")),
        settled,
        settled[1:],
        strict=False,
    ):
        np.testing.assert_allclose(ours[np.ix_(rows, cols)], theirs[np.ix_(rows, cols)], rtol=1e-7)


def test_balanced_with_a_skip_connection() -> None:
    layers = [(name, size) for name, size in zip("abcd", (4, 5, 6, 3), strict=True)]
    pairs = [(0, 1), (1, 2), (2, 3), (0, 2), (1, 3), (0, 3)]
    blocks = [
        (i, j, random_chain(i + 9 * j, [layers[i][1], layers[j][1]])[0], f"{i}{j}")
        for i, j in pairs
    ]
    graph = build_graph(layers, blocks)
    into, out_of = norms(graph.normalized("balanced"), 2)
    np.testing.assert_allclose(into[4:15], out_of[4:15], rtol=2e-9)
    skip = dense(graph.blocks[2].weights)
    np.testing.assert_array_equal(dense(graph.normalized("balanced").blocks[2].weights), skip)


def test_balanced_has_the_least_sum_of_squares() -> None:
    weights = random_chain(8, [4, 3, 5, 2])
    squares = [matrix**2 for matrix in weights]

    def scaled(logs: NDArray[np.float64]) -> Matrices:
        factors = [np.ones(4), np.exp(logs[:3]), np.exp(logs[3:]), np.ones(2)]
        return [s * (factors[i + 1] / factors[i][:, None]) ** 2 for i, s in enumerate(squares)]

    found = optimize.minimize(
        lambda logs: sum(s.sum() for s in scaled(logs)), np.zeros(8), tol=1e-12
    )
    result = chain_graph(weights).normalized("balanced")
    for block, square in zip(result.blocks, scaled(found.x), strict=True):
        np.testing.assert_allclose(block.weights, np.sqrt(square), rtol=1e-5)


def test_newton_steps_only_save_time(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = chain_graph(random_chain(6, [9, 8, 7, 8, 5], 0.7)).rescaled(1)
    expected = graph.normalized("balanced")
    monkeypatch.setattr(balance, "MAX_STEP", 0.0)
    check_same_weights(graph.normalized("balanced"), expected)


def test_a_sweep_too_many_raises_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balance, "MAX_SWEEPS", 1)
    graph = chain_graph(random_chain(6, [9, 8, 7, 8, 5]))
    into, out_of = norms(graph.normalized("balanced"), 2)
    assert np.abs(np.log(into[9:32] / out_of[9:32])).max() < 0.5


def test_deep_networks_are_balanced() -> None:
    graph = chain_graph(random_chain(6, [12] * 61)).rescaled(0, 2.0)
    into, out_of = norms(graph.normalized("balanced"), 2)
    np.testing.assert_allclose(into[12:-12], out_of[12:-12], rtol=2e-9)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_squares_of_large_blocks_are_not_kept(
    convention: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = chain_graph(random_chain(6, [9, 8, 7, 5]))
    expected = graph.normalized(convention)
    monkeypatch.setattr(row_sums, "KEPT_ENTRIES", 0)
    monkeypatch.setattr(row_sums, "CHUNK_ENTRIES", 20)
    check_same_weights(graph.normalized(convention), expected, rtol=1e-9)


@pytest.mark.parametrize("convention", CONVENTIONS)
@given(st.integers(0, 2**64 - 1), st.floats(0, 3))
def test_conventions_undo_random_rescaling(convention: str, seed: int, sigma: float) -> None:
    graph = chain_graph(random_chain(5, [7, 8, 9, 6]))
    moved = graph.rescaled(seed, sigma)
    check_same_weights(moved.normalized(convention), graph.normalized(convention), rtol=1e-7)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_conventions_undo_random_rescaling_of_sparse_networks(convention: str) -> None:
    weights = [0.1 + matrix for matrix in random_chain(5, [30, 40, 50, 20], 0.15)]
    weights = [matrix * (matrix > 0.1) for matrix in weights]
    for matrix in weights:  # each neuron has an incoming and an outgoing weight
        np.fill_diagonal(matrix, 1.0)
        matrix[-1, matrix.shape[0] :] = matrix[matrix.shape[1] :, -1] = 0.5
    graph = chain_graph(weights)
    assert sparse.issparse(graph.blocks[1].weights)
    moved = graph.rescaled(9, 1.5)
    check_same_weights(moved.normalized(convention), graph.normalized(convention), rtol=1e-7)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_the_ncut_does_not_depend_on_the_scale(convention: str) -> None:
    weights, _ = planted_chain(3, n_groups=3, per_group=6, n_layers=4, noise=0.2)
    graph = chain_graph(weights)
    moved = graph.rescaled(4)
    ncuts = [ncut.cluster(g.normalized(convention), k=3).ncut for g in (graph, moved)]
    assert ncuts[0] == pytest.approx(ncuts[1], rel=1e-8)
    assert ncut.cluster(moved, k=3).ncut != pytest.approx(ncuts[0], rel=1e-3)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("factor", [1e6, 1e-6])
def test_a_neuron_of_a_very_different_scale(convention: str, factor: float) -> None:
    graph = chain_graph(random_chain(5, [7, 8, 9, 6]))
    moved = with_row_scaled(with_row_scaled(graph, 1, 3, factor), 2, 0, factor)
    check_same_weights(moved.normalized(convention), graph.normalized(convention), rtol=1e-7)


def test_neurons_with_weights_on_one_side_only() -> None:
    weights = random_chain(5, [6, 5, 4, 3])
    weights[0][:, 0] = 0  # layer 1: neuron 0 has only outgoing weights, 1 only incoming
    weights[1][1] = 0
    weights[1][:, 2] = weights[2][2] = 0  # layer 2: neuron 2 has none
    graph = chain_graph(weights)
    for convention, order in NORMS.items():
        into, _ = norms(graph.normalized(convention), order)
        np.testing.assert_allclose(into[6:15], [0, 1, 1, 1, 1, 1, 1, 0, 1], rtol=1e-13)
        rows = graph.normalized(convention).blocks[1].weights[:, [0, 1, 3]]
        ratios = rows / weights[1][:, [0, 1, 3]].clip(1e-9)
        before = norms(graph, order)[0][6 + 3]
        np.testing.assert_allclose(ratios[3] / ratios[0], before, rtol=1e-13)
    balanced = graph.normalized("balanced")
    into, out_of = norms(balanced, 2)
    np.testing.assert_allclose([out_of[6], into[7]], 1.0, rtol=1e-9)
    into, out_of = norms(alive(balanced), 2)
    both = [8, 9, 10, 11, 12, 14]
    np.testing.assert_allclose(into[both], out_of[both], rtol=2e-9)
    assert balanced.n_edges == graph.n_edges


def test_the_scale_of_a_dead_neuron_changes_nothing() -> None:
    weights = random_chain(5, [6, 5, 4, 3])
    weights[1][1] = 0
    graph = chain_graph(weights)
    moved = with_row_scaled(graph, 1, 1, 10.0)
    for convention in CONVENTIONS:
        check_same_weights(moved.normalized(convention), graph.normalized(convention), rtol=1e-7)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_isolated_neurons_change_nothing(convention: str) -> None:
    graph = chain_graph(with_isolated(random_chain(7, [9, 8, 7, 6]), 9))
    expected = graph.without_isolated()[0].normalized(convention)
    ours = graph.normalized(convention).without_isolated()[0]
    check_same_weights(ours, expected)


def test_layers_that_are_not_rescalable_stay() -> None:
    graph = marked(chain_graph(random_chain(3, [5, 6, 7, 4])), False, False, True, False)
    assert rescalable_layers(graph) == [2]
    for convention in CONVENTIONS:
        result = graph.normalized(convention)
        np.testing.assert_array_equal(result.blocks[0].weights, graph.blocks[0].weights)
        ratio = result.blocks[1].weights / graph.blocks[1].weights
        np.testing.assert_allclose(ratio, np.tile(ratio[0], (6, 1)), rtol=1e-12)


@pytest.mark.parametrize(
    ("marks", "expected"),
    [
        ((None, None, None, None), [1, 2]),
        ((True, True, True, True), [1, 2, 3]),
        ((False, None, True, None), [1, 2]),
        ((False, False, False, True), [3]),
        ((True, False, False, None), []),
    ],
)
def test_only_homogeneous_layers_are_rescaled(
    marks: tuple[bool | None, ...], expected: list[int]
) -> None:
    graph = marked(chain_graph(random_chain(3, [5, 6, 7, 4])), *marks)
    assert rescalable_layers(graph) == expected


def test_a_last_layer_that_is_read_outside_of_the_graph() -> None:
    graph = marked(chain_graph(random_chain(3, [5, 6, 4])), False, True, True)
    into, _ = norms(graph.normalized("l2"), 2)
    np.testing.assert_allclose(into[5:], 1, rtol=1e-13)
    into, out_of = norms(graph.normalized("balanced"), 2)
    np.testing.assert_allclose(into[5:11], out_of[5:11], rtol=2e-9)
    check_same_weights(
        graph.normalized("balanced"), marked(graph, False, True, False).normalized("balanced")
    )


def test_none_is_the_graph_itself() -> None:
    graph = chain_graph(random_chain(3, [5, 6, 4]))
    assert graph.normalized("none") is graph
    square = from_adjacency(sparse.csr_array(np.ones((3, 3))))
    assert square.normalized("none") is square


def test_everything_else_is_kept() -> None:
    graph = chain_graph(random_chain(3, [5, 6, 4]), name="net")
    initial = Initial(np.ones(3))
    blocks = tuple(replace(b, tie="w", tie_transposed=True, initial=initial) for b in graph.blocks)
    layers = tuple(replace(layer, read_by=("next",)) for layer in graph.layers)
    graph = replace(graph, blocks=blocks, layers=layers, left_out=(LeftOut("b", (2,), "bias"),))
    for result in (graph.normalized("l2"), graph.rescaled()):
        assert (result.layers, result.left_out, result.name) == (layers, graph.left_out, "net")
        for ours, block in zip(result.blocks, graph.blocks, strict=True):
            assert replace(ours, weights=block.weights).initial is initial
            assert (ours.name, ours.tie, ours.tie_transposed) == (block.name, "w", True)


@pytest.mark.parametrize("convention", ["L2", "", None, 2, ["l2"]])
def test_unknown_conventions_are_refused(convention: Any) -> None:
    graph = chain_graph(random_chain(3, [5, 6, 4]))
    for refuse in (graph.normalized, lambda name: normalization_notes(graph, name)):
        with pytest.raises(InputError, match="normalize: must be one of none, l2, l1, balanced"):
            refuse(convention)


def test_an_adjacency_matrix_has_no_direction() -> None:
    graph = from_adjacency(sparse.csr_array(np.ones((3, 3))))
    with pytest.raises(InputError, match=r"normalize: .* pass the layers of a network, or normal"):
        graph.normalized("l2")
    with pytest.raises(InputError, match="graph: edges inside one layer"):
        graph.rescaled()
    assert rescalable_layers(graph) == []
    assert normalization_notes(graph, "l2") == []


def test_a_network_without_hidden_layers_is_refused() -> None:
    graph = chain_graph(random_chain(3, [5, 6]))
    for convention in CONVENTIONS:
        with pytest.raises(InputError, match=r"normalize: .*no hidden neurons"):
            graph.normalized(convention)
    with pytest.raises(InputError, match=r"graph: .*no hidden neurons"):
        graph.rescaled()
    last = marked(graph, False, True)
    np.testing.assert_allclose(norms(last.normalized("l1"), 1)[0][5:], 1)
    with pytest.raises(InputError, match="no hidden neurons"):
        last.normalized("balanced")


def test_a_network_of_other_activations_is_refused() -> None:
    graph = marked(chain_graph(random_chain(3, [5, 6, 4])), False, False, None)
    with pytest.raises(InputError, match=r"normalize: .*not positively homogeneous"):
        graph.normalized("l1")
    with pytest.raises(InputError, match="not positively homogeneous"):
        graph.rescaled()


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (np.float16, np.float32),
        (bfloat16, np.float32),
        (np.float32, np.float32),
        (np.float64, np.float64),
    ],
)
def test_types_of_dense_blocks(convention: str, dtype: Any, expected: Any) -> None:
    weights = random_chain(3, [5, 6, 7, 4], dtype=dtype)
    graph = marked(chain_graph(weights), False, False, None, False)
    result = graph.normalized(convention)
    exact = marked(chain_graph([w.astype(np.float64) for w in weights]), False, False, None, False)
    for block in result.blocks:
        assert block.weights.dtype == expected
        assert block.weights.flags.c_contiguous
    check_same_weights(result, exact.normalized(convention), rtol=1e-6)
    check_same_weights(graph, chain_graph(weights), rtol=0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("how", [*CONVENTIONS, "rescaled"])
def test_sparse_blocks_share_their_indices(how: str, index: Any, dtype: Any) -> None:
    weights = random_chain(3, [20, 30, 25], 0.2)
    graph = chain_graph(weights)
    blocks = tuple(
        replace(b, weights=as_csr(w.astype(dtype), index))
        for b, w in zip(graph.blocks, weights, strict=True)
    )
    result = transformed(replace(graph, blocks=blocks), how)
    for ours, block in zip(result.blocks, blocks, strict=True):
        assert ours.weights.indices is block.weights.indices
        assert ours.weights.indptr is block.weights.indptr
        assert ours.weights.dtype == dtype
    check_same_weights(result, transformed(graph, how), rtol=1e-6)


@pytest.mark.parametrize(("before", "after"), [(1e30, 1e30), (1e-30, 1e-30)])
def test_values_beyond_float32_become_float64(before: float, after: float) -> None:
    weights = [np.full((2, 2), before, np.float32), np.full((2, 2), after, np.float32)]
    result = in_own_unit(chain_graph(weights).normalized("l2"))
    assert result.blocks[1].weights.dtype == np.float64
    np.testing.assert_allclose(result.blocks[0].weights, np.sqrt(0.5))
    np.testing.assert_allclose(result.blocks[1].weights, before * after * np.sqrt(2), rtol=1e-6)


@pytest.mark.parametrize("size", [1e200, 1e-200])
def test_large_and_small_float64_weights(size: float) -> None:
    weights = random_chain(3, [5, 6, 4])
    expected = chain_graph(weights).normalized("balanced")
    ours = in_own_unit(chain_graph([w * size for w in weights]).normalized("balanced"))
    for mine, block in zip(ours.blocks, expected.blocks, strict=True):
        np.testing.assert_allclose(mine.weights / size, block.weights, rtol=1e-7)
    for convention in NORMS:
        with pytest.raises(InputError, match=r"normalize: .*'w1' exceed the range of float64"):
            chain_graph([w * size for w in weights]).normalized(convention)


def test_notes() -> None:
    graph = chain_graph(random_chain(3, [5, 6, 7, 4]))
    assumed = "the activations are unknown; normalize='l2' assumed that they are positively"
    assert normalization_notes(graph, "none") == []
    (note,) = normalization_notes(graph, "l2")
    assert note.startswith(assumed)
    assert normalization_notes(marked(graph, False, True, True, False), "l2") == []
    (note,) = normalization_notes(marked(graph, False, True, False, False), "balanced")
    assert note.startswith("normalize='balanced' left layers unchanged because their activation")
    assert note.endswith("not positively homogeneous: layer2")
    (note,) = normalization_notes(marked(graph, True, True, True, False), "l1")
    assert note.endswith("their incoming weights are not in the graph: layer0")
    last = marked(graph, False, True, True, True)
    assert normalization_notes(last, "l1") == []
    (note,) = normalization_notes(last, "balanced")
    assert note.endswith("their outgoing weights are not in the graph: layer3")


def test_notes_name_four_layers_and_tell_shared_weights() -> None:
    graph = chain_graph(random_chain(3, [3] * 10))
    graph = marked(graph, *[False] * 8, True, False)
    (note,) = normalization_notes(graph, "l2")
    assert note.endswith("homogeneous: layer1, layer2, layer3, layer4 and 3 more")
    blocks = tuple(replace(b, tie="w0" if b.source < 2 else "") for b in graph.blocks)
    notes = normalization_notes(replace(graph, blocks=blocks), "l2")
    assert notes[0].endswith("homogeneous: layer3, layer4, layer5, layer6 and 1 more")
    assert notes[1].endswith("copies of their weights are used elsewhere: layer1, layer2")


def factors(graph: NeuronGraph, seed: int, sigma: float = 1.0) -> NDArray[np.float64]:
    """The logarithms of the random factors of the first hidden layer."""
    after, before = graph.rescaled(seed, sigma).blocks[0].weights, graph.blocks[0].weights
    return np.log(after[0] / before[0])  # type: ignore[no-any-return]


def test_random_factors_depend_on_the_seed_and_the_layers_position_alone() -> None:
    first = chain_graph(random_chain(1, [3, 6, 5, 4]))
    second = marked(chain_graph(random_chain(2, [8, 6, 9, 2])), False, True, False, True)
    np.testing.assert_allclose(factors(first, 5), factors(second, 5), rtol=1e-9)
    check_same_weights(first.rescaled(5), first.rescaled(5), rtol=0)
    check_same_weights(first.rescaled(), first.rescaled(0, 1.0), rtol=0)
    assert not np.isclose(factors(first, 5), factors(first, 6)).any()
    np.testing.assert_allclose(factors(first, 5, 0.3), 0.3 * factors(first, 5), rtol=1e-9)


def test_random_factors_have_the_distribution_asked_for() -> None:
    logs = factors(chain_graph(random_chain(1, [1, 4000, 1])), 3, sigma=0.5)
    assert logs.std() == pytest.approx(0.5, rel=0.05)
    assert abs(logs.mean()) < 0.03


def test_layers_have_different_factors() -> None:
    graph = marked(chain_graph(random_chain(1, [4, 4])), True, True)
    ratio = graph.rescaled(1).blocks[0].weights / graph.blocks[0].weights
    assert not np.isclose(np.diagonal(ratio), 1).any()


def test_sigma_of_zero_changes_nothing() -> None:
    graph = chain_graph(random_chain(3, [5, 6, 4]))
    check_same_weights(graph.rescaled(1, 0), graph, rtol=0)


def test_random_rescaling_reaches_layers_at_the_graphs_ends_if_they_are_known() -> None:
    graph = marked(chain_graph(random_chain(3, [5, 6, 4])), True, False, True)
    result = graph.rescaled(2)
    for ours, block, axis in zip(result.blocks, graph.blocks, (0, 1), strict=True):
        ratio = ours.weights / block.weights
        assert not np.isclose(ratio, 1).any()
        assert np.ptp(ratio, axis=1 - axis).max() < 1e-12


@pytest.mark.parametrize("sigma", [-1, np.nan, np.inf, "1", None, True])
def test_a_sigma_that_makes_no_sense_is_refused(sigma: Any) -> None:
    with pytest.raises(InputError, match="sigma: must be a finite number"):
        chain_graph(random_chain(3, [5, 6, 4])).rescaled(0, sigma)


def test_a_seed_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(InputError, match="seed: "):
        chain_graph(random_chain(3, [5, 6, 4])).rescaled(-1)


def test_a_sigma_too_large_for_float64_is_refused() -> None:
    with pytest.raises(InputError, match=r"sigma: .*exceed the range of float64"):
        chain_graph(random_chain(3, [5, 6, 4])).rescaled(0, 1e4)
