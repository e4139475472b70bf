"""Models of TensorFlow Lite, computed by its interpreter, have the graph of their PyTorch twin."""

from __future__ import annotations

import importlib
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ncut
from ncut.errors import ModelError

torch = pytest.importorskip("torch", reason="pip install torch")
tflite = pytest.importorskip("tflite", reason="pip install tflite")
flatbuffers = pytest.importorskip("flatbuffers", reason="pip install flatbuffers")

RNG = np.random.default_rng(0)
TYPES = {"float32": 0, "float16": 1, "int32": 2, "uint8": 3, "int8": 9}


def w(*shape: int) -> Any:
    return RNG.normal(size=shape).astype(np.float32)


class Writer:
    """Writes a file by the schema: tensors, operators in their order, inputs and outputs."""

    def __init__(self) -> None:
        self.tensors: list[dict[str, Any]] = []
        self.operators: list[tuple[str, list[int], list[int], tuple[str, dict[str, Any]] | None]]
        self.operators = []

    def tensor(self, name: str, shape: Any, values: Any = None, **more: Any) -> int:
        kind = "float32" if values is None else values.dtype.name
        self.tensors.append({"name": name, "shape": shape, "values": values, "kind": kind, **more})
        return len(self.tensors) - 1

    def constant(self, name: str, values: Any, **more: Any) -> int:
        return self.tensor(name, values.shape, np.ascontiguousarray(values), **more)

    def add(self, kind: str, inputs: list[int], shape: Any, table: str = "", **options: Any) -> int:
        out = self.tensor(f"{kind.lower()}_{len(self.tensors)}", shape)
        self.operators.append((kind, inputs, [out], (table, options) if table else None))
        return out

    def write(self, path: Path, inputs: list[int], outputs: list[int]) -> Path:
        b = flatbuffers.Builder(1024)
        kinds = sorted({operator[0] for operator in self.operators})
        buffers = [self._table(b, "Buffer")]
        tensors = []
        for said in self.tensors:
            data = said["values"]
            at = 0
            if data is not None:
                at = len(buffers)
                raw = b.CreateByteVector(data.tobytes())
                buffers.append(self._table(b, "Buffer", Data=raw))
            quantization = None
            if "scale" in said:
                b.StartVector(4, len(said["scale"]), 4)
                for value in said["scale"][::-1]:
                    b.PrependFloat32(value)
                scale = b.EndVector()
                b.StartVector(8, len(said["zero"]), 8)
                for value in said["zero"][::-1]:
                    b.PrependInt64(value)
                zero = b.EndVector()
                quantization = self._table(
                    b, "QuantizationParameters", Scale=scale, ZeroPoint=zero,
                    QuantizedDimension=said.get("axis", 0),
                )  # fmt: skip
            more = {} if quantization is None else {"Quantization": quantization}
            if "sparsity" in said:
                more["Sparsity"] = self._sparsity(b, **said["sparsity"])
            name, shape = b.CreateString(said["name"]), self._ints(b, said["shape"])
            tensors.append(
                self._table(b, "Tensor", Name=name, Shape=shape, Type=TYPES[said["kind"]],
                            Buffer=at, **more)
            )  # fmt: skip
        operators = []
        for kind, reads, writes, options in self.operators:
            more = {}
            if options is not None:
                table, values = options
                more = {"BuiltinOptions": self._table(b, table, **values),
                        "BuiltinOptionsType": getattr(tflite.BuiltinOptions, table)}  # fmt: skip
            ends = {"Inputs": self._ints(b, reads), "Outputs": self._ints(b, writes)}
            operators.append(
                self._table(b, "Operator", OpcodeIndex=kinds.index(kind), **ends, **more)
            )
        codes = [
            self._table(b, "OperatorCode", BuiltinCode=getattr(tflite.BuiltinOperator, kind),
                        DeprecatedBuiltinCode=min(getattr(tflite.BuiltinOperator, kind), 127),
                        Version=1)
            for kind in kinds
        ]  # fmt: skip
        graph = self._table(
            b, "SubGraph", Tensors=self._offsets(b, tensors), Inputs=self._ints(b, inputs),
            Outputs=self._ints(b, outputs), Operators=self._offsets(b, operators),
        )  # fmt: skip
        model = self._table(
            b, "Model", Version=3, OperatorCodes=self._offsets(b, codes),
            Subgraphs=self._offsets(b, [graph]), Buffers=self._offsets(b, buffers),
        )  # fmt: skip
        b.Finish(model, b"TFL3")
        path.write_bytes(bytes(b.Output()))
        return path

    def _sparsity(self, b: Any, order: Any, blocks: Any, levels: Any) -> int:
        made = []
        for level in levels:
            if isinstance(level, int):
                made.append(self._table(b, "DimensionMetadata", DenseSize=level))
                continue
            fields: dict[str, int] = {"Format": 1}
            for name, numbers in zip(("ArraySegments", "ArrayIndices"), level, strict=True):
                kind = {"int32": "Int32Vector", "uint16": "Uint16Vector", "uint8": "Uint8Vector"}
                vector = kind[numbers.dtype.name]
                fields[name] = self._table(b, vector, Values=b.CreateNumpyVector(numbers))
                fields[f"{name}Type"] = getattr(tflite.SparseIndexVector, vector)
            made.append(self._table(b, "DimensionMetadata", **fields))
        dims = self._offsets(b, made)
        return self._table(b, "SparsityParameters", TraversalOrder=self._ints(b, order),
                           BlockMap=self._ints(b, blocks), DimMetadata=dims)  # fmt: skip

    @staticmethod
    def _table(b: Any, table: str, **fields: Any) -> int:
        module = importlib.import_module(f"tflite.{table}")
        getattr(module, f"{table}Start")(b)
        for name, value in fields.items():
            getattr(module, f"{table}Add{name}")(b, value)
        return int(getattr(module, f"{table}End")(b))

    @staticmethod
    def _ints(b: Any, numbers: Any) -> int:
        return int(b.CreateNumpyVector(np.array(numbers, dtype=np.int32)))

    @staticmethod
    def _offsets(b: Any, offsets: list[int]) -> int:
        b.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            b.PrependUOffsetTRelative(offset)
        return int(b.EndVector())


