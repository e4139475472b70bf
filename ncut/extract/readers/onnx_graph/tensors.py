"""Decodes tensors of an ONNX file; sizes are checked before allocation."""

from __future__ import annotations

import math
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from ncut.errors import ModelError
from ncut.files import Budget, content_of, reading

Array: TypeAlias = NDArray[Any]

# The format's type numbers: their NumPy dtype, little-endian, and the field that holds the values
# if there are no raw bytes.
DTYPES: dict[int, tuple[Any, str]] = {
    1: (np.dtype("<f4"), "float_data"),
    2: (np.dtype("u1"), "int32_data"),
    3: (np.dtype("i1"), "int32_data"),
    4: (np.dtype("<u2"), "int32_data"),
    5: (np.dtype("<i2"), "int32_data"),
    6: (np.dtype("<i4"), "int32_data"),
    7: (np.dtype("<i8"), "int64_data"),
    9: (np.dtype("?"), "int32_data"),
    10: (np.dtype("<f2"), "int32_data"),
    11: (np.dtype("<f8"), "double_data"),
    12: (np.dtype("<u4"), "uint64_data"),
    13: (np.dtype("<u8"), "uint64_data"),
    16: (np.dtype(ml_dtypes.bfloat16), "int32_data"),
    17: (np.dtype(ml_dtypes.float8_e4m3fn), "int32_data"),
    18: (np.dtype(ml_dtypes.float8_e4m3fnuz), "int32_data"),
    19: (np.dtype(ml_dtypes.float8_e5m2), "int32_data"),
    20: (np.dtype(ml_dtypes.float8_e5m2fnuz), "int32_data"),
}
_HALF_BYTES = {21: False, 22: True}  # 4-bit numbers, two per byte: unsigned and signed
_STRING = 8
_EXTERNAL = 1
FLOATING = (1, 10, 11, 16, 17, 18, 19, 20)
"""Numbers of the floating-point types."""


