"""Launching the CUDA kernels on arrays of CuPy, or of NumPy in numba's simulator."""

from __future__ import annotations

import os
from types import ModuleType
from typing import Any

import numpy as np

from ncut.device.devices import Device

THREADS = 128
"""Threads of a block; the kernels need few registers."""

SIMULATED_THREADS = 8
"""The same for `lloyd` in the simulator, whose threads are Python's."""

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

    Found out once, by trying them on a few numbers: numba may be missing, too old for this NumPy,
    or without a compiler for this driver.
    """
    if device.index not in _REASONS:
        reason = _trial(device)
        if reason is not None and device.is_cuda:
            _AS_THEY_ARE.add(device.index)
            reason = _trial(device)
        _REASONS[device.index] = reason
    return _REASONS[device.index]


def _trial(device: Device) -> str | None:
    """What goes wrong where the results are known."""
    for trial in (_random_numbers_are_right, _kmeans_is_right):
        try:
            right = trial(device)
        except Exception as error:  # what numba raises is of many kinds
            lines = str(error).strip().splitlines() or [""]
            return f"{type(error).__name__}: {lines[0]}"
        if not right:
            return f"not so: {trial.__name__.strip('_').replace('_', ' ')}"
    return None


def _random_numbers_are_right(device: Device) -> bool:
    drawn = device.xp.zeros((2,), dtype=device.xp.uint64)
    fill_keys(device, drawn, seed=0, stream=0, substream=0)
    return bool(device.to_host(drawn).tolist() == [0x6627E8D5E169C58D, 0xBC57AC4C9B00DBD8])


def _kmeans_is_right(device: Device) -> bool:
    """Two clusters of 0, 1, 10, 11, from centres at 0 and 1."""
    xp = device.xp
    columns = xp.asarray([[0.0, 1.0, 10.0, 11.0]], dtype=xp.float32)
    units = xp.asarray([[0, 1, 10, 11]], dtype=xp.int64)
    centres = xp.asarray([[[0.0], [1.0]]], dtype=xp.float32)
    labels = xp.full((1, 4), -1, dtype=xp.int32)
    lloyd(device, columns, units, centres, labels, per_unit=1.0, tolerance=0.0, most=9)
    distances = xp.zeros((1, 4), dtype=xp.float64)
    own_distances(device, columns, centres, labels, distances)
    found = [device.to_host(one).tolist() for one in (labels, distances)]
    return found == [[[0, 0, 1, 1]], [[0.25] * 4]]


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


def lloyd(
    device: Device,
    columns: Any,
    units: Any,
    centres: Any,
    labels: Any,
    *,
    per_unit: float,
    tolerance: float,
    most: int,
) -> None:
    """Lloyd's iterations of all restarts at once, each by a block of threads until it converges.

    A point goes to the nearest centre, the first one in a tie; an empty cluster gets the point
    farthest from its centre. Sums are of whole numbers, so that they are the same in whatever
    order threads add.

    Parameters
    ----------
    columns : device array of float32, shape (d, n)
        The points.
    units : device array of int64, shape (d, n)
        The points times `per_unit`, as whole numbers.
    centres : device array of float32, shape (restarts, k, d)
        Changed.
    labels : device array of int32, shape (restarts, n)
        -1 everywhere; changed.
    tolerance : float
        A restart has converged when its centres move by less, as a sum of squares.
    most : int
        Iterations, at most.
    """
    xp = device.xp
    sums = xp.zeros(centres.shape, dtype=xp.int64)
    counts = xp.zeros(centres.shape[:2], dtype=xp.int32)
    moved = xp.zeros(centres.shape[:2], dtype=xp.float64)
    n_threads = _kernels().LLOYD_THREADS if device.is_cuda else SIMULATED_THREADS
    numbers = np.float64(per_unit), np.float64(tolerance), np.int64(most)
    arrays = (columns, units, *numbers, centres, labels, sums, counts, moved)
    _start(device, _kernels().lloyd, (centres.shape[0], 1), n_threads, *arrays)


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
    """Run a kernel with a thread for each of work[0] x work[1]."""
    if 0 not in work:
        _start(device, kernel, (-(-work[0] // THREADS), work[1]), THREADS, *arguments)


def _start(
    device: Device, kernel: Any, grid: tuple[int, int], n_threads: int, *arguments: Any
) -> None:
    """Run a kernel in blocks of so many threads, on CuPy's current stream."""
    if not device.is_cuda:  # the simulator, which has no streams
        kernel[grid, (n_threads, 1)](*arguments)
        return
    cuda = _kernels().cuda
    pointer = device.stream_pointer()
    stream = cuda.external_stream(pointer) if pointer else cuda.default_stream()
    plain = device.index in _AS_THEY_ARE
    kernel[grid, (n_threads, 1), stream](*(one if plain else _view(one) for one in arguments))


def _view(argument: Any) -> Any:
    return _Unsynchronized(argument) if hasattr(argument, "get") else argument
