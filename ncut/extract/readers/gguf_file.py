"""Reads llama.cpp's GGUF files as the settings and tensors of the source Hugging Face folder.

Source: the format's description, https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, and
the tensor names of the package gguf.
"""

from __future__ import annotations

import math
import operator
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncut.errors import ModelError, import_extra
from ncut.extract.program.record import Lower, Made
from ncut.extract.readers.folder.config import Config
from ncut.extract.readers.folder.read import follow
from ncut.extract.readers.lazy import Lazy
from ncut.files import content_of, reading

MAX_ENTRIES = 2**20
"""Largest number of settings and tensors of a file; a tensor has at most 8 axes."""

_SCALARS = dict(enumerate("BbHhIif?", 0)) | {10: "Q", 11: "q", 12: "d"}
_TEXT, _LIST = 8, 9
_UNPACKED = {0: "<f4", 1: "<f2", 24: "i1", 25: "<i2", 26: "<i4", 27: "<i8", 28: "<f8"}


@dataclass(frozen=True, slots=True)
class Tensor:
    """The location of a tensor in a file."""

    name: str
    shape: tuple[int, ...]  # its shape, slowest axis first
    kind: int  # number of its type in the format's list
    offset: int  # its offset in bytes from the start of the tensor data


class _Bytes:
    """The bytes of a file, read sequentially."""

    def __init__(self, content: NDArray[np.uint8]) -> None:
        self._content = content
        self.at = 0

    def take(self, n: int) -> bytes:
        self.skip(n)
        return self._content[self.at - n : self.at].tobytes()

    def skip(self, n: int) -> None:
        if n > self._content.size - self.at:
            raise ModelError("ends within its header: it is truncated or damaged")
        self.at += n

    def number(self, kind: str) -> Any:
        return struct.unpack(f"<{kind}", self.take(struct.calcsize(f"<{kind}")))[0]

    def text(self) -> str:
        return self.take(self.number("Q")).decode("utf-8", "replace")

    def value(self, kind: int, depth: int = 0) -> Any:
        """A setting; a list is reduced to its length and first entry."""
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind == _TEXT:
            return self.text()
        if kind != _LIST or depth > 2:
            raise ModelError(f"has a setting of the unknown type {kind}")
        inner, n = self.number("I"), self.number("Q")
        if inner in _SCALARS and n:
            first = self.number(_SCALARS[inner])
            self.skip((n - 1) * struct.calcsize(f"<{_SCALARS[inner]}"))
            return [n, first]
        for _ in range(n):  # each takes bytes, so the file's size bounds their number
            if inner == _TEXT:
                self.skip(self.number("Q"))
            else:
                self.value(inner, depth + 1)
        return [n]


