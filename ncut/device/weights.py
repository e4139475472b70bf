"""A block's weights on a device, or streamed from the host, ready for products."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ncut.device.devices import Device, astype, dtype_name
from ncut.device.staging import staged

SMALL = 2**20
"""Bytes below which an array is copied to a GPU as it is."""

MOST_INDICES = 2**31 - 1
"""Non-zeros that one sparse matrix of CuPy can hold."""


@dataclass(frozen=True, eq=False)
class DeviceCSR:
    """A sparse block on a device: rows compressed, columns of a row ascending.

    Attributes
    ----------
    indptr, indices : device arrays of int32
    data : device array of float32 or float64
    shape : (int, int)
    """

    indptr: Any
    indices: Any
    data: Any
    shape: tuple[int, int]
    _kept: dict[str, tuple[Any, Any]] = field(default_factory=dict, init=False, repr=False)

    @property
    def nbytes(self) -> int:
        """Memory that it takes, its transpose and copies in float32 for products included."""
        return _bytes_of_csr(self)

    def matrix(self, device: Device, dtype: Any) -> Any:
        """The block as a matrix of cupyx.scipy.sparse, or of scipy.sparse on the host."""
        data = astype(self.data, dtype, device.xp)
        return _sparse(device).csr_matrix((data, self.indices, self.indptr), shape=self.shape)

    def both_ways(self, device: Device, dtype: Any) -> tuple[Any, Any]:
        """The matrix and its transpose, both compressed by rows; those in float32 are kept."""
        name, stored = np.dtype(dtype).name, self.data.dtype.name
        if name in self._kept:
            return self._kept[name]
        if stored not in self._kept:
            matrix = self.matrix(device, self.data.dtype)
            # Products with a transposed view would add in an order that changes from run to run.
            self._kept[stored] = matrix, matrix.T.tocsr()
        forward, backward = (_in_type(device, one, dtype) for one in self._kept[stored])
        if name == "float32":
            self._kept[name] = forward, backward
        return forward, backward


def _in_type(device: Device, matrix: Any, dtype: Any) -> Any:
    """A sparse matrix with its values in another type; its indices are shared."""
    data = astype(matrix.data, dtype, device.xp)
    return type(matrix)((data, matrix.indices, matrix.indptr), shape=matrix.shape)


@dataclass(frozen=True, slots=True, eq=False)
class HostBlock:
    """A block that stays on the host and is copied tile by tile where it is needed.

    Attributes
    ----------
    weights : ndarray or scipy.sparse.csr_array
        As the host's graph has them.
    """

    weights: Any

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, columns = self.weights.shape
        return int(rows), int(columns)


DeviceWeights: TypeAlias = Any
"""A device array of two dimensions, a `DeviceCSR` or a `HostBlock`.

Arrays are float32, float64, float16, or uint16 with the bits of bfloat16.
"""


class Tile(NamedTuple):
    """Some rows of a block, ready for products.

    Attributes
    ----------
    start, stop : int
        Which rows of the block.
    forward, backward : matrices
        `forward @ x` is these rows' product, `backward @ y` that of their transpose; device
        arrays or sparse matrices of the type asked for.
    """

    start: int
    stop: int
    forward: Any
    backward: Any


def tiles(device: Device, weights: DeviceWeights, dtype: Any, whole: bool = True) -> Iterator[Tile]:
    """A block in pieces that are ready for products in this type, one after the other.

    A block that is on the device in this type is one piece, unless `whole` is false; others
    are converted, or copied from the host, `device.tile_bytes` at a time.
    """
    if isinstance(weights, DeviceCSR):
        yield Tile(0, weights.shape[0], *weights.both_ways(device, dtype))
        return
    n_rows, n_columns = weights.shape
    on_host = isinstance(weights, HostBlock)
    if whole and not on_host and weights.dtype == dtype:
        yield Tile(0, n_rows, weights, weights.T)
        return
    if on_host and not isinstance(weights.weights, np.ndarray):
        yield from _sparse_tiles(device, weights.weights, dtype)
        return
    # A row's bytes before and after it is converted.
    row_bytes = n_columns * (np.dtype(dtype_name(dtype)).itemsize + 4)
    step = max(1, device.tile_bytes // max(1, row_bytes))
    for start in range(0, n_rows, step):
        stop = min(start + step, n_rows)
        rows = _copied(device, weights.weights[start:stop]) if on_host else weights[start:stop, :]
        wide = widened(device, rows, dtype)
        yield Tile(start, stop, wide, wide.T)


def _sparse_tiles(device: Device, weights: Any, dtype: Any) -> Iterator[Tile]:
    """Rows of a sparse block of the host, as many at a time as fit."""
    most = max(1, min(device.tile_bytes // 40, MOST_INDICES))
    start, n_rows = 0, weights.shape[0]
    while start < n_rows:
        limit = int(weights.indptr[start]) + most
        stop = int(np.searchsorted(weights.indptr, limit, side="right")) - 1
        stop = min(max(stop, start + 1), n_rows)
        part = _upload_sparse(device, weights[start:stop])
        if isinstance(part, DeviceCSR):
            yield Tile(start, stop, *part.both_ways(device, dtype))
        else:
            wide = astype(part, dtype, device.xp)
            yield Tile(start, stop, wide, wide.T)
        start = stop


def upload_weights(device: Device, weights: Any) -> DeviceWeights:
    """A host block's weights on a device: an array, or a DeviceCSR where the device has them."""
    if not isinstance(weights, np.ndarray):
        return _upload_sparse(device, weights)
    return _copied(device, weights)