class Tensors:
    """The tensors of one file and of its external files, which hold larger tensors.

    Attributes
    ----------
    path : Path
        The model's file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._folder = path.parent.resolve()
        self._files: dict[str, Array] = {}
        self._unchanged = ExitStack()
        self._stored = 0
        self._laid_out = 0

    def check_unchanged(self) -> None:
        """Raise ModelError if a file beside the model changed since it was opened."""
        self._unchanged.close()

    def shape(self, tensor: Any) -> tuple[int, ...]:
        """The declared shape of a tensor."""
        shape = tuple(int(size) for size in tensor.dims)
        if any(size < 0 for size in shape):
            raise ModelError(f"{self._of(tensor)} has a shape with a negative size, {shape}")
        return shape

    def array(self, tensor: Any) -> Array:
        """The values of a tensor; memory-mapped if in an external file."""
        shape = self.shape(tensor)
        n = math.prod(shape)
        if tensor.data_type == _STRING:
            strings: Array = np.array(list(tensor.string_data), dtype=object)
            return self._shaped(tensor, strings, shape)
        if tensor.data_type in _HALF_BYTES:
            return self._half_bytes(tensor, shape, n)
        if tensor.data_type not in DTYPES:
            raise ModelError(
                f"{self._of(tensor)} has the type number {tensor.data_type}, which is not known; "
                "convert it to float32 first"
            )
        dtype, field = DTYPES[tensor.data_type]
        raw = self._raw(tensor, n * dtype.itemsize)
        if raw is not None:
            return self._shaped(tensor, raw.view(dtype), shape)
        listed = getattr(tensor, field)
        if len(listed) != n:
            raise self._wrong_size(tensor, shape, f"{len(listed)} values")
        if field == "int32_data" and (dtype.kind == "f" or dtype.kind == "V"):
            # Bit patterns of shorter floating-point types.
            bits = np.array(listed, dtype=np.int64).astype(f"u{dtype.itemsize}")
            values: Array = bits.view(dtype)
            return values.reshape(shape)
        return np.array(listed, dtype=dtype).reshape(shape)

    def sparse(self, tensor: Any) -> Array:
        """The values of a sparse tensor, as a dense array."""
        values = self.array(tensor.values)
        shape = self.shape(tensor)
        n = math.prod(shape)
        what = f"sparse tensor {tensor.values.name!r}"
        Budget(self.path, self.path.stat().st_size).take(what, n * values.itemsize)
        indices = self.array(tensor.indices).astype(np.int64)
        if indices.ndim == 2:
            indices = np.ravel_multi_index(tuple(indices.T), shape)
        whole: Array = np.zeros(n, dtype=values.dtype)
        whole[indices] = values
        return whole.reshape(shape)

    # --- inside -----------------------------------------------------------------------------

    def _of(self, tensor: Any) -> str:
        return f"{self.path}: tensor {tensor.name!r}"

    def _wrong_size(self, tensor: Any, shape: tuple[int, ...], found: str) -> ModelError:
        return ModelError(
            f"{self._of(tensor)} declares the shape {shape}, but the file holds {found} of it "
            "(truncated, or damaged?)"
        )

    def _shaped(self, tensor: Any, values: Array, shape: tuple[int, ...]) -> Array:
        if values.size != math.prod(shape):
            raise self._wrong_size(tensor, shape, f"{values.size} values")
        return values.reshape(shape)

    def _half_bytes(self, tensor: Any, shape: tuple[int, ...], n: int) -> Array:
        raw = self._raw(tensor, (n + 1) // 2)
        if raw is None:
            if len(tensor.int32_data) != (n + 1) // 2:
                raise self._wrong_size(tensor, shape, f"{len(tensor.int32_data)} bytes")
            raw = np.array(tensor.int32_data, dtype=np.int64).astype(np.uint8)
        values = np.stack([raw & 15, raw >> 4], axis=1).ravel()[:n].astype(np.int8)
        if _HALF_BYTES[tensor.data_type]:
            values = (values ^ 8) - 8
        return values.reshape(shape)

    def _raw(self, tensor: Any, n_bytes: int) -> Array | None:
        """A tensor's raw bytes; None if its values are in a typed field."""
        if tensor.data_location == _EXTERNAL:
            return self._external(tensor, n_bytes)
        if not tensor.HasField("raw_data"):
            return None
        raw = np.frombuffer(tensor.raw_data, dtype=np.uint8)
        if raw.size != n_bytes:
            raise self._wrong_size(tensor, self.shape(tensor), f"{raw.size} bytes")
        return raw

    def _external(self, tensor: Any, n_bytes: int) -> Array:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        try:
            offset = int(entries.get("offset") or 0)
            length = int(entries.get("length") or n_bytes)
        except ValueError as error:
            raise ModelError(f"{self._of(tensor)}: where it lies is no number: {error}") from error
        content = self._file(tensor, location)
        if length != n_bytes or offset < 0 or offset + n_bytes > content.size:
            raise ModelError(
                f"{self._of(tensor)} needs {n_bytes} bytes at {offset} of {location!r}, which "
                f"has {content.size} (of {length} declared); the file is truncated or another one"
            )
        # Several tensors may share one region of a file.
        self._laid_out += n_bytes
        Budget(self.path, self._stored).take("what lies beside it", self._laid_out)
        return content[offset : offset + n_bytes]

    def _file(self, tensor: Any, location: str) -> Array:
        """An external file, memory-mapped."""
        if location in self._files:
            return self._files[location]
        if not location or "\0" in location or Path(location).is_absolute():
            raise ModelError(
                f"{self._of(tensor)} lies in {location!r}; only files beside the model are read"
            )
        try:
            path = (self._folder / location).resolve()
        except (OSError, RuntimeError) as error:
            raise ModelError(f"{self._of(tensor)} lies in {location!r}: {error}") from error
        if not path.is_relative_to(self._folder):
            raise ModelError(
                f"{self._of(tensor)} lies in {location!r}, which is outside the model's folder "
                f"{str(self._folder)!r}; put the file itself, no link to it, beside the model"
            )
        if not path.is_file():
            raise ModelError(
                f"{self._of(tensor)} lies in {location!r}, and there is no such file beside the "
                "model; put it there"
            )
        self._unchanged.enter_context(reading(path, "weights of an ONNX model"))
        content: Array = content_of(path)
        self._files[location] = content
        self._stored += content.size
        return content
