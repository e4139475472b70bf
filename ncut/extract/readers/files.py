"""Reads weight files as named arrays. Nothing in a file is ever executed."""

from __future__ import annotations

import json
import math
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncut.errors import ModelError, import_extra
from ncut.extract.arrays import is_tensor
from ncut.extract.readers.checkpoint import CHECKPOINT_KEYS, state_dict_of
from ncut.files import Budget, content_of, describe, reading, regular_file
from ncut.graphs import NeuronGraph
from ncut.graphs.storage import check_npz, is_graph_file, load_graph, npy_header

# In older versions of torch a file can execute code despite weights_only=True.
SAFE_TORCH = (2, 6)

# NumPy dtypes of the safetensors format, little-endian.
_SAFETENSORS_DTYPES = {
    **{"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "bfloat16", "BOOL": "?"},
    **{"I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1"},
    **{"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"},
    **{"U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1"},
}
_PICKLED_OBJECT = re.compile(r"GLOBAL (\w+(?:\.\w+)+)")
_LOAD_IT_YOURSELF = (
    "If you trust the file, load it yourself and pass the module or its state dict, or save "
    "model.state_dict() and pass that file"
)


def read_npz(path: Path) -> NeuronGraph | dict[str, NDArray[Any]]:
    """The arrays of an `.npz` file, or the graph in a file of `NeuronGraph.save`."""
    if not zipfile.is_zipfile(path):
        raise ModelError(f"{path}: not an .npz file (no zip archive), or a truncated one")
    check_npz(path)
    with np.load(path, allow_pickle=False) as content:
        if is_graph_file(content):
            return load_graph(path, NeuronGraph)
        return {name: _npz_array(path, content, name) for name in content}


def _npz_array(path: Path, content: Any, name: str) -> NDArray[Any]:
    try:
        array = content[name]
    except Exception as error:
        raise ModelError(f"{path}: array {name!r} cannot be read: {describe(error)}") from error
    if not isinstance(array, np.ndarray):
        raise ModelError(f"{path}: {name!r} is not an array; is this a file of another program?")
    return array


def read_torch(path: Path, key: str | None = None) -> Mapping[str, Any]:
    """The state dict in a torch.save file; only tensors, numbers and strings are read."""
    torch = import_extra("torch", "torch")
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < SAFE_TORCH:
        raise ModelError(
            f"{path}: torch {torch.__version__} cannot read such a file safely "
            f"(CVE-2025-32434); install torch 2.6 or newer. {_LOAD_IT_YOURSELF}"
        )
    budget = Budget(path, path.stat().st_size)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                budget.entry(member)
    try:
        with warnings.catch_warnings(), path.open("rb") as file:  # a suffix would mean something
            warnings.simplefilter("ignore")
            content = torch.load(file, map_location="cpu", weights_only=True)
    except MemoryError as error:  # a damaged length, as the sizes of all members were checked
        raise ModelError(f"{path}: asks for more memory than there is; is it damaged?") from error
    except Exception as error:  # a damaged pickle may raise anything
        raise ModelError(f"{path}: {_why_not_loaded(str(error))}") from error
    if not isinstance(content, Mapping):
        raise ModelError(
            f"{path}: holds a {type(content).__name__}; expected a state dict, or a dict that has "
            f"one under {', '.join(map(repr, CHECKPOINT_KEYS))}"
        )
    named = state_dict_of(content, path, key)
    budget = Budget(path, path.stat().st_size)
    for name, value in named.items():
        if is_tensor(value) and not value.is_meta:
            budget.take(f"tensor {name!r}", value.numel() * value.element_size())
    return named


def _why_not_loaded(message: str) -> str:
    """The meaning of torch.load's message, without its advice to load the file unsafely."""
    pickled = _PICKLED_OBJECT.search(message)
    if pickled or "TorchScript" in message:
        holds = f"the pickled object {pickled[1]!r}" if pickled else "a TorchScript program"
        return (
            f"holds {holds}, and ncut reads nothing but tensors, as anything else may run code. "
            f"{_LOAD_IT_YOURSELF}"
        )
    return "not a file that torch.save wrote, or a truncated one"


def read_safetensors(path: Path) -> dict[str, NDArray[Any]]:
    """The tensors as views of the file's bytes; those of a large file are read on use.

    Raises
    ------
    ModelError
        If the file is missing, damaged or truncated.

    Source: the format's description, https://github.com/huggingface/safetensors#format.
    """
    with reading(path, ".safetensors"):
        return _tensors_of(regular_file(path))


def _tensors_of(path: Path) -> dict[str, NDArray[Any]]:
    from safetensors import safe_open

    with safe_open(path, framework="numpy"):
        pass  # validates the whole header: types, shapes, offsets inside the file
    content = content_of(path)
    start_of_data = 8 + int.from_bytes(content[:8].tobytes(), "little")
    header = json.loads(content[8:start_of_data].tobytes())
    header.pop("__metadata__", None)
    arrays: dict[str, NDArray[Any]] = {}
    for name, entry in header.items():
        if entry["dtype"] not in _SAFETENSORS_DTYPES:
            raise ModelError(
                f"{path}: {name!r} has dtype {entry['dtype']}; convert it to float32 first"
            )
        start, stop = (start_of_data + offset for offset in entry["data_offsets"])
        arrays[name] = (
            content[start:stop].view(_numpy_dtype(entry["dtype"])).reshape(entry["shape"])
        )
    return arrays


def _numpy_dtype(name: str) -> np.dtype[Any]:
    if name in ("BF16", "F8_E4M3", "F8_E5M2"):
        import ml_dtypes

        own: np.dtype[Any] = np.dtype(getattr(ml_dtypes, _SAFETENSORS_DTYPES[name]))
        return own
    return np.dtype(_SAFETENSORS_DTYPES[name])


def read_npy(path: Path) -> NDArray[Any]:
    """One array of an `.npy` file, memory-mapped if it is large.

    Raises
    ------
    ModelError
        If the file is missing, unreadable, or holds objects.
    """
    with reading(path, ".npy"):
        with regular_file(path).open("rb") as file:
            shape, by_columns, dtype = npy_header(file)
            start = file.tell()
        content, n_bytes = content_of(path)[start:], math.prod(shape) * dtype.itemsize
        if n_bytes > content.size:
            raise ModelError(
                f"{path}: says to have shape {shape}, but holds {content.size} bytes of it"
            )
        array = content[:n_bytes].view(dtype)
        return array.reshape(shape, order="F" if by_columns else "C")
