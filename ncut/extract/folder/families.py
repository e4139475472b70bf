"""How the parts of each family of transformers are connected, by `model_type`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ncut.errors import ModelError
from ncut.extract.folder.blocks import TIME, Network, tied
from ncut.extract.signal import Signal, concatenated, indexed, permuted, reshaped

QKV = ("q_proj", "k_proj", "v_proj")
CLIP_ORDER = (0, 1, 2)
PATCHES = 2
"""Patches along each side of an image that is followed."""


# --- encoders with a norm after each sum: BERT and its kin --------------------------------------


def _bert(net: Network) -> None:
    _bert_like(net, ("bert.", ""), _bert_heads)


def _roberta(net: Network) -> None:
    _bert_like(net, ("roberta.", ""), _roberta_heads)


def _electra(net: Network) -> None:
    _bert_like(net, ("electra.", ""), _electra_heads)


def _bert_like(
    net: Network,
    prefixes: tuple[str, ...],
    heads: Callable[[Network, str, Signal, Signal | None], None],
) -> None:
    anchor = "embeddings.word_embeddings.weight"
    prefix = net.prefix(*prefixes, anchor=anchor)
    config = net.config
    width = config.size("hidden_size")
    parts = [
        net.embedding(f"{prefix}embeddings.{part}_embeddings", width=n, n_rows=rows)
        for part, n, rows in (
            ("word", config.size("embedding_size", default=width), config.size("vocab_size")),
            ("token_type", 0, 0),
            ("position", 0, 0),
        )
        if part == "word" or net.has(f"{prefix}embeddings.{part}_embeddings.weight")
    ]
    signal = parts[0]
    for part in parts[1:]:
        signal = net.add(signal, part)
    signal = net.norm(signal, f"{prefix}embeddings.LayerNorm")
    if net.has(f"{prefix}embeddings_project.weight"):
        signal = net.linear(signal, f"{prefix}embeddings_project")
    kind = config.word("hidden_act", default="gelu")
    for number in range(config.size("num_hidden_layers")):
        block = f"{prefix}encoder.layer.{number}"
        mixed = net.attention(
            signal, f"{block}.attention.self", ("query", "key", "value"),
            n_heads=config.size("num_attention_heads"),
        )  # fmt: skip
        mixed = net.linear(mixed, f"{block}.attention.output.dense", n_out=width)
        signal = net.norm(net.add(mixed, signal), f"{block}.attention.output.LayerNorm")
        hidden = net.mlp(
            signal, f"{block}.intermediate.dense", f"{block}.output.dense", kind,
            config.size("intermediate_size"),
        )  # fmt: skip
        signal = net.norm(net.add(hidden, signal), f"{block}.output.LayerNorm")
    pooled = None
    if net.has(f"{prefix}pooler.dense.weight"):
        pooled = net.linear(net.first_position(signal), f"{prefix}pooler.dense")
        pooled = net.activation(pooled, "tanh")
    heads(net, prefix, signal, pooled)


def _bert_heads(net: Network, prefix: str, signal: Signal, pooled: Signal | None) -> None:
    ends: list[Signal] = []
    head = "cls.predictions"
    if net.has(f"{head}.transform.dense.weight"):
        hidden = net.linear(signal, f"{head}.transform.dense")
        hidden = net.activation(hidden, net.config.word("hidden_act", default="gelu"))
        hidden = net.norm(hidden, f"{head}.transform.LayerNorm")
        net.bias(f"{head}.bias")
        words = f"{prefix}embeddings.word_embeddings"
        ends.append(net.linear(hidden, f"{head}.decoder", words))
    if pooled is not None and net.has("cls.seq_relationship.weight"):
        ends.append(net.linear(pooled, "cls.seq_relationship"))
    ends += _classified(net, signal, pooled)
    net.outputs(*(ends or [signal, *([] if pooled is None else [pooled])]))


def _classified(net: Network, signal: Signal, pooled: Signal | None) -> list[Signal]:
    """Classifiers of sequences (from the pooled position), of tokens, and of answers' ends."""
    ends = []
    if net.has("classifier.weight"):
        ends.append(net.linear(signal if pooled is None else pooled, "classifier"))
    if net.has("qa_outputs.weight"):
        ends += _answers(net, signal, "qa_outputs")
    return ends


