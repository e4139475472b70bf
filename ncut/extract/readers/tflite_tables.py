"""The tables of a TensorFlow Lite flatbuffer: tensors with dequantized values, and operators."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ncut.errors import ModelError
from ncut.extract.readers.lazy import Lazy
from ncut.extract.readers.tflite_sparse import dense, positions
from ncut.files import Budget

MAX_TENSORS = 2**18
"""Largest number of tensors, operators or buffers of a file."""

MAX_NUMBERS = 2**31
"""Entries of the largest tensor."""

_DTYPES = {0: "<f4", 1: "<f2", 2: "<i4", 3: "u1", 4: "<i8", 6: "?", 7: "<i2", 9: "i1", 10: "<f8",
           15: "<u4", 16: "<u2"}  # fmt: skip

Array: TypeAlias = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of a file."""

    name: str
    shape: tuple[int, ...]  # its sizes; open ones are 1
    values: Lazy | None = None  # its dequantized values; None if operators compute it


class Graph:
    """The tables of a file: tensors, operators, and their options."""

    def __init__(self, schema: Any, content: NDArray[np.uint8], budget: Budget) -> None:
        self._content = content
        self._budget = budget
        self._model = schema.Model.GetRootAs(content, 0)
        self._names = {
            number: name
            for name, number in vars(schema.BuiltinOperator).items()
            if not name.startswith("_")
        }
        if self._model.SubgraphsLength() < 1 or self._model.SubgraphsLength() > MAX_TENSORS:
            raise ModelError(f"has {self._model.SubgraphsLength()} graphs")
        self._main = self._model.Subgraphs(0)
        for n in (self._main.TensorsLength(), self._main.OperatorsLength()):
            if n > min(MAX_TENSORS, content.size):
                raise ModelError(f"says to have {n} tensors or operators")
        self._called: set[str] = set()
        self.tensors = [self._tensor(n) for n in range(self._main.TensorsLength())]
        self.inputs, self.outputs = (
            self._ends(self._main.InputsAsNumpy()),
            self._ends(self._main.OutputsAsNumpy()),
        )

    def _ends(self, numbers: Any) -> list[int]:
        return [] if isinstance(numbers, int) else [int(number) for number in numbers]

    def parameters(self) -> dict[str, tuple[int, ...]]:
        """Shapes of all constants that may be weights."""
        return {t.name: t.shape for t in self.tensors
                if t.values is not None and t.values.dtype.kind == "f" and t.shape}  # fmt: skip

    def operators(self) -> Iterator[Operator]:
        """The operators in their order."""
        for number in range(self._main.OperatorsLength()):
            stored = self._main.Operators(number)
            code = self._model.OperatorCodes(stored.OpcodeIndex())
            builtin = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
            kind = self._names.get(builtin, f"operator {builtin}")
            if kind == "CUSTOM":
                kind = f"custom operator {(code.CustomCode() or b'').decode('utf-8', 'replace')!r}"
            inputs, outputs = (
                self._ends(stored.InputsAsNumpy()),
                self._ends(stored.OutputsAsNumpy()),
            )
            if any(not -1 <= n < len(self.tensors) for n in (*inputs, *outputs)):
                raise ModelError(f"{kind} {number} reads or writes a tensor that is not there")
            yield Operator(kind, number, inputs, outputs, stored.BuiltinOptions())

    def _tensor(self, number: int) -> Tensor:
        stored = self._main.Tensors(number)
        name = (stored.Name() or b"").decode("utf-8", "replace").split(";")[0]
        sizes = stored.ShapeAsNumpy()
        shape = () if isinstance(sizes, int) else tuple(int(size) for size in sizes)
        if len(shape) > 8 or min(shape, default=0) < -1 or math.prod(shape) > MAX_NUMBERS:
            raise ModelError(f"tensor {name!r} has the shape {shape}")
        shape = tuple(abs(size) for size in shape)
        name = f"{name} {number}".strip() if not name or name in self._called else name
        self._called.add(name)
        at = stored.Buffer()
        if not 0 <= at < min(self._model.BuffersLength(), self._content.size):
            raise ModelError(f"tensor {name!r} has no buffer")
        data = self._data(self._model.Buffers(at), name)
        if data is None and stored.Sparsity() is not None:
            data = np.zeros(0, np.uint8)  # nothing but zeros
        if data is None:
            return Tensor(name, shape)
        return Tensor(name, shape, _numbers(name, shape, data, stored, self._budget))

    def _data(self, buffer: Any, name: str) -> NDArray[np.uint8] | None:
        offset, size = buffer.Offset(), buffer.Size()
        if offset > 1:
            if offset + size > self._content.size:
                raise ModelError(f"tensor {name!r} does not lie in the file: it is truncated")
            return self._content[offset : offset + size]
        found = buffer.DataAsNumpy()
        return None if isinstance(found, int) or not found.size else found


