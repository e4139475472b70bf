"""Writing into a tensor."""

from __future__ import annotations

from ncut.errors import ModelError
from ncut.extract.signal import (
    Signal,
    expanded,
)
from ncut.extract.traced.operations.common import table
from ncut.extract.traced.tracing import Call


def _copy(call: Call) -> Signal:
    return expanded(call.signal(1, "src"), call.shape)


def _filled(call: Call) -> Signal:
    return Signal(call.shape)


def _put(call: Call) -> Signal:
    """`tensor[indices] = values`: constants leave the neurons around them what they are."""
    if call.signal(2, "values").terms:
        raise ModelError(
            "it writes into a part of a tensor; build the tensor with torch.cat or torch.stack "
            "instead"
        )
    return call.wiring.activation(call.signal(0, "self"), homogeneous=False)


def _scatter(call: Call) -> Signal:
    """Values put or added at positions that an index tells."""
    signal, source = call.signal(0, "self"), call.signal(3, "src")
    axis = signal.axis(call.arg(1, "dim"))
    if call.function.startswith("index_"):
        source = call.signal(3, "source")
    if not source.terms:
        return call.wiring.activation(signal, homogeneous=False)
    if signal.varies(axis) or source.varies(axis):
        raise ModelError("it moves neurons to places that an index tells")
    source = call.wiring.positions(source, call.shape)
    if not signal.terms:
        return source
    added = "add" in call.function
    return call.wiring.add(signal, source) if added else call.wiring.combine(signal, source)


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
