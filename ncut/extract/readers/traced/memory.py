"""Aliases: tensors that share memory, and in-place writes into it."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ncut.extract.program.record import Program
from ncut.extract.program.values import Value
from ncut.extract.readers.traced.tensor import Traced, flat, is_traced


class Writes:
    """In-place writes of neurons over others in memory.

    The tensor that owns the memory is updated. The signals of other, earlier aliases become
    stale; reading these tensors afterwards is an error.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self._n_writes = 0
        self._wholes: weakref.WeakValueDictionary[int, Traced] = weakref.WeakValueDictionary()
        self._written: dict[int, tuple[Any, list[_Write]]] = {}

    def know(self, made: Traced) -> None:
        """Record a tensor if it is the first over its memory."""
        self._wholes.setdefault(made.meta.untyped_storage()._cdata, made)

    def whole(self, target: Traced) -> Traced | None:
        """The tensor that owns the memory of `target`; None if `target` does."""
        found = self._wholes.get(target.meta.untyped_storage()._cdata)
        if found is None or found is target or not found.meta.is_contiguous():
            return None
        entire = found.meta.storage_offset() == 0
        return found if entire and _span(target.meta)[1] < found.meta.numel() else None

    def note(self, target: Traced, whole: Traced | None, value: Value) -> None:
        """Note that an operation wrote a value into a tensor's memory."""
        self._n_writes += 1
        target.version = self._n_writes
        if whole is not None:
            whole.version = self._n_writes
        storage = target.meta.untyped_storage()
        # The storage is kept alive, so that its id stays unique.
        written = self._written.setdefault(storage._cdata, (storage, []))[1]
        written.append(_Write(self._n_writes, target.meta, target.value, value))

    def check(self, *arguments: Any) -> None:
        """Refuse tensors with other neurons written into their memory since creation."""
        for value in flat(arguments) if self._written else ():
            if not is_traced(value):
                continue
            written = self._written.get(value.meta.untyped_storage()._cdata, (None, []))[1]
            for write in written:
                if write.version > value.version and _overlap(value.meta, write.meta):
                    self._program.unchanged(
                        write.old, write.new,
                        "it reads a part of a tensor that was written into; build the tensor with "
                        "torch.cat or torch.stack instead",
                    )  # fmt: skip

    def hand_on(self, sources: list[Any], results: list[Any]) -> None:
        """Let results inherit the writes known to their sources."""
        if not self._written:
            return
        newest = max(value.version for value in sources if is_traced(value))
        for value in results:
            if is_traced(value):
                value.version = newest


@dataclass(frozen=True, slots=True, eq=False)
class _Write:
    """A write: the memory, the time, the new and the old value."""

    version: int
    meta: torch.Tensor
    old: Value
    new: Value


def _span(meta: torch.Tensor) -> tuple[int, int]:
    """The first and the last offset of a tensor in its storage."""
    first = int(meta.storage_offset())
    steps = zip(meta.shape, meta.stride(), strict=True)
    return first, first + sum((size - 1) * stride for size, stride in steps)


def _overlap(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Check whether two tensors over one storage overlap."""
    (start, stop), (other, end) = _span(first), _span(second)
    if stop < other or end < start:
        return False
    if first.is_contiguous() and second.is_contiguous():
        return True
    return bool(np.isin(memory_of(first), memory_of(second)).any())


def memory_of(meta: torch.Tensor) -> NDArray[np.int64]:
    """Offsets of a tensor's entries in its storage."""
    places: NDArray[np.int64] = np.array([meta.storage_offset()])
    for size, stride in zip(meta.shape, meta.stride(), strict=True):
        if stride:
            places = (places[:, None] + np.arange(size) * stride).ravel()
    return places
