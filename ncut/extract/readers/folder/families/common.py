"""Layers shared by several families."""

from __future__ import annotations

from typing import Any

from ncut.extract.program.values import Value
from ncut.extract.readers.folder.blocks import Network

QKV = ("q_proj", "k_proj", "v_proj")
"""Usual names of the projections of queries, keys and values."""

LONG = ("query", "key", "value")
"""Their names in BERT and related models."""


def attending(
    net: Network, signal: Value, name: str, norm: str, *, before: bool, kind: str = "layer norm",
    parts: tuple[str, str, str] = QKV, out: str = "", factors: str = "", **options: Any,
) -> Value:  # fmt: skip
    """Attention, residual sum and norm; the norm comes first or last.

    Parameters
    ----------
    name, norm, out, factors : str
        The attention's module, the norm, the output's layer (by default the attention's
        `out_proj`), and factors of what it adds, if any.
    before : bool
        Whether the norm comes first.
    **options
        As for `Network.attention`.
    """
    normed = net.norm(signal, norm, kind) if before else signal
    mixed = net.attention(normed, name, parts, **options)
    mixed = net.linear(mixed, out or f"{name}.out_proj", n_out=signal.shape[-1])
    total = net.add(signal, net.factors(mixed, factors) if factors else mixed)
    return total if before else net.norm(total, norm)


def feeding(
    net: Network, signal: Value, layers: tuple[str, str], norm: str, kind: str, *,
    n_hidden: int, before: bool,
) -> Value:  # fmt: skip
    """MLP, residual sum and norm; the norm comes first or last."""
    normed = net.norm(signal, norm) if before else signal
    total = net.add(signal, net.mlp(normed, layers[0], layers[1], kind, n_hidden))
    return total if before else net.norm(total, norm)
