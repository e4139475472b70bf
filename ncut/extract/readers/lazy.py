"""Lazy tensors of a file: dequantized, reordered or summed on use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Lazy:
    """An array-like with a known shape and values computed by `make`."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    make: Callable[[], NDArray[Any]]  # returns the values
    # Their computation from arrays of the file, for people; empty if the file has them.
    formula: str = ""

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """The values."""
        values = self.make()
        return values if dtype is None else values.astype(dtype, copy=False)

    def then(
        self,
        change: Callable[[NDArray[Any]], NDArray[Any]],
        shape: tuple[int, ...] | None = None,
        formula: str = "",
    ) -> Lazy:
        """A lazy tensor computed from this one."""
        make, wanted = self.make, self.shape if shape is None else shape
        known = formula or self.formula
        return replace(self, shape=wanted, make=lambda: change(make()), formula=known)


def lazy(values: Any) -> Lazy:
    """An array as a lazy tensor."""
    if isinstance(values, Lazy):
        return values
    return Lazy(tuple(values.shape), values.dtype, lambda: np.asarray(values))
