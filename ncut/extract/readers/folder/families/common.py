"""Layers shared by several families."""

from __future__ import annotations

from ncut.extract.program.values import Value
from ncut.extract.readers.folder.blocks import Network

QKV = ("q_proj", "k_proj", "v_proj")
"""Usual names of the projections of queries, keys and values."""


def attending(
    net: Network, signal: Value, name: str, norm: str, *, n_heads: int, before: bool,
    memory: Value | None = None, order: tuple[int, ...] = (0, 1, 2), out: str = "out_proj",
) -> Value:  # fmt: skip
    """Attention, residual sum and norm; the norm comes first or last."""
    normed = net.norm(signal, norm) if before else signal
    mixed = net.attention(normed, name, QKV, n_heads=n_heads, memory=memory, order=order)
    mixed = net.linear(mixed, f"{name}.{out}", n_out=signal.shape[-1])
    total = net.add(signal, mixed)
    return total if before else net.norm(total, norm)


def feeding(
    net: Network, signal: Value, layers: tuple[str, str], norm: str, kind: str, *,
    n_hidden: int, before: bool,
) -> Value:  # fmt: skip
    """MLP, residual sum and norm; the norm comes first or last."""
    normed = net.norm(signal, norm) if before else signal
    total = net.add(signal, net.mlp(normed, layers[0], layers[1], kind, n_hidden))
    return total if before else net.norm(total, norm)
