"""Files of Flax and TensorFlow.js have the graph of the model that they hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ncut
from ncut.errors import InputError, ModelError
from ncut.extract.formats import format_of

RNG = np.random.default_rng(0)
KERAS_FILES = Path(__file__).parent / "keras_files"


def same(graph: ncut.NeuronGraph, other: ncut.NeuronGraph, rtol: float = 1e-6) -> None:
    assert [layer.size for layer in graph.layers] == [layer.size for layer in other.layers]
    a, b = graph.adjacency.toarray(), other.adjacency.toarray()
    np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.abs(b).max())


# --- Flax ---------------------------------------------------------------------------------------


def to_msgpack(tree: Any) -> bytes:
    """The format of `flax.serialization.msgpack_serialize`: arrays are (shape, type, bytes)."""
    msgpack = pytest.importorskip("msgpack", reason="pip install msgpack")

    def extension(value: Any) -> Any:
        values = np.asarray(value)
        parts = (values.shape, values.dtype.name, values.tobytes())
        return msgpack.ExtType(1 if values.ndim else 3, msgpack.packb(parts))

    return msgpack.packb(tree, default=extension, strict_types=True)


def trees() -> tuple[dict[str, Any], dict[str, Any]]:
    """A network in the layout of Flax, and the same as a state dict of PyTorch."""

    def w(*shape: int) -> Any:
        return RNG.normal(size=shape).astype(np.float32)

    kernels = {"Conv_0": w(3, 3, 2, 6), "Conv_1": w(1, 1, 6, 5), "Dense_2": w(5, 8),
               "Dense_10": w(8, 4)}  # fmt: skip
    scale, variance = (np.abs(w(6)) + 0.5 for _ in range(2))
    params: dict[str, Any] = {n: {"kernel": k, "bias": w(k.shape[-1])} for n, k in kernels.items()}
    params["BatchNorm_0"] = {"scale": scale, "bias": w(6)}
    tree = {
        "params": dict(sorted(params.items())),
        "batch_stats": {"BatchNorm_0": {"mean": w(6), "var": variance}},
    }
    state = {f"{name}.weight": np.moveaxis(k, (-1, -2), (0, 1)) for name, k in kernels.items()}
    named = {"0.weight": state["Conv_0.weight"], "1.weight": scale, "1.running_var": variance,
             "2.weight": state["Conv_1.weight"], "3.weight": state["Dense_2.weight"],
             "4.weight": state["Dense_10.weight"]}  # fmt: skip
    return tree, named


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_flax_files_have_the_graph_of_the_state_dict(dtype: str, tmp_path: Path) -> None:
    import ml_dtypes

    tree, named = trees()
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)

    def cast(part: Any) -> Any:
        if isinstance(part, dict):
            return {k: cast(v) for k, v in part.items()}
        return part.astype(kind)

    (tmp_path / "a.msgpack").write_bytes(to_msgpack(cast(tree)))
    graph = ncut.graph(tmp_path / "a.msgpack", scope="all")
    rtol = {"float32": 1e-6, "float16": 2e-3, "bfloat16": 2e-2}[dtype]
    same(graph, ncut.graph(named, scope="all"), rtol)


def test_states_of_training_and_arrays_in_pieces(tmp_path: Path) -> None:
    tree, named = trees()
    kernel = tree["params"]["Dense_2"]["kernel"]
    flat = kernel.ravel()
    pieces = {"__msgpack_chunked_array__": True, "shape": {"0": 5, "1": 8},
              "chunks": {"0": flat[:30], "1": flat[30:]}}  # fmt: skip
    state = {**tree, "opt_state": {"0": {"mu": tree["params"]}}, "step": 3}
    state["params"] = {**tree["params"], "Dense_2": {"kernel": pieces}}
    path = tmp_path / "a.msgpack"
    path.write_bytes(to_msgpack(state))
    same(ncut.graph(path, scope="all"), ncut.graph(named, scope="all"))
    path.write_bytes(to_msgpack({"actor": state, "critic": tree}))
    same(ncut.graph(path, scope="all", key="critic"), ncut.graph(named, scope="all"))
    with pytest.raises(ModelError, match="several networks, 'actor', 'critic'; choose one: key="):
        ncut.graph(path)
    with pytest.raises(InputError, match=r"no 'acto' in .* it has 'actor', 'critic'"):
        ncut.graph(path, key="acto")


def test_a_folder_with_weights_of_flax(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="pip install torch")
    transformers = pytest.importorskip("transformers", reason="pip install transformers")
    config = transformers.BertConfig(hidden_size=16, num_attention_heads=2, num_hidden_layers=1,
                                     intermediate_size=24, vocab_size=20)  # fmt: skip
    model = transformers.BertModel(config)
    model.save_pretrained(tmp_path)
    expected = ncut.graph(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    tree: dict[str, Any] = {}
    for name, value in model.state_dict().items():
        *steps, last = name.split(".")
        values = value.numpy()
        if last == "weight":
            last = "embedding" if "embeddings" in steps[-1] else "kernel"
            last = "scale" if "LayerNorm" in steps[-1] else last
            values = values.T if last == "kernel" else values
        here = tree
        for step in steps:
            here = here.setdefault(step, {})
        here[last] = values
    (tmp_path / "flax_model.msgpack").write_bytes(to_msgpack(tree))
    graph = ncut.graph(tmp_path)
    same(graph, expected)
    assert graph.placed_share == expected.placed_share


def test_broken_files_of_flax_are_refused(tmp_path: Path) -> None:
    msgpack = pytest.importorskip("msgpack", reason="pip install msgpack")
    path = tmp_path / "a.msgpack"
    content = to_msgpack(trees()[0])
    square = {"kernel": np.ones((4, 4), np.float32)}
    cell = to_msgpack({"params": {"LSTMCell_0": dict.fromkeys(("ii", "hi", "if", "hf"), square)}})
    heads = {"kernel": np.ones((4, 2, 2), np.float32)}
    attention = to_msgpack({"params": {"SelfAttention_0": {"q": heads}, "Dense_0": square}})
    wrong = msgpack.packb(((4, 4), "float32", b"1234"))
    objects = msgpack.packb(((1,), "object", b"12345678"))
    for data, message in (
        (content[:100], "not a file of Flax, or a damaged one"),
        (cell, r"'LSTMCell_0\.ii' is a recurrent cell: the network is no chain"),
        (attention, r"'SelfAttention_0\.q' is a layer over several axes: the network is no chain"),
        (msgpack.packb([1, 2]), "holds a list; expected named arrays"),
        (msgpack.packb({"a": 1}), "without arrays"),
        (msgpack.packb({"a": msgpack.ExtType(1, wrong)}), r"shape \(4, 4\) and 4 bytes"),
        (msgpack.packb({"a": msgpack.ExtType(1, objects)}), "type 'object', which is not read"),
    ):
        path.write_bytes(data)
        with pytest.raises(ModelError, match=message):
            ncut.graph(path)


# --- TensorFlow.js ------------------------------------------------------------------------------


def to_tfjs(source: Path, folder: Path, quantize: str = "") -> Path:
    """The output of `tensorflowjs_converter` for an HDF5 file, in two shards."""
    h5py = pytest.importorskip("h5py", reason="pip install h5py")
    listed, data = [], b""
    with h5py.File(source) as file:
        config = json.loads(file.attrs["model_config"])
        groups = file["model_weights"]
        for layer in groups.attrs["layer_names"]:
            for name in groups[layer].attrs["weight_names"]:
                text = name.decode() if isinstance(name, bytes) else name
                values = groups[layer][text][()].astype(np.float32)
                said = {"name": text.split(":")[0], "shape": list(values.shape), "dtype": "float32"}
                if quantize:
                    top = 2 ** (8 * np.dtype(quantize).itemsize) - 1
                    least = float(values.min())
                    scale = (float(values.max()) - least) / top or 1.0
                    said["quantization"] = {"dtype": quantize, "scale": scale, "min": least,
                                            "original_dtype": "float32"}  # fmt: skip
                    values = np.round((values - least) / scale).astype(quantize)
                listed.append(said)
                data += values.tobytes()
    names = [f"group1-shard{n}of2.bin" for n in (1, 2)]
    (folder / names[0]).write_bytes(data[:100])
    (folder / names[1]).write_bytes(data[100:])
    topology = {"keras_version": "2.4.0", "backend": "tensorflow", "model_config": config}
    content = {"format": "layers-model", "modelTopology": topology,
               "weightsManifest": [{"paths": names, "weights": listed}]}  # fmt: skip
    (folder / "model.json").write_text(json.dumps(content))
    return folder / "model.json"


MODELS = ["attention-2.h5", "convolutional-2.h5", "kernels-2.h5", "nested-2.h5", "perceptron.h5"]


@pytest.mark.parametrize("name", MODELS)
def test_layers_models_have_the_graph_of_their_keras_file(name: str, tmp_path: Path) -> None:
    path = to_tfjs(KERAS_FILES / name, tmp_path)
    assert format_of(path).name == format_of(tmp_path).name == "a layers-model of TensorFlow.js"
    expected = ncut.graph(KERAS_FILES / name, scope="all")
    graph = ncut.graph(path, scope="all")
    same(graph, expected)
    assert graph.placed_share == expected.placed_share
    same(ncut.graph(tmp_path, scope="all"), expected)


@pytest.mark.parametrize(("quantize", "rtol"), [("uint8", 0.02), ("uint16", 1e-4)])
def test_quantized_layers_models(quantize: str, rtol: float, tmp_path: Path) -> None:
    path = to_tfjs(KERAS_FILES / "perceptron.h5", tmp_path, quantize)
    same(ncut.graph(path), ncut.graph(KERAS_FILES / "perceptron.h5"), rtol)


def test_broken_layers_models_are_refused(tmp_path: Path) -> None:
    path = to_tfjs(KERAS_FILES / "perceptron.h5", tmp_path)
    content = json.loads(path.read_text())
    group = content["weightsManifest"][0]
    for change, message in (
        ({"modelTopology": {"node": []}}, "is no layers-model, and graph models"),
        ({"weightsManifest": None}, "weightsManifest is damaged"),
        ({"weightsManifest": [{**group, "paths": ["../x.bin"]}]}, "not the name of a file beside"),
        ({"weightsManifest": [{**group, "paths": ["none.bin"]}]}, r"none\.bin"),
        ({"weightsManifest": [{**group, "paths": group["paths"][:1]}]}, "does not lie in"),
        ({"weightsManifest": [{**group, "weights": [{"name": "a", "shape": [-1], "dtype":
          "float32"}]}]}, r"'a' has the shape \[-1\]"),
        ({"weightsManifest": [{**group, "weights": group["weights"][1:]}]}, "model.json"),
    ):  # fmt: skip
        path.write_text(json.dumps(content | change))
        with pytest.raises(ModelError, match=message):
            ncut.graph(path)
