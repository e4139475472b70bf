"""Decoders: GPT-2, Llama and related models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ncut.extract.program.values import Value
from ncut.extract.program.values import parts as halves
from ncut.extract.readers.folder.blocks import Network, tied
from ncut.extract.readers.folder.families.common import QKV, attending, feeding


def _language_head(
    net: Network, signal: Value, prefix: str, words: str, name: str = "lm_head", *, default: bool
) -> None:
    """The language model head, if any, with separate weights or tied to the embeddings."""
    classes = ("ForCausalLM", "LMHeadModel")
    if net.has(f"{name}.weight") or tied(net, prefix, classes, default=default):
        signal = net.linear(signal, name, words)
    elif net.has("score.weight"):
        signal = net.linear(signal, "score")
    net.outputs(signal)


def _gpt2(net: Network) -> None:
    prefix = net.prefix("transformer.", "", anchor="wte.weight")
    config = net.config
    width = config.size("n_embd", "hidden_size")
    n_heads = config.size("n_head", "num_attention_heads")
    words = f"{prefix}wte"
    signal = net.embedding(words, width=width, n_rows=config.size("vocab_size"))
    signal = net.add(signal, net.embedding(f"{prefix}wpe"))
    kind = config.word("activation_function", default="gelu_new")
    for number in range(config.size("n_layer", "num_hidden_layers")):
        block = f"{prefix}h.{number}"
        packed = net.linear(
            net.norm(signal, f"{block}.ln_1"), f"{block}.attn.c_attn",
            transposed=True, n_out=3 * width,
        )  # fmt: skip
        parts = net.joined_heads(packed, [n_heads] * 3, f"{block}.attn.c_attn")
        mixed = net.attend(f"{block}.attn", *parts)
        mixed = net.linear(mixed, f"{block}.attn.c_proj", transposed=True, n_out=width)
        signal = net.add(mixed, signal)
        hidden = net.linear(
            net.norm(signal, f"{block}.ln_2"), f"{block}.mlp.c_fc",
            transposed=True, n_out=config.size("n_inner", default=4 * width),
        )  # fmt: skip
        hidden = net.activation(hidden, kind)
        hidden = net.linear(hidden, f"{block}.mlp.c_proj", transposed=True, n_out=width)
        signal = net.add(signal, hidden)
    signal = net.norm(signal, f"{prefix}ln_f")
    _language_head(net, signal, prefix, words, default=True)


def _gpt_neox(net: Network) -> None:
    prefix = net.prefix("gpt_neox.", "", anchor="embed_in.weight")
    config = net.config
    width = config.size("hidden_size")
    kind = config.word("hidden_act", default="gelu")
    parallel = config.flag("use_parallel_residual", default=True)
    words = f"{prefix}embed_in"
    signal = net.embedding(words, width=width, n_rows=config.size("vocab_size"))
    for number in range(config.size("num_hidden_layers")):
        block = f"{prefix}layers.{number}"
        name = f"{block}.attention"
        normed = net.norm(signal, f"{block}.input_layernorm")
        packed = net.linear(normed, f"{name}.query_key_value", n_out=3 * width)
        parts = net.packed_heads(packed, config.size("num_attention_heads"), name)
        mixed = net.attend(name, *parts)
        mixed = net.linear(mixed, f"{name}.dense", n_out=width)
        before = signal if parallel else net.add(mixed, signal)
        hidden = net.mlp(
            net.norm(before, f"{block}.post_attention_layernorm"),
            f"{block}.mlp.dense_h_to_4h", f"{block}.mlp.dense_4h_to_h", kind,
            config.size("intermediate_size"),
        )  # fmt: skip
        signal = net.add(net.add(hidden, mixed), signal) if parallel else net.add(hidden, before)
    signal = net.norm(signal, f"{prefix}final_layer_norm")
    head = "embed_out" if net.has("embed_out.weight") else "lm_head"
    _language_head(net, signal, prefix, words, head, default=False)


def _bloom(net: Network) -> None:
    prefix = net.prefix("transformer.", "", anchor="word_embeddings.weight")
    config = net.config
    width = config.size("hidden_size", "n_embed")
    post = config.flag("apply_residual_connection_post_layernorm", default=False)
    words = f"{prefix}word_embeddings"
    signal = net.embedding(words, width=width, n_rows=config.size("vocab_size"))
    signal = net.norm(signal, f"{prefix}word_embeddings_layernorm")
    for number in range(config.size("n_layer", "num_hidden_layers")):
        block = f"{prefix}h.{number}"
        name = f"{block}.self_attention"
        normed = net.norm(signal, f"{block}.input_layernorm")
        packed = net.linear(normed, f"{name}.query_key_value", n_out=3 * width)
        parts = net.packed_heads(packed, config.size("n_head", "num_attention_heads"), name)
        mixed = net.attend(name, *parts)
        mixed = net.linear(mixed, f"{name}.dense", n_out=width)
        signal = net.add(normed if post else signal, mixed)
        normed = net.norm(signal, f"{block}.post_attention_layernorm")
        hidden = net.mlp(normed, f"{block}.mlp.dense_h_to_4h", f"{block}.mlp.dense_4h_to_h", "gelu")
        signal = net.add(normed if post else signal, hidden)
    signal = net.norm(signal, f"{prefix}ln_f")
    _language_head(net, signal, prefix, words, default=True)


def _opt(net: Network) -> None:
    anchor = "embed_tokens.weight"
    prefix = net.prefix("model.decoder.", "decoder.", "", anchor=anchor)
    config = net.config
    before = config.flag("do_layer_norm_before", default=True)
    kind = config.word("activation_function", default="relu")
    words = f"{prefix}embed_tokens"
    width = config.size("word_embed_proj_dim", default=config.size("hidden_size"))
    signal = net.embedding(words, width=width, n_rows=config.size("vocab_size"))
    places = net.embedding(f"{prefix}embed_positions")
    if net.has(f"{prefix}project_in.weight"):
        signal = net.linear(signal, f"{prefix}project_in")
    signal = net.add(signal, places)
    for number in range(config.size("num_hidden_layers")):
        block = f"{prefix}layers.{number}"
        signal = attending(
            net, signal, f"{block}.self_attn", f"{block}.self_attn_layer_norm",
            n_heads=config.size("num_attention_heads"), before=before,
        )  # fmt: skip
        signal = feeding(
            net, signal, (f"{block}.fc1", f"{block}.fc2"), f"{block}.final_layer_norm", kind,
            n_hidden=config.size("ffn_dim"), before=before,
        )  # fmt: skip
    if net.has(f"{prefix}final_layer_norm.weight"):
        signal = net.norm(signal, f"{prefix}final_layer_norm")
    if net.has(f"{prefix}project_out.weight"):
        signal = net.linear(signal, f"{prefix}project_out")
    _language_head(net, signal, prefix.partition("decoder.")[0], words, default=True)


@dataclass(frozen=True, slots=True)
class _Llama:
    """Variants of models with gated MLPs and RMS norms."""

    plus_one: bool = False  # whether the factor of a norm is 1 + its weight
    scaled: bool = False  # whether embeddings are multiplied by the root of their width
    head_norms: bool = False  # whether queries and keys have norms
    sandwich: bool = False  # whether there are also norms after attention and MLP
    # Whether queries, keys and values share one matrix, and gates and gated units another.
    packed: bool = False
    experts: bool = False  # whether there are several MLPs, chosen by a router at each position
    tied: bool = False  # whether the head is tied to the embeddings by default
    kind: str = "silu"  # default activation

    def __call__(self, net: Network) -> None:
        """Follow the forward pass."""
        prefix = net.prefix("model.", "", anchor="embed_tokens.weight")
        words = f"{prefix}embed_tokens"
        width = net.config.size("hidden_size")
        signal = net.embedding(words, width=width, n_rows=net.config.size("vocab_size"))
        if self.scaled:
            _, table = net.tensor(f"{words}.weight")
            signal = net.gain(signal, float(np.asarray(width**0.5).astype(table.dtype)))
        for number in range(net.config.size("num_hidden_layers")):
            signal = self._layer(net, signal, f"{prefix}layers.{number}", width)
        signal = self._norm(net, signal, f"{prefix}norm")
        _language_head(net, signal, prefix, words, default=self.tied)

    def _layer(self, net: Network, signal: Value, block: str, width: int) -> Value:
        mixed = self._attention(net, self._norm(net, signal, f"{block}.input_layernorm"), block)
        mixed = net.linear(mixed, f"{block}.self_attn.o_proj", n_out=width)
        second = f"{block}.post_attention_layernorm"
        if self.sandwich:
            mixed = self._norm(net, mixed, second)
            second = f"{block}.pre_feedforward_layernorm"
        signal = net.add(signal, mixed)
        mlp = self._mixture if self.experts else self._mlp
        hidden = mlp(net, self._norm(net, signal, second), f"{block}.mlp")
        if self.sandwich:
            hidden = self._norm(net, hidden, f"{block}.post_feedforward_layernorm")
        return net.add(signal, hidden)

    def _norm(self, net: Network, signal: Value, name: str) -> Value:
        return net.norm(signal, name, "norm", plus_one=self.plus_one)

    def _attention(self, net: Network, signal: Value, block: str) -> Value:
        config, name = net.config, f"{block}.self_attn"
        n_heads = config.size("num_attention_heads")
        n_key_heads = config.size("num_key_value_heads", default=n_heads)
        head_dim = config.size("head_dim", default=max(config.size("hidden_size") // n_heads, 1))
        if not self.packed:
            return net.attention(
                signal, name, QKV, n_heads=n_heads, n_key_heads=n_key_heads, head_dim=head_dim,
                norms=("q_norm", "k_norm") if self.head_norms else None, plus_one=self.plus_one,
            )  # fmt: skip
        counts = (n_heads, n_key_heads, n_key_heads)
        layer = f"{name}.qkv_proj"
        packed = net.linear(signal, layer, n_out=sum(counts) * head_dim)
        return net.attend(name, *net.joined_heads(packed, counts, layer))

    def _mixture(self, net: Network, signal: Value, name: str) -> Value:
        """Every expert reads and writes; the router's shares depend on the data."""
        name = f"{name.removesuffix('.mlp')}.block_sparse_moe"
        n_experts = net.config.size("num_local_experts")
        logits = net.linear(signal, f"{name}.gate", n_out=n_experts)
        net.program.picked(logits, 2, (*logits.shape[:2], 1), f"{name}.gate chosen")
        kind = net.config.word("hidden_act", default=self.kind)
        n_hidden = net.config.size("intermediate_size")
        names = [f"{name}.experts.{number}" for number in range(n_experts)]
        written = [
            net.gated_mlp(signal, f"{expert}.w1", f"{expert}.w3", f"{expert}.w2", kind, n_hidden)
            for expert in names
        ]
        return net.program.add(*written)

    def _mlp(self, net: Network, signal: Value, name: str) -> Value:
        config = net.config
        kind = config.word("hidden_activation", "hidden_act", default=self.kind)
        n_hidden = config.size("intermediate_size")
        if not self.packed:
            return net.gated_mlp(
                signal, f"{name}.gate_proj", f"{name}.up_proj", f"{name}.down_proj",
                kind, n_hidden,
            )  # fmt: skip
        both = net.linear(signal, f"{name}.gate_up_proj", n_out=2 * n_hidden)
        gates, up = halves(both, 2, [n_hidden] * 2)
        product = net.program.multiply(up, net.activation(gates, kind))
        return net.linear(product, f"{name}.down_proj")


_GEMMA = _Llama(plus_one=True, scaled=True, tied=True, kind="gelu_pytorch_tanh")

FAMILIES: dict[str, Callable[[Network], None]] = {
    "gpt2": _gpt2,
    "gpt_neox": _gpt_neox,
    "bloom": _bloom,
    "opt": _opt,
    "llama": _Llama(),
    "mistral": _Llama(),
    "qwen2": _Llama(),
    "qwen3": _Llama(head_norms=True),
    "gemma": _GEMMA,
    "gemma2": replace(_GEMMA, sandwich=True),
    "gemma3_text": replace(_GEMMA, sandwich=True, head_norms=True),
    "phi3": _Llama(packed=True),
    "mixtral": _Llama(experts=True),
}
