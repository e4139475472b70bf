"""Edge magnitudes from an operation's weights: norms of kernel slices, folded factors.

A matrix is a NumPy array, a sparse array of SciPy, or a tensor: training takes gradients of the
same steps. Arrays may have 16 bits; tensors have 32 or 64.
"""

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


def of_weight(weight: Any, kind: str, groups: int, norm: str, name: str) -> Any:
    """Magnitudes of all pairs of an input and an output, shape (n_in, n_out).

    |w| for a matrix (n_in, n_out), the norm of the slice of a kernel (out, in / groups,
    positions...) that maps one channel to the other.
    """
    # Infinite and NaN entries are no error here: the graph reports them by layer.
    with np.errstate(invalid="ignore", over="ignore"):
        if kind != "conv":
            return _absolute(weight)
        slices = of_slices(weight, norm, name)
    return slices.T if groups == 1 else _block_diagonal(slices, groups)


def of_slices(weight: Any, norm: str, name: str) -> Any:
    """Norms of the slices of a kernel, shape (out, in / groups)."""
    magnitudes = abs(_wide(weight))
    if norm != "column-sum":
        return _norm(magnitudes.reshape(*weight.shape[:2], -1), norm, axis=2)
    if weight.ndim != 4:
        raise InputError(
            f"norm: 'column-sum' is for kernels with two axes of positions, not for {name!r} "
            f"of shape {weight.shape}; use 'l1'"
        )
    columns = magnitudes.sum(2)
    return columns.max(2) if isinstance(columns, np.ndarray) else columns.amax(2)


def _absolute(weight: Any) -> Any:
    """|w| in the weights' memory order; releases the memory of memory-mapped weights."""
    if not isinstance(weight, np.ndarray):
        return abs(weight)
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


def with_rows_scaled(matrix: Any, factors: Any) -> Any:
    """Rows multiplied by the magnitudes of factors, shape (rows,)."""
    return _scaled(matrix, abs(factors)[:, None])


def with_columns_scaled(matrix: Any, factors: Any) -> Any:
    """Columns multiplied by the magnitudes of factors, shape (columns,)."""
    return _scaled(matrix, abs(factors)[None, :])


def rows_grouped(matrix: Any, places: NDArray[np.int64], n: int, norm: str) -> Any:
    """Norms over rows with the same place, shape (n, columns); rows with place -1 are dropped."""
    if places.size == n and np.array_equal(places, np.arange(n)):
        return matrix
    used = places >= 0
    per_row, rest = divmod(places.size, max(n, 1))
    even = rest == 0 and np.array_equal(places, np.repeat(np.arange(n), per_row))
    if even and per_row > 1 and not _is_sparse(matrix):
        stacked = _wide(matrix).reshape(n, per_row, matrix.shape[1])
        with np.errstate(invalid="ignore", over="ignore"):
            return _norm(stacked, norm, axis=1)
    if _is_tensor(matrix):
        at = _index(np.flatnonzero(used), matrix)
        to, zeros = _index(places[used], matrix), matrix.new_zeros(n, matrix.shape[1])
        return _summed(matrix[at], lambda values: zeros.index_add(0, to, values), norm)
    if np.unique(places[used]).size == np.count_nonzero(used):
        return _spread_rows(matrix, places, n)
    from scipy import sparse

    wide = _wide(matrix)
    sums = sparse.csr_array(
        (np.ones(used.sum(), wide.dtype), (places[used], np.flatnonzero(used))),
        shape=(n, places.size),
    )
    return _summed(wide, lambda values: sums @ values, norm)


def columns_taken(matrix: Any, units: NDArray[np.int64], norm: str) -> Any:
    """For each row of `units`, shape (n, m), the norm over the columns with these numbers.

    -1 stands for no column.
    """
    n_columns = matrix.shape[1]
    n, m = units.shape
    if m == 1:
        taken = units[:, 0]
        if n == n_columns and np.array_equal(taken, np.arange(n)):
            return matrix
        result = matrix[:, _index(np.maximum(taken, 0), matrix)]
        if (taken < 0).any():
            result = _scaled(result, (taken >= 0).astype(np.float64)[None, :])
        return result
    if _is_tensor(matrix):
        each = matrix[:, _index(np.maximum(units, 0), matrix)]
        return _norm(_scaled(each, (units >= 0).astype(np.float64)), norm, axis=2)
    from scipy import sparse

    at, which = np.nonzero(units >= 0)
    wide = _wide(matrix)
    picks = sparse.csr_array(
        (np.ones(at.size, wide.dtype), (units[at, which], at)), shape=(n_columns, n)
    )
    return _summed(wide, lambda values: (picks.T @ values.T).T, norm)


