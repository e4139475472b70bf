"""Reads Flax's msgpack files as named arrays in PyTorch's layout."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncut.errors import InputError, ModelError, import_extra
from ncut.files import Budget, content_of
from ncut.graphs.validate import bfloat16

MAX_DEPTH = 64
"""Largest nesting depth of modules."""

_ARRAY, _SCALAR = 1, 3
_CHUNKED = "__msgpack_chunked_array__"
_DTYPES = {*("float16", "float32", "float64", "bool"), *(f"int{n}" for n in (8, 16, 32, 64)),
           *(f"uint{n}" for n in (8, 16, 32, 64))}  # fmt: skip
_NAMES = {"kernel": "weight", "scale": "weight", "var": "running_var", "mean": "running_mean"}


def read_flax(path: Path, key: str | None = None) -> dict[str, NDArray[Any]]:
    """The arrays of a `flax.serialization` file, with PyTorch's names and layout.

    Kernels (inputs, outputs) and (positions..., inputs, outputs) become weights (outputs, inputs,
    positions...); scales become weights, and variances in `batch_stats` running variances. Only
    `params` and `batch_stats` of a training state are read.

    Parameters
    ----------
    path : Path
        A file of `flax.serialization.to_bytes` or `msgpack_serialize`.
    key : str, optional
        The key of the parameters, `"a/b"` if nested.

    Raises
    ------
    ModelError
        If the file is damaged or has no arrays.
    InputError
        If `key` is missing.
    MissingExtraError
        If the package msgpack is not installed.

    Source: flax.serialization, whose arrays are (shape, name of the type, bytes).
    """
    msgpack = import_extra("msgpack", "flax")
    budget = Budget(path, path.stat().st_size)

    def array(kind: int, data: bytes) -> Any:
        if kind not in (_ARRAY, _SCALAR):
            return None
        said = msgpack.unpackb(data, raw=False)
        return _array(said, budget)

    try:
        content = msgpack.unpackb(
            content_of(path).tobytes(), ext_hook=array, raw=False, strict_map_key=False
        )
    except ModelError:
        raise
    except Exception as error:  # from msgpack, a damaged string or an array
        raise ModelError(f"{path}: not a file of Flax, or a damaged one: {error!r}") from error
    if not isinstance(content, Mapping):
        raise ModelError(f"{path}: holds a {type(content).__name__}; expected named arrays")
    return named_as_torch(content, key, path)


def named_as_torch(
    content: Mapping[Any, Any], key: str | None, path: Path
) -> dict[str, NDArray[Any]]:
    """The arrays of a tree of Flax modules, with PyTorch's names and layout.

    Parameters
    ----------
    content : mapping
        The tree; its leaves are arrays, or functions that read one.
    key : str or None
        The key of the parameters, `"a/b"` if nested.
    path : Path
        The file, for messages.

    Raises
    ------
    ModelError
        If it has no arrays, several networks, or layers that are no chain's.
    InputError
        If `key` is missing.
    """
    found: dict[str, NDArray[Any]] = {}
    for tree in _trees(content, key, path):
        for steps, leaf in _leaves(tree, ()):
            values = leaf() if callable(leaf) else leaf
            if len(steps) > 1 and steps[-1] == "value":  # a variable of nnx
                steps = steps[:-1]
            *before, last = steps
            _refuse_other_layers(path, before, values)
            name = ".".join((*before, _NAMES.get(last, last)))
            if name in found:
                raise ModelError(f"{path}: two arrays would have the name {name!r}")
            found[name] = _turned(values) if last == "kernel" else values
    if not found:
        raise ModelError(f"{path}: a file of Flax without arrays")
    return found


def _refuse_other_layers(path: Path, steps: Sequence[str], values: NDArray[Any]) -> None:
    """Refuse layers whose kernels only look like a chain's."""
    name = ".".join(steps)
    recurrent = bool(steps) and re.fullmatch(r"[ih][ifgornz]", steps[-1]) is not None
    several = values.ndim > 2 and re.search(r"DenseGeneral|Attention", name) is not None
    if recurrent or several:
        what = "a recurrent cell" if recurrent else "a layer over several axes"
        raise ModelError(
            f"{path}: {name!r} is {what}: the network is no chain of layers. Export it to ONNX, or "
            "pass the arrays of a chain in Python"
        )


def _array(said: Any, budget: Budget) -> NDArray[Any]:
    shape, name, data = said
    dtype = bfloat16() if name == "bfloat16" else np.dtype(name if name in _DTYPES else "V")
    if dtype.kind == "V" and name != "bfloat16":
        raise ModelError(f"has an array of the type {str(name)[:20]!r}, which is not read")
    if math.prod(shape) * dtype.itemsize != len(data) or min(shape, default=0) < 0:
        raise ModelError(f"has an array of shape {tuple(shape)} and {len(data)} bytes")
    budget.take("an array", len(data))
    return np.frombuffer(data, dtype).reshape(shape)


def _trees(content: Mapping[Any, Any], key: str | None, path: Path) -> list[Mapping[Any, Any]]:
    """The mappings with the network's parameters and its norms' statistics."""
    if key is not None:
        found: Any = content
        for step in key.split("/"):
            if not isinstance(found, Mapping) or step not in found:
                names = ", ".join(repr(str(name)) for name in [*content][:12])
                raise InputError(f"key: no {key!r} in {path}; it has {names}")
            found = found[step]
        if isinstance(found, Mapping) and not isinstance(found.get("params"), Mapping):
            return [found]
        content = found
    if not isinstance(content, Mapping):
        raise InputError(f"key: {key!r} of {path} is no mapping of arrays")
    named = [content.get(name) for name in ("params", "batch_stats")]
    there = [tree for tree in named if isinstance(tree, Mapping)]
    if there:
        return there
    inside = [
        str(name)
        for name, value in content.items()
        if isinstance(value, Mapping) and isinstance(value.get("params"), Mapping)
    ]
    if len(inside) > 1:
        raise ModelError(
            f"{path}: holds several networks, {', '.join(map(repr, inside[:12]))}; choose one: "
            "key= in Python, --key on the command line"
        )
    return _trees(content[inside[0]], None, path) if inside else [content]


def _leaves(
    tree: Mapping[Any, Any], before: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Any]]:
    if len(before) > MAX_DEPTH:
        raise ModelError("its modules nest too deeply")
    if tree.get(_CHUNKED):
        yield before, _joined(tree)
        return
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*before, str(name)))
        elif isinstance(value, np.ndarray) or callable(value):
            yield (*before, str(name)), value


def _joined(tree: Mapping[Any, Any]) -> NDArray[Any]:
    """An array that Flax split because it exceeds the size limit of a message."""
    try:
        shape, pieces = (tree[name] for name in ("shape", "chunks"))
        sizes = [int(shape[str(number)]) for number in range(len(shape))]
        parts = [pieces[str(number)] for number in range(len(pieces))]
        return np.concatenate([np.ravel(part) for part in parts]).reshape(sizes)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError("has an array in pieces that do not fit together") from error


def _turned(kernel: NDArray[Any]) -> NDArray[Any]:
    """(positions..., inputs, outputs) as (outputs, inputs, positions...)."""
    if kernel.ndim < 2:
        return kernel
    return np.moveaxis(kernel, (-1, -2), (0, 1))
