"""Tensors that share memory: what was written in place into a part that another one reads."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ncut.errors import ModelError
from ncut.extract.traced.tensor import Traced, flat, is_traced


class Writes:
    """Neurons that were put into the place of others in memory.

    The tensor that the memory was made for is told of them. Another one that had been made over
    the same memory sees them too, but its signal does not tell; reading it afterwards is an error.
    """

    def __init__(self) -> None:
        self._n_writes = 0
        self._wholes: weakref.WeakValueDictionary[int, Traced] = weakref.WeakValueDictionary()
        self._written: dict[int, tuple[Any, list[tuple[int, NDArray[np.int64], str]]]] = {}

    def know(self, made: Traced) -> None:
        """Remember a tensor if it is the first over its memory."""
        self._wholes.setdefault(made.meta.untyped_storage()._cdata, made)

    def whole(self, target: Traced) -> Traced | None:
        """The tensor of whose memory another one is a part; None if it is that itself."""
        found = self._wholes.get(target.meta.untyped_storage()._cdata)
        if found is None or found is target or not found.meta.is_contiguous():
            return None
        entire = found.meta.storage_offset() == 0
        return found if entire and int(memory_of(target.meta).max()) < found.meta.numel() else None

    def note(self, target: Traced, whole: Traced | None, place: str) -> None:
        """Note that an operation at `place` wrote other neurons into a tensor."""
        self._n_writes += 1
        target.version = self._n_writes
        if whole is not None:
            whole.version = self._n_writes
        storage = target.meta.untyped_storage()
        # The storage is kept, so that its number stays its own.
        written = self._written.setdefault(storage._cdata, (storage, []))[1]
        written.append((self._n_writes, memory_of(target.meta), place))

    def check(self, *arguments: Any) -> None:
        """Refuse tensors whose memory has been written to since they were made."""
        for value in flat(arguments) if self._written else ():
            if not is_traced(value):
                continue
            written = self._written.get(value.meta.untyped_storage()._cdata, (None, []))[1]
            for version, memory, place in written:
                if version > value.version and np.isin(memory_of(value.meta), memory).any():
                    raise ModelError(
                        f"{place}: it writes into a part of a tensor; build the tensor with "
                        "torch.cat or torch.stack instead"
                    )

    def hand_on(self, sources: list[Any], results: list[Any]) -> None:
        """Results know of all that their sources know of."""
        if not self._written:
            return
        newest = max(value.version for value in sources if is_traced(value))
        for value in results:
            if is_traced(value):
                value.version = newest


def memory_of(meta: torch.Tensor) -> NDArray[np.int64]:
    """Where a tensor's entries lie in its storage."""
    places: NDArray[np.int64] = np.array([meta.storage_offset()])
    for size, stride in zip(meta.shape, meta.stride(), strict=True):
        if stride:
            places = (places[:, None] + np.arange(size) * stride).ravel()
    return places
