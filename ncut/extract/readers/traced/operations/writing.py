"""Writing into a tensor."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from ncut.errors import ModelError
from ncut.extract.program.values import Value, expanded, indexed, places_along, reshaped
from ncut.extract.readers.traced.operations.common import is_known
from ncut.extract.readers.traced.tensor import is_traced
from ncut.extract.readers.traced.tracing import Call
from ncut.extract.registry import table


def _index_filled(call: Call) -> Value:
    """`tensor.index_fill(dim, index, value)`."""
    signal, index = call.signal(), call.arg(2, "index")
    axis = signal.axis(call.arg(1, "dim"))
    filled = call.signal(3, "value")
    if not is_known(call, index):
        return call.program.activation(call.program.combine(signal, filled), homogeneous=False)
    mask = np.ones(signal.shape[axis], dtype=np.bool_)
    mask[index.detach().cpu().numpy()] = False
    wide = mask.reshape([-1 if at == axis else 1 for at in range(signal.ndim)])
    return expanded(call.program.masked(signal, wide), call.shape)


def _put(call: Call) -> Value:
    """`tensor[indices] = values`; constants do not change the surrounding neurons."""
    signal, indices = call.signal(), call.arg(1, "indices")
    values = call.signal(2, "values")
    known = all(index is None or is_known(call, index) for index in indices)
    places = partial(_places_of, signal.shape, indices) if known else None
    if places is not None and values.program is not None:
        values = expanded(values, places().shape)
    return call.program.scatter(
        signal, values, added=bool(call.arg(3, "accumulate", False)), places=places,
        why="it writes into a part of a tensor; build the tensor with torch.cat or torch.stack "
        "instead",
    )  # fmt: skip


def _places_of(shape: tuple[int, ...], indices: Any) -> Any:
    """Flat positions of the indexed entries, in the shape of the result."""
    key = tuple(slice(None) if x is None else x.detach().cpu().numpy() for x in indices)
    return np.arange(math.prod(shape)).reshape(shape)[key]


def _scatter(call: Call) -> Value:
    """Values put or added at indexed positions."""
    signal, source = call.signal(), call.signal(3, "src")
    axis, index = signal.axis(call.arg(1, "dim")), call.arg(2, "index")
    slices = call.function.startswith("index_")
    if slices:
        source = call.signal(3, "source")
    if not slices and "add" not in call.function and _is_zero(call.arg(0, "self")):
        back = call.program.put_back(call.signal(2, "index"), source, axis)
        if back is not None:
            return back
        if not is_known(call, index) and not is_traced(call.arg(3, "value", call.arg(3, "src"))):
            return Value(call.shape, number="classes")
    places = None
    if is_known(call, index):
        places = partial(_slices_of if slices else _entries_of, signal.shape, axis, index)
    if not slices and source.ndim == len(index.shape):
        for at, n in enumerate(index.shape):
            source = source if n == source.shape[at] else indexed(source, at, slice(n))
    return call.program.scatter(
        signal, source, axis=axis, added="add" in call.function, places=places
    )


def _is_zero(tensor: Any) -> bool:
    return not is_traced(tensor) and not tensor.count_nonzero()


def _slices_of(shape: tuple[int, ...], axis: int, index: Any) -> Any:
    whole = np.arange(math.prod(shape)).reshape(shape)
    return whole.take(np.ravel(index.detach().cpu().numpy()), axis=axis)


def _entries_of(shape: tuple[int, ...], axis: int, index: Any) -> Any:
    return places_along(shape, axis, index.cpu().numpy())


def _masked_scattered(call: Call) -> Value:
    """`tensor.masked_scatter(mask, source)`."""
    signal, mask, source = call.signal(), call.arg(1, "mask"), call.signal(2, "source")
    if not is_known(call, mask):
        raise ModelError("it writes entries at places that depend on the data")
    chosen = np.broadcast_to(mask.cpu().numpy(), call.shape)
    places = np.flatnonzero(chosen)
    flat = reshaped(source, (math.prod(source.shape),))
    return call.program.scatter(
        expanded(signal, call.shape), indexed(flat, 0, slice(len(places))), places=lambda: places
    )


RULES = table(
    ("copy_ copy", lambda call: expanded(call.signal(1, "src"), call.shape)),
    ("fill_ fill zero_ zero", lambda call: expanded(call.signal(1, "value"), call.shape)),
    ("index_put index_put_ _index_put_impl_ _unsafe_index_put", _put),
    ("index_fill index_fill_", _index_filled),
    ("masked_scatter masked_scatter_", _masked_scattered),
    (
        "scatter scatter_ scatter_add scatter_add_ scatter_reduce scatter_reduce_ index_add "
        "index_add_ index_copy index_copy_",
        _scatter,
    ),
)  # fmt: skip
