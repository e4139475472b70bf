"""Graphs of ONNX models against the models' outputs, one changed neuron at a time."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from onnx_nets import (
    FACTORS,
    RNG,
    Net,
    between,
    blocks_of,
    chain_of,
    check_function,
    followed,
    graph_of,
    layers_of,
    measured,
    one,
    predicted,
    saved,
    sparse_weights,
    weights,
)

from ncut.errors import ModelError
from ncut.extract.lowering import wiring as wiring_module
from ncut.extract.lowering.factors import Ledger
from ncut.extract.readers.onnx_graph.model import in_order
from ncut.extract.readers.onnx_graph.shapes import window

onnx = pytest.importorskip("onnx", reason="pip install 'ncut[onnx]'")


def shuffled(net, x):
    x = net("Transpose", net("Reshape", x, np.array([0, 2, 3, 4, 4])), perm=[0, 2, 1, 3, 4])
    return net("Reshape", x, np.array([0, 6, 4, 4]))


def as_channels_last(net, x):
    x = net("Transpose", x, perm=[0, 2, 3, 1])
    return net("Transpose", net("Relu", net.linear(x, 6, 6)), perm=[0, 3, 1, 2])


def with_other(op, n, before=None, **attributes):
    """A node that reads the signal, and n channels that a convolution makes of it."""

    def nodes(net, x):
        return net(op, x, net.conv(net(before, x) if before else x, 6, n), **attributes)

    return nodes


def gated(net, x):
    return net("Mul", x, net("Sigmoid", net.conv(net("GlobalAveragePool", x), 6, 6)))


def residual(net, x):
    return net("Relu", net("Add", x, net.conv(net("Relu", net.conv(x, 6, 3)), 3, 6)))


def summed(net, x):
    return net("Sum", x, net.conv(x, 6, 6), net.conv(x, 6, 6))


def masked(net, x):
    return net("Where", RNG.random((2, 1, 4, 4)) < 0.5, x, net.conv(x, 6, 6))


def divided(net, x):
    return net("Div", x, net("Exp", net.conv(x, 6, 6)))


def transposed_convolution(net, x):
    kernel = sparse_weights(6, 4, 3, 3)
    return net.layer("ConvTranspose", x, kernel, 1, strides=[2, 2])


# Nodes on a tensor of shape (2, 6, 4, 4), which lead to one with the number of channels given.
POSITIONS = {
    "Relu": (one("Relu"), 6),
    "MaxPool": (one("MaxPool", kernel_shape=[2, 2]), 6),
    "AveragePool": (one("AveragePool", kernel_shape=[3, 3], pads=[1] * 4), 6),
    "GlobalAveragePool": (one("GlobalAveragePool"), 6),
    "GlobalMaxPool": (one("GlobalMaxPool"), 6),
    "ReduceMean": (one("ReduceMean", [2, 3]), 6),
    "Resize": (one("Resize", "", np.array([1, 1, 2, 2], "f4")), 6),
    "Resize to sizes": (one("Resize", "", "", [2, 6, 3, 5]), 6),
    "Pad": (one("Pad", [0, 0, 1, 0, 0, 0, 2, 1]), 6),
    "Pad by edges": (one("Pad", [0, 0, 1, 0, 0, 0, 2, 1], mode="edge"), 6),
    "Pad of channels": (one("Pad", [0, 1, 0, 0, 0, 2, 0, 0]), 9),
    "Pad by channels reflected": (one("Pad", [0, 1, 0, 0, 0, 1, 0, 0], mode="reflect"), 8),
    "Slice": (one("Slice", [1], [6], [1], [2]), 3),
    "Slice backwards": (one("Slice", [-1], [-(2**62)], [1], [-2]), 3),
    "Split": (lambda net, x: net("Split", x, [2, 4], axis=1, n=2)[1], 4),
    "Gather": (one("Gather", [5, 0, -2], axis=1), 3),
    "Gather of positions": (one("Gather", [0, 3], axis=2), 6),
    "Tile": (one("Tile", [1, 2, 1, 1]), 12),
    "shuffle": (shuffled, 6),
    "channels last": (as_channels_last, 6),
    "DepthToSpace": (lambda net, x: net("DepthToSpace", net.conv(x, 6, 8), blocksize=2), 2),
    "DepthToSpace by columns": (
        lambda net, x: net("DepthToSpace", net.conv(x, 6, 8), blocksize=2, mode="CRD"),
        2,
    ),
    "SpaceToDepth": (one("SpaceToDepth", blocksize=2), 24),
    "Concat": (with_other("Concat", 3, axis=1), 9),
    "Concat of positions": (with_other("Concat", 6, axis=3), 6),
    "Concat with constants": (one("Concat", np.ones((2, 2, 4, 4), "f4"), axis=1), 8),
    "Add": (with_other("Add", 6), 6),
    "Add of one channel": (with_other("Add", 1), 6),
    "Sub": (with_other("Sub", 6, before="Relu"), 6),
    "Mul": (with_other("Mul", 6), 6),
    "Div": (divided, 6),
    "Max": (with_other("Max", 6), 6),
    "Mean": (with_other("Mean", 6), 6),
    "Sum": (summed, 6),
    "Where": (masked, 6),
    "gate": (gated, 6),
    "grouped": (lambda net, x: net("Relu", net.conv(x, 6, 4, k=3, group=2)), 4),
    "depthwise": (lambda net, x: net("Relu", net.conv(x, 6, 6, k=3, group=6)), 6),
    "residual": (residual, 6),
    "BatchNormalization": (one("BatchNormalization", *[np.ones(6, "f4")] * 4), 6),
    "Einsum": (one("Einsum", equation="nchw->nchw"), 6),
    "ConvTranspose": (transposed_convolution, 4),
}


@pytest.mark.parametrize("case", POSITIONS)
def test_images_as_the_model_treats_them(tmp_path, case):
    nodes, n_channels = POSITIONS[case]
    net = Net()
    x = net.conv(net.input((2, 2, 4, 4)), 2, 6)
    y = net.conv(nodes(net, x), n_channels, 5)
    check_function(net, y, tmp_path)


def heads(net, x):
    split = net("Transpose", net("Reshape", x, [0, 0, 2, 4]), perm=[0, 2, 1, 3])
    return net("Reshape", split, [4, 3, 4])


def rotary(net, x):
    first, second = net("Split", x, [4, 4], axis=2, n=2)
    turned = net("Concat", net("Neg", second), first, axis=2)
    angles = [RNG.normal(size=(3, 1)).astype("f4") for _ in range(2)]
    return net("Add", net("Mul", x, angles[0]), net("Mul", turned, angles[1]))


def squeezed(net, x):
    return net("Squeeze", net("Unsqueeze", x, [0, 3]), [0, 3])


def by_einsum(net, x):
    return net.layer("Einsum", x, sparse_weights(8, 4), -1, equation="btd,de->bte")


def scaled_by_einsum(net, x):
    scaled = net("Einsum", x, np.ones(8, "f4"), equation="btd,d->tbd")
    return net("Reshape", scaled, [6, 8])


def by_einsum_of_three(net, x):
    gate = net("Sigmoid", net.linear(x, 8, 8))
    return net("Einsum", x, gate, net("Relu", x), equation="btd,btd,btd->btd")


def chosen_entries(net, x):
    return net("GatherND", x, np.array([[0, 1], [1, 2]]))


def chosen_neurons(net, x):
    turned = net("Transpose", net.linear(x, 8, 8), perm=[2, 0, 1])
    return net("Transpose", net("GatherND", turned, [[3], [0], [5]]), perm=[1, 2, 0])


def chosen_neurons_of_examples(net, x):
    at = np.array([[[1, 3], [0, 6]], [[1, 3], [0, 6]]])
    return net("GatherND", net.linear(x, 8, 8), at, batch_dims=1)


def replaced_entries(net, x):
    kept = net("ScatterND", x, np.array([[0, 1], [1, 2]]), np.ones((2, 8), "f4"))
    return net("Mul", kept, np.ones(8, "f4"))


def bilinear(net, x):
    other = net.linear(x, 8, 8)
    return net("Einsum", x, other, equation="btd,btd->btd")


def with_sum_over_time(net, x):
    return net.layer("Einsum", x, sparse_weights(8, 4), -1, equation="btd,dz")


def padded_by_ones(net, x):
    return net("Pad", x, [0, 1, 0, 0, 0, 0], np.float32(1))


def with_its_size(net, x):
    whole = net("Reshape", x, net("Unsqueeze", net("Size", x), [0]))
    return net("Reshape", whole, [2, 3, 8])


# Nodes on a tensor of shape (2, 3, 8), which lead to one of the width given.
FEATURES = {
    "Flatten": (one("Flatten"), 24),
    "Flatten at 2": (one("Flatten", axis=2), 8),
    "heads": (heads, 4),
    "Squeeze": (squeezed, 8),
    "Gather of time": (one("Gather", np.array(-1), axis=1), 8),
    "Gather of features": (one("Gather", [[0, 7], [3, 3]], axis=2), 2),
    "GatherElements": (one("GatherElements", np.zeros((2, 1, 8), int), axis=1), 8),
    "ReduceMax of time": (one("ReduceMax", [1], keepdims=0), 8),
    "rotary": (rotary, 8),
    "Einsum": (by_einsum, 4),
    "Einsum of factors": (scaled_by_einsum, 8),
    "Pow": (one("Pow", np.float32(3)), 8),
    "Einsum of three": (by_einsum_of_three, 8),
    "GatherND": (chosen_entries, 8),
    "GatherND of neurons": (chosen_neurons, 3),
    "GatherND of each example": (chosen_neurons_of_examples, 2),
    "ScatterND": (replaced_entries, 8),
    "Einsum of entries": (bilinear, 8),
    "Einsum without results": (with_sum_over_time, 4),
    "Pad by ones": (padded_by_ones, 8),
    "Size": (with_its_size, 8),
    "Gather of time by rows": (one("Gather", [[0, 1], [2, 2]], axis=1), 8),
    "Where with infinities": (
        lambda net, x: net("Where", np.array([[True], [False], [True]]), x, np.float32(-1e9)),
        8,
    ),
    "CumSum of time": (one("CumSum", np.array(1)), 8),
    "TopK of time": (lambda net, x: net("TopK", x, [2], axis=1, n=2)[0], 8),
}


@pytest.mark.parametrize("case", FEATURES)
def test_sequences_as_the_model_treats_them(tmp_path, case):
    nodes, width = FEATURES[case]
    net = Net()
    x = net.linear(net.input((2, 3, 5)), 5, 8)
    y = net.linear(nodes(net, x), width, 5)
    check_function(net, y, tmp_path)


# The same in older versions of the operators, whose settings are attributes.
OLDER = {
    "Slice": (9, one("Slice", starts=[1], ends=[2**31 - 1], axes=[1]), 5),
    "Pad": (10, one("Pad", pads=[0, 1, 1, 0, 0, 0, 0, 1]), 7),
    "Split": (11, lambda net, x: net("Split", x, axis=1, split=[2, 4], n=2)[1], 4),
    "equal Split": (11, lambda net, x: net("Split", x, axis=1, n=2)[0], 3),
    "ReduceMean": (11, one("ReduceMean", axes=[2, 3]), 6),
    "Upsample": (9, one("Upsample", np.array([1, 1, 2, 2], "f4")), 6),
    "Squeeze": (
        11,
        lambda net, x: net("Squeeze", net("Unsqueeze", x, axes=[1, 4]), axes=[1, 4]),
        6,
    ),
}


@pytest.mark.parametrize("case", OLDER)
def test_older_versions_of_operators(tmp_path, case):
    opset, nodes, n_channels = OLDER[case]
    net = Net(opset)
    x = net.conv(net.input((2, 2, 4, 4)), 2, 6)
    y = net.conv(nodes(net, x), n_channels, 5)
    check_function(net, y, tmp_path)


def test_the_oldest_way_to_broadcast(tmp_path):
    net = Net(6)
    kernel, bias = weights(4, 3, 1, 1), weights(4)
    x = net("Conv", net.input((1, 3, 5, 5)), net.array(kernel, "a.weight"))
    x = net("Mul", net("Add", x, bias, broadcast=1, axis=1), FACTORS, broadcast=1, axis=1)
    second = weights(2, 4, 1, 1)
    y = net("Conv", x, net.array(second, "b.weight"))
    graph = graph_of(net.proto(y), tmp_path)
    chain_of(graph, kernel[:, :, 0, 0].T * FACTORS, second[:, :, 0, 0].T)


NORMS = {
    "InstanceNormalization": lambda net, x: net("InstanceNormalization", x, FACTORS, FACTORS),
    "GroupNormalization": lambda net, x: net(
        "GroupNormalization", x, FACTORS, FACTORS, num_groups=2
    ),
    "BatchNormalization by the batch": lambda net, x: net(
        "BatchNormalization", x, *[FACTORS] * 4, training_mode=1, n=3
    )[0],
    "group norm by hand": lambda net, x: group_norm_by_hand(net, x),
    "LRN": lambda net, x: net("Mul", net("LRN", x, size=3), FACTORS.reshape(4, 1, 1)),
    "unit norm": lambda net, x: net(
        "Mul", FACTORS.reshape(4, 1, 1), net("LpNormalization", x, axis=1)
    ),
}


def group_norm_by_hand(net, x):
    ones = np.ones(2, np.float32)
    flat = net("InstanceNormalization", net("Reshape", x, [0, 2, -1]), ones, ones)
    back = net("Reshape", flat, net("Shape", x))
    scaled = net("Mul", back, FACTORS.reshape(4, 1, 1))
    return net("Add", scaled, FACTORS.reshape(4, 1, 1))


@pytest.mark.parametrize("case", NORMS)
def test_norms_of_channels(tmp_path, case):
    net = Net(21)
    kernels = weights(4, 3, 1, 1), weights(2, 4, 1, 1)
    x = net("Conv", net.input((1, 3, 5, 5)), net.array(kernels[0], "a.weight"))
    y = net("Conv", NORMS[case](net, x), net.array(kernels[1], "b.weight"))
    graph = graph_of(net.proto(y), tmp_path)
    chain_of(graph, kernels[0][:, :, 0, 0].T * FACTORS, kernels[1][:, :, 0, 0].T)
    assert "norm" in graph.left_out[0].name


def attention_by_hand(net, q, k, v, shared=1):
    q, k, v = (
        net("Transpose", net("Reshape", x, [0, 0, -1, 2]), perm=[0, 2, 1, 3]) for x in (q, k, v)
    )
    if shared > 1:
        k, v = (
            net(
                "Reshape",
                net("Expand", net("Unsqueeze", x, [2]), [1, 1, shared, 1, 1]),
                [0, -1, 5, 2],
            )
            for x in (k, v)
        )
    scores = net("Mul", net("MatMul", q, net("Transpose", k, perm=[0, 1, 3, 2])), np.float32(0.7))
    mixed = net("MatMul", net("Softmax", scores), v)
    return net("Reshape", net("Transpose", mixed, perm=[0, 2, 1, 3]), [0, 0, -1])


@pytest.mark.parametrize("shared", [1, 2])
def test_attention_matches_its_definition(tmp_path, shared):
    matrices = [weights(6, n) for n in (4, 4 // shared, 4 // shared)] + [weights(4, 6)]
    graphs = []
    for whole in (False, True):
        net = Net(23)
        x = net.input((2, 5, 6))
        q, k, v = (net.layer("MatMul", x, w, -1) for w in matrices[:3])
        if whole:
            heads = {"q_num_heads": 2, "kv_num_heads": 2 // shared}
            mixed = net("Attention", q, k, v, **heads)
        else:
            mixed = attention_by_hand(net, q, k, v, shared)
        y = net("Add", x, net.layer("MatMul", mixed, matrices[3], -1))
        graphs.append(graph_of(net.proto(y), tmp_path))
    assert layers_of(graphs[0]) == layers_of(graphs[1])
    assert_allclose(graphs[0].adjacency.toarray(), graphs[1].adjacency.toarray())
    assert graphs[0].adjacency.nnz


def test_contributed_operators(tmp_path):
    def middle(net, x):
        x = net("BiasGelu", x, weights(4), domain="com.microsoft")
        return net("QuickGelu", net("FastGelu", x, domain="com.microsoft"), domain="com.microsoft")

    graph, first, second = between(tmp_path, middle)
    chain_of(graph, first, second)
    net = Net()
    first, second = weights(3, 4), weights(2, 4)
    x = net("FusedMatMul", net.input((2, 3)), net.array(first, "a.weight"), domain="com.microsoft")
    skipped = net(
        "SkipLayerNormalization", x, x, FACTORS, FACTORS, domain="com.microsoft", epsilon=1e-5
    )
    y = net("FusedMatMul", skipped, net.array(second, "b.weight"), transB=1, alpha=0.5,
            domain="com.microsoft")  # fmt: skip
    graph = graph_of(net.proto(y), tmp_path, residual="readers")
    chain_of(graph, 2 * first * FACTORS, 0.5 * second.T)  # the sum of x and x is 2 x


def test_many_equal_columns_are_one(monkeypatch):
    few = RNG.integers(0, 9, size=(5, 30))
    units = few[:, RNG.integers(0, 30, size=3000)]
    scale = Ledger().entries(RNG.random((5, 3000)), None)
    fast = wiring_module._distinct(units, scale)
    monkeypatch.setattr(wiring_module, "MANY_COLUMNS", 10**9)
    slow = wiring_module._distinct(units, scale)
    assert_array_equal(fast[0], slow[0])
    assert_array_equal(fast[1].codes, slow[1].codes)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_shapes_of_windows(data):
    op = data.draw(st.sampled_from(["MaxPool", "AveragePool", "Conv", "ConvTranspose"]))
    kernel, strides, dilations = (
        [data.draw(st.integers(1, most)) for _ in range(2)] for most in (3, 3, 2)
    )
    auto = data.draw(st.sampled_from(["NOTSET", "VALID", "SAME_UPPER"]))
    how = {"kernel_shape": kernel, "strides": strides, "auto_pad": auto}
    if auto == "NOTSET":
        how |= {"pads": [data.draw(st.integers(0, n - 1)) for n in kernel * 2]}
        how |= {"dilations": dilations}
    if "Pool" in op:
        how["ceil_mode"] = data.draw(st.integers(0, 1)) if auto == "NOTSET" else 0
    net = Net(22)
    sizes = [data.draw(st.integers(6, 12)) for _ in range(2)]
    more = [np.ones((3, 3, *kernel), "f4")] if "Conv" in op else []
    y = net(op, net.input((1, 3, *sizes)), *more, **how)
    proto = onnx.shape_inference.infer_shapes(net.proto(y), strict_mode=True)
    dims = [d.dim_value for d in proto.graph.output[0].type.tensor_type.shape.dim]
    moves = window(SimpleNamespace(attributes=how), 2)
    got = moves.before(sizes, [0, 0]) if op == "ConvTranspose" else moves.after(sizes)
    assert got == dims[2:]


def test_matrices_that_share_their_inputs(tmp_path):
    net = Net()
    first, experts, last = weights(3, 4), weights(2, 4, 5), weights(5, 2)
    x = net.layer("MatMul", net.input((6, 3)), first, -1)
    x = net("MatMul", net("Unsqueeze", x, [0]), net.array(experts, "experts"))
    y = net.layer("MatMul", net("ReduceSum", x, [0], keepdims=0), last, -1)
    graph = graph_of(net.proto(y), tmp_path)
    assert [layer.size for layer in graph.layers] == [3, 4, 5, 2]
    both = np.abs(experts).sum(axis=0)
    assert_allclose(graph.adjacency.toarray()[3:7, 7:12], both, rtol=1e-6)


def test_a_sum_in_gemm(tmp_path):
    matrices = weights(3, 4), weights(4, 4), weights(4, 3)
    graphs = []
    for whole in (False, True):
        net = Net()
        x = net.layer("MatMul", net.input((2, 3)), matrices[0], -1)
        w = net.array(matrices[1], "w1.weight")
        if whole:
            y = net("Gemm", x, w, x, beta=0.5)
        else:
            y = net("Add", net("Gemm", x, w), net("Mul", x, np.float32(0.5)))
        y = net("MatMul", y, net.array(matrices[2], "w2.weight"))
        graphs.append(graph_of(net.proto(y), tmp_path).adjacency.toarray())
    assert_allclose(*graphs)


def test_positions_chosen_by_the_data(tmp_path):
    net = Net()
    matrices = weights(3, 4), weights(4, 2)
    x = net.layer("MatMul", net.input((2, 5, 3)), matrices[0], -1)
    best = net("ArgMax", net("ReduceMean", x, [2], keepdims=0), axis=1, keepdims=0)
    y = net.layer("MatMul", net("Gather", x, best, axis=1), matrices[1], -1)
    assert_allclose(blocks_of(graph_of(net.proto(y), tmp_path))[1], np.abs(matrices[1]))
    y = net.layer("MatMul", net("Gather", x, best, axis=2), weights(2, 2), -1)
    with pytest.raises(ModelError, match="chooses neurons by an index that depends on the data"):
        graph_of(net.proto(y), tmp_path)


def test_integer_convolution(tmp_path):
    net = Net()
    kernel = RNG.integers(0, 255, size=(4, 3, 2, 2)).astype(np.uint8)
    q, scale, zero = net("DynamicQuantizeLinear", net.input((1, 3, 6, 6)), n=3)
    x = net("Cast", net("ConvInteger", q, kernel, zero, np.uint8(128)), to=1)
    x = net("Mul", x, net("Mul", scale, np.float32(0.5)))
    second = weights(2, 4, 1, 1)
    graph = graph_of(net.proto(net("Conv", x, net.array(second, "b.weight"))), tmp_path)
    first = np.abs(kernel.astype(float) - 128).sum(axis=(2, 3)).T * 0.5
    chain_of(graph, first, second[:, :, 0, 0].T)


@pytest.mark.parametrize("op", ["Scaler", "ArrayFeatureExtractor"])
def test_features_of_pipelines(tmp_path, op):
    net = Net()
    first, second = weights(3, 4), weights(4, 2)
    x = net.input((2, 3))
    if op == "Scaler":
        x = net(op, x, scale=[1.0, 2.0, 3.0], offset=[0.0], domain="ai.onnx.ml")
        expected = first * np.array([[1], [2], [3]])
    else:
        before = weights(3, 3)
        x = net(op, net.layer("MatMul", x, before, -1), [2, 0, 1], domain="ai.onnx.ml")
        expected = first
    y = net.layer("MatMul", net.layer("MatMul", x, first, -1), second, -1)
    got = blocks_of(graph_of(net.proto(y), tmp_path))
    assert_allclose(got[-2], np.abs(expected), rtol=1e-6)
    if op != "Scaler":
        # The vertices are the inputs of what reads them.
        assert_allclose(got[0], np.abs(before)[:, [2, 0, 1]])


@st.composite
def networks(draw):
    """A net of convolutions, each of which reads what some nodes make of those before."""
    net = Net()
    known = [(net.conv(net.input((2, 2, 4, 4)), 2, 4), 4)]
    for _ in range(draw(st.integers(2, 7))):
        x, n = draw(st.sampled_from(known))
        same = [name for name, m in known if m == n]
        op = draw(
            st.sampled_from(
                ["conv", "Relu", "Add", "Mul", "Concat", "Slice", "shuffle", "Max", "Pad"]
            )
        )
        if op == "conv":
            m = draw(st.sampled_from([2, 4]))
            known.append((net.conv(x, n, m, k=draw(st.sampled_from([1, 3]))), m))
        elif op == "Relu":
            known.append((net("LeakyRelu", x), n))
        elif op in ("Add", "Mul", "Max"):
            known.append((net(op, x, draw(st.sampled_from(same))), n))
        elif op == "Concat":
            other, m = draw(st.sampled_from(known))
            known.append((net("Concat", x, other, axis=1), n + m))
        elif op == "Slice" and n > 1:
            start, step = draw(st.integers(0, n - 2)), draw(st.sampled_from([1, 2]))
            part = net("Slice", x, *(np.array([v]) for v in (start, n, 1, step)))
            known.append((part, len(range(start, n, step))))
        elif op == "shuffle" and n % 2 == 0:
            split = net("Reshape", x, np.array([0, 2, n // 2, 4, 4]))
            turned = net("Transpose", split, perm=[0, 2, 1, 3, 4])
            known.append((net("Reshape", turned, np.array([0, n, 4, 4])), n))
        elif op == "Pad":
            known.append((net("Pad", x, np.array([0, 1, 0, 0, 0, 0, 0, 0])), n + 1))
    x, n = known[-1]
    return net, net.conv(x, n, 3)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(networks())
def test_random_networks_as_they_behave(tmp_path_factory, case):
    net, y = case
    folder = tmp_path_factory.mktemp("random")
    wiring, _ = followed(saved(net.proto(y), folder), residual="readers")
    used = {operation.name for operation in wiring.operations}
    net.layers = [layer for layer in net.layers if layer[0] in used]
    outs = {out for _, out, _ in net.layers}
    live = in_order(net.nodes, {*net.arrays, "x"}, [y], "")
    net.nodes = live
    assert all(any(out in node.output for node in live) for out in outs)
    got, expected = predicted(wiring, net.layers), measured(net)
    for pair, pattern in expected.items():
        # A difference of a signal with itself, or the like, may be less than its parts.
        assert not (pattern & ~got[pair]).any(), pair