def transposed(matrix: Any) -> Any:
    """The transpose, in row-major order."""
    return _contiguous(matrix.T)


def both_ways(matrix: Any) -> Any:
    """Edges within a layer: both directions of a pair combined, above the diagonal only."""
    if not _is_sparse(matrix):
        both = _wide(matrix) + _wide(matrix).T
        return both.triu(1) if _is_tensor(both) else np.triu(both, k=1)
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


def _summed(matrix: Any, total: Callable[[Any], Any], norm: str) -> Any:
    """A sum of rows or columns, or the root of the sum of their squares."""
    with np.errstate(invalid="ignore", over="ignore"):
        if norm != "l2":
            return _contiguous(total(matrix))
        return _contiguous(_root(total(matrix * matrix)))


def _contiguous(matrix: Any) -> Any:
    if isinstance(matrix, np.ndarray):
        return np.ascontiguousarray(matrix)
    return matrix.tocsr() if _is_sparse(matrix) else matrix


def _scaled(matrix: Any, factors: Any) -> Any:
    """The matrix times factors that broadcast to it; stays in 16 bits if they hold the result."""
    if _is_tensor(matrix):
        return matrix * (factors if _is_tensor(factors) else matrix.new_tensor(factors))
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


def _wide(matrix: Any) -> Any:
    return matrix.astype(np.float32) if matrix.dtype.itemsize == 2 else matrix


def _is_sparse(matrix: Any) -> bool:
    return hasattr(matrix, "tocsr")


def _is_tensor(matrix: Any) -> bool:
    return not isinstance(matrix, np.ndarray) and not _is_sparse(matrix)


def _index(positions: NDArray[np.int64], matrix: Any) -> Any:
    """Positions as an index of a matrix."""
    if not _is_tensor(matrix):
        return positions
    import torch

    return torch.as_tensor(positions, device=matrix.device)


def is_dense(groups: int, n_in: int, n_out: int) -> bool:
    """Check whether a convolution's channel pairs are a dense matrix."""
    return groups <= 4 or n_in * n_out <= DENSE_GROUPS


def _block_diagonal(slices: Any, groups: int) -> Any:
    """Norms (out, in / groups) of a grouped convolution, as (in, out)."""
    per_group = slices.reshape(groups, -1, slices.shape[1]).swapaxes(1, 2)
    _, n_in, n_out = per_group.shape
    shape = (groups * n_in, groups * n_out)
    if _is_tensor(slices):
        import torch

        return torch.block_diag(*per_group)  # type: ignore[no-untyped-call]
    if is_dense(groups, *shape):
        matrix = np.zeros((groups, n_in, groups, n_out), dtype=slices.dtype)
        group = np.arange(groups)
        matrix[group, :, group, :] = per_group
        return matrix.reshape(shape)
    from scipy import sparse

    rows = np.arange(shape[0]).reshape(groups, n_in, 1)
    columns = np.arange(shape[1]).reshape(groups, 1, n_out)
    at = [np.broadcast_to(index, per_group.shape).ravel() for index in (rows, columns)]
    return sparse.csr_array((per_group.ravel(), (at[0], at[1])), shape=shape)


def _norm(magnitudes: Any, norm: str, axis: int) -> Any:
    """Norm of non-negative values along an axis; in a single row, each column has one entry."""
    if norm == "l2":
        return _root((magnitudes * magnitudes).sum(axis))
    return magnitudes.sum(axis)


def _root(squares: Any) -> Any:
    """The square root; at 0, where it has no derivative, the gradient of a tensor is 0."""
    if not _is_tensor(squares):
        return np.sqrt(squares)
    none = ~(squares > 0)
    return squares.masked_fill(none, 1.0).sqrt().masked_fill(none, 0.0)
