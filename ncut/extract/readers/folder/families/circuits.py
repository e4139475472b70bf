"""The weight-sparse GPTs of openai/circuit_sparsity.

Source: Gao et al. (2025), Weight-sparse transformers have interpretable circuits,
arXiv:2511.13653; the layout of https://github.com/openai/circuit_sparsity.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ncut.errors import ModelError
from ncut.extract.program.values import Value, concatenated, parts
from ncut.extract.readers.folder.blocks import TIME, Network

KIND = "circuitgpt"


@dataclass(frozen=True, slots=True)
class _Circuits:
    """Settings shared by all layers."""

    net: Network  # the network being followed
    norm: str  # kind of its norms
    # Number of position features that each layer reads beside the residual stream; 0 if they are
    # added to it.
    n_places: int

    def chosen(self, signal: Value, where: str) -> Value:
        """Top-k of a vector, zeros elsewhere: elementwise except for k."""
        config = self.net.config
        places = config.word("afrac_loctypes", default="attn_in,attn_out,mlp_in,mlp_out")
        if "afrac" not in config or where not in places.split(","):
            return signal
        return self.net.program.activation(signal, homogeneous=False)

    def read(self, signal: Value, block: str, number: int) -> Value:
        """The normed residual stream, with the position features if they are read too."""
        normed = self.net.norm(signal, f"{block}.ln_{number}", self.norm)
        if not self.n_places:
            return normed
        self.net.constant(f"{block}.ln_p{number}.weight", f"{block}.ln_p{number}.bias")
        return concatenated([normed, Value((1, TIME, self.n_places))], 2)

    def add(self, signal: Value, delta: Value, where: str) -> Value:
        """The residual stream after a layer has written to it."""
        signal = self.net.add(signal, delta)
        if self.net.config.word("residual_activation_type", default="identity") == "relu":
            signal = self.net.activation(signal, "relu")
        return self.chosen(signal, where)


def _circuit_gpt(net: Network) -> None:
    prefix = net.prefix("transformer.", "circuit_model.transformer.", anchor="wte.weight")
    config = net.config
    width, n_heads = config.size("d_model"), config.size("n_head")
    dims = config.size("d_head", default=max(width // n_heads, 1))
    n_hidden = config.size("d_mlp", "n_mlp", default=4 * width)
    kind = config.word("activation_type", default="gelu")
    rms = config.flag("rms_norm", default=False)
    n_places = config.size("d_pos_emb", default=1) if "d_pos_emb" in config else 0
    model = _Circuits(net, "norm" if rms else "layer norm", n_places)
    words = f"{prefix}wte"
    first = net.embedding(words, width=width, n_rows=config.size("vocab_size"))
    net.constant(f"{prefix}wpe.weight")  # a parameter that is added or read as a constant
    signal = first
    for number in range(config.size("n_layer")):
        block = f"{prefix}h.{number}"
        read = model.chosen(model.read(signal, block, 1), "attn_in")
        packed = net.linear(read, f"{block}.attn.c_attn", n_out=3 * n_heads * dims)
        heads = [
            net.heads(model.chosen(part, f"attn_{name}"), n_heads, f"{block}.attn.c_attn")
            for name, part in zip("qkv", parts(packed, 2, [n_heads * dims] * 3), strict=True)
        ]
        net.constant(f"{block}.attn.attn_imp.sink_logit")
        mixed = net.attend(f"{block}.attn", *heads)
        mixed = net.linear(mixed, f"{block}.attn.c_proj", n_out=width)
        signal = model.add(signal, model.chosen(mixed, "attn_out"), "resid_post_attn")
        read = model.chosen(model.read(signal, block, 2), "mlp_in")
        hidden = net.activation(net.linear(read, f"{block}.mlp.c_fc", n_out=n_hidden), kind)
        hidden = net.linear(model.chosen(hidden, "mlp_neuron"), f"{block}.mlp.c_proj", n_out=width)
        signal = model.add(signal, model.chosen(hidden, "mlp_out"), "resid_post_mlp")
    signal = net.norm(signal, f"{prefix}ln_f", model.norm)
    root = prefix.removesuffix("transformer.")
    logits = net.linear(signal, f"{root}lm_head", words, n_out=config.size("vocab_size"))
    net.constant(f"{root}final_logits_bias")
    net.outputs(_with_bigrams(net, logits, f"{root}bigram_table"))


def _with_bigrams(net: Network, logits: Value, name: str) -> Value:
    """Bigram logits from the previous token, by a table of all pairs of tokens."""
    if not net.config.flag("enable_bigram_table", default=False):
        net.aside(name)
        return logits
    parameter, table = net.tensor(name)
    n = logits.shape[-1]
    if table.shape != (n, n):
        raise ModelError(f"tensor {name!r} has shape {table.shape}, expected {(n, n)}")
    pairs = net.program.embedding(
        table, (1, TIME, n), name=name, module=name, parameters=[parameter]
    )
    return net.add(logits, pairs)


FAMILIES: dict[str, Callable[[Network], None]] = {KIND: _circuit_gpt}
