"""Damaged, absurd and hostile ONNX files, and weights beside the model."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from onnx_nets import (
    Net,
    between,
    chain_of,
    followed,
    graph_of,
    one,
    refused,
    saved,
    small,
)

from ncut.errors import InputError, MissingExtraError, ModelError
from ncut.extract.assembly.assemble import assemble

onnx = pytest.importorskip("onnx", reason="pip install 'ncut[onnx]'")
from onnx import numpy_helper  # noqa: E402


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
            followed(bad)
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
        wiring, parameters = followed(path)
        assemble(wiring, scope="all", parameters=parameters)
    except (ModelError, InputError):
        pass


def test_invalid_graphs_are_refused(tmp_path):
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
    wiring, parameters = followed(saved(proto, tmp_path))
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
def test_missing_external_weights_are_refused(tmp_path, entries, match):
    proto, _ = beside(tmp_path, **entries)
    refused(proto, tmp_path, match)


def test_the_package_onnx_is_needed(tmp_path, monkeypatch):
    import sys

    _, path = small(tmp_path)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"ncut\[onnx\]"):
        followed(path)