def computed(path: Path, value: Any) -> Any:
    """The output of TensorFlow Lite's interpreter for an input."""
    litert = pytest.importorskip("ai_edge_litert.interpreter", reason="pip install ai-edge-litert")
    interpreter = litert.Interpreter(str(path))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], value)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def same(graph: ncut.NeuronGraph, other: ncut.NeuronGraph, rtol: float = 1e-5) -> None:
    assert [layer.size for layer in graph.layers] == [layer.size for layer in other.layers]
    a, b = graph.adjacency.toarray(), other.adjacency.toarray()
    np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.abs(b).max())


class Images(torch.nn.Module):
    """A small convolutional network with everything of its kind."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Conv2d(3, 6, 3, 2, 1), torch.nn.Conv2d(6, 6, 1)
        self.depth = torch.nn.Conv2d(6, 12, 3, padding=1, groups=6)
        self.up = torch.nn.ConvTranspose2d(12, 5, 2, 2)
        self.slopes = torch.nn.PReLU(5, 0.3)
        self.dense, self.out = torch.nn.Linear(8, 7), torch.nn.Linear(7, 4)

    def forward(self, x: Any) -> Any:
        a = torch.relu(self.first(x))
        a = a + self.second(a)
        a = torch.nn.functional.relu6(self.depth(a)) * 0.5
        a = self.slopes(self.up(a))
        a = torch.cat([a, x], 1).mean((2, 3))
        return self.out(torch.relu(self.dense(a))).softmax(-1)


def images(model: Images, path: Path, constant: Any) -> Path:
    """The same network by TensorFlow Lite's operators."""
    f = Writer()
    state = {name: value.detach().numpy() for name, value in model.state_dict().items()}

    def kernel(name: str, turned: Any, axis: int = 0) -> int:
        return int(constant(f, f"{name}.weight", turned(state[f"{name}.weight"]), axis=axis))

    def bias(name: str) -> int:
        return f.constant(f"{name}.bias", state[f"{name}.bias"])

    def last(a: Any) -> Any:
        return a.transpose(0, 2, 3, 1)

    x = f.tensor("x", (1, 8, 8, 3))
    pad = f.constant("pad", np.array([[0, 0], [1, 1], [1, 1], [0, 0]], np.int32))
    a = f.add("PAD", [x, pad], (1, 10, 10, 3), "PadOptions")
    a = f.add("CONV_2D", [a, kernel("first", last), bias("first")], (1, 4, 4, 6), "Conv2DOptions",
              Padding=1, StrideH=2, StrideW=2, FusedActivationFunction=1)  # fmt: skip
    b = f.add("CONV_2D", [a, kernel("second", last), bias("second")], (1, 4, 4, 6),
              "Conv2DOptions", StrideH=1, StrideW=1)  # fmt: skip
    a = f.add("ADD", [a, b], (1, 4, 4, 6), "AddOptions")
    a = f.add("DEPTHWISE_CONV_2D", [a, kernel("depth", lambda k: k.transpose(1, 2, 3, 0), 3),
              bias("depth")], (1, 4, 4, 12), "DepthwiseConv2DOptions", StrideH=1, StrideW=1,
              DepthMultiplier=2, FusedActivationFunction=3)  # fmt: skip
    half = f.constant("half", np.array(0.5, np.float32))
    a = f.add("MUL", [a, half], (1, 4, 4, 12), "MulOptions")
    size = f.constant("size", np.array([1, 8, 8, 5], np.int32))
    a = f.add("TRANSPOSE_CONV", [size, kernel("up", lambda k: k.transpose(1, 2, 3, 0)), a,
              bias("up")], (1, 8, 8, 5), "TransposeConvOptions", StrideH=2, StrideW=2)  # fmt: skip
    slopes = f.constant("slopes", state["slopes.weight"].reshape(1, 1, 5))
    a = f.add("PRELU", [a, slopes], (1, 8, 8, 5))
    a = f.add("CONCATENATION", [a, x], (1, 8, 8, 8), "ConcatenationOptions", Axis=3)
    axes = f.constant("axes", np.array([1, 2], np.int32))
    a = f.add("MEAN", [a, axes], (1, 8), "ReducerOptions", KeepDims=False)
    a = f.add("FULLY_CONNECTED", [a, kernel("dense", np.asarray), bias("dense")], (1, 7),
              "FullyConnectedOptions", FusedActivationFunction=1)  # fmt: skip
    a = f.add("FULLY_CONNECTED", [a, kernel("out", np.asarray), bias("out")], (1, 4),
              "FullyConnectedOptions")  # fmt: skip
    a = f.add("SOFTMAX", [a], (1, 4), "SoftmaxOptions", Beta=1.0)
    return f.write(path, [x], [a])


