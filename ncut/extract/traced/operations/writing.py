"""Writing into a tensor."""

from __future__ import annotations

from ncut.extract.program.values import (
    Value,
    expanded,
)
from ncut.extract.traced.operations.common import table
from ncut.extract.traced.tracing import Call


def _copy(call: Call) -> Value:
    return expanded(call.signal(1, "src"), call.shape)


def _filled(call: Call) -> Value:
    return Value(call.shape)


def _put(call: Call) -> Value:
    """`tensor[indices] = values`: constants leave the neurons around them what they are."""
    return call.program.scatter(
        call.signal(0, "self"), call.signal(2, "values"),
        why="it writes into a part of a tensor; build the tensor with torch.cat or torch.stack "
        "instead",
    )  # fmt: skip


def _scatter(call: Call) -> Value:
    """Values put or added at positions that an index tells."""
    signal, source = call.signal(0, "self"), call.signal(3, "src")
    axis = signal.axis(call.arg(1, "dim"))
    if call.function.startswith("index_"):
        source = call.signal(3, "source")
    return call.program.scatter(signal, source, axis=axis, added="add" in call.function)


RULES = table(
    ("copy_ copy", _copy),
    ("fill_ fill zero_ zero", _filled),
    ("index_put index_put_ _index_put_impl_ _unsafe_index_put", _put),
    (
        "scatter scatter_ scatter_add scatter_add_ scatter_reduce scatter_reduce_ index_add "
        "index_add_ index_copy index_copy_",
        _scatter,
    ),
)  # fmt: skip