def _numbers(name: str, shape: tuple[int, ...], data: Array, stored: Any, budget: Budget) -> Lazy:
    """The dequantized values of a tensor's bytes, expanded if they are sparse."""
    kind = stored.Type()
    if kind not in _DTYPES and kind != 17:
        return Lazy(shape, np.dtype("V1"), lambda: data)  # strings and similar: not used
    packed = kind == 17  # two 4-bit numbers per byte
    dtype = np.dtype("i1" if packed else _DTYPES[kind])
    n_bytes = -(-math.prod(shape) // 2) if packed else math.prod(shape) * dtype.itemsize
    at, sparsity = None, stored.Sparsity()
    if sparsity is not None:
        budget.take(f"sparse tensor {name!r}", math.prod(shape) * 4)
        if packed or data.size % dtype.itemsize:
            raise ModelError(f"sparse tensor {name!r} has {data.size} bytes of {dtype}")
        at = positions(sparsity, shape, data.size // dtype.itemsize, name, budget)
    elif n_bytes != data.size:
        raise ModelError(f"tensor {name!r} of shape {shape} has {data.size} bytes")
    scales, zeros, axis = _quantization(stored.Quantization(), shape, name)

    def plain() -> Array:
        if at is not None:
            return dense(data.view(dtype), at, shape)
        if not packed:
            return data.view(dtype).reshape(shape)
        nibbles = np.stack([data << 4, data], axis=-1).view(np.int8) >> 4
        return nibbles.ravel()[: math.prod(shape)].reshape(shape)

    if scales is None or dtype.kind == "f":
        return Lazy(shape, dtype, plain)

    def values() -> Array:
        wide = [1] * len(shape)
        if scales.size > 1:
            wide[axis] = scales.size
        number = plain().astype(np.float64) - zeros.reshape(wide if zeros.size > 1 else [])
        made: Array = (number * scales.reshape(wide if scales.size > 1 else [])).astype(np.float32)
        return made

    less = f"({name} - zero points)" if zeros.any() else name
    return Lazy(shape, np.dtype("<f4"), values, f"{less} * scales")


def _quantization(said: Any, shape: tuple[int, ...], name: str) -> tuple[Array | None, Array, int]:
    """Scales, zero points, and their axis."""
    none = np.zeros(1)
    if said is None or isinstance(said.ScaleAsNumpy(), int) or not said.ScaleAsNumpy().size:
        return None, none, 0
    scales = said.ScaleAsNumpy().astype(np.float64)
    stored = said.ZeroPointAsNumpy()
    zeros = none if isinstance(stored, int) or not stored.size else stored.astype(np.float64)
    axis = said.QuantizedDimension()
    for numbers in (scales, zeros):
        if numbers.size > 1 and not (0 <= axis < len(shape) and shape[axis] == numbers.size):
            raise ModelError(f"tensor {name!r} of shape {shape} has {numbers.size} scales")
    if zeros.size > 1 and scales.size == 1:
        scales = np.repeat(scales, zeros.size)
    return scales, zeros, axis


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator: its kind, the tensors it reads and writes, and its options."""

    kind: str
    number: int
    inputs: Sequence[int]
    outputs: Sequence[int]
    table: Any

    def option(self, table: str, name: str, default: Any = 0) -> Any:
        """An option of a table type; the schema's default if the file omits it."""
        if self.table is None:
            return default
        options = getattr(importlib.import_module(f"tflite.{table}"), table)()
        options.Init(self.table.Bytes, self.table.Pos)
        return getattr(options, name)()
