"""Files as people have them: their content decides, and one network is one graph in all of them."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ncut
from ncut.errors import InputError, ModelError
from ncut.extract.formats import FORMATS, REFUSED, format_of

torch = pytest.importorskip("torch", reason="pip install torch")

RNG = np.random.default_rng(0)


def perceptron(*sizes: int) -> torch.nn.Sequential:
    torch.manual_seed(0)
    layers: list[torch.nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        layers += [torch.nn.Linear(n_in, n_out), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def same(graph: ncut.NeuronGraph, other: ncut.NeuronGraph, rtol: float = 1e-6) -> None:
    """The same vertices and edges."""
    assert [layer.size for layer in graph.layers] == [layer.size for layer in other.layers]
    a, b = graph.adjacency.toarray(), other.adjacency.toarray()
    np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.abs(b).max())


# --- the registry -------------------------------------------------------------------------------


def test_formats_are_recognized_by_content(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    model = perceptron(8, 12, 6, 4)
    torch.save(model.state_dict(), tmp_path / "zip")
    torch.save(model.state_dict(), tmp_path / "old", _use_new_zipfile_serialization=False)
    save_file(model.state_dict(), tmp_path / "safe")
    np.savez(tmp_path / "many.npz", **{k: v.numpy() for k, v in model.state_dict().items()})
    (tmp_path / "many.npz").rename(tmp_path / "many")
    for name, found in {"zip": "PyTorch", "old": "PyTorch", "safe": "safetensors",
                        "many": "NumPy"}.items():  # fmt: skip
        for suffix in ("", ".bin", ".ckpt", ".onnx", ".gguf"):
            path = (tmp_path / name).rename(tmp_path / f"x{suffix}")
            assert format_of(path).name == found
            same(ncut.graph(path), ncut.graph(model))
            path.rename(tmp_path / name)


def test_every_format_has_an_entry_and_every_refusal_an_alternative() -> None:
    suffixes = [suffix for found in FORMATS for suffix in found.suffixes]
    marks = [mark for refused in REFUSED for mark in refused.marks]
    assert len(set(suffixes + marks)) == len(suffixes + marks)
    assert all(found.about and found.what for found in FORMATS)
    assert all(len(refused.way) > 10 for refused in REFUSED)


@pytest.mark.parametrize("refused", REFUSED, ids=lambda r: r.name)
def test_unread_formats_name_an_alternative(refused: Any, tmp_path: Path) -> None:
    for mark in refused.marks:
        path = tmp_path / (f"model{mark}" if mark.startswith(".") else mark)
        path.write_bytes(b"\x08\x01")
        with pytest.raises(ModelError, match="is not read; ") as error:
            ncut.graph(path)
        assert refused.way in str(error.value)
        if not mark.startswith("."):
            with pytest.raises(ModelError, match="is not read; "):
                ncut.graph(tmp_path)
        path.unlink()


def test_contents_of_formats_that_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(b"\x1c\0\0\0ORTM" + bytes(100))
    with pytest.raises(ModelError, match=r"ONNX Runtime.* is not read; "):
        ncut.graph(path)


# --- PyTorch ------------------------------------------------------------------------------------


def test_a_checkpoint_with_several_networks_is_read_by_key(tmp_path: Path) -> None:
    one, two = perceptron(8, 12, 4), perceptron(8, 10, 4)
    nested = {"nets": {"actor": one.state_dict(), "critic": two.state_dict()}, "step": 3}
    torch.save(nested, tmp_path / "a.pt")
    with pytest.raises(
        ModelError, match=r"several state dicts, 'nets/actor', 'nets/critic'.*--key"
    ):
        ncut.graph(tmp_path / "a.pt")
    same(ncut.graph(tmp_path / "a.pt", key="nets/critic"), ncut.graph(two))
    same(ncut.graph(nested, key="nets/actor"), ncut.graph(one))
    with pytest.raises(InputError, match=r"no 'nets/critc' in .*did you mean 'nets/critic'"):
        ncut.graph(tmp_path / "a.pt", key="nets/critc")
    with pytest.raises(InputError, match="key: has no effect on a module"):
        ncut.graph(one, key="a")


def test_an_average_beside_the_weights_is_named(tmp_path: Path) -> None:
    model, average = perceptron(8, 12, 4), perceptron(8, 12, 4)
    with torch.no_grad():
        for weight in average.parameters():
            weight.mul_(0.5)
    state = {"state_dict": model.state_dict(), "state_dict_ema": average.state_dict()}
    torch.save(state, tmp_path / "a.pth")
    with pytest.warns(UserWarning, match=r"read 'state_dict'; there are also 'state_dict_ema'"):
        same(ncut.graph(tmp_path / "a.pth"), ncut.graph(model))
    same(ncut.graph(tmp_path / "a.pth", key="state_dict_ema"), ncut.graph(average))


def test_a_key_may_be_what_names_begin_with(tmp_path: Path) -> None:
    model, average = perceptron(8, 12, 4), perceptron(8, 12, 4)
    both = {f"net.{k}": v for k, v in model.state_dict().items()}
    both |= {f"net_ema.{k}": 0.9 * v for k, v in average.state_dict().items()}
    torch.save({"state_dict": both, "epoch": 3}, tmp_path / "a.ckpt")
    with pytest.raises(ModelError, match=r"copy of the other"):
        ncut.graph(tmp_path / "a.ckpt")
    same(ncut.graph(tmp_path / "a.ckpt", key="net"), ncut.graph(model))


def test_states_of_optimizers_are_no_networks(tmp_path: Path) -> None:
    model = perceptron(8, 12, 4)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(2, 8)).sum().backward()
    optimizer.step()
    state = {"params": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(state, tmp_path / "a.pt")
    same(ncut.graph(tmp_path / "a.pt"), ncut.graph(model))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_is_read_by_its_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 5, 3), torch.nn.BatchNorm2d(5), torch.nn.ReLU(), torch.nn.Conv2d(5, 4, 1)
    ).eval()
    model[1].running_var.uniform_(0.5, 2)
    for script in (torch.jit.script(model), torch.jit.trace(model, torch.zeros(1, 3, 8, 8))):
        torch.jit.save(script, tmp_path / "a.pt")
        same(
            ncut.graph(tmp_path / "a.pt", scope="all"), ncut.graph(model.state_dict(), scope="all")
        )
    half = torch.jit.script(perceptron(8, 12, 4).to(torch.bfloat16))
    torch.jit.save(half, tmp_path / "b.jit")
    same(ncut.graph(tmp_path / "b.jit"), ncut.graph(perceptron(8, 12, 4)), 0.01)


def test_pickles_in_torchscript_archives_run_nothing(tmp_path: Path) -> None:
    import pickle
    import zipfile

    from ncut.extract.readers.torchscript import read_torchscript

    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "ran",)

    attacks = [
        pickle.dumps(Evil(), 2),
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x01\0\0\0aK\x01sb.",  # sets an attribute
        b"\x80\x02ctorch.jit._pickle\nsystem\n.",
    ]
    for content in attacks:
        with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
            archive.writestr("a/data.pkl", content)
            archive.writestr("a/constants.pkl", b"")
        with pytest.raises(ModelError, match=r"data\.pkl is damaged: (names|sets)"):
            read_torchscript(tmp_path / "a.pt")
    assert not (tmp_path / "ran").exists()


# --- quantized folders and adapters -------------------------------------------------------------

SMALL = {
    "vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 64, "max_position_embeddings": 16,
    "tie_word_embeddings": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small Llama."""
    transformers = pytest.importorskip("transformers", reason="pip install transformers")
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL))
    folder = tmp_path_factory.mktemp("llama")
    model.save_pretrained(folder)
    return folder


