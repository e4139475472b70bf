"""Encoders with a norm after each sum: BERT and related models."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ncut.extract.program.values import Value, indexed, unbound
from ncut.extract.readers.folder.blocks import Network
from ncut.extract.readers.folder.families.common import LONG, attending, feeding

WORDS = "embeddings.word_embeddings"

Heads = Callable[[Network, str, Value, Value | None], list[Value]]
"""Gets the names' prefix, the states and the pooled state; returns the heads' results."""


def _bert_like(net: Network, prefixes: tuple[str, ...], heads: Heads) -> None:
    prefix = net.prefix(*prefixes, anchor=f"{WORDS}.weight")
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
    for number in range(config.size("num_hidden_layers")):
        block = f"{prefix}encoder.layer.{number}"
        signal = attending(
            net, signal, f"{block}.attention.self", f"{block}.attention.output.LayerNorm",
            before=False, parts=LONG, out=f"{block}.attention.output.dense",
            n_heads=config.size("num_attention_heads"),
        )  # fmt: skip
        signal = feeding(
            net, signal, (f"{block}.intermediate.dense", f"{block}.output.dense"),
            f"{block}.output.LayerNorm", config.word("hidden_act", default="gelu"),
            n_hidden=config.size("intermediate_size"), before=False,
        )  # fmt: skip
    pooled = None
    if net.has(f"{prefix}pooler.dense.weight"):
        pooled = net.linear(net.first_position(signal), f"{prefix}pooler.dense")
        pooled = net.activation(pooled, "tanh")
    ends = heads(net, prefix, signal, pooled)
    net.outputs(*(ends or [signal, *([] if pooled is None else [pooled])]))


# --- heads --------------------------------------------------------------------------------------


def _words(
    net: Network, prefix: str, signal: Value, dense: str, kind: str, norm: str, out: str
) -> list[Value]:
    """Scores of words, if any: a layer, a norm, and a matrix that may be the embeddings'."""
    if not net.has(f"{dense}.weight"):
        return []
    hidden = net.norm(net.activation(net.linear(signal, dense), kind), norm)
    return [net.linear(hidden, out, f"{prefix}{WORDS}")]


def _by_first(net: Network, signal: Value, dense: str, kind: str, out: str) -> list[Value]:
    """Scores of a sequence from its first position, if there are any."""
    if not net.has(f"{dense}.weight"):
        return []
    hidden = net.activation(net.linear(net.first_position(signal), dense), kind)
    return [net.linear(hidden, out)]


def _classified(net: Network, signal: Value, pooled: Value | None) -> list[Value]:
    """Heads for sequence classification (pooled position), tokens, and answer spans."""
    ends = []
    if net.has("classifier.weight"):
        ends.append(net.linear(signal if pooled is None else pooled, "classifier"))
    if net.has("qa_outputs.weight"):  # scores of the start and the end of an answer
        ends += unbound(net.linear(signal, "qa_outputs"), 2)
    return ends


def _bert_heads(net: Network, prefix: str, signal: Value, pooled: Value | None) -> list[Value]:
    head, kind = "cls.predictions", net.config.word("hidden_act", default="gelu")
    dense, norm = f"{head}.transform.dense", f"{head}.transform.LayerNorm"
    ends = _words(net, prefix, signal, dense, kind, norm, f"{head}.decoder")
    net.bias(f"{head}.bias")
    if pooled is not None and net.has("cls.seq_relationship.weight"):
        ends.append(net.linear(pooled, "cls.seq_relationship"))
    return ends + _classified(net, signal, pooled)


def _roberta_heads(net: Network, prefix: str, signal: Value, pooled: Value | None) -> list[Value]:
    names = ("lm_head.dense", "gelu", "lm_head.layer_norm", "lm_head.decoder")
    ends = _words(net, prefix, signal, *names)
    net.bias("lm_head.bias")
    ends += _by_first(net, signal, "classifier.dense", "tanh", "classifier.out_proj")
    return ends + _classified(net, signal, pooled)


def _electra_heads(net: Network, prefix: str, signal: Value, pooled: Value | None) -> list[Value]:
    head, kind = "generator_predictions", net.config.word("hidden_act", default="gelu")
    names = (f"{head}.dense", "gelu", f"{head}.LayerNorm", "generator_lm_head")
    ends = _words(net, prefix, signal, *names)
    head = "discriminator_predictions"
    if net.has(f"{head}.dense.weight"):
        hidden = net.activation(net.linear(signal, f"{head}.dense"), kind)
        ends.append(indexed(net.linear(hidden, f"{head}.dense_prediction"), 2, 0))
    ends += _by_first(net, signal, "classifier.dense", "gelu", "classifier.out_proj")
    return ends + _classified(net, signal, pooled)


def _distilbert(net: Network) -> None:
    prefix = net.prefix("distilbert.", "", anchor=f"{WORDS}.weight")
    config = net.config
    width = config.size("dim", "hidden_size")
    signal = net.embedding(f"{prefix}{WORDS}", width=width, n_rows=config.size("vocab_size"))
    places = net.embedding(f"{prefix}embeddings.position_embeddings")
    signal = net.norm(net.add(signal, places), f"{prefix}embeddings.LayerNorm")
    kind = config.word("activation", default="gelu")
    for number in range(config.size("n_layers", "num_hidden_layers")):
        block = f"{prefix}transformer.layer.{number}"
        signal = attending(
            net, signal, f"{block}.attention", f"{block}.sa_layer_norm", before=False,
            parts=("q_lin", "k_lin", "v_lin"), out=f"{block}.attention.out_lin",
            n_heads=config.size("n_heads", "num_attention_heads"),
        )  # fmt: skip
        signal = feeding(
            net, signal, (f"{block}.ffn.lin1", f"{block}.ffn.lin2"), f"{block}.output_layer_norm",
            kind, n_hidden=config.size("hidden_dim", "intermediate_size"), before=False,
        )  # fmt: skip
    names = ("vocab_transform", kind, "vocab_layer_norm", "vocab_projector")
    ends = _words(net, prefix, signal, *names)
    chosen = _by_first(net, signal, "pre_classifier", "relu", "classifier")
    ends += chosen or _classified(net, signal, None)
    net.outputs(*(ends or [signal]))


_ROBERTA = partial(_bert_like, prefixes=("roberta.", ""), heads=_roberta_heads)

FAMILIES: dict[str, Callable[[Network], None]] = {
    "bert": partial(_bert_like, prefixes=("bert.", ""), heads=_bert_heads),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "distilbert": _distilbert,
    "electra": partial(_bert_like, prefixes=("electra.", ""), heads=_electra_heads),
}