def widened(device: Device, values: Any, dtype: Any) -> Any:
    """Values as they lie on a device in float32 or float64; uint16 is the bits of bfloat16."""
    if values.dtype != device.xp.uint16:
        return astype(values, dtype, device.xp)
    bits = values.astype(np.uint32) << 16  # only where there are 16 bits: NumPy and CuPy
    return bits.view(np.float32).astype(dtype, copy=False)


def _copied(device: Device, weights: NDArray[Any]) -> Any:
    """Dense weights of the host on the device; bfloat16 as bits."""
    narrow = weights.dtype.itemsize == 2
    if narrow and not device.has_scipy:
        return device.asarray(weights.astype(np.float32))
    if narrow and weights.dtype != np.float16:
        weights = weights.view(np.uint16)
    if device.is_cuda and weights.nbytes >= SMALL:
        return staged(device, np.ascontiguousarray(weights))
    return device.asarray(weights)


def _upload_sparse(device: Device, weights: Any) -> Any:
    if not device.has_scipy:
        return device.asarray(weights.toarray())
    return DeviceCSR(
        device.asarray(weights.indptr.astype(np.int32, copy=False)),
        device.asarray(weights.indices.astype(np.int32, copy=False)),
        device.asarray(weights.data),
        (int(weights.shape[0]), int(weights.shape[1])),
    )


def select(
    device: Device,
    weights: DeviceWeights,
    rows: tuple[NDArray[np.intp], Any],
    columns: tuple[NDArray[np.intp], Any],
) -> DeviceWeights:
    """Some rows and columns of a block, given by numbers on the host and on the device."""
    if weights.shape == (rows[0].size, columns[0].size):
        return weights
    if isinstance(weights, HostBlock):
        if isinstance(weights.weights, np.ndarray):
            return HostBlock(np.ascontiguousarray(weights.weights[np.ix_(rows[0], columns[0])]))
        some = weights.weights[rows[0]][:, columns[0]]
        some.sort_indices()
        return HostBlock(some)
    if isinstance(weights, DeviceCSR):
        # Selected by products: what cupyx and SciPy do alike.
        matrix = weights.matrix(device, weights.data.dtype)[rows[1]][:, columns[1]]
        matrix.sort_indices()
        return DeviceCSR(matrix.indptr, matrix.indices, matrix.data, matrix.shape)
    xp = device.xp
    return xp.take(xp.take(weights, rows[1], axis=0), columns[1], axis=1)


def _sparse(device: Device) -> Any:
    if device.is_cuda:
        from cupyx.scipy import sparse as on_device

        return on_device
    from scipy import sparse

    return sparse


def type_of(weights: DeviceWeights) -> str:
    """The name of the type of a block's weights."""
    if isinstance(weights, DeviceCSR):
        return dtype_name(weights.data.dtype)
    return dtype_name((weights.weights if isinstance(weights, HostBlock) else weights).dtype)


def nbytes(weights: DeviceWeights) -> int:
    if isinstance(weights, HostBlock):
        return 0
    if isinstance(weights, DeviceCSR):
        return weights.nbytes
    n_rows, n_columns = weights.shape
    return int(n_rows * n_columns) * np.dtype(dtype_name(weights.dtype)).itemsize


def bytes_on(device: Device, weights: Any) -> int:
    """What a block of the host takes on a device."""
    if isinstance(weights, np.ndarray):
        itemsize = weights.dtype.itemsize if device.has_scipy else max(4, weights.dtype.itemsize)
        return int(weights.size) * int(itemsize)
    if not device.has_scipy:
        return int(weights.shape[0]) * int(weights.shape[1]) * int(weights.dtype.itemsize)
    return _bytes_of_csr(weights)


def _bytes_of_csr(weights: Any) -> int:
    """Both ways, in the type of the weights and in float32."""
    n_stored, n_rows = int(weights.data.shape[0]), int(weights.shape[0])
    per_entry = 4 + (4 if weights.data.dtype == np.float32 else 12)
    return 2 * (n_stored * per_entry + 4 * (n_rows + 1))