def _answers(net: Network, signal: Signal, name: str) -> list[Signal]:
    """Scores of where an answer starts and ends."""
    made = net.linear(signal, name)
    return [indexed(made, 2, at) for at in range(made.shape[2])]


def _roberta_heads(net: Network, prefix: str, signal: Signal, pooled: Signal | None) -> None:
    ends: list[Signal] = []
    if net.has("lm_head.dense.weight"):
        hidden = net.activation(net.linear(signal, "lm_head.dense"), "gelu")
        hidden = net.norm(hidden, "lm_head.layer_norm")
        net.bias("lm_head.bias")
        words = f"{prefix}embeddings.word_embeddings"
        ends.append(net.linear(hidden, "lm_head.decoder", words))
    if net.has("classifier.dense.weight"):
        hidden = net.linear(net.first_position(signal), "classifier.dense")
        ends.append(net.linear(net.activation(hidden, "tanh"), "classifier.out_proj"))
    ends += _classified(net, signal, pooled)
    net.outputs(*(ends or [signal, *([] if pooled is None else [pooled])]))


def _electra_heads(net: Network, prefix: str, signal: Signal, pooled: Signal | None) -> None:
    ends: list[Signal] = []
    kind = net.config.word("hidden_act", default="gelu")
    if net.has("generator_predictions.dense.weight"):
        hidden = net.activation(net.linear(signal, "generator_predictions.dense"), "gelu")
        hidden = net.norm(hidden, "generator_predictions.LayerNorm")
        words = f"{prefix}embeddings.word_embeddings"
        ends.append(net.linear(hidden, "generator_lm_head", words))
    head = "discriminator_predictions"
    if net.has(f"{head}.dense.weight"):
        hidden = net.activation(net.linear(signal, f"{head}.dense"), kind)
        made = net.linear(hidden, f"{head}.dense_prediction")
        ends.append(indexed(made, 2, 0))
    if net.has("classifier.dense.weight"):
        hidden = net.linear(net.first_position(signal), "classifier.dense")
        ends.append(net.linear(net.activation(hidden, "gelu"), "classifier.out_proj"))
    ends += _classified(net, signal, pooled)
    net.outputs(*(ends or [signal]))


def _distilbert(net: Network) -> None:
    prefix = net.prefix("distilbert.", "", anchor="embeddings.word_embeddings.weight")
    config = net.config
    width = config.size("dim", "hidden_size")
    words = f"{prefix}embeddings.word_embeddings"
    signal = net.embedding(words, width=width, n_rows=config.size("vocab_size"))
    places = net.embedding(f"{prefix}embeddings.position_embeddings")
    signal = net.norm(net.add(signal, places), f"{prefix}embeddings.LayerNorm")
    kind = config.word("activation", default="gelu")
    for number in range(config.size("n_layers", "num_hidden_layers")):
        block = f"{prefix}transformer.layer.{number}"
        mixed = net.attention(
            signal, f"{block}.attention", ("q_lin", "k_lin", "v_lin"),
            n_heads=config.size("n_heads", "num_attention_heads"),
        )  # fmt: skip
        mixed = net.linear(mixed, f"{block}.attention.out_lin", n_out=width)
        signal = net.norm(net.add(mixed, signal), f"{block}.sa_layer_norm")
        hidden = net.mlp(
            signal, f"{block}.ffn.lin1", f"{block}.ffn.lin2", kind,
            config.size("hidden_dim", "intermediate_size"),
        )  # fmt: skip
        signal = net.norm(net.add(hidden, signal), f"{block}.output_layer_norm")
    ends = []
    if net.has("vocab_transform.weight"):
        hidden = net.activation(net.linear(signal, "vocab_transform"), kind)
        hidden = net.norm(hidden, "vocab_layer_norm")
        ends.append(net.linear(hidden, "vocab_projector", words))
    if net.has("pre_classifier.weight"):
        hidden = net.activation(net.linear(net.first_position(signal), "pre_classifier"), "relu")
        ends.append(net.linear(hidden, "classifier"))
    else:
        ends += _classified(net, signal, None)
    net.outputs(*(ends or [signal]))


# --- decoders -----------------------------------------------------------------------------------


