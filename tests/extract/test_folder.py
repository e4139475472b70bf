"""Folders of transformers: the same graph as that of the model that was saved, and bad folders."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse

import ncut
from ncut.errors import InputError, ModelError
from ncut.extract.assembly.assemble import assemble
from ncut.extract.lowering.kinds import lower
from ncut.extract.lowering.merging import Merging
from ncut.extract.program.record import Program
from ncut.extract.readers.folder import read_folder
from ncut.extract.readers.folder.families import FAMILIES
from ncut.graphs import NeuronGraph
from ncut.types import Block

torch = pytest.importorskip("torch", reason="pip install torch")
transformers = pytest.importorskip("transformers", reason="pip install transformers")

SMALL = {
    "vocab_size": 23, "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 14, "max_position_embeddings": 10, "bos_token_id": 0, "eos_token_id": 1,
    "pad_token_id": 0,
}  # fmt: skip
GROUPED = {**SMALL, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4}
IMAGES = {
    "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 14,
    "image_size": 4, "patch_size": 2,
}  # fmt: skip
TALL = {
    "vocab_size": 23, "d_model": 12, "encoder_layers": 1, "decoder_layers": 2,
    "encoder_attention_heads": 2, "decoder_attention_heads": 3, "encoder_ffn_dim": 14,
    "decoder_ffn_dim": 15, "max_position_embeddings": 10, "bos_token_id": 0, "eos_token_id": 1,
    "pad_token_id": 0, "decoder_start_token_id": 0,
}  # fmt: skip
T5 = {
    "vocab_size": 23, "d_model": 12, "d_kv": 5, "d_ff": 14, "num_layers": 1,
    "num_decoder_layers": 2, "num_heads": 2, "decoder_start_token_id": 0,
}  # fmt: skip
WHISPER = {
    **TALL, "max_source_positions": 8, "max_target_positions": 9, "num_mel_bins": 6,
    "begin_suppress_tokens": None, "suppress_tokens": None,
}  # fmt: skip
DISTIL = {
    "vocab_size": 23, "dim": 12, "n_layers": 2, "n_heads": 2, "hidden_dim": 14,
    "max_position_embeddings": 10,
}  # fmt: skip
GPT2 = {
    "vocab_size": 23, "n_embd": 12, "n_layer": 2, "n_head": 2, "n_positions": 10,
    "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip
OPT = {
    "vocab_size": 23, "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2,
    "ffn_dim": 14, "max_position_embeddings": 10, "word_embed_proj_dim": 12,
}  # fmt: skip
BLOOM = {"vocab_size": 23, "hidden_size": 12, "n_layer": 2, "n_head": 2}
CLIP: dict[str, Any] = {
    "text_config": {**SMALL, "projection_dim": 7}, "projection_dim": 7,
    "vision_config": {**IMAGES, "projection_dim": 7},
}  # fmt: skip

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "BertModel": ("BertConfig", SMALL),
    "BertForMaskedLM": ("BertConfig", SMALL),
    "BertForPreTraining": ("BertConfig", SMALL),
    "BertForSequenceClassification": ("BertConfig", SMALL),
    "BertForTokenClassification": ("BertConfig", SMALL),
    "BertForQuestionAnswering": ("BertConfig", SMALL),
    "RobertaForMaskedLM": ("RobertaConfig", SMALL),
    "RobertaForSequenceClassification": ("RobertaConfig", SMALL),
    "XLMRobertaForMaskedLM": ("XLMRobertaConfig", SMALL),
    "CamembertModel": ("CamembertConfig", SMALL),
    "DistilBertModel": ("DistilBertConfig", DISTIL),
    "DistilBertForMaskedLM": ("DistilBertConfig", DISTIL),
    "DistilBertForSequenceClassification": ("DistilBertConfig", DISTIL),
    "ElectraModel": ("ElectraConfig", {**SMALL, "embedding_size": 9}),
    "ElectraForMaskedLM": ("ElectraConfig", {**SMALL, "embedding_size": 9}),
    "ElectraForPreTraining": ("ElectraConfig", {**SMALL, "embedding_size": 9}),
    "GPT2Model": ("GPT2Config", GPT2),
    "GPT2LMHeadModel": ("GPT2Config", GPT2),
    "GPTNeoXForCausalLM": ("GPTNeoXConfig", SMALL),
    "GPTNeoXModel": ("GPTNeoXConfig", {**SMALL, "use_parallel_residual": False}),
    "OPTForCausalLM": ("OPTConfig", OPT),
    "OPTModel": ("OPTConfig", {**OPT, "do_layer_norm_before": False, "word_embed_proj_dim": 8}),
    "BloomForCausalLM": ("BloomConfig", BLOOM),
    "BloomModel": ("BloomConfig", {**BLOOM, "apply_residual_connection_post_layernorm": True}),
    "LlamaModel": ("LlamaConfig", GROUPED),
    "LlamaForCausalLM": ("LlamaConfig", GROUPED),
    "MistralForCausalLM": ("MistralConfig", {**GROUPED, "tie_word_embeddings": True}),
    "Qwen2ForCausalLM": ("Qwen2Config", {**SMALL, "num_key_value_heads": 1}),
    "Qwen3ForCausalLM": ("Qwen3Config", GROUPED),
    "GemmaForCausalLM": ("GemmaConfig", GROUPED),
    "Gemma2ForCausalLM": ("Gemma2Config", GROUPED),
    "Gemma3ForCausalLM": ("Gemma3TextConfig", GROUPED),
    "Phi3ForCausalLM": ("Phi3Config", {**SMALL, "num_key_value_heads": 1}),
    "T5Model": ("T5Config", T5),
    "T5EncoderModel": ("T5Config", T5),
    "T5ForConditionalGeneration": ("T5Config", {**T5, "feed_forward_proj": "gated-gelu"}),
    "MT5ForConditionalGeneration": ("MT5Config", T5),
    "UMT5ForConditionalGeneration": ("UMT5Config", T5),
    "BartModel": ("BartConfig", TALL),
    "BartForConditionalGeneration": ("BartConfig", {**TALL, "scale_embedding": True}),
    "MBartForConditionalGeneration": ("MBartConfig", TALL),
    "WhisperModel": ("WhisperConfig", WHISPER),
    "WhisperForConditionalGeneration": ("WhisperConfig", WHISPER),
    "ViTModel": ("ViTConfig", IMAGES),
    "ViTForImageClassification": ("ViTConfig", IMAGES),
    "DeiTForImageClassification": ("DeiTConfig", IMAGES),
    "DeiTForImageClassificationWithTeacher": ("DeiTConfig", IMAGES),
    "Dinov2Model": ("Dinov2Config", IMAGES),
    "Dinov2ForImageClassification": ("Dinov2Config", {**IMAGES, "use_swiglu_ffn": True}),
    "CLIPModel": ("CLIPConfig", CLIP),
    "CLIPTextModelWithProjection": ("CLIPTextConfig", CLIP["text_config"]),
    "CLIPVisionModel": ("CLIPVisionConfig", CLIP["vision_config"]),
}

# Files have names of their own where a version of the package renamed its modules.
IN_FILES = {
    "ViT|DeiT": {
        r"encoder\.layer\.(\d)": r"layers.\1",
        r"attention\.attention\.(\w)\w+": r"attention.\1_proj",
        r"attention\.attention$": "attention",
        r"attention\.output\.dense": "attention.o_proj",
        r"intermediate\.dense": "mlp.fc1",
        r"(\d)\.output\.dense": r"\1.mlp.fc2",
    },
    "Dinov2": {
        r"attention\.attention\.(\w)\w+": r"attention.\1_proj",
        r"attention\.attention$": "attention",
        r"attention\.output\.dense": "attention.o_proj",
    },
    "GPTNeoX": {"embed_out": "lm_head"},
}


def build(name: str, **changes: Any) -> Any:
    config, settings = MODELS[name]
    torch.manual_seed(0)
    model = getattr(transformers, name)(getattr(transformers, config)(**{**settings, **changes}))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            # Norms at 1 and biases at 0 would hide what is done with them.
            values = torch.rand(parameter.shape, generator=generator) + 0.5
            parameter.copy_(values)
    return model.eval()


def save(model: Any, folder: Path, **options: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(folder, **options)
    return folder


def read(folder: Path, residual: str | None = None) -> NeuronGraph:
    wiring, shapes = read_folder(folder, partial(lower, residual=residual))
    return assemble(wiring, parameters=shapes)


def renamed(name: str, text: str) -> str:
    for kinds, pairs in IN_FILES.items():
        if re.match(kinds, name):
            for pattern, new in pairs.items():
                text = re.sub(pattern, new, text)
    return text


def dense(block: Block) -> np.ndarray[Any, Any]:
    weights = block.weights
    return weights if isinstance(weights, np.ndarray) else weights.toarray()


def assert_equal(traced: NeuronGraph, found: NeuronGraph, name: str = "") -> None:
    """The same layers, blocks and adjacency, in the same order."""

    def new(text: str) -> str:
        return renamed(name, text)

    for ours, theirs in zip(found.layers, traced.layers, strict=True):
        assert (new(ours.name), ours.size) == (theirs.name, theirs.size)
        assert ours.rescalable == theirs.rescalable
        assert tuple(map(new, ours.read_by)) == theirs.read_by
    for mine, other in zip(found.blocks, traced.blocks, strict=True):
        assert (mine.source, mine.target) == (other.source, other.target)
        assert (new(mine.name), new(mine.tie)) == (other.name, other.tie)
        assert mine.tie_transposed == other.tie_transposed
        np.testing.assert_array_equal(dense(mine), dense(other), err_msg=mine.name)
    np.testing.assert_array_equal(found.adjacency.toarray(), traced.adjacency.toarray())


# --- the same graph as that of the model --------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_folder_is_the_model_that_was_saved(name: str, tmp_path: Path) -> None:
    model = build(name)
    found = read(save(model, tmp_path))
    traced = ncut.graph(model, residual="stream")
    assert_equal(traced, found, name)
    folded = "folded into what reads"
    assert [renamed(name, x.name) for x in found.left_out if x.reason.startswith(folded)] == [
        x.name for x in traced.left_out if x.reason.startswith(folded)
    ]


@pytest.mark.parametrize(
    "name",
    ["BertForMaskedLM", "GPT2LMHeadModel", "Qwen3ForCausalLM", "Gemma2ForCausalLM",
     "T5ForConditionalGeneration", "ViTModel", "CLIPModel", "WhisperModel", "BloomModel"],
)  # fmt: skip
def test_folder_by_readers_is_the_model_by_readers(name: str, tmp_path: Path) -> None:
    model = build(name)
    assert_equal(
        ncut.graph(model, residual="readers"), read(save(model, tmp_path), "readers"), name
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_of_16_bits(dtype: str, tmp_path: Path) -> None:
    model = build("LlamaForCausalLM").to(getattr(torch, dtype))
    assert_equal(ncut.graph(model, residual="stream"), read(save(model, tmp_path)))


def test_large_weights_of_16_bits_stay_so_and_lie_once_for_gate_and_up(tmp_path: Path) -> None:
    wide = {"hidden_size": 512, "intermediate_size": 520, "head_dim": 128}
    model = build("LlamaForCausalLM", **wide).to(torch.bfloat16)
    found = read(save(model, tmp_path))
    assert_equal(ncut.graph(model, residual="stream"), found)
    down = [block.weights for block in found.blocks if block.name.endswith("0.mlp.down_proj")]
    assert len(down) == 2
    assert down[0] is down[1]
    assert {str(w.dtype) for w in down} == {"bfloat16"}
    gates = [b.weights for b in found.blocks if b.name.endswith("mlp.gate_proj")]
    assert {str(w.dtype) for w in gates} == {"bfloat16"}


def test_shards_are_one_model(tmp_path: Path) -> None:
    model = build("LlamaForCausalLM")
    whole = read(save(model, tmp_path / "whole"))
    folder = save(model, tmp_path / "shards", max_shard_size="4KB")
    assert len([*folder.glob("model-*-of-*.safetensors")]) > 2
    assert not (folder / "model.safetensors").exists()
    assert_equal(whole, read(folder))


def test_older_names_of_norms_and_constants(tmp_path: Path) -> None:
    model = build("BertForMaskedLM")
    folder = save(model, tmp_path)
    expected = read(folder)
    tensors = rewrite(folder)
    for name in [*tensors]:
        if "LayerNorm" in name:
            new = name.replace("weight", "gamma").replace("bias", "beta")
            tensors[new] = tensors.pop(name)
    tensors["bert.embeddings.position_ids"] = np.arange(10)[None]
    rewrite(folder, tensors)
    found = read(folder)
    assert_equal(expected, found)
    roles = {p.name: p.role for p in found.parameters}
    assert roles["bert.embeddings.position_ids"] == "a constant of the model, no weight"
    assert roles["bert.embeddings.LayerNorm.beta"] == "bias"


def test_a_model_without_head_gets_none_from_tied_embeddings(tmp_path: Path) -> None:
    for name in ("GPT2Model", "GPT2LMHeadModel"):
        folder = save(build(name), tmp_path / name)
        names = [layer.name for layer in read(folder).layers]
        assert ("lm_head" in names) == (name == "GPT2LMHeadModel")
        # Files do not always say of which class they are.
        change_config(folder, architectures=None)
        names = [layer.name for layer in read(folder).layers]
        assert ("lm_head" in names) == (name == "GPT2LMHeadModel")


def test_every_tensor_is_accounted_for(tmp_path: Path) -> None:
    folder = save(build("BertForMaskedLM"), tmp_path)
    tensors = rewrite(folder)
    tensors["bert.adapter.weight"] = np.ones((3, 12), np.float32)
    rewrite(folder, tensors)
    found = read(folder)
    assert {p.name for p in found.parameters} == set(tensors)
    roles = {p.name: (p.placed, p.role) for p in found.parameters}
    assert "not used" not in {role for _, role in roles.values()}
    assert roles["bert.adapter.weight"][1].startswith("no part of a bert that is known")
    assert roles["bert.encoder.layer.0.intermediate.dense.bias"] == (False, "bias")
    assert roles["bert.encoder.layer.0.intermediate.dense.weight"][0]
    assert ("bert.adapter.weight", (3, 12)) in [(x.name, x.shape) for x in found.left_out]


def test_norms_of_queries_and_keys_scale_their_writers(tmp_path: Path) -> None:
    folder = save(build("Qwen3ForCausalLM"), tmp_path)
    before = read(folder)
    tensors = rewrite(folder)
    tensors["model.layers.0.self_attn.k_norm.weight"] *= 2
    rewrite(folder, tensors)
    for ours, theirs in zip(before.blocks, read(folder).blocks, strict=True):
        factor = 2 if ours.name == "model.layers.0.self_attn.k_proj" else 1
        np.testing.assert_allclose(dense(theirs), factor * dense(ours), rtol=1e-6)


def test_norms_of_heads_with_many_dimensions(tmp_path: Path) -> None:
    model = build("Qwen3ForCausalLM", head_dim=80, num_hidden_layers=1)
    for residual in ("stream", "readers"):
        traced = ncut.graph(model, residual=residual)
        assert_equal(traced, read(save(model, tmp_path), residual))


def test_graph_of_a_folder_by_its_path(tmp_path: Path) -> None:
    folder = save(build("BertModel"), tmp_path)
    assert_equal(read(folder), ncut.graph(folder))
    assert_equal(read(folder), ncut.graph(str(folder)))
    report = ncut.analyze(folder, k=3, shuffles=3, seed=0)
    assert report.n_vertices == ncut.graph(folder).n_vertices


def test_neither_torch_nor_transformers_is_needed(tmp_path: Path) -> None:
    folder = save(build("BertModel").to(torch.bfloat16), tmp_path)
    code = (
        "import sys\n"
        "sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "import ncut\n"
        f"print(ncut.graph({str(folder)!r}).n_vertices)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == read(folder).n_vertices


# --- foreign folders ----------------------------------------------------------------------------


def rewrite(folder: Path, tensors: dict[str, Any] | None = None) -> dict[str, Any]:
    """The tensors of a folder of one file, or others in their place."""
    from safetensors.numpy import load_file, save_file

    file = folder / "model.safetensors"
    if tensors is not None:
        save_file(tensors, file)
    return load_file(file)


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def plain(folder: Path, name: str = "BertModel") -> Path:
    return save(build(name), folder)


def sharded(folder: Path) -> Path:
    return save(build("BertModel"), folder, max_shard_size="4KB")


def refuses(folder: Path, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        read(folder)
    assert str(folder) in str(caught.value)


def test_unknown_kinds_list_the_known_ones(tmp_path: Path) -> None:
    change_config(plain(tmp_path), model_type="mamba")
    refuses(tmp_path, "model_type 'mamba' is not known; known are bart, bert, .*AutoModel")
    change_config(tmp_path, model_type=None)
    refuses(tmp_path, "model_type '' is not known")


def test_unknown_convention_of_sums(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="residual: must be 'readers' or 'stream'"):
        ncut.graph(plain(tmp_path), residual="sum")


def test_missing_files(tmp_path: Path) -> None:
    refuses(tmp_path / "nowhere", "no such folder")
    refuses(tmp_path, "is a folder without config.json")
    plain(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "config.json").rename(tmp_path / "moved.json")
    (tmp_path / "config.json").symlink_to(tmp_path / "pipe")
    refuses(tmp_path, "is a folder without config.json")
    (tmp_path / "moved.json").rename(tmp_path / "config.json")
    (tmp_path / "model.safetensors").rename(tmp_path / "tf_model.h5")
    refuses(tmp_path, "has neither model.safetensors nor")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a JSON file"),
        ("[]", "must hold an object of settings, has a list"),
        ("[" * 200_000, "nested too deep|not a JSON file"),
        ('{"a":' * 200_000, "nested too deep|not a JSON file"),
        ("\udcff", "not a JSON file"),
    ],
)
def test_invalid_configs_are_refused(content: str, message: str, tmp_path: Path) -> None:
    plain(tmp_path)
    data = content.encode("utf-8", "surrogateescape")
    (tmp_path / "config.json").write_bytes(data)
    refuses(tmp_path, message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 10**9}, "has no tensor 'encoder.layer.2.attention.self.query"),
        ({"num_hidden_layers": 0}, "must be a positive whole number, is 0"),
        ({"num_hidden_layers": "2"}, "must be a positive whole number, is '2'"),
        ({"num_hidden_layers": True}, "must be a positive whole number, is True"),
        ({"num_hidden_layers": None}, "has no 'num_hidden_layers'"),
        ({"num_attention_heads": 10**9}, "12 outputs.*splits into 1000000000 heads"),
        ({"num_attention_heads": 5}, "12 outputs.*splits into 5 heads"),
        ({"hidden_size": 10**15}, "shape .23, 12., but its config.json calls for 10+ outputs"),
        ({"vocab_size": 10**15}, "shape .23, 12., but its config.json calls for 10+ inputs"),
        ({"intermediate_size": 13}, "shape .14, 12., but its config.json calls for 13 outputs"),
        ({"hidden_act": 3}, "must be a string"),
        ({"model_type": "gpt2"}, "has no tensor 'transformer.wte.weight' or 'wte.weight'"),
        ({"model_type": ["bert"]}, "must be a string, is a list"),
    ],
)
def test_config_that_does_not_fit(changes: Any, message: str, tmp_path: Path) -> None:
    change_config(plain(tmp_path), **changes)
    refuses(tmp_path, message)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("LlamaModel", {"head_dim": 10**12}, "calls for 4000000000000 outputs"),
        ("LlamaModel", {"num_key_value_heads": 3}, "calls for 12 outputs"),
        ("ViTModel", {"num_channels": 10**12}, "10+ input channels"),
        ("CLIPModel", {"vision_config": 3}, "must be an object, is 3"),
        ("WhisperModel", {"num_mel_bins": 10**12}, "10+ input channels"),
        ("T5Model", {"d_kv": 10**12}, "calls for 20+ outputs"),
        ("GPT2Model", {"n_inner": 10**12}, "calls for 10+ outputs"),
        ("Phi3ForCausalLM", {"intermediate_size": 10**12}, "calls for 20+ outputs"),
    ],
)
def test_sizes_that_do_not_fit(name: str, changes: Any, message: str, tmp_path: Path) -> None:
    change_config(plain(tmp_path, name), **changes)
    refuses(tmp_path, message)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("encoder.layer.0.output.dense.weight", np.ones((12, 15), np.float32), "14 inputs"),
        ("encoder.layer.0.output.dense.weight", np.ones((12, 14, 1), np.float32), "a matrix"),
        ("encoder.layer.0.output.dense.weight", np.ones((12, 14), np.int8), "quantized"),
        ("encoder.layer.0.output.LayerNorm.weight", np.ones(11, np.float32), "scales 12 values"),
        ("embeddings.position_embeddings.weight", np.ones((9, 4), np.float32), "adds 12 .* 4"),
        ("embeddings.word_embeddings.weight", np.ones((0, 12), np.float32), "a matrix"),
        ("encoder.layer.1.intermediate.dense.weight", None, "has no tensor"),
    ],
)
def test_tensors_that_do_not_fit(name: str, value: Any, message: str, tmp_path: Path) -> None:
    tensors = rewrite(plain(tmp_path))
    if value is None:
        del tensors[name]
    else:
        tensors[name] = value
    rewrite(tmp_path, tensors)
    refuses(tmp_path, message)


def damaged(kind: str, whole: bytes) -> bytes:
    n_header = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + n_header])
    header.pop("__metadata__", None)
    first = next(iter(header))
    if kind == "truncated":
        return whole[:-10]
    if kind == "no header":
        return b"PK\x03\x04" + whole[4:]
    if kind == "gigantic header":
        return struct.pack("<Q", 2**62) + whole[8:]
    if kind == "empty":
        return b""
    if kind == "outside":
        start, stop = header[first]["data_offsets"]
        header[first]["data_offsets"] = [start + 2**40, stop + 2**40]
    if kind == "negative":
        header[first]["shape"] = [-1, -header[first]["shape"][0]]
    if kind == "gigantic shape":
        header[first]["shape"] = [2**40, 2**40]
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + whole[8 + n_header :]


KINDS = (
    "truncated", "no header", "gigantic header", "empty", "outside", "negative", "gigantic shape",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files(kind: str, tmp_path: Path) -> None:
    folder = sharded(tmp_path)
    shard = sorted(folder.glob("model-*.safetensors"))[1]
    shard.write_bytes(damaged(kind, shard.read_bytes()))
    refuses(folder, f"{shard.name}: cannot be read as .safetensors")


def test_missing_shard(tmp_path: Path) -> None:
    folder = sharded(tmp_path)
    shard = sorted(folder.glob("model-*.safetensors"))[1]
    shard.unlink()
    refuses(folder, f"{shard.name}: no such file")


@pytest.mark.parametrize(
    "file", ["../secret.safetensors", "/etc/passwd", "..", ".", "", "a/b", "a\\b", "a\0b", 3, None]
)
def test_shards_outside_of_the_folder(file: Any, tmp_path: Path) -> None:
    folder = sharded(tmp_path / "model")
    save(build("BertModel"), tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "secret.safetensors")
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"] = dict.fromkeys(index["weight_map"], file)
    path.write_text(json.dumps(index))
    refuses(folder, "must be the name of a file in the folder itself|no such file")


@pytest.mark.parametrize("index", [{}, {"weight_map": []}, {"weight_map": {}}])
def test_index_without_files(index: Any, tmp_path: Path) -> None:
    folder = sharded(tmp_path)
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refuses(folder, "has no 'weight_map'")


def test_index_that_names_a_tensor_that_is_not_there(tmp_path: Path) -> None:
    folder = sharded(tmp_path)
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["more.weight"] = next(iter(index["weight_map"].values()))
    path.write_text(json.dumps(index))
    refuses(folder, "has no tensor 'more.weight'")


# --- scale --------------------------------------------------------------------------------------


def test_a_table_lists_all_families() -> None:
    assert len(FAMILIES) >= 25
    assert all(callable(follow) for follow in FAMILIES.values())


def test_factors_of_joined_neurons_scale_their_writers() -> None:
    program = Program()
    value = program.input("x", (1, 2, 3))
    query = program.linear(value, np.ones((3, 4)), name="q")
    key = program.scaled(program.linear(value, np.ones((3, 4)), name="k"), np.array([1, 2, 3, 4]))
    program.attention(query, key, key)
    merging: Merging = lower(program, "stream").merging
    assert [group.name for group in merging.scales] == ["k"]
    np.testing.assert_array_equal(next(iter(merging.scales.values())), [1, 2, 3, 4])


@pytest.fixture
def mapped(tmp_path: Path) -> np.memmap[Any, Any]:
    path = tmp_path / "values.bin"
    np.arange(100_000, dtype=np.float32).tofile(path)
    return np.memmap(path, dtype=np.float32, mode="c")


def test_private_changes_of_a_mapped_file_are_kept(mapped: np.memmap[Any, Any]) -> None:
    mapped[:] = 7
    weights = mapped[:600].reshape(20, 30)
    graph = ncut.graph([weights, np.ones((30, 2), np.float32)])
    np.testing.assert_array_equal(dense(graph.blocks[0]), 7)
    np.testing.assert_array_equal(mapped, 7)


def test_one_array_between_two_pairs_of_layers_is_stored_once() -> None:
    from ncut.graphs import build_graph

    shared = np.arange(1, 7, dtype=np.float32).reshape(2, 3)
    layers = [("a", 3), ("b", 2), ("c", 2)]
    graph = build_graph(layers, [(1, 0, shared, "w"), (2, 0, shared, "w")])
    assert graph.blocks[0].weights is graph.blocks[1].weights
    np.testing.assert_array_equal(dense(graph.blocks[0]), shared.T)
    within = np.triu(np.ones((2, 2), np.float32), 1)
    graph = build_graph([("a", 2), ("b", 2)], [(0, 1, within, "w"), (0, 0, within, "w")])
    assert isinstance(graph.blocks[1].weights, np.ndarray)
    assert isinstance(graph.blocks[0].weights, sparse.csr_array)
    with pytest.raises(InputError, match="between 'b' and 'a', which need"):
        build_graph(layers[:2], [(1, 0, shared.T, "w")])
