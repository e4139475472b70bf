"""The few differences between array namespaces, and the location of their arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Arrays(Protocol):
    """A solver's array namespace, with conversions from and to NumPy arrays."""

    @property
    def xp(self) -> Any:
        """The array namespace."""

    def asarray(self, host: Any) -> Any:
        """Converts a NumPy array to the namespace."""

    def to_host(self, array: Any) -> NDArray[Any]:
        """Converts an array of the namespace to NumPy."""


class _Host:
    """NumPy arrays, with the compiled core's kernels."""

    xp = np

    def asarray(self, host: Any) -> Any:
        return host

    def to_host(self, array: Any) -> NDArray[Any]:
        return np.asarray(array)


HOST: Arrays = _Host()


def astype(array: Any, dtype: Any, xp: Any) -> Any:
    """The array in another type; itself if it has that type."""
    if hasattr(array, "astype"):  # NumPy before 2.1, and CuPy
        return array.astype(dtype, copy=False)
    if not hasattr(xp, "astype"):  # PyTorch
        return array.to(dtype)
    return xp.astype(array, dtype, copy=False)


def concat(arrays: Sequence[Any], xp: Any, axis: int = 0) -> Any:
    """Arrays joined along an axis."""
    joined = getattr(xp, "concat", None) or xp.concatenate  # NumPy before 2.0
    return joined(list(arrays), axis=axis)