def _language_head(
    net: Network, signal: Signal, prefix: str, words: str, name: str = "lm_head", *,
    default: bool, classes: tuple[str, ...] = ("ForCausalLM", "LMHeadModel"),
) -> None:  # fmt: skip
    """Scores of the vocabulary, of weights of their own or of the embeddings', if there are any."""
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
        parts = [
            net.heads(indexed(packed, 2, slice(at * width, (at + 1) * width)), n_heads, "c_attn")
            for at in range(3)
        ]
        mixed = net.attend(parts[0], parts[1], parts[2], f"{block}.attn")
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
        mixed = net.attend(parts[0], parts[1], parts[2], name)
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
        mixed = net.attend(parts[0], parts[1], parts[2], name)
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
    width = config.size("hidden_size")
    before = config.flag("do_layer_norm_before", default=True)
    kind = config.word("activation_function", default="relu")
    words = f"{prefix}embed_tokens"
    signal = net.embedding(
        words, width=config.size("word_embed_proj_dim", default=width),
        n_rows=config.size("vocab_size"),
    )  # fmt: skip
    places = net.embedding(f"{prefix}embed_positions")
    if net.has(f"{prefix}project_in.weight"):
        signal = net.linear(signal, f"{prefix}project_in")
    signal = net.add(signal, places)
    for number in range(config.size("num_hidden_layers")):
        block = f"{prefix}layers.{number}"
        signal = _attending(
            net, signal, f"{block}.self_attn", f"{block}.self_attn_layer_norm",
            n_heads=config.size("num_attention_heads"), before=before,
        )  # fmt: skip
        signal = _feeding(
            net, signal, (f"{block}.fc1", f"{block}.fc2"), f"{block}.final_layer_norm", kind,
            n_hidden=config.size("ffn_dim"), before=before,
        )  # fmt: skip
    if net.has(f"{prefix}final_layer_norm.weight"):
        signal = net.norm(signal, f"{prefix}final_layer_norm")
    if net.has(f"{prefix}project_out.weight"):
        signal = net.linear(signal, f"{prefix}project_out")
    _language_head(net, signal, prefix.partition("decoder.")[0], words, default=True)


def _attending(
    net: Network, signal: Signal, name: str, norm: str, *, n_heads: int, before: bool,
    memory: Signal | None = None, order: tuple[int, ...] = (0, 1, 2), out: str = "out_proj",
) -> Signal:  # fmt: skip
    """Attention, the sum and the norm, which comes first or last."""
    normed = net.norm(signal, norm) if before else signal
    mixed = net.attention(normed, name, QKV, n_heads=n_heads, memory=memory, order=order)
    mixed = net.linear(mixed, f"{name}.{out}", n_out=signal.shape[-1])
    total = net.add(signal, mixed)
    return total if before else net.norm(total, norm)


def _feeding(
    net: Network, signal: Signal, layers: tuple[str, str], norm: str, kind: str, *,
    n_hidden: int, before: bool,
) -> Signal:  # fmt: skip
    """An MLP, the sum and the norm, which comes first or last."""
    normed = net.norm(signal, norm) if before else signal
    total = net.add(signal, net.mlp(normed, layers[0], layers[1], kind, n_hidden))
    return total if before else net.norm(total, norm)


