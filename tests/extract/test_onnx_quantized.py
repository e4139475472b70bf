"""Quantized weights of ONNX models, and operators of ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from onnx_nets import (
    RNG,
    Net,
    chain_of,
    graph_of,
    read_net,
    roles_of,
    weights,
)

from ncut.errors import ModelError

onnx = pytest.importorskip("onnx", reason="pip install 'ncut[onnx]'")
from onnx import TensorProto, helper  # noqa: E402

QUANTIZED = {
    "dequantized": lambda net, x, w, s, z: net(
        "MatMul", x, net("DequantizeLinear", net.array(w, "q.weight"), s, z, axis=1)
    ),
    "transposed": lambda net, x, w, s, z: net(
        "Gemm", x,
        net("DequantizeLinear", net.array(w.T.copy(), "q.weight"), s, z, axis=0), transB=1,
    ),
    "QLinearMatMul": lambda net, x, w, s, z: net(
        "QLinearMatMul", net("QuantizeLinear", x, np.float32(0.1), np.uint8(3)),
        np.float32(0.1), np.uint8(3), net.array(w, "q.weight"), s, z,
        np.float32(0.2), np.uint8(0),
    ),
    "dynamic": lambda net, x, w, s, z: by_integers(net, x, w, s, z),
}  # fmt: skip


def by_integers(net, x, w, s, z):
    q, scale, zero = net("DynamicQuantizeLinear", x, n=3)
    made = net("Cast", net("MatMulInteger", q, net.array(w, "q.weight"), zero, z), to=1)
    return net("Mul", made, net("Mul", scale, s))


@pytest.mark.parametrize("case", QUANTIZED)
def test_quantized_weights(tmp_path, case):
    net = Net()
    first = weights(3, 4)
    quantized = RNG.integers(-100, 100, size=(4, 5)).astype(np.int8)
    scale, zero = np.abs(weights(5)), np.arange(5).astype(np.int8)
    x = net("Relu", net.layer("MatMul", net.input((2, 3)), first, -1))
    y = QUANTIZED[case](net, x, quantized, scale, zero)
    graph = graph_of(net.proto(y), tmp_path, residual="stream")
    chain_of(graph, first, (quantized.astype(float) - zero) * scale)
    assert roles_of(graph)["q.weight"].placed


def test_quantized_convolution(tmp_path):
    net = Net()
    kernels = [RNG.integers(-9, 9, size=s).astype(np.int8) for s in ((4, 3, 2, 2), (5, 4, 2, 2))]
    scales = [np.abs(weights(4)), np.abs(weights(5))]
    x, step, zero = net.input((1, 3, 6, 6), element=TensorProto.UINT8), np.float32(0.1), np.uint8(0)
    for kernel, scale in zip(kernels, scales, strict=True):
        more = scale, np.zeros(len(scale), np.int8), step, zero
        x = net("QLinearConv", x, step, zero, kernel, *more)
    graph = graph_of(net.proto(net("DequantizeLinear", x, step, zero)), tmp_path)
    sums = [np.abs(k).sum(axis=(2, 3)).T * s for k, s in zip(kernels, scales, strict=True)]
    chain_of(graph, *sums)


def test_weights_of_short_types_and_halves_of_bytes(tmp_path):
    net = Net()
    values = RNG.integers(-7, 8, size=(3, 5)).astype(np.int8)
    second = weights(5, 2).astype(np.float16)
    proto = None
    x = net("MatMul", net.input((2, 3)), net("DequantizeLinear", "four", np.float32(0.5)))
    y = net("MatMul", net("Cast", net("Relu", x), to=10), net.array(second, "half.weight"))
    net.arrays["four"] = np.zeros(1)
    proto = net.proto(y)
    for tensor in proto.graph.initializer:
        if tensor.name == "four":
            made = helper.make_tensor("four", TensorProto.INT4, (3, 5), values.ravel())
            tensor.CopyFrom(made)
    chain_of(graph_of(proto, tmp_path), values * 0.5, second)


def quantized(net, name, values, scale, zero=0):
    """An array of whole numbers, and the names of its scale and its zero point."""
    whole = np.asarray(values)
    return (
        net.array(whole, name), net.array(np.float32(scale), f"{name}_scale"),
        net.array(whole.dtype.type(zero), f"{name}_zero"),
    )  # fmt: skip


def dynamic(net, x, weight):
    """A product as dynamic quantization writes it."""
    values, scale, zero = weight
    q, x_scale, x_zero = net("DynamicQuantizeLinear", x, n=3)
    made = net("Cast", net("MatMulInteger", q, values, x_zero, zero, name=f"mm {values}"), to=1)
    return net("Mul", made, net("Mul", x_scale, scale))


def test_scales_of_queries_and_keys_match_their_weights(tmp_path):
    net = Net(17)
    x = net.input([2, 5, 8])
    rng = np.random.default_rng(0)
    values = {k: rng.integers(-127, 127, size=(8, 8)).astype(np.int8) for k in "qkvo"}
    scales = dict(zip("qkvo", (0.02, 0.003, 0.05, 0.01), strict=True))
    q, k, v = (dynamic(net, x, quantized(net, c, values[c], scales[c])) for c in "qkv")
    scores = net("Softmax", net("MatMul", q, net("Transpose", k, perm=[0, 2, 1])))
    y = dynamic(net, net("MatMul", scores, v), quantized(net, "o", values["o"], scales["o"]))
    graph = read_net(net, tmp_path / "net.onnx", y)
    for block in graph.blocks:
        name = block.name[-1]
        expected = np.abs(values[name].astype(np.float32)) * scales[name]
        assert_allclose(block.weights, expected, rtol=1e-5)


def test_a_table_of_whole_numbers_gets_its_scale_and_zero_point(tmp_path):
    net = Net(17)
    ids = net.input([2, 5], element=TensorProto.INT64)
    rng = np.random.default_rng(0)
    table = rng.integers(0, 255, size=(20, 8)).astype(np.uint8)
    second = rng.integers(-127, 127, size=(8, 4)).astype(np.int8)
    e, scale, zero = quantized(net, "e", table, 0.01, 128)
    rows = net("DequantizeLinear", net("Gather", e, ids), scale, zero)
    y = dynamic(net, rows, quantized(net, "a", second, 0.02))
    graph = read_net(net, tmp_path / "net.onnx", y)
    expected = np.abs(table.astype(np.float32) - 128) * 0.01
    assert_allclose(graph.blocks[0].weights, expected, rtol=1e-5)


def test_a_table_of_whole_numbers_without_a_scale_is_refused(tmp_path):
    net = Net(17)
    ids = net.input([2, 5], element=TensorProto.INT64)
    rows = net("Cast", net("Gather", net.array(np.ones((20, 8), np.uint8), "e"), ids), to=1)
    y = net("MatMul", rows, net.array(weights(8, 4), "a"))
    with pytest.raises(ModelError, match="table 'e' has weights of whole numbers"):
        read_net(net, tmp_path / "net.onnx", y)


def test_a_gate_written_out_keeps_the_scale_of_its_weights(tmp_path):
    net = Net(17)
    x = net.input([2, 8])
    rng = np.random.default_rng(0)
    values = {k: rng.integers(-127, 127, size=s).astype(np.int8) for k, s in
              {"a": (8, 6), "b": (8, 6), "c": (6, 4)}.items()}  # fmt: skip
    scales = {"a": 0.02, "b": 0.003}
    a, b = (dynamic(net, x, quantized(net, k, values[k], s)) for k, s in scales.items())
    cubed = net("Add", a, net("Mul", net("Pow", a, 3.0), 0.044715))
    gate = net("Mul", net("Mul", 0.5, a), net("Add", 1.0, net("Tanh", net("Mul", cubed, 0.7979))))
    y = dynamic(net, net("Mul", gate, b), quantized(net, "c", values["c"], 0.05))
    graph = read_net(net, tmp_path / "net.onnx", y, residual="readers")
    first = [block for block in graph.blocks if block.name == "mm a"]
    expected = np.abs(values["a"].astype(np.float32)) * 0.02
    assert_allclose(first[0].weights, expected, rtol=1e-5)


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_weights_of_a_few_bits_in_blocks(tmp_path, bits, zeros):
    rng = np.random.default_rng(0)
    n_in, n_out, block = 24, 5, 16
    numbers = rng.integers(0, 2**bits, size=(n_out, 2, block))
    scales = rng.uniform(0.1, 1, size=(n_out, 2)).astype(np.float32)
    drawn = rng.integers(0, 2**bits, size=(n_out, 2))
    zero = drawn if zeros else np.full((n_out, 2), 2 ** (bits - 1))

    def packed(values):
        per_byte = 8 // bits
        padded = np.pad(values, [(0, 0), (0, -values.shape[1] % per_byte)])
        parts = padded.reshape(len(values), -1, per_byte) << (np.arange(per_byte) * bits)
        return parts.sum(axis=2).astype(np.uint8)

    net = Net()
    x = net.input((2, n_in))
    blob = packed(numbers.reshape(n_out, -1)).reshape(n_out, 2, -1)
    more = [packed(zero).ravel()] if zeros else []
    made = net(
        "MatMulNBits", x, net.array(blob, "a"), scales.ravel(), *more, domain="com.microsoft",
        K=n_in, N=n_out, bits=bits, block_size=block,
    )  # fmt: skip
    second = weights(n_out, 3)
    y = net("MatMul", net("Relu", made), second)
    expected = ((numbers - zero[..., None]) * scales[..., None]).reshape(n_out, -1)[:, :n_in].T
    graph = read_net(net, tmp_path / "net.onnx", y)
    assert_allclose(graph.blocks[0].weights, np.abs(expected), rtol=1e-6)


def both(tmp_path, ours, theirs, shape, **options):
    """Graphs of two ways to write a network."""
    graphs = []
    for number, write in enumerate((ours, theirs)):
        net = Net(17)
        y = write(net, net.input(shape))
        graphs.append(read_net(net, tmp_path / f"{number}.onnx", y, **options))
    assert [layer.size for layer in graphs[0].layers] == [layer.size for layer in graphs[1].layers]
    assert_allclose(graphs[0].adjacency.toarray(), graphs[1].adjacency.toarray(), rtol=1e-5)


def test_a_product_that_quantizes_its_input(tmp_path):
    rng = np.random.default_rng(0)
    w, last = rng.integers(-127, 127, size=(8, 6)).astype(np.int8), weights(6, 3)
    scale, zero = np.float32([0.1]), np.int8([3])

    def ours(net, x):
        made = net("DynamicQuantizeMatMul", x, w, scale, zero, domain="com.microsoft")
        return net("MatMul", net("Relu", made), last)

    def theirs(net, x):
        return net("MatMul", net("Relu", net("MatMul", x, (w - 3.0) * 0.1)), last)

    both(tmp_path, ours, theirs, (2, 8))


def test_a_recurrent_layer_with_quantized_weights(tmp_path):
    rng = np.random.default_rng(0)
    w, r = (rng.integers(-127, 127, size=(1, n, 24)).astype(np.int8) for n in (5, 6))
    scale, zero, last = np.float32([0.01]), np.int8([2]), weights(6, 3)

    def ended(net, made):
        return net("MatMul", net("Squeeze", made, np.array([1])), last)

    def ours(net, x):
        made = net(
            "DynamicQuantizeLSTM", x, w, r, "", "", "", "", "", scale, zero, scale, zero,
            domain="com.microsoft", hidden_size=6,
        )  # fmt: skip
        return ended(net, made)

    def theirs(net, x):
        wide = [((a.astype(float) - 2) * 0.01).swapaxes(1, 2) for a in (w, r)]
        return ended(net, net("LSTM", x, *wide, hidden_size=6))

    both(tmp_path, ours, theirs, (7, 2, 5))


@pytest.mark.parametrize("activation", ["Relu", "Tanh", None])
def test_a_convolution_with_its_activation(tmp_path, activation):
    first, bias, second = weights(8, 3, 3, 3), weights(8), weights(4, 8, 1, 1)

    def ours(net, x):
        made = net("FusedConv", x, first, bias, domain="com.microsoft", activation=activation)
        return net("Conv", made, second)

    def theirs(net, x):
        made = net("Conv", x, first, bias)
        return net("Conv", made if activation is None else net(activation, made), second)

    both(tmp_path, ours, theirs, (1, 3, 9, 9))


@pytest.mark.parametrize("operator", ["MultiHeadAttention", "GroupQueryAttention", "packed"])
def test_attention_in_one_operator(tmp_path, operator):
    shared = operator != "MultiHeadAttention"
    sizes = {"q": 8, "k": 4, "v": 4} if shared else dict.fromkeys("qkv", 8)
    w = {name: weights(8, n) for name, n in sizes.items()}
    last = weights(8, 3)
    n_key = sizes["k"] // 4

    def ours(net, x):
        if operator == "packed":
            whole = net("MatMul", x, np.concatenate([w[c] for c in "qkv"], axis=1))
            made = net(
                "GroupQueryAttention", whole, "", "", domain="com.microsoft", num_heads=2,
                kv_num_heads=n_key,
            )  # fmt: skip
        else:
            sides = [net("MatMul", x, w[c]) for c in "qkv"]
            made = net(
                operator, *sides, domain="com.microsoft", num_heads=2,
                kv_num_heads=n_key if operator == "GroupQueryAttention" else None,
            )  # fmt: skip
        return net("MatMul", made, last)

    def theirs(net, x):
        if operator == "packed":
            whole = net("MatMul", x, np.concatenate([w[c] for c in "qkv"], axis=1))
            sides = net("Split", whole, np.array([8, 4, 4]), n=3, axis=2)
        else:
            sides = [net("MatMul", x, w[c]) for c in "qkv"]
        heads = []
        for side, n in zip(sides, (2, n_key, n_key), strict=True):
            split = net("Reshape", side, np.array([1, 5, n, 4]))
            turned = net("Transpose", split, perm=[0, 2, 1, 3])
            heads.append(turned if n == 2 else net("Expand", turned, np.array([1, 2, 5, 4])))
        scores = net("MatMul", heads[0], net("Transpose", heads[1], perm=[0, 1, 3, 2]))
        mixed = net("MatMul", net("Softmax", scores), heads[2])
        flat = net("Reshape", net("Transpose", mixed, perm=[0, 2, 1, 3]), np.array([1, 5, 8]))
        return net("MatMul", flat, last)

    both(tmp_path, ours, theirs, (1, 5, 8))


@pytest.mark.parametrize("axis", ["samples", "sequence", "time", "length"])
def test_sequences_that_are_longer_than_the_usual_ones(tmp_path, axis):
    net = Net(17)
    x = net("Unsqueeze", net.input(["batch", axis]), np.array([1]))
    y = net("Conv", x, weights(6, 1, 256), strides=[128])
    graph = read_net(net, tmp_path / "net.onnx", net("Conv", net("Relu", y), weights(4, 6, 3)))
    assert [layer.size for layer in graph.layers] == [1, 6, 4]
