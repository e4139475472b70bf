"""ONNX models: whole adjacencies, the graph against what the model does, and hostile files."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from ncut.errors import InputError, MissingExtraError, ModelError
from ncut.extract import read_graph
from ncut.extract import wiring as wiring_module
from ncut.extract.assemble import assemble
from ncut.extract.factors import Ledger
from ncut.extract.magnitudes import of_weight
from ncut.extract.onnx_graph.model import in_order
from ncut.extract.onnx_graph.node import path_of
from ncut.extract.onnx_graph.shapes import window
from ncut.extract.onnx_model import read_onnx
from ncut.extract.signal import NOTHING

onnx = pytest.importorskip("onnx", reason="pip install 'ncut[onnx]'")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

# --- models ------------------------------------------------------------------------------------

RNG = np.random.default_rng(0)


def weights(*shape):
    """Weights none of which is 0, no two the same in magnitude."""
    values = RNG.permutation(np.prod(shape, dtype=int)) + 1.0
    return (values * RNG.choice([-0.1, 0.1], size=values.size)).reshape(shape).astype(np.float32)


def sparse_weights(*shape, axes=(0, 1)):
    """Weights half of which are 0, the same ones at all positions."""
    values = weights(*shape)
    sizes = [n if axis in axes else 1 for axis, n in enumerate(shape)]
    mask = RNG.random(sizes) < 0.4
    mask.ravel()[RNG.integers(mask.size)] = True
    return values * mask


class Net:
    """A model that is built node by node."""

    def __init__(self, opset=21):
        self.opset = opset
        self.nodes = []
        self.arrays = {}
        self.inputs = []
        self.layers = []

    def input(self, shape, name="x", element=TensorProto.FLOAT):
        self.inputs.append(helper.make_tensor_value_info(name, element, shape))
        return name

    def array(self, values, name=None):
        name = name or f"c{len(self.arrays)}"
        values = np.asarray(values)
        self.arrays[name] = values.astype(np.float32) if values.dtype == np.float64 else values
        return name

    def __call__(self, op, *inputs, n=1, name="", domain="", **attributes):
        outputs = [f"t{len(self.nodes)}_{at}" for at in range(n)]
        names = [v if isinstance(v, str) else self.array(np.asarray(v)) for v in inputs]
        attributes = {k: v for k, v in attributes.items() if v is not None}
        self.nodes.append(
            helper.make_node(op, names, outputs, name=name, domain=domain, **attributes)
        )
        return outputs[0] if n == 1 else outputs

    def layer(self, op, x, values, axis, name=None, **attributes):
        """A layer with weights, whose neurons lie along an axis."""
        name = name or f"w{len(self.layers)}"
        out = self(op, x, self.array(values, f"{name}.weight"), **attributes)
        self.layers.append((name, out, axis))
        return out

    def linear(self, x, n_in, n_out, **how):
        return self.layer("MatMul", x, sparse_weights(n_in, n_out), -1, **how)

    def conv(self, x, n_in, n_out, k=1, group=1, **how):
        values = sparse_weights(n_out, n_in // group, k, k)
        return self.layer("Conv", x, values, 1, pads=[k // 2] * 4, group=group, **how)

    def proto(self, *outputs, cut=False, shapes=None):
        """The model; `cut` makes what each layer writes and what others read two things."""
        nodes, inputs = self.nodes, list(self.inputs)
        results = [helper.make_tensor_value_info(name, 1, None) for name in outputs]
        if cut:
            reads = {out: f"{out}_read" for _, out, _ in self.layers}
            nodes = [
                helper.make_node(
                    node.op_type, [reads.get(i, i) for i in node.input], list(node.output),
                    domain=node.domain,
                )
                for node in self.nodes
            ]  # fmt: skip
            for made, node in zip(nodes, self.nodes, strict=True):
                made.attribute.extend(node.attribute)
            inputs += [
                helper.make_tensor_value_info(f"{out}_read", 1, shapes[out])
                for _, out, _ in self.layers
            ]
            results = [helper.make_tensor_value_info(out, 1, None) for _, out, _ in self.layers]
        graph = helper.make_graph(
            nodes, "test", inputs, results,
            [numpy_helper.from_array(values, name) for name, values in self.arrays.items()],
        )  # fmt: skip
        opsets = [helper.make_opsetid("", self.opset)]
        opsets += [helper.make_opsetid(d, 1) for d in {n.domain for n in nodes} - {""}]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def saved(proto, folder, name="model.onnx"):
    path = folder / name
    path.write_bytes(proto.SerializeToString())
    return path


def graph_of(proto, folder, *, scope="all", **options):
    wiring, parameters = read_onnx(saved(proto, folder), **options)
    return assemble(wiring, scope=scope, name="model", parameters=parameters)


def blocks_of(graph):
    return [
        block.weights if isinstance(block.weights, np.ndarray) else block.weights.toarray()
        for block in graph.blocks
    ]


def layers_of(graph):
    return [(layer.name, layer.size) for layer in graph.layers]


def roles_of(graph):
    return {parameter.name: parameter for parameter in graph.parameters}


# --- whole adjacencies -------------------------------------------------------------------------


def between(tmp_path, middle, shape=(2, 3), opset=21, **options):
    """The edges of two matrices (3, 4) and (4, 2) with nodes between them."""
    net = Net(opset)
    first, second = weights(shape[-1], 4), weights(4, 2)
    x = net.layer("MatMul", net.input(shape), first, -1)
    y = net.layer("MatMul", middle(net, x), second, -1)
    graph = graph_of(net.proto(y), tmp_path, **options)
    assert layers_of(graph) == [("x" if len(net.inputs) > 1 else "input", 3), ("w0", 4), ("w1", 2)]
    return graph, np.abs(first), np.abs(second)


FACTORS = np.array([0.5, -2.0, 3.0, 0.25], np.float32)

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
def test_which_activations_are_homogeneous(tmp_path, op):
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


# --- the graph against what the model does ----------------------------------------------------


def predicted(wiring, layers):
    """For pairs of layers which neurons of one reach which of the other directly."""
    operations = {operation.name: operation for operation in wiring.operations}
    result = {}
    for reader, _, _ in layers:
        operation = operations[reader]
        matrix = of_weight(operation.weight.values, operation.kind, operation.groups, "l1", reader)
        matrix = (matrix if isinstance(matrix, np.ndarray) else matrix.toarray()) > 0
        for writer, _, _ in layers:
            group = operations[writer].writes
            reached = np.zeros((group.size, matrix.shape[1]), bool)
            for part in operation.parts:
                if part.group is group:
                    for at, units in enumerate(part.units):
                        reached[units[units != NOTHING]] |= matrix[at]
            result[writer, reader] = reached
    return result


def measured(net):
    """The same, by changing one neuron at a time."""
    outs = [out for _, out, _ in net.layers]
    x = {v.name: RNG.normal(size=[d.dim_value for d in v.type.tensor_type.shape.dim]).astype("f4")
         for v in net.inputs}  # fmt: skip
    values = ReferenceEvaluator(net.proto(*outs)).run(None, x)
    shapes = {out: v.shape for out, v in zip(outs, values, strict=True)}
    rest = ReferenceEvaluator(net.proto(cut=True, shapes=shapes))
    result = {}
    for trial in range(4):
        base = x | {f"{out}_read": RNG.normal(size=shapes[out]).astype("f4") for out in outs}
        before = rest.run(None, base)
        for writer, out, axis in net.layers:
            for unit in range(shapes[out][axis]):
                changed = base[f"{out}_read"].copy()
                moved = np.moveaxis(changed, axis, 0)
                moved[unit] += RNG.normal(size=moved[unit].shape) + (3 if trial % 2 else -3)
                after = rest.run(None, base | {f"{out}_read": changed})
                for (reader, _, at), old, new in zip(net.layers, before, after, strict=True):
                    differs = np.moveaxis(old != new, at, 0).reshape(old.shape[at], -1).any(axis=1)
                    shape = (shapes[out][axis], old.shape[at])
                    result.setdefault((writer, reader), np.zeros(shape, bool))[unit] |= differs
    return result


def check_function(net, y, folder, **options):
    options.setdefault("residual", "readers")
    wiring, _ = read_onnx(saved(net.proto(y), folder), **options)
    expected = measured(net)
    got = predicted(wiring, net.layers)
    assert any(pattern.any() for pattern in expected.values())
    for pair, pattern in expected.items():
        assert_array_equal(got[pair], pattern, err_msg=str(pair))


def shuffled(net, x):
    x = net("Transpose", net("Reshape", x, np.array([0, 2, 3, 4, 4])), perm=[0, 2, 1, 3, 4])
    return net("Reshape", x, np.array([0, 6, 4, 4]))


def as_channels_last(net, x):
    x = net("Transpose", x, perm=[0, 2, 3, 1])
    return net("Transpose", net("Relu", net.linear(x, 6, 6)), perm=[0, 3, 1, 2])


def one(op, *more, **attributes):
    """A node of one operator; more inputs come after the signal."""
    return lambda net, x: net(op, x, *more, **attributes)


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


def chosen_entries(net, x):
    return net("GatherND", x, np.array([[0, 1], [1, 2]]))


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
    "GatherND": (chosen_entries, 8),
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
def test_attention_is_what_it_is_by_hand(tmp_path, shared):
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
    chain_of(graph, first * FACTORS, 0.5 * second.T)


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


def test_weights_that_a_file_quantizes_by_row(tmp_path):
    values, steps = weights(4, 3), np.array([0.1, 0.2, 0.4, 0.05], np.float32)
    zeros, net = np.zeros(4, np.int8), Net()
    whole = net("QuantizeLinear", net.array(values, "a"), steps, zeros, axis=0)
    whole = net("DequantizeLinear", whole, steps, zeros, axis=0)
    y = net.linear(net("MatMul", net.input((2, 4)), whole), 3, 2)
    expected = np.clip(np.round(values / steps[:, None]), -128, 127) * steps[:, None]
    assert_allclose(graph_of(net.proto(y), tmp_path).blocks[0].weights, abs(expected), rtol=1e-6)


def test_a_node_of_another_domain_is_not_evaluated(tmp_path):
    net = Net()
    matrix = net("Add", weights(4, 3), weights(4, 3), domain="my.ops")
    y = net.linear(net("MatMul", net.input((2, 4)), matrix), 3, 2)
    with pytest.raises(ModelError, match=r"the operator my\.ops\.Add is not known"):
        graph_of(net.proto(y), tmp_path)


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
    wiring, _ = read_onnx(saved(net.proto(y), folder), residual="readers")
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


# --- what exporters write ----------------------------------------------------------------------


def chain_of(graph, *expected):
    got = blocks_of(graph)
    assert len(got) == len(expected)
    for block, weight in zip(got, expected, strict=True):
        assert_allclose(block, np.abs(weight), rtol=1e-5)


def test_scikit_learn_perceptron(tmp_path):
    net = Net()
    first, second, scale = weights(3, 4), weights(4, 2), weights(3)
    x = net("Sub", net.input((None, 3), "X"), weights(1, 3))
    x = net("Cast", net("Div", x, scale), to=1)
    x = net("Add", net("MatMul", x, net.array(first, "coefficient"), name="MatMul"), weights(1, 4))
    x = net("MatMul", net("Relu", x), net.array(second, "coefficient1"), name="MatMul1")
    shares = net("Softmax", net("Add", x, weights(1, 2)))
    best = net("ArgMax", shares, axis=1)
    label = net("ArrayFeatureExtractor", [3, 5], best, domain="ai.onnx.ml")
    table = net("ZipMap", shares, domain="ai.onnx.ml", classlabels_int64s=[3, 5])
    graph = graph_of(net.proto(label, table), tmp_path)
    assert layers_of(graph) == [("input", 3), ("MatMul", 4), ("choices", 2)]
    chain_of(graph, first / scale[:, None], second)
    assert roles_of(graph)["coefficient"].placed


@pytest.mark.parametrize("base", ["constant", "of a shape"])
def test_the_largest_activations_put_back_among_zeros(tmp_path, base):
    net = Net()
    first, second = weights(6, 9), weights(9, 6)
    x = net.input((1, 6), "X")
    values, places = net("TopK", net("MatMul", x, first), np.array([3]), n=2)
    zeros = np.zeros((1, 9))
    if base == "of a shape":
        zeros = net("ConstantOfShape", np.array([1, 9]))
    y = net("ScatterElements", zeros, places, net("Relu", values), axis=1)
    graph = graph_of(net.proto(net("MatMul", y, second)), tmp_path)
    chain_of(graph, first, second)


def test_whole_numbers_as_features(tmp_path):
    net = Net()
    first, second = weights(3, 4), weights(4, 2)
    x = net("Cast", net.input((None, 3), "X", TensorProto.INT64), to=1)
    y = net.layer("MatMul", net("Relu", net.layer("MatMul", x, first, -1)), second, -1)
    graph = graph_of(net.proto(y), tmp_path)
    assert layers_of(graph)[0] == ("input", 3)
    chain_of(graph, first, second)


def test_keras_convolutions_by_tf2onnx(tmp_path):
    net = Net(13)
    kernel, second, matrix = weights(4, 3, 3, 3), weights(5, 4, 3, 3), weights(5 * 4, 2)
    x = net("Transpose", net.input(("unk__6", 8, 8, 3), "image"), perm=[0, 3, 1, 2])
    x = net("Conv", x, net.array(kernel, "c1/kernel"), weights(4), auto_pad="SAME_UPPER",
            name="model/c1/Conv2D")  # fmt: skip
    x = net("MaxPool", net("Relu", x), kernel_shape=[2, 2], strides=[2, 2])
    x = net("Conv", x, net.array(second, "c2/kernel"), name="model/c2/Conv2D")
    x = net("Transpose", net("Relu", x), perm=[0, 2, 3, 1])
    x = net("Reshape", x, [-1, 20])
    x = net("MatMul", x, net.array(matrix, "d/kernel"), name="model/d/MatMul")
    graph = graph_of(net.proto(net("Add", x, weights(2))), tmp_path)
    assert layers_of(graph) == [
        ("input", 3), ("model/c1/Conv2D", 4), ("model/c2/Conv2D", 5), ("model/d/MatMul", 2),
    ]  # fmt: skip
    by_channel = np.abs(matrix).reshape(4, 5, 2).sum(axis=0)
    sums = [np.abs(w).sum(axis=(2, 3)).T for w in (kernel, second)]
    chain_of(graph, *sums, by_channel)


def test_jax_style(tmp_path):
    net = Net()
    first, second = weights(3, 4), weights(4, 2)
    x = net("Einsum", net.input((2, 3)), net.array(first, "p0"), equation="ab,bc->ac")
    x = net("Max", net("Add", x, net("Expand", weights(1, 4), [2, 4])), np.float32(0))
    y = net("MatMul", x, net("Identity", net.array(second, "p1")))
    graph = graph_of(net.proto(y), tmp_path)
    assert layers_of(graph) == [("input", 3), ("p0", 4), ("p1", 2)]
    chain_of(graph, first, second)
    assert graph.layers[1].rescalable


def test_einsum_of_heads(tmp_path):
    net = Net()
    first, second = weights(6, 2, 3), weights(2, 3, 5)
    x = net("Einsum", net.input((2, 4, 6)), net.array(first, "a.weight"), equation="btd,dhk->bthk")
    y = net("Einsum", x, net.array(second, "b.weight"), equation="bthk,hkd->btd")
    graph = graph_of(net.proto(y), tmp_path)
    assert layers_of(graph) == [("input", 6), ("a", 6), ("b", 5)] or graph.layers[0].size == 24
    assert_allclose(blocks_of(graph)[-1], np.abs(second).reshape(6, 5), rtol=1e-6)


def test_a_matrix_for_each_head(tmp_path):
    net = Net()
    first, matrices, last = weights(3, 4), weights(2, 2, 2), weights(4, 3)
    x = net.layer("MatMul", net.input((2, 5, 3)), first, -1)
    x = net("Transpose", net("Reshape", x, [0, 0, 2, 2]), perm=[0, 2, 1, 3])
    x = net("MatMul", x, net.array(matrices, "heads.weight"))
    x = net("Reshape", net("Transpose", x, perm=[0, 2, 1, 3]), [0, 0, 4])
    graph = graph_of(net.proto(net.layer("MatMul", x, last, -1)), tmp_path)
    expected = np.zeros((4, 4))
    expected[:2, :2], expected[2:, 2:] = np.abs(matrices)
    chain_of(graph, blocks_of(graph)[0], expected, last)


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


def test_weights_in_lists_of_numbers_and_constants(tmp_path):
    net = Net()
    first, second = weights(3, 4), weights(4, 2)
    a = net("Constant", value=numpy_helper.from_array(first), name="c")
    b = net("Constant", value_floats=[float(v) for v in second.ravel()])
    x = net("Relu", net("MatMul", net.input((2, 3)), a, name="first"))
    y = net("MatMul", x, net("Reshape", b, [4, 2]), name="second")
    proto = net.proto(y)
    graph = graph_of(proto, tmp_path)
    chain_of(graph, first, second)
    assert all(role.placed for role in roles_of(graph).values())
    listed = helper.make_tensor(a, TensorProto.BFLOAT16, (3, 4), first.ravel())
    proto.graph.initializer.append(listed)
    del proto.graph.node[0]
    assert_allclose(blocks_of(graph_of(proto, tmp_path))[0], np.abs(first), rtol=1e-2)


def test_sparse_initializers(tmp_path):
    net = Net()
    first, second = sparse_weights(3, 4), weights(4, 2)
    y = net("MatMul", net("MatMul", net.input((2, 3)), "sparse"), net.array(second, "b"))
    proto = net.proto(y)
    at = np.flatnonzero(first)
    proto.graph.sparse_initializer.append(
        helper.make_sparse_tensor(
            numpy_helper.from_array(first.ravel()[at], "sparse"),
            numpy_helper.from_array(at.astype(np.int64)), (3, 4),
        )
    )  # fmt: skip
    chain_of(graph_of(proto, tmp_path), first, second)


def test_functions_of_the_file(tmp_path):
    net = Net()
    first, second = weights(3, 4), weights(4, 2)
    x = net("Leaky", net.layer("MatMul", net.input((2, 3)), first, -1), domain="own", slope=0.2)
    proto = net.proto(net.layer("MatMul", x, second, -1))
    inner = helper.make_node("LeakyRelu", ["v"], ["w"])
    inner.attribute.append(onnx.AttributeProto(name="alpha", ref_attr_name="slope", type=1))
    outer = [helper.make_node("Inner", ["v"], ["w"], domain="own")]
    outer[0].attribute.append(onnx.AttributeProto(name="slope", ref_attr_name="slope", type=1))
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("own", 1)]
    for name, nodes in (("Inner", [inner]), ("Leaky", outer)):
        made = helper.make_function("own", name, ["v"], ["w"], nodes, opsets, ["slope"])
        proto.functions.append(made)
    graph = graph_of(proto, tmp_path)
    chain_of(graph, first, second)
    assert graph.layers[1].rescalable
    # A function that calls itself.
    proto.functions[0].node[0].op_type = "Leaky"
    proto.functions[0].node[0].domain = "own"
    with pytest.raises(ModelError, match="nest too deeply"):
        graph_of(proto, tmp_path)


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


def test_branch_whose_condition_is_known(tmp_path):
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


def test_open_sizes_that_nothing_fits(tmp_path):
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
    wiring, _ = read_onnx(saved(net.proto(y, k), tmp_path))
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
    with pytest.raises(InputError, match=next(iter(options))):
        between(tmp_path, lambda net, x: x, **options)


# --- exports of torch ---------------------------------------------------------------------------


def exported(module, example, folder, **options):
    """The graph of a module, and that of its export."""
    torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
    path = folder / "exported.onnx"
    module = module.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, example, str(path), dynamo=False, **options)
    wiring, parameters = read_onnx(path)
    ours = assemble(wiring, scope="all", name="model", parameters=parameters)
    return ours, read_graph(module, scope="all", example_inputs=example)


def check_export(module, example, folder, **options):
    ours, theirs = exported(module, example, folder, **options)
    assert [layer.size for layer in ours.layers] == [layer.size for layer in theirs.layers]
    assert [layer.rescalable for layer in ours.layers] == [x.rescalable for x in theirs.layers]
    assert_allclose(ours.adjacency.toarray(), theirs.adjacency.toarray(), rtol=1e-4, atol=1e-6)
    return ours


def torch_modules():
    torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
    nn, functional = torch.nn, torch.nn.functional

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 3, padding=1)
            self.body = nn.Conv2d(4, 4, 3, padding=1, groups=2)
            self.norm = nn.BatchNorm2d(4)
            self.head = nn.Conv2d(4, 5, 3, padding=1)
            self.out = nn.Linear(5, 2)
            nn.init.uniform_(self.norm.running_var, 0.5, 2)
            nn.init.uniform_(self.norm.weight, 0.5, 2)

        def forward(self, x):
            x = torch.relu(self.stem(x))
            x = torch.relu(x + self.norm(self.body(x)))
            return self.out(functional.max_pool2d(self.head(x), 2).mean((2, 3)))

    class Block(nn.Module):
        def __init__(self, *, tokens):
            super().__init__()
            self.embed = nn.Embedding(11, 8) if tokens else nn.Linear(6, 8)
            self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)
            self.up, self.down = nn.Linear(8, 12), nn.Linear(12, 8)
            self.norms = nn.ModuleList(nn.LayerNorm(8) for _ in range(2))
            self.read = nn.Linear(8, 3)
            for norm in self.norms:
                nn.init.uniform_(norm.weight, 0.5, 2)

        def forward(self, x):
            x = self.embed(x)
            n, time, _ = x.shape
            parts = self.qkv(self.norms[0](x)).chunk(3, -1)
            q, k, v = (part.view(n, time, 2, 4).transpose(1, 2) for part in parts)
            mixed = functional.scaled_dot_product_attention(q, k, v)
            x = x + self.out(mixed.transpose(1, 2).reshape(n, time, 8))
            return self.read(x + self.down(functional.gelu(self.up(self.norms[1](x)))))

    class Recurrent(nn.Module):
        def __init__(self, kind, **options):
            super().__init__()
            self.layer = kind(3, 4, batch_first=True, **options)
            self.out = nn.Linear(8 if options.get("bidirectional") else 4, 2)

        def forward(self, x):
            return self.out(self.layer(x)[0])

    return {
        "residual": (Residual(), torch.zeros(2, 3, 8, 8)),
        "block": (Block(tokens=False), torch.zeros(2, 5, 6)),
        "tokens": (Block(tokens=True), torch.zeros(2, 5, dtype=torch.long)),
        "LSTM": (Recurrent(nn.LSTM), torch.zeros(2, 5, 3)),
        "GRU both ways": (
            Recurrent(nn.GRU, bidirectional=True, num_layers=2), torch.zeros(2, 5, 3),
        ),
        "signals": (
            nn.Sequential(
                *(nn.Conv1d(2, 4, 3), nn.GroupNorm(2, 4), nn.GELU(), nn.ConvTranspose1d(4, 6, 3)),
                *(nn.InstanceNorm1d(6, affine=True), nn.PReLU(), nn.Conv1d(6, 3, 1)),
            ),
            torch.zeros(2, 2, 9),
        ),
    }  # fmt: skip


@pytest.mark.parametrize("opset", [14, 20])
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(
    "case", ["residual", "block", "tokens", "LSTM", "GRU both ways", "signals"]
)
def test_exports_of_torch(tmp_path, case, dynamic, opset):
    module, example = torch_modules()[case]
    options = {"opset_version": opset}
    if dynamic:
        time = 1 if case in ("block", "LSTM", "GRU both ways") else example.ndim - 1
        options |= {"input_names": ["x"], "dynamic_axes": {"x": {0: "batch", time: "n"}}}
    graph = check_export(module, example, tmp_path, **options)
    assert all(role.role != "not used" for role in roles_of(graph).values())


# --- hostile files ------------------------------------------------------------------------------


def small(folder, name="model.onnx"):
    net = Net()
    x = net.layer("MatMul", net.input((2, 3)), weights(3, 4), -1, name="a")
    proto = net.proto(net.layer("MatMul", net("Relu", x), weights(4, 2), -1, name="b"))
    return proto, saved(proto, folder, name)


def refused(proto_or_path, folder, match):
    path = proto_or_path
    if not isinstance(path, Path):
        path = saved(proto_or_path, folder)
    with pytest.raises(ModelError, match=match) as caught:
        assemble(read_onnx(path)[0])
    assert str(path) in str(caught.value)


def test_files_that_are_no_models(tmp_path):
    proto, path = small(tmp_path)
    content = path.read_bytes()
    bad = tmp_path / "bad.onnx"
    refused(bad, tmp_path, "no such file")
    refused(tmp_path, tmp_path, "not a file")
    for data in (b"", b"\x00" * 64, b"PK\x03\x04" + bytes(60), b'{"model": 1}' * 9, content[:-9]):
        bad.write_bytes(data)
        refused(bad, tmp_path, "truncated")
    for length in range(0, len(content), 7):
        bad.write_bytes(content[:length])
        with pytest.raises(ModelError, match=r"bad\.onnx"):
            read_onnx(bad)
    del proto.graph.output[:]
    refused(proto, tmp_path, "no results")


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_damaged_files(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damaged")
    _, path = small(folder)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content))
    try:
        wiring, parameters = read_onnx(path)
        assemble(wiring, scope="all", parameters=parameters)
    except (ModelError, InputError):
        pass


def test_graphs_that_are_none(tmp_path):
    proto, _ = small(tmp_path)
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes[::-1])
    matrices = [numpy_helper.to_array(tensor) for tensor in proto.graph.initializer]
    chain_of(graph_of(proto, tmp_path), *matrices)
    cyclic = onnx.ModelProto()
    cyclic.CopyFrom(proto)
    cyclic.graph.node[-1].input[0] = cyclic.graph.node[0].output[0]
    refused(cyclic, tmp_path, "depends on its own result")
    missing = onnx.ModelProto()
    missing.CopyFrom(proto)
    missing.graph.node[-1].input[0] = "nowhere"
    refused(missing, tmp_path, "reads 'nowhere', which nothing makes")
    twice = onnx.ModelProto()
    twice.CopyFrom(proto)
    twice.graph.node[0].output[0] = twice.graph.node[-1].output[0]
    refused(twice, tmp_path, "made already")
    proto.graph.output[0].name = "nowhere"
    refused(proto, tmp_path, "nothing makes the result 'nowhere'")


def field(number, content):
    """A field of a message of protocol buffers."""
    size, head = len(content), b""
    while size > 127:
        head, size = head + bytes([size % 128 + 128]), size // 128
    return bytes([number * 8 + 2]) + head + bytes([size]) + content


@pytest.mark.parametrize(("depth", "match"), [(20, "no results"), (10_000, "cannot be read")])
def test_graphs_inside_graphs(tmp_path, depth, match):
    graph = b""
    for _ in range(depth):
        attribute = field(6, graph)
        graph = field(1, field(5, attribute) + field(4, b"If"))
    path = tmp_path / "model.onnx"
    path.write_bytes(field(7, graph))
    refused(path, tmp_path, match)


@pytest.mark.parametrize("dims", [(3, 2**40), (2**62, 2**62), (-1, 4), (3, 5)])
def test_shapes_that_the_file_does_not_hold(tmp_path, dims):
    proto, _ = small(tmp_path)
    proto.graph.initializer[0].dims[:] = dims
    refused(proto, tmp_path, "declares the shape|negative size")
    raw = onnx.TensorProto(name="a.weight", data_type=1, dims=dims, float_data=[1.0] * 12)
    proto.graph.initializer[0].CopyFrom(raw)
    refused(proto, tmp_path, "declares the shape|negative size")


HUGE = 2**40


@pytest.mark.parametrize(
    "middle",
    [
        one("Expand", [HUGE, 2, 4]),
        one("Tile", [HUGE, 1]),
        one("Pad", [HUGE, 0, 0, 0]),
        one("Pad", [0, 0, 0, HUGE]),
        lambda net, x: net("Add", x, net("ConstantOfShape", [HUGE, 4])),
        lambda net, x: net("Add", x, net("Range", np.array(0), np.array(HUGE), np.array(1))),
        lambda net, x: net("MatMul", x, net("Expand", np.ones((1, 1), "f4"), [4, HUGE])),
        lambda net, x: net("MatMul", x, net("ConstantOfShape", [4, 2**24])),
        lambda net, x: net("Reshape", net("Expand", net("Unsqueeze", x, [2]), [2, 4, 2**24]), [-1]),
        lambda net, x: net("Resize", x, "", np.array([1, 1e30], "f4")),
        lambda net, x: net("OneHot", net("ArgMax", x), np.array(HUGE), np.ones(2, "f4")),
        lambda net, x: net("Add", x, net("Pad", np.ones(4, "f4"), [HUGE, 0])),
        lambda net, x: net("Add", x, net("Tile", np.ones((1, 4), "f4"), [HUGE, 1])),
        lambda net, x: net("Pad", x, [0, 2**23, 0, 0]),
        lambda net, x: net("Tile", x, [1, 2**21]),
        lambda net, x: net("Split", x, axis=1, num_outputs=2**53),
    ],
)
def test_sizes_that_are_absurd(tmp_path, middle):
    import tracemalloc

    tracemalloc.start()
    with pytest.raises(ModelError, match=r"model\.onnx"):
        between(tmp_path, middle)
    assert tracemalloc.get_traced_memory()[1] < 2**27
    tracemalloc.stop()


@pytest.mark.parametrize("shape", [(2, HUGE), (HUGE, 3), (2, 2**23, 2**23)])
def test_inputs_that_are_absurd(tmp_path, shape):
    net = Net()
    with pytest.raises(ModelError, match="too large"):
        graph_of(net.proto(net("Relu", net.input(shape))), tmp_path)


# --- weights beside the model -------------------------------------------------------------------


def beside(folder, location="weights.bin", **entries):
    """A model whose first matrix lies in another file, and that matrix."""
    proto, _ = small(folder)
    tensor = proto.graph.initializer[0]
    values = numpy_helper.to_array(tensor)
    (folder / "weights.bin").write_bytes(b"\0" * 16 + values.tobytes())
    tensor.ClearField("raw_data")
    tensor.data_location = 1
    entries = {"location": location, "offset": 16, "length": values.nbytes} | entries
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    return proto, values


def test_large_weights_beside_the_model_are_mapped(tmp_path, monkeypatch):
    monkeypatch.setattr("ncut.files.guard.READ_WHOLE", 0)
    proto, values = beside(tmp_path)
    wiring, parameters = read_onnx(saved(proto, tmp_path))
    weight = wiring.operations[0].weight.values
    while weight.base is not None and not isinstance(weight, np.memmap):
        weight = weight.base
    assert isinstance(weight, np.memmap)
    assert parameters["a.weight"] == (3, 4)
    assert_allclose(wiring.operations[0].weight, values)


@pytest.mark.parametrize(
    "location", ["../weights.bin", "/etc/passwd", "", "a/../../weights.bin", "link.bin", "\0"]
)
def test_weights_outside_the_models_folder(tmp_path, location):
    folder = tmp_path / "inner"
    folder.mkdir()
    (tmp_path / "weights.bin").write_bytes(b"\0" * 100)
    (folder / "link.bin").symlink_to(tmp_path / "weights.bin")
    proto, _ = beside(folder, location)
    refused(proto, folder, "outside the model's folder|only files beside the model")


@pytest.mark.parametrize(
    ("entries", "match"),
    [
        ({"location": "missing.bin"}, "no such file"),
        ({"location": "."}, "no such file"),
        ({"offset": 17}, "truncated"),
        ({"offset": -1}, "truncated"),
        ({"offset": 2**70}, "truncated"),
        ({"length": 8}, "truncated"),
        ({"length": "many"}, "no number"),
    ],
)
def test_weights_that_are_not_beside_the_model(tmp_path, entries, match):
    proto, _ = beside(tmp_path, **entries)
    refused(proto, tmp_path, match)


def test_the_package_onnx_is_needed(tmp_path, monkeypatch):
    import sys

    _, path = small(tmp_path)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"ncut\[onnx\]"):
        read_onnx(path)


# --- weights of whole numbers that get their scale later ---------------------------------------


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


def read_net(net, path, *outputs, **options):
    path.write_bytes(net.proto(*outputs).SerializeToString())
    return read_graph(path, scope="all", **options)


def test_scales_of_queries_and_keys_are_those_of_their_weights(tmp_path):
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


# --- operators of ONNX Runtime ------------------------------------------------------------------


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