@dataclass(frozen=True, slots=True)
class _Llama:
    """What tells the models with gated MLPs and RMS norms apart.

    Attributes
    ----------
    plus_one : bool
        Whether the factor of a norm is 1 + its weight.
    scaled : bool
        Whether embeddings are multiplied by the root of their width.
    head_norms : bool
        Whether queries and keys have norms.
    sandwich : bool
        Whether there are norms after attention and MLP too.
    packed : bool
        Whether queries, keys and values lie in one matrix, and gates with what they gate.
    tied : bool
        Whether the head has the embeddings' weights if the settings do not say.
    kind : str
        Activation if the settings do not say.
    """

    plus_one: bool = False
    scaled: bool = False
    head_norms: bool = False
    sandwich: bool = False
    packed: bool = False
    tied: bool = False
    kind: str = "silu"

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

    def _layer(self, net: Network, signal: Signal, block: str, width: int) -> Signal:
        mixed = self._attention(net, self._norm(net, signal, f"{block}.input_layernorm"), block)
        mixed = net.linear(mixed, f"{block}.self_attn.o_proj", n_out=width)
        second = f"{block}.post_attention_layernorm"
        if self.sandwich:
            mixed = self._norm(net, mixed, second)
            second = f"{block}.pre_feedforward_layernorm"
        signal = net.add(signal, mixed)
        hidden = self._mlp(net, self._norm(net, signal, second), f"{block}.mlp")
        if self.sandwich:
            hidden = self._norm(net, hidden, f"{block}.post_feedforward_layernorm")
        return net.add(signal, hidden)

    def _norm(self, net: Network, signal: Signal, name: str) -> Signal:
        return net.norm(signal, name, "norm", plus_one=self.plus_one)

    def _attention(self, net: Network, signal: Signal, block: str) -> Signal:
        config, name = net.config, f"{block}.self_attn"
        n_heads = config.size("num_attention_heads")
        n_key_heads = config.size("num_key_value_heads", default=n_heads)
        head_dim = config.size("head_dim", default=max(config.size("hidden_size") // n_heads, 1))
        if not self.packed:
            return net.attention(
                signal, name, QKV, n_heads=n_heads, n_key_heads=n_key_heads, head_dim=head_dim,
                norms=("q_norm", "k_norm") if self.head_norms else None,
            )  # fmt: skip
        counts = (n_heads, n_key_heads, n_key_heads)
        layer = f"{name}.qkv_proj"
        packed = net.linear(signal, layer, n_out=sum(counts) * head_dim)
        parts = []
        start = 0
        for n in counts:
            part = indexed(packed, 2, slice(start, start + n * head_dim))
            parts.append(net.heads(part, n, layer))
            start += n * head_dim
        return net.attend(parts[0], parts[1], parts[2], name)

    def _mlp(self, net: Network, signal: Signal, name: str) -> Signal:
        config = net.config
        kind = config.word("hidden_activation", "hidden_act", default=self.kind)
        n_hidden = config.size("intermediate_size")
        if not self.packed:
            return net.gated_mlp(
                signal, f"{name}.gate_proj", f"{name}.up_proj", f"{name}.down_proj",
                kind, n_hidden,
            )  # fmt: skip
        both = net.linear(signal, f"{name}.gate_up_proj", n_out=2 * n_hidden)
        gates = indexed(both, 2, slice(0, n_hidden))
        up = indexed(both, 2, slice(n_hidden, 2 * n_hidden))
        product = net.wiring.multiply(up, net.activation(gates, kind))
        return net.linear(product, f"{name}.down_proj")


# --- encoders with decoders ---------------------------------------------------------------------


def _t5(net: Network) -> None:
    config = net.config
    width = config.size("d_model")
    anchors = ("shared", "encoder.embed_tokens", "decoder.embed_tokens")
    encoder = _t5_stack(net, "encoder", config.size("num_layers"), anchors, None)
    if not net.has("decoder.final_layer_norm.weight"):
        net.outputs(encoder)
        return
    n_layers = config.size("num_decoder_layers", default=config.size("num_layers"))
    words = ("decoder.embed_tokens", *anchors)
    signal = _t5_stack(net, "decoder", n_layers, words, encoder)
    own = net.has("lm_head.weight")
    has_head = own or tied(net, "", ("ForConditionalGeneration", "WithLMHeadModel"), default=True)
    if has_head:
        # Files of the first version scaled where the head had the embeddings' weights.
        first = config.word("model_type") != "mt5"
        scaled = first and config.flag("tie_word_embeddings", default=True)
        if config.flag("scale_decoder_outputs", default=scaled):
            signal = net.gain(signal, width**-0.5)
        signal = net.linear(signal, "lm_head", *anchors)
    net.outputs(signal, encoder)


def _t5_stack(
    net: Network, stack: str, n_layers: int, words: tuple[str, ...], memory: Signal | None
) -> Signal:
    config = net.config
    signal = net.embedding(
        f"{stack}.embed_tokens", *words,
        width=config.size("d_model"), n_rows=config.size("vocab_size"),
    )  # fmt: skip
    n_heads, dims = config.size("num_heads"), config.size("d_kv")
    for number in range(n_layers):
        block = f"{stack}.block.{number}.layer"
        for at, source in enumerate((None,) if memory is None else (None, memory)):
            name = f"{block}.{at}.{'SelfAttention' if source is None else 'EncDecAttention'}"
            bias = f"{name}.relative_attention_bias"
            normed = net.norm(signal, f"{block}.{at}.layer_norm", "norm")
            mixed = net.attention(
                normed, name, ("q", "k", "v"),
                n_heads=n_heads, head_dim=dims, memory=source,
            )  # fmt: skip
            if net.has(f"{bias}.weight"):
                net.used.add(f"{bias}.weight")
                shape = net.tensors[f"{bias}.weight"].shape
                reason = "nothing that is in the graph reads what it writes"
                net.wiring.leave_out(bias, shape, reason)
            mixed = net.linear(mixed, f"{name}.o", n_out=config.size("d_model"))
            signal = net.add(signal, mixed)
        at = 1 if memory is None else 2
        normed = net.norm(signal, f"{block}.{at}.layer_norm", "norm")
        signal = net.add(signal, _t5_mlp(net, normed, f"{block}.{at}.DenseReluDense"))
    return net.norm(signal, f"{stack}.final_layer_norm", "norm")


def _t5_mlp(net: Network, signal: Signal, name: str) -> Signal:
    config = net.config
    kind = config.word("feed_forward_proj", default="relu").removeprefix("gated-")
    n_hidden = config.size("d_ff")
    if net.has(f"{name}.wi_0.weight"):
        return net.gated_mlp(signal, f"{name}.wi_0", f"{name}.wi_1", f"{name}.wo", kind, n_hidden)
    return net.mlp(signal, f"{name}.wi", f"{name}.wo", kind, n_hidden)


def _bart(net: Network) -> None:
    _bart_like(net, before=False)


def _mbart(net: Network) -> None:
    _bart_like(net, before=True)


def _bart_like(net: Network, *, before: bool) -> None:
    anchor = "encoder.layernorm_embedding.weight"
    prefix = net.prefix("model.", "", anchor=anchor)
    config = net.config
    width = config.size("d_model")
    kind = config.word("activation_function", default="gelu")
    stacks = ("encoder", "decoder")
    words = [f"{prefix}{part}" for part in ("shared", *(f"{s}.embed_tokens" for s in stacks))]
    ends: list[Signal] = []
    for stack in stacks:
        signal = net.embedding(
            f"{prefix}{stack}.embed_tokens", *words,
            width=width, n_rows=config.size("vocab_size"),
        )  # fmt: skip
        if config.flag("scale_embedding", default=False):
            signal = net.gain(signal, width**0.5)
        places = net.embedding(f"{prefix}{stack}.embed_positions")
        signal = net.add(signal, places)
        signal = net.norm(signal, f"{prefix}{stack}.layernorm_embedding")
        n_heads = config.size(f"{stack}_attention_heads", "num_attention_heads")
        for number in range(config.size(f"{stack}_layers", "num_hidden_layers")):
            block = f"{prefix}{stack}.layers.{number}"
            signal = _bart_layer(
                net, signal, block, ends[0] if ends else None, n_heads, kind,
                config.size(f"{stack}_ffn_dim"), before=before,
            )  # fmt: skip
        if net.has(f"{prefix}{stack}.layer_norm.weight"):
            signal = net.norm(signal, f"{prefix}{stack}.layer_norm")
        ends.append(signal)
    encoder, signal = ends
    if net.has("lm_head.weight") or tied(net, prefix, ("ForConditionalGeneration",), default=True):
        net.constant("final_logits_bias")
        signal = net.linear(signal, "lm_head", *words)
    net.outputs(signal, encoder)


def _bart_layer(
    net: Network, signal: Signal, block: str, memory: Signal | None, n_heads: int, kind: str,
    n_hidden: int, *, before: bool, order: tuple[int, ...] = (0, 1, 2),
) -> Signal:  # fmt: skip
    """Attention, attention to an encoder's output if there is one, and an MLP."""
    for part, source in (("self_attn", None), ("encoder_attn", memory)):
        if part == "self_attn" or source is not None:
            signal = _attending(
                net, signal, f"{block}.{part}", f"{block}.{part}_layer_norm",
                n_heads=n_heads, before=before, memory=source, order=order,
            )  # fmt: skip
    return _feeding(
        net, signal, (f"{block}.fc1", f"{block}.fc2"), f"{block}.final_layer_norm", kind,
        n_hidden=n_hidden, before=before,
    )  # fmt: skip


def _whisper(net: Network) -> None:
    prefix = net.prefix("model.", "", anchor="encoder.conv1.weight")
    config = net.config
    kind = config.word("activation_function", default="gelu")
    n_bins = config.size("num_mel_bins", default=80)
    name = f"{prefix}encoder"
    signal = net.wiring.input("input_features", (1, _whisper_bins(net, name, n_bins), TIME))
    for layer in ("conv1", "conv2"):
        signal = net.convolution(signal, f"{name}.{layer}", (1, 0, TIME))
        signal = net.activation(signal, "gelu")
    signal = permuted(signal, [0, 2, 1])
    signal = net.add(signal, net.embedding(f"{name}.embed_positions"))
    for number in range(config.size("encoder_layers")):
        signal = _bart_layer(
            net, signal, f"{name}.layers.{number}", None, config.size("encoder_attention_heads"),
            kind, config.size("encoder_ffn_dim"), before=True,
        )  # fmt: skip
    encoder = net.norm(signal, f"{name}.layer_norm")
    name = f"{prefix}decoder"
    words = f"{name}.embed_tokens"
    width = config.size("d_model")
    signal = net.embedding(words, width=width, n_rows=config.size("vocab_size"))
    net.constant(f"{name}.embed_positions.weight")
    for number in range(config.size("decoder_layers")):
        signal = _bart_layer(
            net, signal, f"{name}.layers.{number}", encoder,
            config.size("decoder_attention_heads"), kind, config.size("decoder_ffn_dim"),
            before=True,
        )  # fmt: skip
    signal = net.norm(signal, f"{name}.layer_norm")
    head = net.has("proj_out.weight") or tied(
        net, prefix, ("ForConditionalGeneration",), default=True
    )
    if head:
        signal = net.linear(signal, "proj_out", words)
    net.outputs(signal, encoder)


def _whisper_bins(net: Network, name: str, n_bins: int) -> int:
    """Bins of the spectrum, checked before anything is made that has their number."""
    parameter, kernel = net.tensor(f"{name}.conv1.weight")
    if kernel.ndim != 3 or kernel.shape[1] != n_bins:
        raise ModelError(
            f"tensor {parameter!r} has shape {kernel.shape}, but config.json calls for a kernel "
            f"with {n_bins} input channels"
        )
    return n_bins


# --- images -------------------------------------------------------------------------------------


def _patches(net: Network, name: str, channels: int, image: str = "input") -> Signal:
    """Patches of an image, (batch, patches, width)."""
    parameter, kernel = net.tensor(f"{name}.weight")
    if kernel.ndim != 4 or kernel.shape[1] != channels:
        raise ModelError(
            f"tensor {parameter!r} has shape {kernel.shape}, but config.json calls for a kernel "
            f"with {channels} input channels and 2 axes of positions"
        )
    signal = net.wiring.input(image, (1, channels, PATCHES, PATCHES))
    signal = net.convolution(signal, name, (1, 0, PATCHES, PATCHES))
    flat = reshaped(signal, (1, signal.shape[1], PATCHES * PATCHES))
    return permuted(flat, [0, 2, 1])


def _vit(net: Network) -> None:
    _vit_like(net, "vit.")


def _deit(net: Network) -> None:
    _vit_like(net, "deit.")


def _vit_like(net: Network, own: str) -> None:
    prefix = net.prefix(own, "", anchor="embeddings.cls_token")
    config = net.config
    name = f"{prefix}embeddings"
    n_heads, width = config.size("num_attention_heads"), config.size("hidden_size")
    signal = _patches(
        net, f"{name}.patch_embeddings.projection", config.size("num_channels", default=3)
    )
    first = [f"{name}.cls_token", f"{name}.distillation_token"]
    first = [token for token in first if net.has(token)]
    net.constant(*first, f"{name}.position_embeddings")
    net.aside(f"{name}.mask_token")
    signal = concatenated([*(Signal((1, 1, signal.shape[2])) for _ in first), signal], 1)
    kind = config.word("hidden_act", default="gelu")
    for number in range(config.size("num_hidden_layers")):
        signal = _vit_layer(net, signal, prefix, number, n_heads, width, kind)
    signal = net.norm(signal, f"{prefix}layernorm")
    ends: list[Signal] = []
    if net.has("classifier.weight"):
        ends.append(net.linear(net.first_position(signal), "classifier"))
    if net.has("cls_classifier.weight"):
        both = [
            net.linear(indexed(signal, 1, at), layer)
            for at, layer in enumerate(("cls_classifier", "distillation_classifier"))
        ]
        ends += [net.add(*both), *both]
    if net.has(f"{prefix}pooler.dense.weight") and not ends:
        pooled = net.linear(net.first_position(signal), f"{prefix}pooler.dense")
        ends = [signal, net.activation(pooled, "tanh")]
    net.outputs(*(ends or [signal]))


def _vit_layer(
    net: Network, signal: Signal, prefix: str, number: int, n_heads: int, width: int, kind: str
) -> Signal:
    block = f"{prefix}encoder.layer.{number}"
    new = f"{prefix}layers.{number}"
    if net.has(f"{new}.layernorm_before.weight"):
        block = new
    parts: tuple[str, str, str] = ("query", "key", "value")
    name, out = f"{block}.attention.attention", f"{block}.attention.output.dense"
    first, second = f"{block}.intermediate.dense", f"{block}.output.dense"
    if net.has(f"{block}.attention.q_proj.weight"):
        parts = QKV
        name, out = f"{block}.attention", f"{block}.attention.o_proj"
    if net.has(f"{block}.mlp.fc1.weight"):
        first, second = f"{block}.mlp.fc1", f"{block}.mlp.fc2"
    normed = net.norm(signal, f"{block}.layernorm_before")
    mixed = net.attention(normed, name, parts, n_heads=n_heads)
    signal = net.add(net.linear(mixed, out, n_out=width), signal)
    normed = net.norm(signal, f"{block}.layernorm_after")
    hidden = net.mlp(normed, first, second, kind, net.config.size("intermediate_size"))
    return net.add(hidden, signal)


def _dinov2(net: Network) -> None:
    prefix = net.prefix("dinov2.", "", anchor="embeddings.cls_token")
    config = net.config
    name = f"{prefix}embeddings"
    n_heads, width = config.size("num_attention_heads"), config.size("hidden_size")
    kind = config.word("hidden_act", default="gelu")
    channels = config.size("num_channels", default=3)
    signal = _patches(net, f"{name}.patch_embeddings.projection", channels)
    net.constant(f"{name}.cls_token", f"{name}.position_embeddings")
    net.aside(f"{name}.mask_token")
    signal = concatenated([Signal((1, 1, signal.shape[2])), signal], 1)
    for number in range(config.size("num_hidden_layers")):
        new = f"{prefix}layers.{number}"
        old = f"{prefix}encoder.layer.{number}"
        block = new if net.has(f"{new}.norm1.weight") else old
        attention = f"{block}.attention"
        normed = net.norm(signal, f"{block}.norm1")
        if net.has(f"{attention}.q_proj.weight"):
            mixed = net.attention(normed, attention, QKV, n_heads=n_heads)
            mixed = net.linear(mixed, f"{attention}.o_proj", n_out=width)
        else:
            parts = ("query", "key", "value")
            mixed = net.attention(normed, f"{attention}.attention", parts, n_heads=n_heads)
            mixed = net.linear(mixed, f"{attention}.output.dense", n_out=width)
        mixed = net.factors(mixed, f"{block}.layer_scale1.lambda1")
        signal = net.add(mixed, signal)
        normed = net.norm(signal, f"{block}.norm2")
        hidden = _dinov2_mlp(net, normed, f"{block}.mlp", kind)
        hidden = net.factors(hidden, f"{block}.layer_scale2.lambda1")
        signal = net.add(hidden, signal)
    signal = net.norm(signal, f"{prefix}layernorm")
    first = net.first_position(signal)
    if not net.has("classifier.weight"):
        net.outputs(signal, first)
        return
    others = net.wiring.positions(indexed(signal, 1, slice(1, 2)), (1, 1, signal.shape[2]))
    net.outputs(net.linear(concatenated([first, indexed(others, 1, 0)], 1), "classifier"))


def _dinov2_mlp(net: Network, signal: Signal, name: str, kind: str) -> Signal:
    if net.has(f"{name}.gate_proj.weight"):
        layers = [f"{name}.{layer}" for layer in ("gate_proj", "up_proj", "down_proj")]
        return net.gated_mlp(signal, layers[0], layers[1], layers[2], "silu")
    if net.has(f"{name}.weights_in.weight"):
        # Two layers, whose weights lie in one matrix.
        packed = f"{name}.weights_in"
        gates = net.activation(net.linear(signal, f"{name}.gate_proj", packed, part=0), "silu")
        product = net.wiring.multiply(gates, net.linear(signal, f"{name}.up_proj", packed, part=1))
        return net.linear(product, f"{name}.down_proj", f"{name}.weights_out")
    return net.mlp(signal, f"{name}.fc1", f"{name}.fc2", kind)


def _clip(net: Network) -> None:
    vision = _clip_tower(net, "vision", "pixel_values")
    image = net.linear(vision[1], "visual_projection")
    text = _clip_tower(net, "text")
    words = net.linear(text[1], "text_projection")
    net.constant("logit_scale")
    normed = [net.wiring.normalization(signal) for signal in (image, words)]
    product = net.wiring.matmul(normed[1], permuted(normed[0], [1, 0]))
    net.outputs(
        permuted(product, [1, 0]), product, normed[1], normed[0], text[0], words, vision[0], image
    )


def _clip_vision(net: Network) -> None:
    hidden, pooled = _clip_tower(net, "vision")
    if net.has("visual_projection.weight"):
        net.outputs(net.linear(pooled, "visual_projection"), hidden)
        return
    net.outputs(hidden, pooled)


def _clip_text(net: Network) -> None:
    hidden, pooled = _clip_tower(net, "text")
    if net.has("text_projection.weight"):
        net.outputs(net.linear(pooled, "text_projection"), hidden)
        return
    net.outputs(hidden, pooled)


def _clip_tower(net: Network, tower: str, image: str = "input") -> tuple[Signal, Signal]:
    """The states of a tower's last layer and what is pooled of them."""
    config = net.config.part(f"{tower}_config") if f"{tower}_config" in net.config else net.config
    sees = tower == "vision"
    anchor = "embeddings.patch_embedding.weight" if sees else "embeddings.token_embedding.weight"
    prefix = net.prefix(f"{tower}_model.", "", anchor=anchor)
    name = f"{prefix}embeddings"
    if sees:
        channels = config.size("num_channels", default=3)
        signal = _patches(net, f"{name}.patch_embedding", channels, image)
        net.constant(f"{name}.class_embedding")
        signal = concatenated([Signal((1, 1, signal.shape[2])), signal], 1)
    else:
        signal = net.embedding(
            f"{name}.token_embedding", width=config.size("hidden_size", default=512),
            n_rows=config.size("vocab_size", default=49408),
        )  # fmt: skip
    places = net.embedding(f"{name}.position_embedding", time=signal.shape[1])
    signal = net.add(signal, places)
    if sees:
        old, new = f"{prefix}pre_layrnorm", f"{prefix}pre_layernorm"
        signal = net.norm(signal, old if net.has(f"{old}.weight") else new)
    for number in range(config.size("num_hidden_layers", default=12)):
        block = f"{prefix}encoder.layers.{number}"
        signal = _attending(
            net, signal, f"{block}.self_attn", f"{block}.layer_norm1",
            n_heads=config.size("num_attention_heads", default=12 if sees else 8), before=True,
            order=CLIP_ORDER,
        )  # fmt: skip
        signal = _feeding(
            net, signal, (f"{block}.mlp.fc1", f"{block}.mlp.fc2"), f"{block}.layer_norm2",
            config.word("hidden_act", default="quick_gelu"),
            n_hidden=config.size("intermediate_size", default=3072 if sees else 2048), before=True,
        )  # fmt: skip
    if not sees:
        signal = net.norm(signal, f"{prefix}final_layer_norm")
        return signal, net.first_position(signal)
    return signal, net.norm(net.first_position(signal), f"{prefix}post_layernorm")


FAMILIES: dict[str, Callable[[Network], None]] = {
    "bert": _bert,
    "roberta": _roberta,
    "xlm-roberta": _roberta,
    "camembert": _roberta,
    "distilbert": _distilbert,
    "electra": _electra,
    "gpt2": _gpt2,
    "gpt_neox": _gpt_neox,
    "bloom": _bloom,
    "opt": _opt,
    "llama": _Llama(),
    "mistral": _Llama(),
    "qwen2": _Llama(),
    "qwen3": _Llama(head_norms=True),
    "gemma": _Llama(plus_one=True, scaled=True, tied=True, kind="gelu_pytorch_tanh"),
    "gemma2": _Llama(
        plus_one=True, scaled=True, tied=True, sandwich=True, kind="gelu_pytorch_tanh"
    ),
    "phi3": _Llama(packed=True),
    "t5": _t5,
    "mt5": _t5,
    "umt5": _t5,
    "bart": _bart,
    "mbart": _mbart,
    "whisper": _whisper,
    "vit": _vit,
    "deit": _deit,
    "dinov2": _dinov2,
    "clip": _clip,
    "clip_vision_model": _clip_vision,
    "clip_text_model": _clip_text,
}