def header(content: NDArray[np.uint8]) -> tuple[dict[str, Any], list[Tensor], int]:
    """The settings and tensors of a file, and the offset of the tensor data.

    Raises
    ------
    ModelError
        If the header is damaged, of another version, or of another byte order.
    """
    data = _Bytes(content)
    if data.take(4) != b"GGUF":
        raise ModelError("does not begin as a GGUF file")
    version = data.number("I")
    if version not in (2, 3):
        raise ModelError(f"is of version {version} of GGUF, or big-endian; known are 2 and 3")
    n_tensors, n_settings = data.number("Q"), data.number("Q")
    if max(n_tensors, n_settings) > MAX_ENTRIES:
        raise ModelError(f"says to have {n_tensors} tensors and {n_settings} settings")
    settings: dict[str, Any] = {}
    for _ in range(n_settings):
        name = data.text()
        settings[name] = data.value(data.number("I"))
    tensors = []
    for _ in range(n_tensors):
        name, n_axes = data.text(), data.number("I")
        if n_axes > 8:
            raise ModelError(f"tensor {name!r} has {n_axes} axes")
        shape = tuple(data.number("Q") for _ in range(n_axes))[::-1]
        tensors.append(Tensor(name, shape, data.number("I"), data.number("Q")))
    if len({tensor.name for tensor in tensors}) < len(tensors):
        raise ModelError("has two tensors of one name")
    alignment = settings.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1:
        raise ModelError(f"says to be aligned to {alignment!r} bytes")
    return settings, tensors, -(-data.at // alignment) * alignment


def lazy_tensor(content: NDArray[np.uint8], tensor: Tensor, start: int) -> Lazy:
    """A tensor, dequantized on use.

    Raises
    ------
    ModelError
        If its type is unknown, or it exceeds the file.
    """
    n = math.prod(tensor.shape)
    gguf = import_extra("gguf", "gguf")
    try:
        kind = gguf.GGMLQuantizationType(tensor.kind)
        n_block, n_bytes_block = gguf.GGML_QUANT_SIZES[kind]
    except (ValueError, KeyError):
        raise ModelError(f"tensor {tensor.name!r} has the unknown type {tensor.kind}") from None
    if not tensor.shape or tensor.shape[-1] % n_block:
        raise ModelError(
            f"tensor {tensor.name!r} of shape {tensor.shape} does not consist of blocks of "
            f"{n_block} numbers"
        )
    n_bytes = n // n_block * n_bytes_block
    begin = start + tensor.offset
    if begin + n_bytes > content.size:
        raise ModelError(f"tensor {tensor.name!r} does not lie in the file: it is truncated")
    stored = content[begin : begin + n_bytes]

    def values() -> NDArray[Any]:
        if tensor.kind in _UNPACKED:
            return stored.view(_UNPACKED[tensor.kind]).reshape(tensor.shape)
        rows = stored.reshape(-1, tensor.shape[-1] // n_block * n_bytes_block)
        try:
            made: NDArray[Any] = gguf.quants.dequantize(rows, kind)
        except NotImplementedError:
            raise ModelError(
                f"tensor {tensor.name!r}: the package gguf cannot dequantize {kind.name}"
            ) from None
        return made.reshape(tensor.shape)

    dtype = np.dtype(_UNPACKED.get(tensor.kind, "<f4"))
    formula = "" if tensor.kind in _UNPACKED else f"{kind.name} of {tensor.name}"
    return Lazy(tensor.shape, dtype, values, formula)


# --- architectures ------------------------------------------------------------------------------

_BLOCK = re.compile(r"blk\.(\d+)\.(.+)\.(weight|bias)$")

_WHOLE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_qkv": "self_attn.qkv_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_SANDWICH = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_EXPERTS = {
    "ffn_gate_inp": "block_sparse_moe.gate",
    "ffn_gate_exps": "block_sparse_moe.experts.w1",
    "ffn_down_exps": "block_sparse_moe.experts.w2",
    "ffn_up_exps": "block_sparse_moe.experts.w3",
}
_KINDS = {
    "llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma": "gemma", "gemma2": "gemma2",
    "gemma3": "gemma3_text", "phi3": "phi3", "mistral": "mistral", "mistral3": "mistral",
}  # fmt: skip
"""`model_type` by `general.architecture`."""

_IGNORED = re.compile(r"^(rope_freqs|rope_factors_\w+)\.weight$|attn_rot_embd")


def read_gguf(path: Path, lower: Lower[Made]) -> tuple[Made, dict[str, tuple[int, ...]]]:
    """Follow the forward pass of a language model in a GGUF file.

    The tensors get the names, shapes and order of the source Hugging Face folder, and are
    followed like a folder: the permutation of the rows of queries and keys by llama.cpp is
    undone, and the factors of Gemma's norms keep the 1 that it adds. The package gguf dequantizes
    tensors on use.

    Parameters
    ----------
    path : Path
        The file.
    lower : callable
        Gets the program; its result is returned.

    Raises
    ------
    ModelError
        If the file is damaged, of an unknown architecture, or split into several files.
    MissingExtraError
        If the package gguf is not installed.
    """
    with reading(path, "GGUF"):
        content = content_of(path)
        settings, stored, start = header(content)
        architecture = settings.get("general.architecture")
        if settings.get("split.count", 1) not in (0, 1):
            raise ModelError(
                "is one part of a model in several files; join them first: "
                "llama-gguf-split --merge FIRST_PART model.gguf"
            )
        if not isinstance(architecture, str) or architecture not in _KINDS:
            raise ModelError(
                f"the architecture {architecture!r} is not known; known are {', '.join(_KINDS)}. "
                "For others pass the model: AutoModelForCausalLM.from_pretrained(folder, "
                "gguf_file=name)"
            )
        import_extra("gguf", "gguf")
        tensors = {tensor.name: lazy_tensor(content, tensor, start) for tensor in stored}
        # Of a setting per layer, the first value.
        own = {
            name.removeprefix(f"{architecture}."): value[1] if _is_list(value) else value
            for name, value in settings.items()
        }
        known = Config(own, f"{path}, its settings")
        named = dict(_renamed(tensors, known, architecture))
        config = Config(_config(known, tensors, architecture), f"{path}, its settings")
        return follow(config, named, str(path), lower)


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 1


def _config(known: Config, tensors: Mapping[str, Lazy], architecture: str) -> dict[str, Any]:
    """The source folder's config.json, as far as the graph needs it."""
    words = tensors.get("token_embd.weight")
    if words is None or len(words.shape) != 2:
        raise ModelError("has no matrix 'token_embd.weight'")
    n_heads = known.size("attention.head_count")
    width = known.size("embedding_length")
    config = {
        "model_type": _KINDS[architecture],
        "hidden_size": width,
        "vocab_size": words.shape[0],
        "num_hidden_layers": known.size("block_count"),
        "num_attention_heads": n_heads,
        "num_key_value_heads": known.size("attention.head_count_kv", default=n_heads),
        "head_dim": known.size("attention.key_length", default=max(width // n_heads, 1)),
        "intermediate_size": known.size("feed_forward_length"),
        "tie_word_embeddings": "output.weight" not in tensors,
        "architectures": ["ForCausalLM"],
    }
    if known.number("expert_count", 0):
        config |= {
            "model_type": "mixtral",
            "num_local_experts": known.size("expert_count"),
        }
    return config


def _renamed(
    tensors: Mapping[str, Lazy], known: Config, architecture: str
) -> Iterator[tuple[str, Lazy]]:
    """The tensors with the folder's names, row order and values."""
    names = dict(_LAYER)
    if architecture in ("gemma2", "gemma3"):
        names |= _SANDWICH
    if known.number("expert_count", 0):
        names |= _EXPERTS
    n_heads = known.size("attention.head_count")
    permuted = {
        "attn_q": n_heads,
        "attn_k": known.size("attention.head_count_kv", default=n_heads),
    }
    for name, tensor in tensors.items():
        found = _BLOCK.match(name)
        if name in _WHOLE:
            new = _WHOLE[name]
        elif found is None or found[2] not in names:
            if _IGNORED.search(name):
                continue
            new = name  # reported as unknown
        else:
            new = f"model.layers.{found[1]}.{names[found[2]]}.{found[3]}"
        if architecture == "phi3" and found is not None and found[2] == "ffn_up":
            new = new.replace("up_proj", "gate_up_proj")
        if architecture in ("llama", "mistral") and found and found[2] in permuted:
            tensor = tensor.then(_unpermuted(permuted[found[2]], name, tensor.shape))
        if architecture.startswith("gemma") and new.endswith("norm.weight"):
            tensor = tensor.then(_minus_one)
        if known.number("expert_count", 0) and found and found[2].endswith("_exps"):
            yield from _experts(new, tensor)
            continue
        yield new, tensor


def _unpermuted(
    n_heads: int, name: str, shape: tuple[int, ...]
) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """The rows of each head in transformers' rotary order: halves, not pairs.

    Source: the inverse of `permute` in convert_hf_to_gguf.py.
    """
    if not shape or shape[0] % (2 * n_heads):
        raise ModelError(f"tensor {name!r} has shape {shape}, not {n_heads} heads of pairs")

    def order(values: NDArray[Any]) -> NDArray[Any]:
        pairs = values.reshape(n_heads, shape[0] // n_heads // 2, 2, *shape[1:])
        return pairs.swapaxes(1, 2).reshape(shape)

    return order


def _minus_one(values: NDArray[Any]) -> NDArray[Any]:
    """The weight of a norm, from its factor 1 + weight."""
    return values.astype(np.float64) - 1


def _experts(name: str, tensor: Lazy) -> Iterator[tuple[str, Lazy]]:
    """The matrices of experts stacked in one tensor (experts, outputs, inputs)."""
    if len(tensor.shape) != 3 or tensor.shape[0] > MAX_ENTRIES // 64:
        raise ModelError(f"tensor {name!r} has shape {tensor.shape}, not one matrix an expert")
    before, _, part = name.removesuffix(".weight").rpartition(".")
    for number in range(tensor.shape[0]):
        yield (
            f"{before}.{number}.{part}.weight",
            tensor.then(operator.itemgetter(number), tensor.shape[1:]),
        )
