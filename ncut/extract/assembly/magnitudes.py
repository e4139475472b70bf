"""Edge magnitudes from an operation's weights: norms of kernel slices, folded factors."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ncut.errors import InputError

if TYPE_CHECKING:
    from ncut.types import Weights

Norm = Literal["l1", "l2", "column-sum"]

CHUNK = 2**20
"""Number of 16-bit entries scaled at a time, in 32 bits."""

LARGE = 2**18
"""Number of entries from which a 16-bit matrix stays in 16 bits when scaled."""

DENSE_GROUPS = 2**16
"""Largest number of channel pairs for which a grouped convolution is stored dense."""


def of_weight(
    weight: NDArray[np.floating], kind: str, groups: int, norm: str, name: str
) -> Weights:
    """Magnitudes of all pairs of an input and an output, shape (n_in, n_out).

    |w| for a matrix (n_in, n_out), the norm of the slice of a kernel (out, in / groups,
    positions...) that maps one channel to the other.
    """
    # Infinite and NaN entries are no error here: the graph reports them by layer.
    with np.errstate(invalid="ignore", over="ignore"):
        if kind != "conv":
            return _absolute(weight)
        if weight.itemsize == 2:
            weight = weight.astype(np.float32)
        if norm == "column-sum":
            slices = _column_sum(weight, name)
        else:
            slices = _norm(np.abs(weight).reshape(*weight.shape[:2], -1), norm, axis=2)
    return slices.T if groups == 1 else _block_diagonal(slices, groups)


def _absolute(weight: NDArray[np.floating]) -> NDArray[np.floating]:
    """|w| in the weights' memory order; releases the memory of memory-mapped weights."""
    if weight.itemsize != 2:
        result = np.asarray(np.abs(weight))
    else:
        # The first bit is the sign bit.
        bits = weight if weight.flags.c_contiguous else weight.T
        if bits.flags.c_contiguous:
            positive = np.bitwise_and(bits.view(np.uint16), np.uint16(0x7FFF)).view(weight.dtype)
            result = positive if bits is weight else positive.T
        else:
            result = np.asarray(np.abs(weight))
    forget(weight)
    return result


def forget(array: NDArray[np.generic]) -> None:
    """Release the memory pages of an array that is memory-mapped from a file.

    The values remain in the file, and are read again on access.
    """
    mapped: object = array
    while mapped is not None and not isinstance(mapped, np.memmap):
        mapped = getattr(mapped, "base", None)
    # Changes in a private (copy-on-write) mapping would be lost.
    if mapped is None or mapped.mode != "r" or not hasattr(mmap, "MADV_DONTNEED"):
        return
    pages = getattr(mapped, "_mmap", None)
    in_one_piece = array.flags.c_contiguous or array.T.flags.c_contiguous
    if not isinstance(pages, mmap.mmap) or not in_one_piece or not array.size:
        return
    start = _address(array) - _address(np.frombuffer(pages, dtype=np.uint8))
    first = start - start % mmap.PAGESIZE
    pages.madvise(mmap.MADV_DONTNEED, first, start + array.nbytes - first)


def _address(array: NDArray[np.generic]) -> int:
    return int(array.__array_interface__["data"][0])


def with_rows_scaled(matrix: Weights, factors: NDArray[np.float64] | None) -> Weights:
    """Rows multiplied by the magnitudes of factors, shape (rows,)."""
    if factors is None:
        return matrix
    return _scaled(matrix, np.abs(factors)[:, None])


def with_columns_scaled(matrix: Weights, factors: NDArray[np.float64] | None) -> Weights:
    """Columns multiplied by the magnitudes of factors, shape (columns,)."""
    if factors is None:
        return matrix
    return _scaled(matrix, np.abs(factors)[None, :])


def rows_grouped(matrix: Weights, places: NDArray[np.int64], n: int, norm: str) -> Weights:
    """Norms over rows with the same place, shape (n, columns); rows with place -1 are dropped."""
    if places.size == n and np.array_equal(places, np.arange(n)):
        return matrix
    used = places >= 0
    if np.unique(places[used]).size == np.count_nonzero(used):
        return _spread_rows(matrix, places, n)
    per_row, rest = divmod(places.size, max(n, 1))
    even = rest == 0 and np.array_equal(places, np.repeat(np.arange(n), per_row))
    if even and isinstance(matrix, np.ndarray):
        stacked = _wide_array(matrix).reshape(n, per_row, matrix.shape[1])
        with np.errstate(invalid="ignore", over="ignore"):
            return _norm(stacked, norm, axis=1)
    from scipy import sparse

    wide = _wide(matrix)
    sums = sparse.csr_array(
        (np.ones(used.sum(), wide.dtype), (places[used], np.flatnonzero(used))),
        shape=(n, places.size),
    )
    return _summed(wide, lambda values: sums @ values, norm)


