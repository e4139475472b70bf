"""Sequences of weight arrays and chains: magnitudes, scales, scopes, errors."""

from __future__ import annotations

from itertools import pairwise

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from ncut import networks
from ncut.errors import InputError, ModelError
from ncut.extract import read_graph
from ncut.extract.assembly.assemble import assemble
from ncut.extract.lowering.kinds import lower
from ncut.extract.readers.chain import ChainLayer, chain_program


def dense(graph, number):
    weights = graph.blocks[number].weights
    return weights if isinstance(weights, np.ndarray) else weights.toarray()


def layers_of(graph):
    return [(layer.name, layer.size) for layer in graph.layers]


def test_list_of_matrices_becomes_magnitudes():
    w0 = np.array([[1.0, -2.0, 3.0], [-4.0, 5.0, -6.0]])
    w1 = np.array([[-1.0], [2.0], [0.5]])
    graph = read_graph([w0, w1])
    assert layers_of(graph) == [("input", 2), ("w0", 3), ("w1", 1)]
    assert [(block.source, block.target) for block in graph.blocks] == [(0, 1), (1, 2)]
    assert_array_equal(dense(graph, 0), [[1, 2, 3], [4, 5, 6]])
    assert_array_equal(dense(graph, 1), [[1], [2], [0.5]])
    assert graph.left_out == ()


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (np.float16, np.float16),
        (np.float32, np.float32),
        (">f4", np.float32),
        (np.float64, np.float64),
        (np.int8, np.float64),
    ],
)
def test_number_types(dtype, expected):
    w0 = np.array([[-128, 2], [3, 4]]).astype(dtype)
    graph = read_graph([w0, w0])
    assert dense(graph, 0).dtype == expected
    assert_array_equal(dense(graph, 0), [[128, 2], [3, 4]])


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_sixteen_bits_widen_where_they_are_summed(dtype):
    # 2049 is not a number of 11 significant bits, so a sum in the kernels' own type would stop.
    kernel = np.ones((2, 1, 2049)).astype(dtype)
    graph = read_graph([np.ones((1, 1, 1)), kernel, np.ones((2, 3))], scope="all")
    assert dense(graph, 1).dtype == np.float32
    assert_array_equal(dense(graph, 1), [[2049, 2049]])


def test_paths_of_npy_files_are_memory_mapped(tmp_path):
    weights = [np.array([[1.0, -2.0]]), np.array([[3.0], [-4.0]])]
    for number, values in enumerate(weights):
        np.save(tmp_path / f"{number}.npy", values)
    graph = read_graph([tmp_path / "0.npy", str(tmp_path / "1.npy")])
    assert_array_equal(dense(graph, 0), [[1, 2]])
    assert_array_equal(dense(graph, 1), [[3], [4]])


def test_npy_files_with_objects_or_garbage_are_refused(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([[{}]]), allow_pickle=True)
    (tmp_path / "garbage.npy").write_bytes(b"garbage")
    for name in ("objects.npy", "garbage.npy", "missing.npy"):
        with pytest.raises(ModelError, match=name):
            read_graph([tmp_path / name, tmp_path / name])


def test_nested_lists_and_tuples_are_arrays():
    graph = read_graph(([[1, -2], [3, 4]], [[5], [-6]]))
    assert_array_equal(dense(graph, 1), [[5], [6]])


def test_weights_passed_are_not_changed():
    w0, w1 = -np.ones((2, 3)), -np.ones((3, 2))
    read_graph([w0, w1])
    assert (w0 == -1).all()
    assert (w1 == -1).all()


CONV1 = np.array([[[[1.0, -2.0]]], [[[0.0, 3.0]]]])  # 1 -> 2 channels, 1 x 2 kernel
CONV2 = np.array([[[[3.0, -4.0]], [[0.0, 1.0]]], [[[1.0, 1.0]], [[-2.0, 0.0]]]])
# 2 channels of 2 positions -> 2 neurons; rows: channel 0 at both positions, channel 1 at both
DENSE = np.array([[1.0, 0.0], [-2.0, 0.0], [0.0, 3.0], [5.0, -4.0]])


def test_paper_scope_keeps_hidden_channels_only():
    graph = read_graph([CONV1, CONV2, DENSE])
    assert layers_of(graph) == [("w0", 2), ("w1", 2)]
    assert len(graph.blocks) == 1
    assert_array_equal(dense(graph, 0), [[7, 2], [1, 2]])
    assert [(item.name, item.shape) for item in graph.left_out] == [
        ("w0", (2, 1, 1, 2)),
        ("w2", (4, 2)),
    ]
    assert "image" in graph.left_out[0].reason
    assert "fully connected" in graph.left_out[1].reason


