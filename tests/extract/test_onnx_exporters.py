"""ONNX models as exporters write them, and exports of torch against the modules."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose
from onnx_nets import (
    Net,
    blocks_of,
    chain_of,
    graph_of,
    layers_of,
    roles_of,
    sparse_weights,
    weights,
)

from ncut.errors import ModelError
from ncut.extract import read_graph
from ncut.extract.assembly.assemble import assemble
from ncut.extract.lowering.kinds import lower
from ncut.extract.readers.onnx_model import read_onnx

onnx = pytest.importorskip("onnx", reason="pip install 'ncut[onnx]'")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402


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


def exported(module, example, folder, **options):
    """The graph of a module, and that of its export."""
    torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
    path = folder / "exported.onnx"
    module = module.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, example, str(path), dynamo=False, **options)
    wiring, parameters, _ = read_onnx(path, lower)
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