def plain(f: Writer, name: str, values: Any, axis: int = 0) -> int:
    """Weights as they are."""
    return f.constant(name, values)


def halves(f: Writer, name: str, values: Any, axis: int = 0) -> int:
    """Weights of 16 bits behind a DEQUANTIZE."""
    stored = f.constant(name, values.astype(np.float16))
    return f.add("DEQUANTIZE", [stored], values.shape)


def sparse_levels(
    values: Any, order: Any, blocks: Any, sizes: Any, csr: Any, dtype: Any = np.int32
) -> tuple[dict[str, Any], Any]:
    """A sparse tensor's description by the schema, and its stored values."""
    split = [
        n // dict(zip(blocks, sizes, strict=True)).get(a, 1) for a, n in enumerate(values.shape)
    ]
    wide = values.reshape([n for a, m in enumerate(split) for n in (m, values.shape[a] // m)])
    rank = values.ndim
    wide = wide.transpose([*range(0, 2 * rank, 2), *(2 * axis + 1 for axis in blocks)]
                          + [2 * a + 1 for a in range(rank) if a not in blocks])  # fmt: skip
    wide = wide.reshape(*split, *sizes).transpose(order)
    levels: list[Any] = []
    entries = [()]
    for at, size in enumerate(wide.shape):
        if not csr[at]:
            levels.append(size)
            entries = [(*entry, n) for entry in entries for n in range(size)]
            continue
        kept = [[n for n in range(size) if np.any(wide[(*entry, n)])] for entry in entries]
        ends = np.cumsum([0, *(len(found) for found in kept)])
        levels.append((ends.astype(dtype), np.array([*chain(*kept)], dtype)))
        entries = [(*e, n) for e, found in zip(entries, kept, strict=True) for n in found]
    stored = np.array([wide[entry] for entry in entries], values.dtype)
    return {"order": order, "blocks": blocks, "levels": levels}, stored


SPARSE = [
    ((0, 1), (), (), (0, 1), np.int32),  # rows of a list of columns
    ((1, 0), (), (), (0, 1), np.uint8),  # by columns
    ((0, 1), (), (), (1, 1), np.uint16),
    ((0, 1, 2), (1,), (4,), (0, 1, 0), np.uint8),  # blocks of 1 x 4, as for XNNPACK and Ruy
    ((0, 1, 2, 3), (0, 1), (2, 4), (0, 1, 0, 0), np.int32),
    ((1, 0, 2, 3), (0, 1), (3, 2), (1, 1, 0, 0), np.uint16),
    ((0, 1), (), (), (0, 0), np.int32),
]


def sparse_file(weights: Any, layout: Any, path: Path) -> Path:
    """Two layers, the first with sparse weights (6, 8) in a layout, or dense ones."""
    f, kind = Writer(), weights.dtype.name
    more = {"scale": [0.25], "zero": [0]} if kind == "int8" else {}
    x = f.tensor("x", (1, 8))
    if layout is None:
        at = f.constant("w", weights, **more)
    else:
        said, stored = sparse_levels(weights, *layout)
        at = f.tensor("w", (6, 8), stored, sparsity=said, **more)
        if kind != "int8":
            at = f.add("DENSIFY", [at], (6, 8), "DensifyOptions")
            f.tensors[at]["kind"] = kind
    if kind == "float16":
        at = f.add("DEQUANTIZE", [at], (6, 8))
    a = f.add("FULLY_CONNECTED", [x, at], (1, 6), "FullyConnectedOptions",
              FusedActivationFunction=1)  # fmt: skip
    last = f.constant("last", np.arange(1, 25, dtype=np.float32).reshape(4, 6))
    a = f.add("FULLY_CONNECTED", [a, last], (1, 4), "FullyConnectedOptions")
    return f.write(path, [x], [a])


@pytest.mark.parametrize("kind", ["float32", "float16", "int8"])
@pytest.mark.parametrize(("order", "blocks", "sizes", "csr", "dtype"), SPARSE)
def test_sparse_weights_match_the_dense_file(
    order: Any, blocks: Any, sizes: Any, csr: Any, dtype: Any, kind: str, tmp_path: Path
) -> None:
    rng = np.random.default_rng(3)
    weights = np.round(rng.normal(size=(6, 8)) * 40)
    weights[rng.random((6, 8)) < 0.7] = 0
    weights[1:3] = 0
    weights = weights.astype(kind)
    layout = (order, blocks, sizes, csr, dtype)
    paths = [
        sparse_file(weights, layout, tmp_path / "sparse.tflite"),
        sparse_file(weights, None, tmp_path / "dense.tflite"),
    ]
    same(ncut.graph(paths[0]), ncut.graph(paths[1]))
    if kind == "float32":
        x_values = rng.normal(size=(1, 8)).astype(np.float32)
        np.testing.assert_allclose(computed(paths[0], x_values), computed(paths[1], x_values), 1e-6)


def test_damaged_sparse_tensors_are_refused(tmp_path: Path) -> None:
    weights = np.kron(np.eye(2, 4), np.ones((3, 2))).astype(np.float32)
    said, stored = sparse_levels(weights, (0, 1), (), (), (0, 1))

    def refused(message: str, shape: Any = (6, 8), values: Any = stored, **changed: Any) -> None:
        f = Writer()
        x = f.tensor("x", (1, 8))
        at = f.tensor("w", shape, values, sparsity={**said, **changed})
        a = f.add("FULLY_CONNECTED", [x, at], (1, 6), "FullyConnectedOptions")
        with pytest.raises(ModelError, match=message):
            ncut.graph(f.write(tmp_path / "damaged.tflite", [x], [a]))

    rows, (ends, columns) = said["levels"]
    refused("has the order", order=(0, 0))
    refused("has the order", order=(0, 1, 2))
    refused("blocks of 5", order=(0, 1, 2), blocks=(1,), levels=[*said["levels"], 5])
    refused("a level of 5, expected 6", levels=[5, said["levels"][1]])
    refused("do not fit its indices", levels=[rows, (ends[:-1], columns)])
    refused("do not fit its indices", levels=[rows, (ends[::-1], columns)])
    refused("do not fit its indices", levels=[rows, (ends, columns + 7)])
    refused("two values at one place", levels=[rows, (ends, columns * 0)])
    refused("values, its levels", values=np.append(stored, stored))
    refused("would take", shape=(60_000, 30_000))


def quantized(values: Any, axis: int) -> tuple[Any, Any]:
    scale = np.abs(values).max(tuple(n for n in range(values.ndim) if n != axis)) / 127
    wide = scale.reshape([-1 if n == axis else 1 for n in range(values.ndim)])
    return np.round(values / wide).astype(np.int8), scale.astype(np.float32)


def quantized_weights(f: Writer, name: str, values: Any, axis: int = 0) -> int:
    """Weights of 8 bits with a scale for each output."""
    stored, scale = quantized(values, axis)
    return f.constant(name, stored, scale=scale, zero=np.zeros(len(scale), np.int64), axis=axis)


@pytest.fixture(scope="module")
def model() -> Images:
    torch.manual_seed(0)
    return Images().eval()


@pytest.mark.parametrize(("constant", "rtol"), [(plain, 1e-5), (halves, 2e-3)])
def test_a_file_computes_and_is_read_as_its_twin(
    constant: Any, rtol: float, model: Images, tmp_path: Path
) -> None:
    path = images(model, tmp_path / "a.tflite", constant)
    x = w(1, 8, 8, 3)
    with torch.no_grad():
        expected = model(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    np.testing.assert_allclose(computed(path, x), expected, atol=1e-2 if rtol > 1e-4 else 1e-5)
    example = torch.zeros(1, 3, 8, 8)
    for options in ({"scope": "all"}, {"residual": "stream"}, {"norm": "l2", "scope": "all"}):
        graph = ncut.graph(path, **options)
        twin = ncut.graph(model, example_inputs=example, **options)
        same(graph, twin, rtol)
        assert graph.placed_share == pytest.approx(twin.placed_share, abs=0.02)


def test_bytes_are_taken_times_their_scales(model: Images, tmp_path: Path) -> None:
    path = images(model, tmp_path / "model.bin", quantized_weights)
    rounded = Images()
    state = model.state_dict()
    for name, value in state.items():
        if value.ndim > 1:
            axis = 1 if name.startswith("up") else 0
            stored, scale = quantized(value.numpy(), axis)
            wide = scale.reshape([-1 if n == axis else 1 for n in range(value.ndim)])
            state[name] = torch.from_numpy(stored * wide)
    rounded.load_state_dict(state)
    twin = ncut.graph(rounded, example_inputs=torch.zeros(1, 3, 8, 8), scope="all")
    same(ncut.graph(path, scope="all"), twin)


class Attending(torch.nn.Module):
    """Words, attention of two heads, and an MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.words = torch.nn.Embedding(9, 6)
        self.q, self.k, self.v, self.o = (torch.nn.Linear(6, 6) for _ in range(4))
        self.up, self.down = torch.nn.Linear(6, 10), torch.nn.Linear(10, 6)

    def forward(self, ids: Any) -> Any:
        x = self.words(ids)
        q, k, v = (layer(x).view(1, 4, 2, 3).transpose(1, 2) for layer in (self.q, self.k, self.v))
        mixed = (q @ k.transpose(-1, -2)).softmax(-1) @ v
        x = x + self.o(mixed.transpose(1, 2).reshape(1, 4, 6))
        return x + self.down(torch.nn.functional.gelu(self.up(x)))


def test_attention_and_words(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Attending().eval()
    state = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    f = Writer()
    ids = f.tensor("ids", (1, 4))
    f.tensors[0]["kind"] = "int32"
    words = f.constant("words", state["words.weight"])
    x = f.add("GATHER", [words, ids], (1, 4, 6), "GatherOptions", Axis=0)

    def dense(x: int, name: str, n: int) -> int:
        parts = [f.constant(f"{name}.{part}", state[f"{name}.{part}"])
                 for part in ("weight", "bias")]  # fmt: skip
        return f.add("FULLY_CONNECTED", [x, *parts], (1, 4, n), "FullyConnectedOptions",
                     KeepNumDims=True)  # fmt: skip

    sizes = f.constant("sizes", np.array([1, 4, 2, 3], np.int32))
    order = f.constant("order", np.array([0, 2, 1, 3], np.int32))
    heads = []
    for name in "qkv":
        a = f.add("RESHAPE", [dense(x, name, 6), sizes], (1, 4, 2, 3), "ReshapeOptions")
        heads.append(f.add("TRANSPOSE", [a, order], (1, 2, 4, 3), "TransposeOptions"))
    scores = f.add("BATCH_MATMUL", heads[:2], (1, 2, 4, 4), "BatchMatMulOptions", AdjY=True)
    shares = f.add("SOFTMAX", [scores], (1, 2, 4, 4), "SoftmaxOptions", Beta=1.0)
    mixed = f.add("BATCH_MATMUL", [shares, heads[2]], (1, 2, 4, 3), "BatchMatMulOptions")
    mixed = f.add("TRANSPOSE", [mixed, order], (1, 4, 2, 3), "TransposeOptions")
    flat = f.constant("flat", np.array([1, 4, 6], np.int32))
    mixed = f.add("RESHAPE", [mixed, flat], (1, 4, 6), "ReshapeOptions")
    x = f.add("ADD", [x, dense(mixed, "o", 6)], (1, 4, 6), "AddOptions")
    hidden = f.add("GELU", [dense(x, "up", 10)], (1, 4, 10), "GeluOptions", Approximate=False)
    x = f.add("ADD", [x, dense(hidden, "down", 6)], (1, 4, 6), "AddOptions")
    path = f.write(tmp_path / "a.tflite", [ids], [x])
    numbers = np.array([[1, 5, 8, 2]], np.int32)
    with torch.no_grad():
        expected = model(torch.from_numpy(numbers).long()).numpy()
    np.testing.assert_allclose(computed(path, numbers), expected, atol=1e-5)
    example = torch.zeros(1, 4, dtype=torch.long)
    for residual in ("stream", "readers"):
        twin = ncut.graph(model, example_inputs=example, residual=residual)
        same(ncut.graph(path, residual=residual), twin)
    assert ncut.graph(path, part="mlp").n_edges == 2 * 6 * 10


def test_files_that_are_refused(model: Images, tmp_path: Path) -> None:
    path = images(model, tmp_path / "a.tflite", plain)
    content = path.read_bytes()
    for size in (8, 30, 500, len(content) // 2):
        path.write_bytes(content[:size])
        with pytest.raises(ModelError, match=r"a\.tflite"):
            ncut.graph(path)
    f = Writer()
    x = f.tensor("x", (1, 4))
    weights = f.constant("w", RNG.integers(-9, 9, (3, 4)).astype(np.int8))
    out = f.add("FULLY_CONNECTED", [x, weights], (1, 3), "FullyConnectedOptions")
    with pytest.raises(ModelError, match="weights 'w' are whole numbers without a scale"):
        ncut.graph(f.write(path, [x], [out]))
    f = Writer()
    x = f.tensor("x", (1, 4))
    out = f.add("UNIDIRECTIONAL_SEQUENCE_LSTM", [x], (1, 4))
    with pytest.raises(ModelError, match=r"LSTM' is not known; .*tf2onnx\.convert --tflite"):
        ncut.graph(f.write(path, [x], [out]))


def test_a_network_of_bytes_has_the_graph_of_its_numbers(tmp_path: Path) -> None:
    """Data, weights and factors are bytes, each with a scale and a zero point."""
    f = Writer()
    stored = [RNG.integers(-127, 128, shape).astype(np.int8) for shape in ((6, 4), (3, 6), (6,))]
    scales = [RNG.uniform(0.01, 0.1, n).astype(np.float32) for n in (1, 3, 1)]
    zero = np.array([5])
    x = f.tensor("x", (1, 4))
    first = f.constant("first", stored[0], scale=scales[0], zero=zero)
    second = f.constant("second", stored[1], scale=scales[1], zero=np.zeros(3, np.int64))
    factors = f.constant("factors", stored[2], scale=scales[2], zero=zero)
    bias = f.constant("bias", np.arange(6, dtype=np.int32))
    q = f.add("QUANTIZE", [x], (1, 4))
    q = f.add("FULLY_CONNECTED", [q, first, bias], (1, 6), "FullyConnectedOptions",
              FusedActivationFunction=1)  # fmt: skip
    q = f.add("MUL", [q, factors], (1, 6), "MulOptions")
    q = f.add("FULLY_CONNECTED", [q, second], (1, 3), "FullyConnectedOptions")
    y = f.add("DEQUANTIZE", [q], (1, 3))
    for tensor in f.tensors:
        if "fully" in tensor["name"] or "mul" in tensor["name"] or "quant" in tensor["name"]:
            tensor |= {"kind": "int8", "scale": [0.5], "zero": [3]}
    path = f.write(tmp_path / "a.tflite", [x], [y])
    first_numbers = (stored[0].astype(float) - 5) * scales[0]
    second_numbers = stored[1] * scales[1][:, None] * (stored[2].astype(float) - 5) * scales[2]
    same(ncut.graph(path), ncut.graph([first_numbers.T, second_numbers.T]))
