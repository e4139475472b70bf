"""Operands of a followed graph: signals, or constants with known values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ncut.errors import ModelError
from ncut.extract.arrays import Shaped
from ncut.extract.program.values import Value

Array: TypeAlias = NDArray[Any]

MAX_AXIS = 2**24
"""Length of the longest axis of a signal."""

MAX_ENTRIES = 2**40
"""Entries of the largest signal; a signal allocates none of them."""

MAX_GROWN = 2**22
"""Length to which any axis may be padded or tiled."""

FREE = 2**24
"""Entries always allowed for an array; a larger one may have at most twice its sources' entries."""


@dataclass(frozen=True, slots=True, eq=False)
class Constant(Shaped):
    """A tensor that does not depend on the data.

    Attributes
    ----------
    values : ndarray
        Its values.
    parameters : tuple of str
        Names of the source initializers.
    of_shapes : bool
        Whether the values derive from the shape of a tensor that depends on the data.
    """

    values: Array
    parameters: tuple[str, ...] = ()
    of_shapes: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape."""
        return self.values.shape

    @property
    def single(self) -> float | None:
        """The common value of all entries; None if they differ."""
        values = unrepeated(self.values)
        if values.dtype.kind in "OSU" or not values.size or (values != values.flat[0]).any():
            return None
        return float(values.flat[0])


Operand: TypeAlias = Value | Constant


def filled(signal: Value) -> Value:
    """A signal that weights read; refused if it is empty."""
    if 0 in signal.shape:
        raise ModelError(f"it reads a tensor of shape {signal.shape}, which has no entries")
    return signal


def checked(shape: Sequence[Any]) -> tuple[int, ...]:
    """A signal's shape; refused if a size is negative or exceeds the limits."""
    sizes = tuple(int(size) for size in shape)
    if any(size < 0 for size in sizes):
        raise ModelError(f"it would make a tensor of shape {sizes}")
    if any(size > MAX_AXIS for size in sizes) or math.prod(sizes) > MAX_ENTRIES:
        raise ModelError(f"it would make a tensor of shape {sizes}, which is too large")
    return sizes


def check_grown(n: int, size: int) -> None:
    """Refuse to lengthen an axis a thousandfold, which only a damaged file requests."""
    if size > max(MAX_GROWN, 4 * n):
        raise ModelError(f"it would lengthen an axis from {n} to {size}, which is too long")


def stored(array: Array) -> int:
    """Number of an array's entries in memory; broadcast entries count once."""
    sizes = zip(array.shape, array.strides, strict=True)
    return math.prod(size for size, stride in sizes if stride or not size)


def unrepeated(array: Array) -> Array:
    """An array with length 1 along its broadcast axes."""
    steps = zip(array.shape, array.strides, strict=True)
    part: Array = array[tuple(slice(0, 1 if n and not step else None) for n, step in steps)]
    return part


def affordable(n: int, arrays: Iterable[Array | None]) -> bool:
    """Check whether a result of n entries may be computed from these arrays."""
    return n <= max(FREE, 2 * sum(stored(array) for array in arrays if array is not None))


def as_floats(values: Array) -> Array:
    """Weights in float32 if their type has no arithmetic."""
    if values.dtype.kind in "iub" or (values.dtype.kind == "V" and values.dtype.itemsize == 1):
        return values.astype(np.float32)
    return values