def columns_taken(matrix: Weights, units: NDArray[np.int64], norm: str) -> Weights:
    """For each row of `units`, shape (n, m), the norm over the columns with these numbers.

    -1 stands for no column.
    """
    n_columns = matrix.shape[1]
    n, m = units.shape
    if m == 1:
        taken = units[:, 0]
        if n == n_columns and np.array_equal(taken, np.arange(n)):
            return matrix
        result = matrix[:, np.maximum(taken, 0)]
        if (taken < 0).any():
            result = _scaled(result, (taken >= 0).astype(np.float64)[None, :])
        return result
    from scipy import sparse

    at, which = np.nonzero(units >= 0)
    wide = _wide(matrix)
    picks = sparse.csr_array(
        (np.ones(at.size, wide.dtype), (units[at, which], at)), shape=(n_columns, n)
    )
    return _summed(wide, lambda values: (picks.T @ values.T).T, norm)


def transposed(matrix: Weights) -> Weights:
    """The transpose, in row-major order."""
    return _contiguous(matrix.T)


def both_ways(matrix: Weights) -> Weights:
    """Edges within a layer: both directions of a pair combined, above the diagonal only."""
    if isinstance(matrix, np.ndarray):
        wide = _wide_array(matrix)
        return np.triu(wide + wide.T, k=1)
    from scipy import sparse

    return sparse.csr_array(sparse.triu(matrix + matrix.T, k=1))


def _spread_rows(matrix: Weights, places: NDArray[np.int64], n: int) -> Weights:
    used = np.flatnonzero(places >= 0)
    if isinstance(matrix, np.ndarray):
        result = np.zeros((n, matrix.shape[1]), dtype=matrix.dtype)
        result[places[used]] = matrix[used]
        return result
    from scipy import sparse

    picks = sparse.csr_array(
        (np.ones(used.size, matrix.dtype), (places[used], used)), shape=(n, matrix.shape[0])
    )
    return sparse.csr_array(picks @ matrix)


def _summed(matrix: Any, total: Callable[[Any], Any], norm: str) -> Weights:
    """A sum of rows or columns, or the root of the sum of their squares."""
    with np.errstate(invalid="ignore", over="ignore"):
        if norm != "l2":
            return _contiguous(total(matrix))
        return _contiguous(np.sqrt(total(matrix * matrix)))


def _contiguous(matrix: Any) -> Weights:
    if isinstance(matrix, np.ndarray):
        return np.ascontiguousarray(matrix)
    made: Weights = matrix.tocsr()
    return made


def _scaled(matrix: Weights, factors: NDArray[np.float64]) -> Weights:
    """The matrix times factors that broadcast to it; stays in 16 bits if they hold the result."""
    with np.errstate(invalid="ignore", over="ignore"):
        if not isinstance(matrix, np.ndarray):
            return _contiguous(matrix.multiply(factors.astype(matrix.dtype)))
        if matrix.itemsize > 2:
            return np.asarray(matrix * factors.astype(matrix.dtype))
        factors = np.broadcast_to(factors.astype(np.float32), matrix.shape)
        if matrix.size < LARGE:
            return np.asarray(matrix.astype(np.float32) * factors)
        result = np.empty_like(matrix)
        turned = not matrix.flags.c_contiguous
        ours, theirs, made = (m.T if turned else m for m in (matrix, factors, result))
        step = max(CHUNK // ours.shape[1], 1)
        for start in range(0, ours.shape[0], step):
            rows = slice(start, start + step)
            made[rows] = ours[rows].astype(np.float32) * theirs[rows]
    return result


def _wide(matrix: Weights) -> Any:
    return matrix.astype(np.float32) if matrix.dtype.itemsize == 2 else matrix


def _wide_array(matrix: NDArray[np.floating]) -> NDArray[np.floating]:
    return matrix.astype(np.float32) if matrix.itemsize == 2 else matrix


def _block_diagonal(slices: NDArray[np.floating], groups: int) -> Weights:
    """Norms (out, in / groups) of a grouped convolution, as (in, out)."""
    per_group = slices.reshape(groups, -1, slices.shape[1]).transpose(0, 2, 1)
    _, n_in, n_out = per_group.shape
    shape = (groups * n_in, groups * n_out)
    if groups <= 4 or shape[0] * shape[1] <= DENSE_GROUPS:
        matrix = np.zeros((groups, n_in, groups, n_out), dtype=slices.dtype)
        group = np.arange(groups)
        matrix[group, :, group, :] = per_group
        return matrix.reshape(shape)
    from scipy import sparse

    rows = np.arange(shape[0]).reshape(groups, n_in, 1)
    columns = np.arange(shape[1]).reshape(groups, 1, n_out)
    at = [np.broadcast_to(index, per_group.shape).ravel() for index in (rows, columns)]
    return sparse.csr_array((per_group.ravel(), (at[0], at[1])), shape=shape)


def _norm(magnitudes: NDArray[np.floating], norm: str, axis: int) -> NDArray[np.floating]:
    """Norm of non-negative values along an axis; in a single row, each column has one entry."""
    if norm == "l2":
        return np.asarray(np.sqrt(np.square(magnitudes).sum(axis=axis)))
    return np.asarray(magnitudes.sum(axis=axis))


def _column_sum(weight: NDArray[np.floating], name: str) -> NDArray[np.floating]:
    """Largest sum of a column's magnitudes in each kernel slice, shape (out, in)."""
    if weight.ndim != 4:
        raise InputError(
            f"norm: 'column-sum' is for kernels with two axes of positions, not for {name!r} "
            f"of shape {weight.shape}; use 'l1'"
        )
    return np.asarray(np.abs(weight).sum(axis=2).max(axis=2))