def test_scope_all_joins_channels_to_neurons_over_their_positions():
    graph = read_graph([CONV1, CONV2, DENSE], scope="all")
    assert layers_of(graph) == [("input", 1), ("w0", 2), ("w1", 2), ("w2", 2)]
    assert_array_equal(dense(graph, 0), [[3, 3]])
    assert_array_equal(dense(graph, 1), [[7, 2], [1, 2]])
    assert_array_equal(dense(graph, 2), [[3, 0], [5, 7]])
    assert graph.left_out == ()


def test_l2_norm_of_slices_and_positions():
    graph = read_graph([CONV1, CONV2, DENSE], scope="all", norm="l2")
    assert_allclose(dense(graph, 0), [[np.sqrt(5), 3]])
    assert_allclose(dense(graph, 1), [[5, np.sqrt(2)], [1, 2]])
    assert_allclose(dense(graph, 2), [[np.sqrt(5), 0], [5, 5]])


def test_l2_norm_leaves_matrices_alone():
    w = [np.array([[1.0, -2.0]]), np.array([[3.0], [4.0]])]
    assert_array_equal(dense(read_graph(w, norm="l2"), 0), [[1, 2]])


def test_grouped_convolution_is_block_diagonal():
    first = ChainLayer("first", np.ones((4, 1, 1)), "conv")
    # 2 groups of 2 -> 3 channels; entry = 10 * output + input within the group
    weight = (10.0 * np.arange(6)[:, None] + np.arange(2)[None, :] + 1)[:, :, None]
    grouped = ChainLayer("grouped", -weight, "conv", groups=2)
    graph = assemble(lower(chain_program([first, grouped])))
    assert_array_equal(
        dense(graph, 0),
        [
            [1, 11, 21, 0, 0, 0],
            [2, 12, 22, 0, 0, 0],
            [0, 0, 0, 31, 41, 51],
            [0, 0, 0, 32, 42, 52],
        ],
    )


def test_depthwise_is_inferred_from_one_input_channel():
    depthwise = np.array([[[1.0, -1.0]], [[2.0, 0.0]], [[0.0, 5.0]]])
    graph = read_graph([np.ones((3, 1, 2)), depthwise])
    assert_array_equal(dense(graph, 0), np.diag([2.0, 2.0, 5.0]))


def test_scales_multiply_before_the_norm():
    first = ChainLayer("a", np.array([[1.0, 2.0]]), "linear", output_scale=np.array([-3.0, 10.0]))
    second = ChainLayer("b", np.array([[1.0], [-1.0]]), "linear", input_scale=np.array([2.0, -5.0]))
    graph = assemble(lower(chain_program([first, second])))
    assert_array_equal(dense(graph, 0), [[3, 20]])
    assert_array_equal(dense(graph, 1), [[2], [5]])


def test_scale_per_channel_or_per_position_before_a_flattened_layer():
    conv = ChainLayer("conv", CONV1, "conv")
    for scale, expected in (
        ([2.0, 10.0], [[6, 0], [50, 70]]),
        ([1.0, 2.0, 3.0, 4.0], [[5, 0], [20, 25]]),
    ):
        linear = ChainLayer("fc", DENSE, "linear", input_scale=np.array(scale))
        graph = assemble(lower(chain_program([conv, linear])), scope="all")
        assert_array_equal(dense(graph, 1), expected)


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 6), min_size=3, max_size=6),
    st.integers(0, 2**32 - 1),
    st.sampled_from(["l1", "l2"]),
)
def test_any_chain_has_its_magnitudes_as_blocks(sizes, seed, norm):
    rng = np.random.default_rng(seed)
    weights = [rng.normal(size=pair) for pair in pairwise(sizes)]
    graph = read_graph(weights, norm=norm)
    assert [layer.size for layer in graph.layers] == sizes
    for number, weight in enumerate(weights):
        assert_array_equal(dense(graph, number), np.abs(weight))


def test_graph_is_returned_as_it_is_and_renamed_on_demand():
    graph = read_graph([np.ones((2, 3)), np.ones((3, 2))], name="mine")
    assert graph.name == "mine"
    assert read_graph(graph) is graph
    assert read_graph(graph, name="other").name == "other"
    assert graph.name == "mine"


def test_sparse_adjacency():
    adjacency = sparse.csr_array(np.array([[0, 2.0, 0], [2.0, 0, 1.0], [0, 1.0, 0]]))
    graph = read_graph(adjacency)
    assert layers_of(graph) == [("vertices", 3)]
    assert_array_equal(dense(graph, 0), [[0, 2, 0], [0, 0, 1], [0, 0, 0]])
    assert_array_equal(dense(read_graph(sparse.csr_matrix(adjacency)), 0), dense(graph, 0))