def packed(values: np.ndarray[Any, Any], bits: int, axis: int) -> np.ndarray[Any, Any]:
    """Whole numbers as parts of 32 bits along an axis, the lowest bits first."""
    moved = np.moveaxis(values.astype(np.uint32), axis, -1)
    parts = moved.reshape(*moved.shape[:-1], -1, 32 // bits)
    words = sum(parts[..., at].astype(np.uint64) << (at * bits) for at in range(32 // bits))
    return np.moveaxis(np.asarray(words).astype(np.uint32).view(np.int32), -1, axis)


def gptq(weight: Any) -> tuple[dict[str, Any], Any]:
    q = RNG.integers(0, 16, weight.T.shape)
    zero = RNG.integers(1, 16, (weight.shape[1] // 16, weight.shape[0]))
    scale = RNG.uniform(0.01, 0.1, zero.shape).astype(np.float32)
    groups = RNG.permutation(np.arange(weight.shape[1]) // 16).astype(np.int32)
    parts = {"qweight": packed(q, 4, 0), "qzeros": packed(zero - 1, 4, 1), "scales": scale,
             "g_idx": groups}  # fmt: skip
    return parts, ((q - zero[groups]) * scale[groups]).T


def awq(weight: Any) -> tuple[dict[str, Any], Any]:
    order = [0, 2, 4, 6, 1, 3, 5, 7]  # `AWQ_ORDER` of AutoAWQ: column order[i] lies at place i

    def pack(values: Any) -> Any:
        shuffled = values.reshape(len(values), -1, 8)[:, :, order].reshape(len(values), -1)
        return packed(shuffled, 4, 1)

    q = RNG.integers(0, 16, weight.T.shape)
    zero = RNG.integers(0, 16, (weight.shape[1] // 16, weight.shape[0]))
    scale = RNG.uniform(0.01, 0.1, zero.shape).astype(np.float32)
    wide = [np.repeat(values, 16, axis=0) for values in (zero, scale)]
    parts = {"qweight": pack(q), "qzeros": pack(zero), "scales": scale}
    return parts, ((q - wide[0]) * wide[1]).T


def int8(weight: Any) -> tuple[dict[str, Any], Any]:
    q = RNG.integers(-127, 128, weight.shape).astype(np.int8)
    scale = RNG.uniform(0.5, 2, len(weight)).astype(np.float32)
    return {"weight": q, "SCB": scale}, q * scale[:, None] / 127


def nf4(weight: Any) -> tuple[dict[str, Any], Any]:
    code = np.sort(RNG.uniform(-1, 1, 16)).astype(np.float32)
    outer_code = np.sort(RNG.uniform(-1, 1, 256)).astype(np.float32)
    n_blocks = weight.size // 64
    at = RNG.integers(0, 256, n_blocks).astype(np.uint8)
    outer = RNG.uniform(1, 2, -(-n_blocks // 256)).astype(np.float32)
    state = {"quant_type": "nf4", "blocksize": 64, "shape": list(weight.shape),
             "nested_blocksize": 256, "nested_offset": 0.25}  # fmt: skip
    q = RNG.integers(0, 16, weight.size)
    absmax = outer_code[at] * outer[np.arange(n_blocks) // 256] + 0.25
    parts = {
        "weight": (q[::2] * 16 + q[1::2]).astype(np.uint8)[:, None], "weight.absmax": at,
        "weight.quant_map": code, "weight.nested_absmax": outer,
        "weight.nested_quant_map": outer_code,
        "weight.quant_state.bitsandbytes__nf4": np.frombuffer(json.dumps(state).encode(), np.uint8),
    }  # fmt: skip
    return parts, (code[q].reshape(-1, 64) * absmax[:, None]).reshape(weight.shape)


def pack_quantized(weight: Any) -> tuple[dict[str, Any], Any]:
    q = RNG.integers(-8, 8, weight.shape)
    scale = RNG.uniform(0.01, 0.1, (len(weight), weight.shape[1] // 16)).astype(np.float32)
    parts = {"weight_packed": packed(q + 8, 4, 1), "weight_scale": scale,
             "weight_shape": np.array(weight.shape, np.int64)}  # fmt: skip
    return parts, q * np.repeat(scale, 16, axis=1)


def per_channel(weight: Any) -> tuple[dict[str, Any], Any]:
    q = RNG.integers(-127, 128, weight.shape).astype(np.int8)
    scale = RNG.uniform(0.01, 0.1, (len(weight), 1)).astype(np.float32)
    return {"weight": q, "weight_scale": scale}, q * scale


def mlx(weight: Any) -> tuple[dict[str, Any], Any]:
    q = RNG.integers(0, 16, weight.shape)
    scale = RNG.uniform(0.01, 0.1, (len(weight), weight.shape[1] // 32)).astype(np.float32)
    bias = RNG.normal(size=scale.shape).astype(np.float32)
    wide = [np.repeat(values, 32, axis=1) for values in (scale, bias)]
    parts = {"weight": packed(q, 4, 1).view(np.uint32), "scales": scale, "biases": bias}
    return parts, q * wide[0] + wide[1]


def fp8(weight: Any) -> tuple[dict[str, Any], Any]:
    import ml_dtypes

    q = RNG.normal(size=weight.shape).astype(ml_dtypes.float8_e4m3fn)
    scale = np.array([[0.03]], np.float32)
    return {"weight": q, "weight_scale_inv": scale}, q.astype(np.float32) * scale


def nvfp4(weight: Any) -> tuple[dict[str, Any], Any]:
    import ml_dtypes

    table = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])
    q = RNG.integers(0, 16, weight.shape)
    scale = RNG.uniform(1, 9, (len(weight), weight.shape[1] // 16)).astype(ml_dtypes.float8_e4m3fn)
    parts = {"weight_packed": (q[:, ::2] + 16 * q[:, 1::2]).astype(np.uint8), "weight_scale": scale,
             "weight_global_scale": np.array([50], np.float32)}  # fmt: skip
    return parts, table[q] * np.repeat(scale.astype(np.float32), 16, axis=1) / 50


def hqq(weight: Any) -> tuple[dict[str, Any], Any]:
    q = RNG.integers(0, 16, (weight.size // 16, 16)).astype(np.uint8)
    half = len(q) // 2
    scale, zero = (RNG.uniform(1, 2, (len(q), 1)).astype(np.float32) for _ in range(2))
    parts = {"W_q": q[:half] * 16 + q[half:], "scale": scale, "zero": zero,
             "shape": np.array(weight.shape), "packing": np.frombuffer(b"4bit_u8", np.uint8),
             "axis": np.array(1, np.int32), "nbits": np.array(4, np.int32)}  # fmt: skip
    return parts, ((q - zero) * scale).reshape(weight.shape)


def compressed(**weights: Any) -> dict[str, Any]:
    """Settings of compressed-tensors."""
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    return {"quant_method": "compressed-tensors", "config_groups": groups}


METHODS: dict[str, tuple[Any, dict[str, Any]]] = {
    "gptq": (gptq, {"quant_method": "gptq", "bits": 4, "group_size": 16}),
    "awq": (awq, {"quant_method": "awq", "bits": 4, "group_size": 16, "version": "gemm"}),
    "bitsandbytes int8": (int8, {"quant_method": "bitsandbytes", "load_in_8bit": True}),
    "bitsandbytes nf4": (nf4, {"quant_method": "bitsandbytes", "load_in_4bit": True}),
    "packed": (pack_quantized, compressed(num_bits=4, strategy="group", group_size=16)),
    "int8": (per_channel, compressed(num_bits=8, strategy="channel")),
    "nvfp4": (nvfp4, compressed(num_bits=4, type="float", strategy="tensor_group", group_size=16)),
    "fp8": (fp8, {"quant_method": "fp8"}),
    "hqq": (hqq, {"quant_method": "hqq"}),
    "mlx": (mlx, {"bits": 4, "group_size": 32}),
}


def rewritten(folder: Path, to: Path, quantize: Any, settings: dict[str, Any]) -> ncut.NeuronGraph:
    """Write a folder with quantized layers; the graph of the same numbers unquantized."""
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    plain, quantized = dict(tensors), dict(tensors)
    for name, weight in tensors.items():
        if "_proj" in name:
            parts, plain[name] = quantize(weight)
            del quantized[name]
            layer = name.removesuffix(".weight")
            quantized |= {f"{layer}.{part}": np.ascontiguousarray(v) for part, v in parts.items()}
    config = json.loads((folder / "config.json").read_text())
    for where, content in (("plain", plain), ("quantized", quantized)):
        (to / where).mkdir()
        stored = {k: np.ascontiguousarray(v).astype(np.float32) if where == "plain" else v
                  for k, v in content.items()}  # fmt: skip
        save_file(stored, to / where / "model.safetensors")
        key = "quantization_config" if "quant_method" in settings else "quantization"
        said = config if where == "plain" else config | {key: settings}
        (to / where / "config.json").write_text(json.dumps(said))
    return ncut.graph(to / "plain")


@pytest.mark.parametrize("method", METHODS)
def test_quantized_folders_have_the_graph_of_their_numbers(
    method: str, llama: Path, tmp_path: Path
) -> None:
    expected = rewritten(llama, tmp_path, *METHODS[method])
    graph = ncut.graph(tmp_path / "quantized")
    same(graph, expected, 1e-5)
    assert graph.placed_share == expected.placed_share


@pytest.mark.parametrize(("bits", "group"), [(4, 32), (4, 64), (8, 32), (8, 64), (2, 32)])
def test_folders_as_mlx_lm_writes_them(bits: int, group: int, llama: Path, tmp_path: Path) -> None:
    """`mx.quantize`: w = scale q + bias by groups of a row, q the lowest bits first in uint32."""
    from safetensors.numpy import load_file, save_file

    plain, stored = {}, {}
    for name, weight in load_file(llama / "model.safetensors").items():
        if weight.ndim < 2 or weight.shape[1] % group:
            plain[name] = stored[name] = weight
            continue
        groups = weight.reshape(len(weight), -1, group)
        low, high = groups.min(-1), groups.max(-1)
        scale = ((high - low) / (2**bits - 1)).astype(np.float16)
        low = low.astype(np.float16)
        q = np.round((groups - low[..., None]) / scale[..., None]).clip(0, 2**bits - 1)
        layer = name.removesuffix(".weight")
        words = packed(q.reshape(weight.shape), bits, 1).view(np.uint32)
        stored |= {f"{layer}.weight": words, f"{layer}.scales": scale, f"{layer}.biases": low}
        values = q * scale[..., None].astype("f4") + low[..., None].astype("f4")
        plain[name] = values.reshape(weight.shape).astype("f4")
    assert len(stored) > len(plain)
    config = json.loads((llama / "config.json").read_text())
    said = {"group_size": group, "bits": bits, "mode": "affine"}
    for where, content, more in (
        ("plain", plain, {}), ("mlx", stored, {"quantization": said, "quantization_config": said}),
    ):  # fmt: skip
        (tmp_path / where).mkdir()
        save_file(content, tmp_path / where / "model.safetensors")
        (tmp_path / where / "config.json").write_text(json.dumps(config | more))
    same(ncut.graph(tmp_path / "mlx"), ncut.graph(tmp_path / "plain"), 1e-5)


def test_quantizations_that_are_not_known_are_refused_by_name(llama: Path, tmp_path: Path) -> None:
    rewritten(llama, tmp_path, gptq, {"quant_method": "aqlm"})
    with pytest.raises(ModelError, match="quantized by 'aqlm' are not read; known are gptq, awq"):
        ncut.graph(tmp_path / "quantized")


def test_a_folder_of_pytorch_files(llama: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    state = load_file(llama / "model.safetensors")
    (tmp_path / "config.json").write_text((llama / "config.json").read_text())
    torch.save(state, tmp_path / "pytorch_model.bin")
    same(ncut.graph(tmp_path), ncut.graph(llama))
    (tmp_path / "pytorch_model.bin").rename(tmp_path / "one.bin")
    index = {"weight_map": dict.fromkeys(state, "one.bin")}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    same(ncut.graph(tmp_path), ncut.graph(llama))


@pytest.mark.parametrize("more", [{}, {"use_rslora": True}, {"alpha_pattern": {"q_proj": 3}}])
def test_an_adapter_is_merged_into_its_base(
    more: dict[str, Any], llama: Path, tmp_path: Path
) -> None:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(llama / "model.safetensors")
    merged, lora = dict(tensors), {}
    for name, weight in tensors.items():
        if "q_proj" in name or "v_proj" in name:
            a, b = RNG.normal(size=(4, weight.shape[1])), RNG.normal(size=(weight.shape[0], 4))
            layer = name.removesuffix(".weight")
            lora[f"base_model.model.{layer}.lora_A.weight"] = a.astype(np.float32)
            lora[f"base_model.model.{layer}.lora_B.weight"] = b.astype(np.float32)
            alpha = 3 if more.get("alpha_pattern") and "q_proj" in name else 16
            scale = alpha / (2 if more.get("use_rslora") else 4)
            merged[name] = (weight + scale * b @ a).astype(np.float32)
    adapter, whole = tmp_path / "adapter", tmp_path / "whole"
    adapter.mkdir(), whole.mkdir()
    settings = {
        "peft_type": "LORA",
        "r": 4,
        "lora_alpha": 16,
        "base_model_name_or_path": str(llama),
    }
    (adapter / "adapter_config.json").write_text(json.dumps(settings | more))
    save_file(lora, adapter / "adapter_model.safetensors")
    save_file(merged, whole / "model.safetensors")
    (whole / "config.json").write_text((llama / "config.json").read_text())
    same(ncut.graph(adapter), ncut.graph(whole), 1e-5)
    (adapter / "adapter_config.json").write_text(
        json.dumps(settings | {"base_model_name_or_path": "meta-llama/x"})
    )
    with pytest.raises(ModelError, match="the base model 'meta-llama/x' is no folder here"):
        ncut.graph(adapter)


# --- GGUF ---------------------------------------------------------------------------------------

ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "mistral": ("Mistral", {"sliding_window": None}),
    "qwen2": ("Qwen2", {}),
    "qwen3": ("Qwen3", {"head_dim": 8}),
    "gemma": ("Gemma", {"head_dim": 8}),
    "gemma2": ("Gemma2", {"head_dim": 8}),
    "gemma3": ("Gemma3", {"head_dim": 8}),
    "phi3": ("Phi3", {"pad_token_id": 0}),
    "mixtral": ("Mixtral", {"num_local_experts": 3, "num_experts_per_tok": 2}),
}


def permute(weight: np.ndarray[Any, Any], n_heads: int) -> np.ndarray[Any, Any]:
    """The permutation of Llama's queries and keys by llama.cpp's convert_hf_to_gguf.py."""
    rows, *rest = weight.shape
    halves = weight.reshape(n_heads, 2, rows // n_heads // 2, *rest)
    return halves.swapaxes(1, 2).reshape(weight.shape)


def folder_of(kind: str, to: Path) -> tuple[Path, dict[str, Any], Any]:
    """Write a small random model; its folder, its tensors, and its configuration."""
    transformers = pytest.importorskip("transformers", reason="pip install transformers")
    from safetensors.torch import load_file

    name, more = ARCHITECTURES[kind]
    suffix = "Text" if kind == "gemma3" else ""
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}{suffix}Config")(**{
        **SMALL, "tie_word_embeddings": kind.startswith("gemma"), **more})  # fmt: skip
    model = getattr(transformers, f"{name}ForCausalLM")(config)
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if "norm" in key:
                weight.add_(torch.rand_like(weight))
    model.save_pretrained(to)
    tensors = {k: v.float().numpy() for k, v in load_file(to / "model.safetensors").items()}
    return to, tensors, config


def write_gguf(path: Path, kind: str, tensors: dict[str, Any], config: Any, quantize: str) -> None:
    """Write tensors as llama.cpp's converter does, with the package's own table of names."""
    gguf = pytest.importorskip("gguf", reason="pip install gguf")
    architecture = "llama" if kind in ("mistral", "mixtral") else kind
    arch = next(a for a, n in gguf.MODEL_ARCH_NAMES.items() if n == architecture)
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    if getattr(config, "head_dim", None):
        writer.add_key_length(config.head_dim)
    if kind == "mixtral":
        writer.add_expert_count(config.num_local_experts)
    writer.add_token_list(["<s>"] * config.vocab_size)
    writer.add_token_scores([0.0] * config.vocab_size)
    experts: dict[str, list[Any]] = {}
    for name, weight in sorted(tensors.items()):
        if ".experts." in name:
            block, part = name.split(".block_sparse_moe.experts.")[0], name.split(".")[-2]
            experts.setdefault(f"{block}.block_sparse_moe.experts.{part}.weight", []).append(weight)
            continue
        if architecture == "llama" and ("q_proj" in name or "k_proj" in name):
            key = "q_proj" in name
            weight = permute(
                weight, config.num_attention_heads if key else config.num_key_value_heads
            )
        if kind.startswith("gemma") and name.endswith("norm.weight"):
            weight = weight + 1
        add(writer, gguf, names.get_name(name, (".weight", ".bias")), weight, quantize)
    for name, stacked in experts.items():
        add(writer, gguf, names.get_name(name, (".weight",)), np.stack(stacked), quantize)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add(writer: Any, gguf: Any, name: str, weight: Any, quantize: str) -> None:
    assert name is not None
    kind = gguf.GGMLQuantizationType[quantize]
    if weight.ndim == 1 or quantize in ("F32", "F16"):
        kept = weight.ndim > 1 and quantize == "F16"
        writer.add_tensor(name, weight.astype(np.float16 if kept else np.float32))
    else:
        data = gguf.quants.quantize(np.ascontiguousarray(weight, np.float32), kind)
        writer.add_tensor(name, data, raw_dtype=kind)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_gguf_files_have_the_graph_of_their_folder(kind: str, tmp_path: Path) -> None:
    folder, tensors, config = folder_of(kind, tmp_path / "folder")
    write_gguf(tmp_path / "model.gguf", kind, tensors, config, "F32")
    for residual in ("stream", "readers"):
        graph = ncut.graph(tmp_path / "model.gguf", residual=residual)
        expected = ncut.graph(folder, residual=residual)
        same(graph, expected, 1e-5)
        assert graph.placed_share == expected.placed_share


def test_a_folder_of_experts_has_the_edges_of_its_module(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="pip install transformers")
    folder, _, _ = folder_of("mixtral", tmp_path)
    module = transformers.MixtralForCausalLM.from_pretrained(folder, dtype=torch.float32)
    one, two = (ncut.graph(model).adjacency for model in (folder, module))
    np.testing.assert_allclose(np.sort(one.data), np.sort(two.data), rtol=1e-5)
    np.testing.assert_allclose(np.sort(one.sum(axis=0)), np.sort(two.sum(axis=0)), rtol=1e-5)


@pytest.mark.parametrize(
    ("quantize", "rtol"),
    [("F16", 1e-3), ("BF16", 1e-2), ("Q8_0", 0.01), ("Q5_1", 0.1), ("Q5_0", 0.1), ("Q4_1", 0.2),
     ("Q4_0", 0.2)],
)  # fmt: skip
def test_quantized_gguf_files(quantize: str, rtol: float, tmp_path: Path) -> None:
    folder, tensors, config = folder_of("llama", tmp_path / "folder")
    write_gguf(tmp_path / "model", "llama", tensors, config, quantize)
    same(ncut.graph(tmp_path / "model"), ncut.graph(folder), rtol)


def test_gguf_tensors_are_what_the_library_reads(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf", reason="pip install gguf")
    from ncut.extract.readers.gguf_file import header, lazy_tensor

    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    for kind in gguf.quants._type_traits:
        n_block, n_bytes = gguf.GGML_QUANT_SIZES[kind]
        rows = RNG.integers(0, 100, (3, max(256 // n_block, 2) * n_bytes)).astype(np.uint8)
        writer.add_tensor(kind.name, rows, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    content = np.fromfile(tmp_path / "a.gguf", np.uint8)
    _, tensors, start = header(content)
    reader = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "a.gguf").tensors}
    assert {tensor.name for tensor in tensors} == set(reader)
    for tensor in tensors:
        expected = reader[tensor.name]
        values = gguf.quants.dequantize(expected.data, expected.tensor_type)
        np.testing.assert_array_equal(np.asarray(lazy_tensor(content, tensor, start)), values)


def test_gguf_files_that_are_refused(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf", reason="pip install gguf")
    path = tmp_path / "a.gguf"

    def write(architecture: str, **settings: int) -> None:
        writer = gguf.GGUFWriter(path, architecture)
        for name, value in settings.items():
            writer.add_uint32(name.replace("__", "."), value)
        writer.add_tensor("token_embd.weight", np.ones((4, 4), np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    write("mamba")
    with pytest.raises(ModelError, match="architecture 'mamba' is not known; known are llama"):
        ncut.graph(path)
    write("llama", split__count=3)
    with pytest.raises(ModelError, match="one part of a model in several files"):
        ncut.graph(path)
    write("llama")
    with pytest.raises(ModelError, match=r"has no 'attention\.head_count', which"):
        ncut.graph(path)
    content = path.read_bytes()
    for size in (5, 30, 100, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(ModelError, match="truncated"):
            ncut.graph(path)
    path.write_bytes(content[:4] + b"\0\0\0\3" + content[8:])
    with pytest.raises(ModelError, match="big-endian"):
        ncut.graph(path)


# --- inputs of ONNX files -----------------------------------------------------------------------


@pytest.fixture
def branching(tmp_path: Path) -> Path:
    """A model whose scalar input chooses one of two layers, on a sequence of open length."""
    onnx = pytest.importorskip("onnx", reason="pip install onnx")
    from onnx import TensorProto, helper, numpy_helper

    def weight(name: str, *shape: int) -> Any:
        return numpy_helper.from_array(RNG.normal(size=shape).astype("f4"), name)

    def value(name: str, kind: int, shape: list[Any]) -> Any:
        return helper.make_tensor_value_info(name, kind, shape)

    def branch(name: str, n_out: int) -> Any:
        node = helper.make_node("MatMul", ["r", name], [f"{name}o"], name=name)
        result = value(f"{name}o", TensorProto.FLOAT, None)
        return helper.make_graph([node], f"b{name}", [], [result], [weight(name, 8, n_out)])

    nodes = [
        helper.make_node("MatMul", ["x", "A"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Equal", ["rate", "k"], ["c"]),
        helper.make_node(
            "If", ["c"], ["y"], then_branch=branch("P", 3), else_branch=branch("Q", 5)
        ),
    ]
    constants = [weight("A", 4, 8), numpy_helper.from_array(np.array(16000), "k")]
    graph = helper.make_graph(
        nodes, "g", [value("x", TensorProto.FLOAT, ["n", 4]), value("rate", TensorProto.INT64, [])],
        [value("y", TensorProto.FLOAT, None)], constants,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "a.onnx")
    return tmp_path / "a.onnx"


def sizes(graph: ncut.NeuronGraph) -> list[int]:
    return [layer.size for layer in graph.layers]


def test_values_of_onnx_inputs_choose_branches(branching: Path) -> None:
    with pytest.warns(UserWarning, match=r"took rate = 16000, which chooses a branch.*--input"):
        assert sizes(ncut.graph(branching)) == [4, 8, 3]
    for rate, n_out in ((16000, 3), (8000, 5)):
        example = {"rate": np.array(rate), "x": (7, 4)}
        assert sizes(ncut.graph(branching, example_inputs=example)) == [4, 8, n_out]
    for wrong, message in (
        ({"y": (1,)}, r"no input 'y'; the model has 'x' \(n, 4\)"),
        ({"x": (1, 2, 3)}, r"'x' has sizes \(1, 2, 3\)"),
        ([1], "pass a mapping from names"),
    ):
        with pytest.raises(InputError, match=message):
            ncut.graph(branching, example_inputs=wrong)


def test_inputs_and_keys_on_the_command_line(branching: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from ncut.cli import app

    runner = CliRunner()
    done = runner.invoke(app, ["info", str(branching), "--input", "rate:=8000", "--input", "x=2x4"])
    assert done.exit_code == 0, done.output
    assert "17" in done.output
    wrong = runner.invoke(app, ["info", str(branching), "--input", "x"])
    assert wrong.exit_code == 2
    nets = {"a": perceptron(8, 12, 4).state_dict(), "b": perceptron(8, 10, 4).state_dict()}
    torch.save(nets, tmp_path / "a.pt")
    assert runner.invoke(app, ["info", str(tmp_path / "a.pt")]).exit_code == 1
    assert runner.invoke(app, ["info", str(tmp_path / "a.pt"), "--key", "b"]).exit_code == 0


def test_formats_are_listed() -> None:
    from typer.testing import CliRunner

    from ncut.cli import app

    listed = CliRunner().invoke(app, ["formats"]).output
    for entry in (*FORMATS, *REFUSED):
        assert entry.name in listed
