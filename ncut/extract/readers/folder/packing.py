"""Unpacks integers and small floats, and expands scales of groups and blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncut.extract.arrays import as_array

Array = NDArray[Any]

_FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
_EXPONENT_BIAS = 127


def unpacked(packed: Array, bits: int, axis: int, n: int | None = None) -> Array:
    """Unpack integers of 1 to 8 bits from 32-bit words along an axis.

    Number i begins at bit i * bits of the stream of words, lowest bits first, and may straddle two
    words. `n` numbers are returned, by default as many as fit.
    """
    words = np.moveaxis(np.asarray(packed), axis, -1).astype(np.int64) & 0xFFFFFFFF
    n = words.shape[-1] * 32 // bits if n is None else n
    word, shift = np.divmod(np.arange(n) * bits, 32)
    if n and word[-1] + (shift[-1] + bits > 32) >= words.shape[-1]:
        raise ValueError(f"{words.shape[-1]} words for {n} numbers of {bits} bits")
    values = words[..., word] >> shift
    over = np.flatnonzero(shift + bits > 32)
    values[..., over] |= words[..., word[over] + 1] << (32 - shift[over])
    return np.moveaxis(values & (2**bits - 1), -1, axis)


def fp4(packed: Any) -> NDArray[np.float32]:
    """Floats of 4 bits (sign, two of exponent, one of mantissa), two per byte, the lower first."""
    data = np.asarray(packed).view(np.uint8)
    codes = np.stack([data & 15, data >> 4], axis=-1).reshape(*data.shape[:-1], -1)
    made: NDArray[np.float32] = _FP4[codes & 7] * np.where(codes & 8, np.float32(-1), np.float32(1))
    return made


def floats(values: Any) -> NDArray[np.float32]:
    """Floats of any width, or integers, as float32."""
    if values.dtype.name.startswith("float8") or values.dtype.kind in "iu":
        return np.asarray(values).astype(np.float32)
    return as_array(values, "scale").astype(np.float32)


def scale(values: Any) -> NDArray[np.float32]:
    """Scales; bytes are exponents of 2, with a bias of 127 (E8M0)."""
    if values.dtype == np.uint8:
        return np.ldexp(np.float32(1), np.asarray(values).astype(np.int32) - _EXPONENT_BIAS)
    if values.dtype.kind in "iu":
        raise ValueError(f"scales of type {values.dtype}")
    return floats(values)


def by_rows(values: Array, n: int, size: int) -> Array:
    """Each group's row, repeated for its `size` members of `n`; the last group may be smaller."""
    if size < 1 or len(values) != -(-n // size):
        raise ValueError(f"{len(values)} groups of {size} for {n} inputs")
    return values[np.arange(n) // size]


def by_blocks(values: Array, shape: tuple[int, ...], block: tuple[int, int]) -> Array:
    """A value per block of a matrix, expanded to the matrix."""
    if values.ndim != 2 or len(shape) != 2:
        raise ValueError(f"blocks {values.shape} of a matrix {shape}")
    return by_rows(by_rows(values, shape[0], block[0]).T, shape[1], block[1]).T


def by_columns(values: Array, shape: tuple[int, ...], size: int) -> Array:
    """A value per matrix, row, or group of `size` along rows, to be multiplied with the matrix."""
    if values.size == 1:
        return values.reshape(1, 1)
    if values.shape in ((shape[0],), (shape[0], 1)):
        return values.reshape(-1, 1)
    if values.ndim != 2 or values.shape[0] != shape[0]:
        raise ValueError(f"scales {values.shape} of a matrix {shape}")
    return by_rows(values.T, shape[1], size).T
