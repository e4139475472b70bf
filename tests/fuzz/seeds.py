"""Small valid files of every format that is read, to be damaged."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

import ncut

KERAS_FILES = Path(__file__).parents[1] / "extract" / "keras_files"


def dense(rng: np.random.Generator) -> dict[str, Any]:
    return {
        f"{n}.weight": rng.normal(size=shape).astype("f4")
        for n, shape in zip((0, 2, 4), ((6, 5), (4, 6), (3, 4)), strict=True)
    }


def convolutions(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "c.0.weight": rng.normal(size=(4, 3, 3, 3)).astype("f4"),
        "c.1.weight": np.abs(rng.normal(size=4)).astype("f4"),
        "c.1.running_var": np.abs(rng.normal(size=4)).astype("f4"),
        "c.1.running_mean": np.zeros(4, "f4"),
        "c.1.bias": np.zeros(4, "f4"),
        "c.3.weight": rng.normal(size=(5, 4, 3, 3)).astype("f4"),
    }


def write_seeds(folder: Path, kinds: Collection[str]) -> dict[str, list[Path]]:
    """Write the files of some formats; those of each by its name."""
    found: dict[str, list[Path]] = {}

    def place(kind: str, name: str) -> Path:
        path = folder / kind / name
        path.parent.mkdir(parents=True, exist_ok=True)
        found.setdefault(kind, []).append(path)
        return path

    def rng() -> np.random.Generator:  # one for each format: a file depends on no other format
        return np.random.default_rng(20)

    models = {"dense": dense(rng()), "conv": convolutions(rng())}
    writers: dict[tuple[str, ...], Callable[[], None]] = {
        ("npz", "npy", "graph", "report", "list"): lambda: _own_files(place, rng(), models),
        ("pt",): lambda: _torch_files(place, models),
        ("safetensors",): lambda: _safetensors_files(place, models),
        ("onnx",): lambda: _onnx_files(place, rng()),
        ("keras", "hdf5"): lambda: _keras_files(place),
        ("folder",): lambda: _folders(place),
        ("gguf",): lambda: _gguf_files(place, rng()),
        ("jit",): lambda: _torchscript_files(place),
        ("pt2",): lambda: _exported_files(place),
        ("msgpack",): lambda: _flax_files(place, models),
        ("tflite",): lambda: _tflite_files(place, rng()),
        ("tfjs",): lambda: _tfjs_folders(place),
        ("quantized",): lambda: _quantized_folders(place),
        ("diffusers",): lambda: _diffusers_folders(place),
        ("orbax",): lambda: _orbax_folders(folder, place),
        ("scan",): lambda: _scan(folder, place, models),
    }
    for written, write in writers.items():
        if not set(kinds).isdisjoint(written):
            write()
    return found


def _own_files(place: Any, rng: np.random.Generator, models: dict[str, Any]) -> None:
    for name, arrays in models.items():
        np.savez(place("npz", f"{name}.npz"), **arrays)
        np.savez_compressed(place("npz", f"{name}-z.npz"), **arrays)
    np.save(place("npy", "a.npy"), rng.normal(size=(5, 5)))
    np.save(place("npy", "f.npy"), np.asfortranarray(rng.normal(size=(5, 5)).astype("f2")))
    ncut.graph([rng.normal(size=(5, 4)), rng.normal(size=(4, 3))]).save(place("graph", "d.npz"))
    half = scipy.sparse.random_array((9, 9), density=0.6, rng=1, format="csr")
    ncut.graph(half + half.T).save(place("graph", "s.npz"))
    report = ncut.analyze([rng.normal(size=(9, 8)), rng.normal(size=(8, 7))], k=3, shuffles=3)
    report.to_json(place("report", "r.json"))
    place("list", "l.txt").write_text("a.npz\n# b\n../npz\nc/*.pt\n\n")


def _torch_files(place: Any, models: dict[str, Any]) -> None:
    import torch

    for name, arrays in models.items():
        state = {key: torch.from_numpy(value) for key, value in arrays.items()}
        torch.save(state, place("pt", f"{name}.pt"))
        torch.save({"model_state_dict": state, "epoch": 3}, place("pt", f"{name}-checkpoint.pt"))
        old = place("pt", f"{name}-legacy.pt")
        torch.save(state, old, _use_new_zipfile_serialization=False)


def _safetensors_files(place: Any, models: dict[str, Any]) -> None:
    import ml_dtypes
    from safetensors.numpy import save_file

    for name, arrays in models.items():
        save_file(arrays, place("safetensors", f"{name}.safetensors"), {"a": "b"})
        halves = {key: value.astype(ml_dtypes.bfloat16) for key, value in arrays.items()}
        save_file(halves, place("safetensors", f"{name}-half.safetensors"))


def _onnx_files(place: Any, rng: np.random.Generator) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    def w(*shape: int) -> np.ndarray[Any, Any]:
        return rng.normal(size=shape).astype("f4")

    def save(name: str, nodes: list[Any], arrays: dict[str, Any], shape: list[Any]) -> None:
        graph = helper.make_graph(
            [helper.make_node(op, ins, [out], **more) for op, ins, out, more in nodes], "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(value, key) for key, value in arrays.items()],
        )  # fmt: skip
        opset = [helper.make_opsetid("", 18)]
        onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), place("onnx", name))

    save("mlp.onnx", [("MatMul", ["x", "a"], "h", {}), ("Relu", ["h"], "r", {}),
                      ("Gemm", ["r", "b", "c"], "y", {"transB": 1})],
         {"a": w(5, 4), "b": w(3, 4), "c": w(3)}, ["n", 5])  # fmt: skip
    save("cnn.onnx", [("Conv", ["x", "a"], "h", {"pads": [1, 1, 1, 1], "kernel_shape": [3, 3]}),
                      ("BatchNormalization", ["h", "g", "b", "m", "v"], "n", {}),
                      ("Relu", ["n"], "r", {}), ("Conv", ["r", "d"], "e", {"group": 2}),
                      ("Add", ["e", "r"], "s", {}), ("GlobalAveragePool", ["s"], "p", {}),
                      ("Flatten", ["p"], "f", {"axis": 1}), ("MatMul", ["f", "q"], "y", {})],
         {"a": w(4, 3, 3, 3), "g": w(4), "b": w(4), "m": w(4), "v": np.abs(w(4)),
          "d": w(4, 2, 1, 1), "q": w(4, 3)}, [1, 3, 4, 4])  # fmt: skip
    save("folded.onnx", [("Expand", ["one", "s"], "z", {}), ("Tile", ["a", "t"], "ta", {}),
                         ("Pad", ["ta", "p"], "pa", {}), ("Slice", ["pa", "r0", "r1"], "sa", {}),
                         ("MatMul", ["x", "sa"], "h", {}), ("Split", ["h"], "h1", {"axis": 1,
                          "num_outputs": 1}), ("MatMul", ["h1", "b"], "y", {})],
         {"one": w(1, 1), "s": np.array([2, 3]), "a": w(5, 4), "t": np.array([1, 1]),
          "p": np.array([0, 0, 0, 0]), "r0": np.array([0]), "r1": np.array([5]), "b": w(4, 3)},
         [1, 5])  # fmt: skip
    save("attention.onnx", [("MatMul", ["x", "wq"], "q", {}), ("MatMul", ["x", "wk"], "k", {}),
                            ("MatMul", ["x", "wv"], "v", {}),
                            ("Transpose", ["k"], "kt", {"perm": [0, 2, 1]}),
                            ("MatMul", ["q", "kt"], "s", {}),
                            ("Softmax", ["s"], "sm", {"axis": -1}),
                            ("MatMul", ["sm", "v"], "o", {}), ("MatMul", ["o", "wo"], "p", {}),
                            ("Add", ["p", "x"], "r", {}), ("MatMul", ["r", "f"], "y", {})],
         {name: w(4, 4) for name in ("wq", "wk", "wv", "wo", "f")}, [1, 3, 4])  # fmt: skip


def _keras_files(place: Any) -> None:
    for path in sorted(KERAS_FILES.iterdir()):
        if path.suffix in (".keras", ".h5"):
            shutil.copy(path, place("keras" if path.suffix == ".keras" else "hdf5", path.name))


def _folders(place: Any) -> None:
    import transformers

    small = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 2,
             "intermediate_size": 12, "vocab_size": 20, "max_position_embeddings": 16}  # fmt: skip
    kinds: dict[str, Any] = {"Bert": {}, "Llama": {"num_key_value_heads": 1}, "ViT": {}}
    for kind, more in kinds.items():
        config = getattr(transformers, f"{kind}Config")(**small, **more)
        model = getattr(transformers, f"{kind}Model")(config)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.save_pretrained(place("folder", f"{kind}/config.json").parent)
        place("folder", f"{kind}/model.safetensors")
    import torch
    from safetensors.numpy import load_file, save_file

    small = {"vocab_size": 9, "n_layer": 1, "n_head": 2, "d_model": 4, "d_mlp": 6, "d_pos_emb": 2}
    shapes = {"transformer.wte.weight": (9, 4), "transformer.wpe.weight": (8, 2),
              "transformer.ln_f.weight": (4,), "lm_head.weight": (9, 4)}  # fmt: skip
    layer = {"ln_1": (4,), "ln_2": (4,), "ln_p1": (2,), "ln_p2": (2,), "attn.c_attn": (12, 6),
             "attn.c_proj": (4, 4), "mlp.c_fc": (6, 6), "mlp.c_proj": (4, 6)}  # fmt: skip
    shapes |= {f"transformer.h.0.{name}.weight": shape for name, shape in layer.items()}
    place("folder", "circuits/beeg_config.json").write_text(json.dumps(small))
    state = {name: torch.rand(shape) for name, shape in shapes.items()}
    torch.save(state, place("folder", "circuits/final_model.pt"))

    first = place("folder", "Bert/model.safetensors")
    tensors = load_file(first)
    index = place("folder", "sharded/model.safetensors.index.json")
    shutil.copy(first.parent / "config.json", index.parent)
    save_file(tensors, index.parent / "one.safetensors")
    index.write_text(json.dumps({"weight_map": dict.fromkeys(tensors, "one.safetensors")}))


def _exported_files(place: Any) -> None:
    import torch

    class Small(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = torch.nn.Conv2d(2, 4, 3, padding=1), torch.nn.Conv2d(4, 4, 1)
            self.norm, self.c = torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 3)

        def forward(self, x: Any) -> Any:
            x = torch.relu(self.norm(self.a(x)))
            return self.c((x + self.b(x)).mean((2, 3)))

    dense = torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.ReLU(), torch.nn.Linear(6, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, module, shape in (("dense", dense, (2, 5)), ("conv", Small(), (1, 2, 4, 4))):
            program = torch.export.export(module.eval(), (torch.zeros(shape),))
            torch.export.save(program, place("pt2", f"{name}.pt2"))


def _flax_files(place: Any, models: dict[str, Any]) -> None:
    import msgpack

    def extension(values: Any) -> Any:
        data = msgpack.packb((values.shape, values.dtype.name, values.tobytes()))
        return msgpack.ExtType(1, data)

    for name, arrays in models.items():
        params: dict[str, Any] = {}
        for key, values in arrays.items():
            layer, part = key.rsplit(".", 1)
            if part == "weight":
                params[layer] = {"kernel": values.transpose(*range(2, values.ndim), 1, 0)
                                 if values.ndim > 1 else values}  # fmt: skip
        tree = {"params": params, "batch_stats": {"c.1": {"var": np.ones(4, "f4")}}, "step": 3}
        path = place("msgpack", f"{name}.msgpack")
        path.write_bytes(msgpack.packb(tree, default=extension, strict_types=True))


def _tflite_files(place: Any, rng: np.random.Generator) -> None:
    sys.path.insert(0, str(KERAS_FILES.parent))
    from test_tflite import SPARSE, Images, images, plain, quantized_weights, sparse_file

    for name, constant in (("plain", plain), ("bytes", quantized_weights)):
        images(Images(), place("tflite", f"{name}.tflite"), constant)
    for name, layout in (("rows", SPARSE[0]), ("blocks", SPARSE[4])):
        weights = rng.normal(size=(6, 8)).astype("f4") * (rng.random((6, 8)) < 0.4)
        sparse_file(weights, layout, place("tflite", f"{name}.tflite"))


def _tfjs_folders(place: Any) -> None:
    sys.path.insert(0, str(KERAS_FILES.parent))
    from test_other_frameworks import to_tfjs

    for name, quantize in (("perceptron.h5", ""), ("convolutional-2.h5", "uint8")):
        path = place("tfjs", f"{Path(name).stem}/model.json")
        to_tfjs(KERAS_FILES / name, path.parent, quantize)
        place("tfjs", f"{Path(name).stem}/group1-shard1of2.bin")


def _quantized_folders(place: Any) -> None:
    import transformers

    sys.path.insert(0, str(KERAS_FILES.parent))
    from test_formats import METHODS, SMALL, rewritten

    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**SMALL, "vocab_size": 8}))
    with tempfile.TemporaryDirectory() as name:
        model.save_pretrained(Path(name) / "llama")
        for method, (quantize, settings) in METHODS.items():
            home = Path(name) / method
            home.mkdir()
            rewritten(Path(name) / "llama", home, quantize, settings)
            for file in ("config.json", "model.safetensors"):
                shutil.copy(home / "quantized" / file, place("quantized", f"{method}/{file}"))


def _diffusers_folders(place: Any) -> None:
    import diffusers

    sys.path.insert(0, str(KERAS_FILES.parent))
    from test_diffusers import CASES

    for case in ("images", "vae", "dit"):
        name, config, _ = CASES[case]
        for file in ("config.json", "diffusion_pytorch_model.safetensors"):
            path = place("diffusers", f"{case}/{file}")
        getattr(diffusers, name)(**config).save_pretrained(path.parent)


def _orbax_folders(folder: Path, place: Any) -> None:
    shutil.unpack_archive(KERAS_FILES.parent / "orbax_files.zip", folder / "orbax")
    for path in sorted((folder / "orbax").rglob("*")):
        kind = path.relative_to(folder / "orbax").parts[0]
        if kind in ("plain", "ocdbt", "zarr3") and path.is_file() and path.stat().st_size:
            place("orbax", str(path.relative_to(folder / "orbax")))


def _gguf_files(place: Any, rng: np.random.Generator) -> None:
    import gguf

    for kind, quantized in (("llama", "F32"), ("gemma2", "F16"), ("qwen3", "Q8_0")):
        writer = gguf.GGUFWriter(place("gguf", f"{kind}.gguf"), kind)
        for name, value in {"block_count": 1, "embedding_length": 32, "feed_forward_length": 64,
                            "attention.head_count": 4, "attention.head_count_kv": 2,
                            "attention.key_length": 8}.items():  # fmt: skip
            writer.add_uint32(f"{kind}.{name}", value)
        writer.add_array("tokenizer.ggml.tokens", ["a", "b"])
        shapes = {"attn_q": (32, 32), "attn_k": (16, 32), "attn_v": (16, 32),
                  "attn_output": (32, 32), "ffn_gate": (64, 32), "ffn_up": (64, 32),
                  "ffn_down": (32, 64), "attn_norm": (32,), "ffn_norm": (32,)}  # fmt: skip
        if kind == "gemma2":
            shapes |= {"post_attention_norm": (32,), "post_ffw_norm": (32,)}
        if kind == "qwen3":
            shapes |= {"attn_q_norm": (8,), "attn_k_norm": (8,)}
        names = {f"blk.0.{name}.weight": shape for name, shape in shapes.items()}
        names |= {"token_embd.weight": (10, 32), "output_norm.weight": (32,)}
        for name, shape in names.items():
            values = rng.normal(size=shape).astype("f4")
            if quantized == "Q8_0" and len(shape) == 2:
                q8 = gguf.GGMLQuantizationType.Q8_0
                writer.add_tensor(name, gguf.quants.quantize(values, q8), raw_dtype=q8)
            else:
                writer.add_tensor(name, values.astype("f2" if quantized == "F16" else "f4"))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def _torchscript_files(place: Any) -> None:
    import torch

    dense = torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.ReLU(), torch.nn.Linear(6, 4))
    norm = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4),
                               torch.nn.Conv2d(4, 5, 3)).eval()  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, module in (("dense", dense), ("conv", norm)):
            torch.jit.save(torch.jit.script(module), place("jit", f"{name}.jit"))


def _scan(folder: Path, place: Any, models: dict[str, Any]) -> None:
    runs = folder / "runs"
    runs.mkdir()
    for number in range(2):
        np.savez(runs / f"a-{number}.npz", **models["dense"])
    np.savez(runs / "bad.npz", np.zeros(3))
    results = folder / "scan" / "results"
    stopped = False

    def stop(counts: Any) -> None:
        nonlocal stopped
        if counts.shuffles_done == 5 and not stopped:
            stopped = True
            raise KeyboardInterrupt

    options: dict[str, Any] = {"k": 2, "shuffles": 4, "jobs": 1, "backend": "threading"}
    with contextlib.suppress(KeyboardInterrupt):  # so that there is a journal
        ncut.scan(runs, results, progress=stop, **options)
    for path in sorted(results.rglob("*")):
        if path.is_file() and path.name != "lock":
            place("scan", str(path.relative_to(folder / "scan")))
