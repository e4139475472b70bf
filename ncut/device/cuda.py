"""Launching the CUDA kernels on arrays of CuPy, or of NumPy in numba's simulator."""

from __future__ import annotations

import os
from types import ModuleType
from typing import Any

import numpy as np

from ncut.device.devices import Device

THREADS = 128
"""Threads of a block; the kernels need few registers."""

MOST_ROWS = 2**16 - 1
"""Second size of a grid, at most."""

_REASONS: dict[int, str | None] = {}
"""By CUDA device: why the kernels do not run there, or None."""

_AS_THEY_ARE: set[int] = set()
"""CUDA devices on which numba does not take arrays in the form of `_Unsynchronized`."""


def usable(device: Device) -> bool:
    """Whether the kernels run on a device; if not, its namespace's functions do the same, slower.

    In numba's simulator (NUMBA_ENABLE_CUDASIM=1) they run on NumPy's arrays.
    """
    simulated = device.xp is np and os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
    return (device.is_cuda or simulated) and why_not(device) is None


def why_not(device: Device) -> str | None:
    """What keeps the kernels from running on a device, in words; None if nothing does.

    Found out once, by drawing two known numbers: numba may be missing, too old for this NumPy, or
    without a compiler for this driver.
    """
    if device.index not in _REASONS:
        reason = _trial(device)
        if reason is not None and device.is_cuda:
            _AS_THEY_ARE.add(device.index)
            reason = _trial(device)
        _REASONS[device.index] = reason
    return _REASONS[device.index]


def _trial(device: Device) -> str | None:
    """What goes wrong when two known numbers are drawn."""
    drawn = device.xp.zeros((2,), dtype=device.xp.uint64)
    try:
        fill_keys(device, drawn, seed=0, stream=0, substream=0)
        numbers = device.to_host(drawn).tolist()
    except Exception as error:  # what numba raises is of many kinds
        lines = str(error).strip().splitlines() or [""]
        return f"{type(error).__name__}: {lines[0]}"
    right = numbers == [0x6627E8D5E169C58D, 0xBC57AC4C9B00DBD8]
    return None if right else "its random numbers are wrong"


def fill_keys(
    device: Device, keys: Any, *, seed: int, stream: int, substream: int, first: int = 0
) -> None:
    """Fill a device array of uint64 with the numbers of `random_keys`, from an even one on."""
    words = (seed & 0xFFFFFFFF, seed >> 32, stream, substream, first // 2)
    work = -(-keys.shape[0] // 2), 1
    _launch(device, _kernels().keys, work, *(np.uint64(word) for word in words), keys)


def nearer_distances(device: Device, columns: Any, rows: Any, nearest: Any, trials: Any) -> None:
    """trials[q, i]: squared distance of point i to row q, or nearest[q % restarts, i] if less.

    Parameters
    ----------
    columns : device array of float32, shape (d, n)
        The points.
    rows : device array of float32, shape (candidates * restarts, d)
    nearest : device array of float32, shape (restarts, n)
    trials : device array of float32, shape (candidates * restarts, n)
        Filled.
    """
    work = trials.shape[1], trials.shape[0]
    _launch(device, _kernels().nearer, work, columns, rows, nearest, trials)


def reassign(
    device: Device,
    columns: Any,
    units: Any,
    centres: Any,
    labels: Any,
    sums: Any,
    counts: Any,
    changed: Any,
) -> None:
    """Give every point to the nearest centre in every restart, the first one in a tie.

    Sums are of whole numbers, so that they are the same in whatever order threads add.

    Parameters
    ----------
    columns : device array of float32, shape (d, n)
        The points.
    units : device array of int64, shape (d, n)
        The points as multiples of a small unit.
    centres : device array of float32, shape (restarts, k, d)
    labels : device array of int32, shape (restarts, n)
        Changed; -1 for a point that is in no cluster yet.
    sums : device array of int64, shape (restarts, k, d)
    counts : device array of int32, shape (restarts, k)
        The clusters' points added up and counted; changed with the labels.
    changed : device array of int32, shape (restarts,)
        Set to 1 where a label has changed.
    """
    work = labels.shape[1], labels.shape[0]
    arrays = (columns, units, centres, labels, sums, counts, changed)
    _launch(device, _kernels().reassign, work, *arrays)


def own_distances(device: Device, columns: Any, centres: Any, labels: Any, out: Any) -> None:
    """out[r, i], float64: squared distance of point i to its centre in restart r."""
    work = labels.shape[1], labels.shape[0]
    _launch(device, _kernels().own_distance, work, columns, centres, labels, out)


def add_links(device: Device, matrix: Any, labels: Any, out: Any) -> None:
    """out[row, c] += the weights of a CSR matrix's row in columns of cluster c, in float64.

    Parameters
    ----------
    matrix : cupyx.scipy.sparse.csr_matrix, or scipy's, shape (rows, columns)
    labels : device array of int32, shape (columns,)
    out : device array of float64, shape (rows, k)
    """
    arrays = (matrix.indptr, matrix.indices, matrix.data, labels, out)
    _launch(device, _kernels().row_links, (out.shape[0], 1), *arrays)


def _kernels() -> ModuleType:
    from ncut.device import cuda_kernels

    return cuda_kernels


class _Unsynchronized:
    """A CuPy array for numba, which would wait for the array's stream before each kernel.

    All kernels are launched on that same stream, so that there is nothing to wait for.
    """

    def __init__(self, array: Any) -> None:
        self._array = array
        described = array.__cuda_array_interface__
        self.__cuda_array_interface__ = {**described, "stream": None, "version": 3}


def _launch(device: Device, kernel: Any, work: tuple[int, int], *arguments: Any) -> None:
    """Run a kernel with a thread for each of work[0] x work[1], on CuPy's current stream."""
    if 0 in work:
        return
    cuda = _kernels().cuda
    grid = -(-work[0] // THREADS), work[1]
    if not device.is_cuda:  # the simulator, which has no streams
        kernel[grid, (THREADS, 1)](*arguments)
        return
    pointer = device.stream_pointer()
    stream = cuda.external_stream(pointer) if pointer else cuda.default_stream()
    plain = device.index in _AS_THEY_ARE
    kernel[grid, (THREADS, 1), stream](*(one if plain else _view(one) for one in arguments))


def _view(argument: Any) -> Any:
    return _Unsynchronized(argument) if hasattr(argument, "get") else argument
