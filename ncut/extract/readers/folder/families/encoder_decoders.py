"""Encoder-decoders: T5, BART, Whisper."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ncut.errors import ModelError
from ncut.extract.program.values import Value, permuted
from ncut.extract.readers.folder.blocks import TIME, Network, tied
from ncut.extract.readers.folder.families.common import attending, feeding


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
        # Files of the first version scale if the head is tied to the embeddings.
        first = config.word("model_type") != "mt5"
        scaled = first and config.flag("tie_word_embeddings", default=True)
        if config.flag("scale_decoder_outputs", default=scaled):
            signal = net.gain(signal, width**-0.5)
        signal = net.linear(signal, "lm_head", *anchors)
    net.outputs(signal, encoder)


def _t5_stack(
    net: Network, stack: str, n_layers: int, words: tuple[str, ...], memory: Value | None
) -> Value:
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
            signal = attending(
                net, signal, name, f"{block}.{at}.layer_norm", before=True, kind="norm",
                parts=("q", "k", "v"), out=f"{name}.o", n_heads=n_heads, head_dim=dims,
                memory=source,
            )  # fmt: skip
            if net.has(f"{bias}.weight"):
                net.used.add(f"{bias}.weight")
                shape = net.tensors[f"{bias}.weight"].shape
                reason = "nothing that is in the graph reads what it writes"
                net.program.leave_out(bias, shape, reason)
        at = 1 if memory is None else 2
        normed = net.norm(signal, f"{block}.{at}.layer_norm", "norm")
        signal = net.add(signal, _t5_mlp(net, normed, f"{block}.{at}.DenseReluDense"))
    return net.norm(signal, f"{stack}.final_layer_norm", "norm")


def _t5_mlp(net: Network, signal: Value, name: str) -> Value:
    config = net.config
    kind = config.word("feed_forward_proj", default="relu").removeprefix("gated-")
    n_hidden = config.size("d_ff")
    if net.has(f"{name}.wi_0.weight"):
        return net.gated_mlp(signal, f"{name}.wi_0", f"{name}.wi_1", f"{name}.wo", kind, n_hidden)
    return net.mlp(signal, f"{name}.wi", f"{name}.wo", kind, n_hidden)


def _bart(net: Network, *, before: bool = False) -> None:
    anchor = "encoder.layernorm_embedding.weight"
    prefix = net.prefix("model.", "", anchor=anchor)
    config = net.config
    width = config.size("d_model")
    kind = config.word("activation_function", default="gelu")
    stacks = ("encoder", "decoder")
    words = [f"{prefix}{part}" for part in ("shared", *(f"{s}.embed_tokens" for s in stacks))]
    ends: list[Value] = []
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
    net: Network, signal: Value, block: str, memory: Value | None, n_heads: int, kind: str,
    n_hidden: int, *, before: bool,
) -> Value:  # fmt: skip
    """Self-attention, cross-attention if there is an encoder output, and an MLP."""
    for part, source in (("self_attn", None), ("encoder_attn", memory)):
        if part == "self_attn" or source is not None:
            signal = attending(
                net, signal, f"{block}.{part}", f"{block}.{part}_layer_norm",
                n_heads=n_heads, before=before, memory=source,
            )  # fmt: skip
    return feeding(
        net, signal, (f"{block}.fc1", f"{block}.fc2"), f"{block}.final_layer_norm", kind,
        n_hidden=n_hidden, before=before,
    )  # fmt: skip


def _whisper(net: Network) -> None:
    prefix = net.prefix("model.", "", anchor="encoder.conv1.weight")
    config = net.config
    kind = config.word("activation_function", default="gelu")
    n_bins = config.size("num_mel_bins", default=80)
    name = f"{prefix}encoder"
    signal = net.program.input("input_features", (1, _whisper_bins(net, name, n_bins), TIME))
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
    """Number of mel bins, checked before any allocation of this size."""
    parameter, kernel = net.tensor(f"{name}.conv1.weight")
    if kernel.ndim != 3 or kernel.shape[1] != n_bins:
        raise ModelError(
            f"tensor {parameter!r} has shape {kernel.shape}, but config.json calls for a kernel "
            f"with {n_bins} input channels"
        )
    return n_bins


FAMILIES: dict[str, Callable[[Network], None]] = {
    "t5": _t5,
    "mt5": _t5,
    "umt5": _t5,
    "bart": _bart,
    "mbart": partial(_bart, before=True),
    "whisper": _whisper,
}
