"""ONNX models: whole adjacencies, sizes that are left open, roles of parameters."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from onnx_nets import (
    FACTORS,
    RNG,
    Net,
    between,
    blocks_of,
    chain_of,
    followed,
    graph_of,
    layers_of,
    roles_of,
    saved,
    weights,
)

import ncut
from ncut.errors import InputError, ModelError
from ncut.extract.assembly.assemble import assemble
from ncut.extract.readers.onnx_graph.node import path_of

onnx = pytest.importorskip("onnx", reason="pip install 'ncut[onnx]'")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

SCALED = {
    # nodes between, factors of the first matrix's columns, factors of the second's rows
    "nothing": (lambda net, x: x, 1, 1),
    "bias": (lambda net, x: net("Add", x, FACTORS), 1, 1),
    "bias first": (lambda net, x: net("Add", FACTORS, x), 1, 1),
    "Relu": (lambda net, x: net("Relu", x), 1, 1),
    "Max with 0": (lambda net, x: net("Max", x, np.float32(0)), 1, 1),
    "Mul": (lambda net, x: net("Mul", x, FACTORS), FACTORS, 1),
    "Mul by number": (lambda net, x: net("Mul", np.float32(-3), x), 3, 1),
    "Div": (lambda net, x: net("Div", x, FACTORS), 1 / FACTORS, 1),
    "Div of constant": (lambda net, x: net("Div", FACTORS, x), 1, 1),
    "Mul after Relu": (lambda net, x: net("Mul", net("Relu", x), FACTORS), 1, FACTORS),
    "Neg": (lambda net, x: net("Neg", x), 1, 1),
    "Cast": (lambda net, x: net("Cast", net("Cast", x, to=10), to=1), 1, 1),
    "Dropout": (lambda net, x: net("Dropout", x), 1, 1),
    "BatchNormalization": (
        lambda net, x: net(
            *("BatchNormalization", x, FACTORS, FACTORS, FACTORS),
            *(np.array([1, 4, 0.25, 1], np.float32),), epsilon=0.0,
        ),
        FACTORS / np.sqrt([1, 4, 0.25, 1]), 1,
    ),
    "LayerNormalization": (
        lambda net, x: net("LayerNormalization", x, FACTORS, FACTORS), FACTORS, 1,
    ),
    "RMSNormalization": (lambda net, x: net("RMSNormalization", x, FACTORS), FACTORS, 1),
    "layer norm by hand": (lambda net, x: layer_norm_by_hand(net, x), FACTORS, 1),
    "RMS norm by hand": (lambda net, x: rms_norm_by_hand(net, x), FACTORS, 1),
    "RMS norm, factors first": (lambda net, x: rms_norm_by_hand(net, x, True), FACTORS, 1),
    "GELU by hand": (lambda net, x: gelu_by_hand(net, x), 1, 1),
    "swish by hand": (lambda net, x: net("Mul", x, net("Sigmoid", x)), 1, 1),
    "QuantizeLinear": (
        lambda net, x: net("DequantizeLinear", net("QuantizeLinear", x, np.float32(0.1)),
                           np.float32(0.1)), 1, 1,
    ),
    "Reshape there and back": (
        lambda net, x: net("Reshape", net("Reshape", x, np.array([0, 2, -1])), np.array([2, 4])),
        1, 1,
    ),
    "shape of the data": (
        lambda net, x: net(
            "Reshape", net("Unsqueeze", x, np.array([1])),
            net("Concat", net("Gather", net("Shape", x), np.array([0])), np.array([-1]), axis=0),
        ), 1, 1,
    ),
    "Where": (lambda net, x: net("Where", np.array([[True], [False]]), x, np.float32(0)), 1, 1),
    "Expand": (
        lambda net, x: net("ReduceMean", net("Expand", net("Unsqueeze", x, np.array([1])),
                           np.array([2, 5, 4])), np.array([1]), keepdims=0), 1, 1,
    ),
}  # fmt: skip


def layer_norm_by_hand(net, x):
    centred = net("Sub", x, net("ReduceMean", x, np.array([-1])))
    variance = net("ReduceMean", net("Pow", centred, np.float32(2)), np.array([-1]))
    spread = net("Sqrt", net("Add", variance, np.float32(1e-5)))
    return net("Add", net("Mul", net("Div", centred, spread), FACTORS), FACTORS)


def rms_norm_by_hand(net, x, factors_first=False):
    square = net("ReduceMean", net("Mul", x, x), np.array([-1]))
    inverse = net("Reciprocal", net("Sqrt", net("Add", square, np.float32(1e-5))))
    if factors_first:
        return net("Mul", x, net("Mul", inverse, FACTORS))
    return net("Mul", FACTORS, net("Mul", x, inverse))


def gelu_by_hand(net, x):
    erf = net("Erf", net("Div", x, np.float32(2**0.5)))
    return net("Mul", net("Mul", x, net("Add", erf, np.float32(1))), np.float32(0.5))


@pytest.mark.parametrize("case", SCALED)
def test_factors_between_two_matrices(tmp_path, case):
    middle, of_first, of_second = SCALED[case]
    graph, first, second = between(tmp_path, middle, opset=23)
    got = blocks_of(graph)
    assert_allclose(got[0] @ np.diag(np.ones(4)), first * np.abs(of_first), rtol=1e-5)
    assert_allclose(got[1], second * np.reshape(np.abs(of_second) * np.ones(4), (4, 1)), rtol=1e-5)
    assert all(p.placed or p.role != "not used" for p in graph.parameters)


HOMOGENEOUS = {
    "Relu": (True, {}), "LeakyRelu": (True, {}), "Abs": (True, {}), "PRelu": (True, {}),
    "Sigmoid": (False, {}), "Tanh": (False, {}), "Elu": (False, {}), "Gelu": (False, {}),
    "HardSwish": (False, {}), "Softplus": (False, {}), "Mish": (False, {}), "Exp": (False, {}),
    "Softmax": (False, {}), "ThresholdedRelu": (False, {}), "Sqrt": (False, {}),
}  # fmt: skip


@pytest.mark.parametrize("op", HOMOGENEOUS)
def test_homogeneous_activations_are_recognized(tmp_path, op):
    expected, attributes = HOMOGENEOUS[op]
    more = [FACTORS] if op == "PRelu" else []
    graph, _, _ = between(tmp_path, lambda net, x: net(op, x, *more, **attributes))
    assert graph.layers[1].rescalable is expected


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.0, None, True), (0.0, 6.0, False), (-1.0, None, False), (None, None, False)],
)
@pytest.mark.parametrize("opset", [6, 21])
def test_clip_from_zero_is_a_relu(tmp_path, low, high, expected, opset):
    def clip(net, x):
        if opset == 6:
            return net("Clip", x, min=low, max=high)
        ends = ["" if end is None else np.float32(end) for end in (low, high)]
        return net("Clip", x, *ends)

    graph, _, _ = between(tmp_path, clip, opset=opset)
    assert graph.layers[1].rescalable is expected


@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
def test_gemm(tmp_path, trans_a, trans_b):
    net = Net()
    first, second = weights(3, 4), weights(4, 2)
    x = net.input((2, 3))
    x = net("Transpose", x) if trans_a else x
    how = {"transA": trans_a, "transB": trans_b, "alpha": 0.5}
    x = net("Gemm", x, net.array(first.T if trans_b else first, "a.weight"), weights(4), **how)
    x = net("Transpose", net("Relu", x)) if trans_a else net("Relu", x)
    y = net("Gemm", x, net.array(second.T if trans_b else second, "b.weight"), **how)
    graph = graph_of(net.proto(y), tmp_path)
    assert layers_of(graph) == [("input", 3), ("a", 4), ("b", 2)]
    for got, expected in zip(blocks_of(graph), (first, second), strict=True):
        assert_allclose(got, 0.5 * np.abs(expected), rtol=1e-6)


def test_matrices_on_the_left(tmp_path):
    net = Net()
    first, second = weights(4, 3), weights(2, 4)
    x = net("Relu", net("MatMul", net.array(first, "a.weight"), net.input((2, 3, 5))))
    y = net("MatMul", net.array(second, "b.weight"), x)
    graph = graph_of(net.proto(y), tmp_path)
    assert_allclose(blocks_of(graph)[-1], np.abs(second).T)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
def test_convolutions(tmp_path, op, groups):
    net = Net()
    first = weights(4, 3, 3, 3)
    second = weights(8, 4 // groups, 2, 2) if op == "Conv" else weights(4, 8 // groups, 2, 2)
    x = net("Relu", net("Conv", net.input((1, 3, 8, 8)), net.array(first, "a.weight"), weights(4)))
    y = net(op, x, net.array(second, "b.weight"), group=groups, strides=[2, 2])
    graph = graph_of(net.proto(y), tmp_path)
    assert layers_of(graph) == [("input", 3), ("a", 4), ("b", 8)]
    expected = np.zeros((4, 8))
    for i in range(4):
        for o in range(8):
            if i // (4 // groups) != o // (8 // groups):
                continue
            slices = second[o, i % (4 // groups)] if op == "Conv" else second[i, o % (8 // groups)]
            expected[i, o] = np.abs(slices).sum()
    got = blocks_of(graph)
    assert_allclose(got[0], np.abs(first).sum(axis=(2, 3)).T, rtol=1e-6)
    assert_allclose(got[1], expected, rtol=1e-6)


def test_fully_connected_after_convolutions(tmp_path):
    net = Net()
    kernel, matrix = weights(4, 3, 3, 3), weights(2, 4 * 9)
    x = net("Conv", net.input((1, 3, 8, 8)), net.array(kernel, "a.weight"))
    x = net("Flatten", net("MaxPool", net("Relu", x), kernel_shape=[2, 2], strides=[2, 2]))
    y = net("Gemm", x, net.array(matrix, "b.weight"), transB=1)
    graph = graph_of(net.proto(y), tmp_path)
    assert layers_of(graph) == [("input", 3), ("a", 4), ("b", 2)]
    assert_allclose(blocks_of(graph)[1], np.abs(matrix).reshape(2, 4, 9).sum(axis=2).T, rtol=1e-6)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("n_directions", [1, 2])
@pytest.mark.parametrize("layout", [0, 1])
def test_recurrent_layers(tmp_path, kind, n_directions, layout):
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
    net = Net()
    w, r = weights(n_directions, gates * 5, 3), weights(n_directions, gates * 5, 5)
    readout = weights(n_directions * 5, 2)
    x = net.input((7, 2, 3) if not layout else (2, 7, 3))
    direction = "bidirectional" if n_directions == 2 else "forward"
    how = {"hidden_size": 5, "direction": direction, "layout": layout, "name": "rnn"}
    values = [net.array(w, "rnn.weight"), net.array(r, "hidden"), weights(n_directions, 10 * gates)]
    states = net(kind, x, *values, n=2, **how)
    y = states[0]
    if not layout:
        y = net("Transpose", y, perm=[0, 2, 1, 3])
    y = net("Reshape", y, np.array([0, 0, n_directions * 5]))
    y = net("MatMul", y, net.array(readout, "out.weight"))
    graph = graph_of(net.proto(y), tmp_path, residual="stream")
    names = ["rnn", "rnn (reverse)"][:n_directions]
    assert layers_of(graph) == [("input", 3), *((name, 5) for name in names), ("out", 2)]
    found = graph.adjacency.toarray()
    summed = np.abs(w).reshape(n_directions, gates, 5, 3).sum(axis=1)
    within = np.abs(r).reshape(n_directions, gates, 5, 5).sum(axis=1)
    for at in range(n_directions):
        own = slice(3 + 5 * at, 8 + 5 * at)
        assert_allclose(found[own, :3], summed[at], rtol=1e-5)
        assert_allclose(found[own, -2:], np.abs(readout[5 * at : 5 * at + 5]), rtol=1e-5)
        both = within[at] + within[at].T
        assert_allclose(found[own, own], both - np.diag(np.diag(both)), rtol=1e-5)
    assert roles_of(graph)["rnn.weight"].placed
    assert roles_of(graph)["hidden"].placed


def test_embedding_and_tied_readout(tmp_path):
    net = Net()
    table = weights(11, 4)
    ids = net.input((2, "seq"), "ids", TensorProto.INT64)
    x = net("Gather", net.array(table, "embed.weight"), ids)
    h = net.layer("MatMul", x, weights(4, 4), -1)
    y = net("MatMul", net("Relu", h), net("Transpose", "embed.weight"), name="head")
    graph = graph_of(net.proto(y), tmp_path)
    assert layers_of(graph) == [
        ("rows of embed", 11),
        ("embed", 4),
        ("w0", 4),
        ("embed (call 2)", 11),
    ]
    got = blocks_of(graph)
    assert_allclose(got[0], np.abs(table))
    assert_allclose(got[2], np.abs(table).T)


def test_learned_positions_are_rows_of_a_table(tmp_path):
    net = Net()
    ids = net.input(("batch", "seq"), "ids", TensorProto.INT64)
    length = net("Gather", net("Shape", ids), np.array(1))
    numbers = net("Range", np.array(0), length, np.array(1))
    x = net("Gather", net.array(weights(11, 4), "embed.weight"), ids)
    x = net("Add", x, net("Gather", net.array(weights(9, 4), "place.weight"), numbers))
    graph = graph_of(net.proto(net.linear(x, 4, 3)), tmp_path, residual="stream")
    assert layers_of(graph) == [
        ("rows of embed", 11), ("stream of embed", 4), ("rows of place", 9), ("w0", 3),
    ]  # fmt: skip


def branches(first, second):
    """An If whose branches apply one of two matrices to the `hidden` of the graph around it."""
    graphs = []
    for at, values in enumerate((first, second)):
        node = helper.make_node("MatMul", ["hidden", f"w{at}"], [f"out{at}"])
        graphs.append(
            helper.make_graph(
                [node], f"branch{at}", [], [helper.make_tensor_value_info(f"out{at}", 1, None)],
                [numpy_helper.from_array(values, f"w{at}")],
            )
        )  # fmt: skip
    return {"then_branch": graphs[0], "else_branch": graphs[1]}


def test_branches_with_a_known_condition_are_followed(tmp_path):
    first, options = weights(3, 4), (weights(4, 2), weights(4, 5))
    for at, size in enumerate((2, 3)):
        net = Net()
        hidden = net.layer("MatMul", net.input((size, 3)), first, -1, name="a")
        net.nodes[-1].output[0] = hidden = "hidden"
        length = net("Gather", net("Shape", hidden), np.array(0))
        y = net("If", net("Equal", length, np.array(2)), **branches(*options))
        chain_of(graph_of(net.proto(y), tmp_path), first, options[at])
    net = Net()
    hidden = net.layer("MatMul", net.input((2, 3)), first, -1, name="a")
    net.nodes[-1].output[0] = hidden = "hidden"
    condition = net("Greater", net("ReduceMean", hidden, keepdims=0), np.float32(0))
    y = net("If", condition, **branches(*options))
    with pytest.raises(ModelError, match=r"operator If.*branches"):
        graph_of(net.proto(y), tmp_path)


@pytest.mark.parametrize(
    ("name", "operator", "expected"),
    [
        ("/encoder/layers.0/fc1/MatMul", "MatMul", "encoder.layers.0.fc1"),
        ("/layers/layers.3/out/Gemm_2", "Gemm", "layers.3.out"),
        ("/MatMul", "MatMul", "/MatMul"),
        ("model/dense/MatMul", "MatMul", "model/dense/MatMul"),
    ],
)
def test_names_of_layers(name, operator, expected):
    assert path_of(name, operator) == expected


# --- sizes that are left open -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "n_flat"),
    [
        (("batch", 3, "height", "width"), None),
        ((None, 3, None, None), 5 * 26 * 26),
        (("N", 3, 10, "w"), 5 * 8 * 26),
    ],
)
def test_open_sizes_of_images(tmp_path, shape, n_flat):
    net = Net()
    x = net.conv(net("Relu", net.conv(net.input(shape), 3, 4)), 4, 5, k=1)
    x = net("AveragePool", x, kernel_shape=[3, 3]) if n_flat else net("GlobalMaxPool", x)
    y = net.layer("MatMul", net("Flatten", x), weights(n_flat or 5, 2), -1)
    assert [size for _, size in layers_of(graph_of(net.proto(y), tmp_path))] == [3, 4, 5, 2]


def test_unresolvable_open_sizes_are_refused(tmp_path):
    net = Net()
    x = net("Reshape", net.conv(net.input((None, 3, None, None)), 3, 4), [-1, 4 * 37 * 41])
    y = net.layer("MatMul", x, weights(4 * 37 * 41, 2), -1)
    with pytest.raises(ModelError, match=r"leave sizes open, and 16 guesses do not fit; give them"):
        graph_of(net.proto(y), tmp_path)


def test_open_number_of_features(tmp_path):
    net = Net()
    first, second = weights(17, 4), weights(4, 2)
    x = net("Add", net.input((None, None)), weights(17))
    y = net.layer("MatMul", net("Relu", net.layer("MatMul", x, first, -1)), second, -1)
    chain_of(graph_of(net.proto(y), tmp_path), first, second)


def test_keys_and_values_of_the_past(tmp_path):
    net = Net()
    ids = net.input(("batch", "seq"), "ids", TensorProto.INT64)
    past = net.input(("batch", 2, "past_len", 4), "past_key")
    mask = net.input(("batch", "past_len + seq"), "mask", TensorProto.INT64)
    x = net("Gather", net.array(weights(9, 8), "embed.weight"), ids)
    q, k, v = (
        net("Transpose", net("Reshape", net.linear(x, 8, 8), [0, 0, 2, 4]), perm=[0, 2, 1, 3])
        for _ in range(3)
    )
    k = net("Concat", past, k, axis=2)
    scores = net("MatMul", q, net("Transpose", k, perm=[0, 1, 3, 2]))
    bias = net("Unsqueeze", net("Cast", mask, to=1), [1, 2])
    mixed = net("MatMul", net("Softmax", net("Add", scores, bias)), v)
    mixed = net("Reshape", net("Transpose", mixed, perm=[0, 2, 1, 3]), [0, 0, 8])
    y = net("Add", x, net.linear(mixed, 8, 8))
    wiring, _ = followed(saved(net.proto(y, k), tmp_path))
    assert wiring.attends
    assert wiring.residual == "stream"
    graph = assemble(wiring)
    assert ("stream of embed", 8) in layers_of(graph)


# --- what becomes of parameters, and unknown operators ------------------------------------------


def test_all_parameters_are_accounted_for(tmp_path):
    net = Net()
    x = net("Conv", net.input((1, 3, 8, 8)), net.array(weights(4, 3, 3, 3), "a.weight"),
            net.array(weights(4), "a.bias"))  # fmt: skip
    names = ["scale", "shift", "mean", "var"]
    values = [net.array(np.abs(weights(4)), f"norm.{name}") for name in names]
    x = net("Relu", net("BatchNormalization", x, *values))
    x = net("Mul", x, net.array(RNG.random((1, 1, 6, 6)).astype("f4"), "mask"))
    y = net("Conv", x, net.array(weights(5, 4, 3, 3), "b.weight"))
    net.array(weights(3, 3), "unused")
    graph = graph_of(net.proto(y), tmp_path)
    roles = roles_of(graph)
    placed = {name for name, role in roles.items() if role.placed}
    assert placed == {"a.weight", "b.weight", "norm.scale", "norm.var"}
    assert roles["a.bias"].role == roles["norm.shift"].role == "bias"
    assert roles["norm.mean"].role == "running mean"
    assert roles["mask"].role == "a factor that differs by position"
    assert "does not use it" in roles["unused"].role
    assert {item.name for item in graph.left_out} == {"mask", "unused"}


def test_unknown_operators(tmp_path):
    def middle(net, x):
        return net("Fancy", x, weights(4), domain="my.ops", name="here")

    with pytest.raises(ModelError, match=r"'here'.*my\.ops\.Fancy is not known.*elementwise"):
        between(tmp_path, middle)
    graph, first, second = between(tmp_path, middle, unknown="elementwise")
    chain_of(graph, first, second)
    assert graph.layers[1].rescalable is False
    assert any("Fancy" in item.name and "'here'" in item.reason for item in graph.left_out)


def test_operators_that_depend_on_the_data(tmp_path):
    for op in ("Loop", "Scan"):
        with pytest.raises(ModelError, match=rf"operator {op}.*loops and branches"):
            between(tmp_path, lambda net, x, op=op: net(op, x))
    with pytest.raises(ModelError, match=r"operator NonZero.*depends on the data"):
        between(tmp_path, lambda net, x: net("NonZero", x))
    with pytest.raises(ModelError, match="its shape depends on the data"):
        between(tmp_path, lambda net, x: net("Reshape", x, net("Cast", x, to=7)))
    with pytest.raises(ModelError, match="its weight depends on the data"):
        between(tmp_path, lambda net, x: net("Conv", net("Unsqueeze", x, [2]), x))


@pytest.mark.parametrize("options", [{"residual": "sums"}, {"unknown": "guess"}])
def test_wrong_options(tmp_path, options):
    net = Net()
    path = saved(net.proto(net.layer("MatMul", net.input((2, 3)), weights(3, 4), -1)), tmp_path)
    with pytest.raises(InputError, match=next(iter(options))):
        ncut.graph(path, **options)


def test_weights_that_a_file_quantizes_by_row(tmp_path):
    values, steps = weights(4, 3), np.array([0.1, 0.2, 0.4, 0.05], np.float32)
    zeros, net = np.zeros(4, np.int8), Net()
    whole = net("QuantizeLinear", net.array(values, "a"), steps, zeros, axis=0)
    whole = net("DequantizeLinear", whole, steps, zeros, axis=0)
    y = net.linear(net("MatMul", net.input((2, 4)), whole), 3, 2)
    expected = np.clip(np.round(values / steps[:, None]), -128, 127) * steps[:, None]
    assert_allclose(graph_of(net.proto(y), tmp_path).blocks[0].weights, abs(expected), rtol=1e-6)


def test_constants_are_evaluated_by_the_opset_of_their_file(tmp_path):
    """Before opset 13 axes are attributes, and Softmax sums over all axes from its own on."""
    x = np.arange(24, dtype="f4").reshape(2, 3, 4)

    def folded_as(op, opset, **attributes):
        node = helper.make_node(op, ["x"], ["w"], **attributes)
        first = helper.make_node("Reshape", ["w", "shape"], ["v"])
        second = helper.make_node("MatMul", ["input", "v"], ["h"])
        last = helper.make_node("MatMul", ["h", "last"], ["y"])
        expected = {"ReduceSum": x.sum(1), "Unsqueeze": x[None], "Softmax": x}[op]
        n = expected.size // 2
        graph = helper.make_graph(
            [node, first, second, last], "g",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 2])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
            [numpy_helper.from_array(values, name) for name, values in
             {"x": x, "shape": np.array([2, n]), "last": weights(n, 3)}.items()],
        )  # fmt: skip
        opsets = [helper.make_opsetid("", opset)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=6)
        block = graph_of(model, tmp_path).blocks[0].weights
        assert_allclose(block, np.abs(expected.reshape(2, n)), rtol=1e-6)

    folded_as("ReduceSum", 11, axes=[1], keepdims=0)
    folded_as("Unsqueeze", 11, axes=[0])
    with pytest.raises(InputError, match="found only 'last'"):  # not the values of opset 13
        folded_as("Softmax", 11, axis=1)


def test_a_node_of_another_domain_is_not_evaluated(tmp_path):
    net = Net()
    matrix = net("Add", weights(4, 3), weights(4, 3), domain="my.ops")
    y = net.linear(net("MatMul", net.input((2, 4)), matrix), 3, 2)
    with pytest.raises(ModelError, match=r"the operator my\.ops\.Add is not known"):
        graph_of(net.proto(y), tmp_path)
