"""Reads the named tensors of TorchScript archives; their program is neither read nor run."""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ncut.errors import ModelError
from ncut.files import Budget
from ncut.graphs.validate import bfloat16

MAX_DEPTH = 64
"""Largest nesting depth of modules."""

_DTYPES = {
    **{"DoubleStorage": "<f8", "FloatStorage": "<f4", "HalfStorage": "<f2"},
    **{"LongStorage": "<i8", "IntStorage": "<i4", "ShortStorage": "<i2", "CharStorage": "i1"},
    **{"ByteStorage": "u1", "BoolStorage": "?"},
}


def read_torchscript(path: Path) -> dict[str, NDArray[Any]]:
    """The parameters and buffers of a TorchScript archive, by their names in a state dict.

    Classes in the archive become plain records; the only known function builds a tensor from a
    storage and is implemented here. torch is not needed.

    Parameters
    ----------
    path : Path
        A file of `torch.jit.save`.

    Raises
    ------
    ModelError
        If the archive is damaged, its pickle has other functions, or it has no tensors.
    """
    budget = Budget(path, path.stat().st_size)
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        members = [name for name in names if name.partition("/")[2] == "data.pkl"]
        if len(members) != 1:
            raise ModelError(f"{path}: not a TorchScript archive, which has one data.pkl")
        root = members[0].removesuffix("data.pkl")
        data = io.BytesIO(budget.member(archive, members[0]))
        unpickler = _Unpickler(archive, root, budget, data)
        try:
            model = unpickler.load()
        except pickle.UnpicklingError as error:
            raise ModelError(f"{path}: its data.pkl is damaged: {error}") from error
    found: dict[str, NDArray[Any]] = {}
    _collect(model, "", found, 0)
    if not found:
        raise ModelError(f"{path}: a TorchScript archive without tensors")
    return found


class _Module:
    """An object of the archive: attributes by name."""

    def __init__(self, *_: Any) -> None:
        self.state: dict[Any, Any] = {}


class _Unpickler(pickle._Unpickler):  # in Python: a damaged length allocates nothing
    """Reads a pickle of tensors and objects, and calls only functions defined here."""

    stack: list[Any]

    def __init__(self, archive: zipfile.ZipFile, root: str, budget: Budget, file: Any) -> None:
        super().__init__(file)
        self._archive, self._root, self._budget = archive, root, budget
        self._storages: dict[str, NDArray[np.uint8]] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return _Module
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _first
        if module == "torch.jit._pickle" and name.startswith("build_"):
            return _first
        if module == "torch" and name in _DTYPES:
            return np.dtype(_DTYPES[name])
        if (module, name) == ("torch", "BFloat16Storage"):
            return bfloat16()
        raise pickle.UnpicklingError(f"names {module}.{name}, which is no part of a tensor")

    def load_build(self) -> None:
        """Set a module's attributes; a file may change nothing else."""
        state = self.stack.pop()
        if not isinstance(self.stack[-1], _Module):
            raise pickle.UnpicklingError("sets attributes of what is no module")
        self.stack[-1].state = state if isinstance(state, dict) else {}

    dispatch: ClassVar[dict[int, Any]] = {
        **pickle._Unpickler.dispatch,
        pickle.BUILD[0]: load_build,
    }

    def get_extension(self, code: int) -> Any:
        raise pickle.UnpicklingError("has an extension code")

    def persistent_load(self, pid: Any) -> NDArray[Any]:
        kind, dtype, key = pid[:3]
        if kind != "storage" or not isinstance(dtype, np.dtype) or not isinstance(key, str):
            raise pickle.UnpicklingError("has something else in the place of a storage")
        if key not in self._storages:
            member = f"{self._root}data/{key}"
            data = self._budget.member(self._archive, member)
            self._storages[key] = np.frombuffer(data, np.uint8)
        stored = self._storages[key]
        return stored[: stored.size // dtype.itemsize * dtype.itemsize].view(dtype)


def _first(value: Any, *_: Any) -> Any:
    return value


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> NDArray[Any]:
    """A view of a storage, if it lies within the storage."""
    numbers = [offset, *shape, *strides]
    if not isinstance(storage, np.ndarray) or len(shape) != len(strides):
        raise pickle.UnpicklingError("has a tensor of no storage")
    if any(type(number) is not int or number < 0 for number in numbers) or len(shape) > 16:
        raise pickle.UnpicklingError("has a tensor with no shape")
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    n = math.prod(shape)
    if (n and last >= storage.size) or n > storage.size:
        raise pickle.UnpicklingError("has a tensor larger than what it stores")
    if not n:
        return np.zeros(shape, storage.dtype)
    steps = [step * storage.itemsize for step in strides]
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps, writeable=False)


def _collect(module: Any, prefix: str, found: dict[str, NDArray[Any]], depth: int) -> None:
    if not isinstance(module, _Module):
        return
    if depth > MAX_DEPTH:
        raise ModelError("its modules nest too deeply")
    for name, value in module.state.items():
        if isinstance(value, np.ndarray):
            found[f"{prefix}{name}"] = value
        else:
            _collect(value, f"{prefix}{name}.", found, depth + 1)
