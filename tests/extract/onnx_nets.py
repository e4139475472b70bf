"""ONNX models built node by node, their graphs, and the effect of each of their neurons."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from ncut.errors import ModelError
from ncut.extract import read_graph
from ncut.extract.assembly.assemble import assemble
from ncut.extract.assembly.magnitudes import of_weight
from ncut.extract.formats import Followed
from ncut.extract.lowering.kinds import lower
from ncut.extract.lowering.signal import NOTHING
from ncut.extract.readers.onnx_model import read_onnx

onnx = pytest.importorskip("onnx", reason="pip install 'ncut[onnx]'")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

RNG = np.random.default_rng(0)
SEEDED = RNG.bit_generator.state


def weights(*shape):
    """Weights none of which is 0, no two the same in magnitude."""
    values = RNG.permutation(np.prod(shape, dtype=int)) + 1.0
    return (values * RNG.choice([-0.1, 0.1], size=values.size)).reshape(shape).astype(np.float32)


def sparse_weights(*shape, axes=(0, 1)):
    """Weights, half of them 0, at the same entries in all positions."""
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


def followed(path, residual=None, **options):
    """The lowered program of a file, and the shapes of its parameters."""
    read = Followed(*read_onnx(path, partial(lower, residual=residual), **options))
    return read.wiring, read.shapes


def graph_of(proto, folder, *, scope="all", **options):
    wiring, parameters = followed(saved(proto, folder), **options)
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
    wiring, _ = followed(saved(net.proto(y), folder), **options)
    expected = measured(net)
    got = predicted(wiring, net.layers)
    assert any(pattern.any() for pattern in expected.values())
    for pair, pattern in expected.items():
        assert_array_equal(got[pair], pattern, err_msg=str(pair))


def one(op, *more, **attributes):
    """A node of one operator; more inputs come after the signal."""
    return lambda net, x: net(op, x, *more, **attributes)


def chain_of(graph, *expected):
    got = blocks_of(graph)
    assert len(got) == len(expected)
    for block, weight in zip(got, expected, strict=True):
        assert_allclose(block, np.abs(weight), rtol=1e-5)


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
        assemble(followed(path)[0])
    assert str(path) in str(caught.value)


def read_net(net, path, *outputs, **options):
    path.write_bytes(net.proto(*outputs).SerializeToString())
    return read_graph(path, scope="all", **options)