def test_single_matrix_hint_works():
    W = np.array([[1.0, -2.0], [0.5, 3.0]])
    block = sparse.block_array([[None, abs(W)], [abs(W).T, None]])
    graph = read_graph(sparse.csr_array(block))
    assert_array_equal(dense(graph, 0)[:2, 2:], np.abs(W))


def test_networks_of_the_package():
    for name in networks.NAMES:
        weights = networks.load(name)
        assert [w.shape for w in weights] == [(64, 128), (128, 128), (128, 64), (64, 10)]
        graph = read_graph(networks.path(name))
        assert graph.name == name
        assert_array_equal(dense(graph, 1), np.abs(weights[1]))
        with np.load(networks.path(name)) as arrays:
            assert 0.96 <= arrays["test_accuracy"] <= 1
    zeros = [float((w == 0).mean()) for w in networks.load("digits-pruned")]
    assert_allclose(zeros, 0.9, atol=1e-3)
    assert all((w != 0).mean() > 0.99 for w in networks.load("digits-unpruned"))


def test_unknown_network():
    with pytest.raises(InputError, match="digits-pruned"):
        networks.load("digits")


ONES = np.ones((2, 2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": [ONES, ONES], "scope": "hidden"}, r"scope: must be 'paper' or 'all'"),
        ({"model": [ONES, ONES], "norm": "l3"}, r"norm: must be 'l1' or 'l2'"),
        ({"model": []}, "no weights found"),
        ({"model": [np.ones((3, 4))]}, r"at least two weight layers.*bipartite adjacency"),
        ({"model": ONES}, r"dense square array \(2, 2\).*csr_array\(adjacency\).*list"),
        ({"model": np.ones((2, 3))}, r"single array of shape \(2, 3\).*bipartite"),
        ({"model": [np.ones((2, 3)), np.ones((4, 2))]}, "'w1' reads 4 values, but 'w0'.*gives 3"),
        ({"model": [CONV1, np.ones((5, 2))]}, "'w1' reads 5 values.*'w0'.*gives 2 channels"),
        ({"model": [ONES, np.ones((2, 2, 3))]}, "convolution 'w1' follows.*fully connected 'w0'"),
        ({"model": [CONV1, DENSE]}, "only one convolution.*scope='all'"),
        ({"model": [np.ones((0, 2)), ONES]}, "no neurons"),
        ({"model": [ONES, np.ones(2)]}, r"weights 1 have shape \(2,\).*biases"),
        ({"model": [ONES, [[1, 2], [3]]]}, "weights 1: not an array of numbers"),
        ({"model": [ONES, ONES * 1j]}, "weights 1: weights must be real numbers.*complex128"),
        ({"model": [ONES, ONES > 0]}, "real numbers, got dtype bool"),
        ({"model": [ONES, ONES], "layers": ["w0"]}, "layers: names the arrays of a file"),
        ({"model": 3}, "cannot read type int.*torch.nn.Module"),
        ({"model": sparse.eye_array(3), "scope": "all"}, "scope: has no effect on a graph"),
        ({"model": sparse.eye_array(3), "norm": "l2"}, "norm: has no effect"),
        ({"model": sparse.eye_array(3), "layers": ["a"]}, "layers: has no effect"),
    ],
)
def test_input_errors(arguments, message):
    with pytest.raises(InputError, match=message):
        read_graph(**arguments)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([[np.nan, 1.0], [np.inf, np.nan]], "'w1': 2 NaN and 1 infinite"),
        ([[0.0, 0.0], [0.0, 0.0]], "'w1': all 4 weights are zero"),
    ],
)
def test_layer_with_unusable_weights_is_named(bad, message):
    with pytest.raises(InputError, match=message):
        read_graph([ONES, bad])


def test_infinite_kernel_is_an_error_and_no_warning():
    weight = CONV2.copy()
    weight[0, 1, 0, 0] = np.inf
    layer = ChainLayer("c", weight, "conv", output_scale=np.array([0.0, 1.0]))
    with pytest.raises(InputError, match="'c': 1 NaN and 0 infinite"):
        assemble(lower(chain_program([ChainLayer("a", CONV1, "conv"), layer])), norm="l2")


def test_column_sums_are_the_induced_one_norm() -> None:
    rng = np.random.default_rng(3)
    kernels = [rng.standard_normal((5, 4, 3, 3)), rng.standard_normal((6, 5, 3, 2))]
    graph = read_graph(kernels, norm="column-sum")
    expected = [[np.linalg.norm(kernel, 1) for kernel in out] for out in kernels[1]]
    np.testing.assert_allclose(graph.blocks[0].weights, np.array(expected).T)


def test_column_sums_need_two_axes() -> None:
    with pytest.raises(InputError, match="norm: 'column-sum'"):
        read_graph([np.ones((5, 4, 3)), np.ones((6, 5, 3))], norm="column-sum")
