"""Encoders with a norm after each sum: BERT and related models."""

from __future__ import annotations

from collections.abc import Callable

from ncut.extract.program.values import Value, indexed
from ncut.extract.readers.folder.blocks import Network


def _bert(net: Network) -> None:
    _bert_like(net, ("bert.", ""), _bert_heads)


def _roberta(net: Network) -> None:
    _bert_like(net, ("roberta.", ""), _roberta_heads)


def _electra(net: Network) -> None:
    _bert_like(net, ("electra.", ""), _electra_heads)


def _bert_like(
    net: Network,
    prefixes: tuple[str, ...],
    heads: Callable[[Network, str, Value, Value | None], None],
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


def _bert_heads(net: Network, prefix: str, signal: Value, pooled: Value | None) -> None:
    ends: list[Value] = []
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


def _classified(net: Network, signal: Value, pooled: Value | None) -> list[Value]:
    """Heads for sequence classification (pooled position), tokens, and answer spans."""
    ends = []
    if net.has("classifier.weight"):
        ends.append(net.linear(signal if pooled is None else pooled, "classifier"))
    if net.has("qa_outputs.weight"):
        ends += _answers(net, signal, "qa_outputs")
    return ends


def _answers(net: Network, signal: Value, name: str) -> list[Value]:
    """Scores of the start and end of an answer."""
    made = net.linear(signal, name)
    return [indexed(made, 2, at) for at in range(made.shape[2])]


def _roberta_heads(net: Network, prefix: str, signal: Value, pooled: Value | None) -> None:
    ends: list[Value] = []
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


def _electra_heads(net: Network, prefix: str, signal: Value, pooled: Value | None) -> None:
    ends: list[Value] = []
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


FAMILIES: dict[str, Callable[[Network], None]] = {
    "bert": _bert,
    "roberta": _roberta,
    "xlm-roberta": _roberta,
    "camembert": _roberta,
    "distilbert": _distilbert,
    "electra": _electra,
}
