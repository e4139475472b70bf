"""Launching the CUDA kernels on arrays of CuPy, or of NumPy in numba's simulator."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from ncut.device.devices import Device
from ncut.errors import import_extra

THREADS = 128
"""Threads of a block; the kernels need few registers."""


def fill_keys(device: Device, keys: Any, seed: int, stream: int, substream: int) -> None:
    """Fill a device array of uint64 with the numbers of `random_keys`."""
    words = [np.uint64(word) for word in (seed & 0xFFFFFFFF, seed >> 32, stream, substream)]
    _launch(device, _kernels().keys, -(-keys.shape[0] // 2), *words, keys)


def nearest_centres(device: Device, points: Any, centres: Any, labels: Any) -> None:
    """labels[i, r]: the centre of restart r that lies nearest to point i, the first in a tie.

    Parameters
    ----------
    points : device array of float32, shape (n, d)
    centres : device array of float32, shape (restarts, k, d), C-contiguous
    labels : device array of int32, shape (n, restarts)
        Filled.
    """
    _launch(device, _kernels().nearest, labels.shape[0] * labels.shape[1], points, centres, labels)


def _kernels() -> ModuleType:
    import_extra("numba.cuda", "gpu")
    from ncut.device import cuda_kernels

    return cuda_kernels


def _launch(device: Device, kernel: Any, n: int, *arguments: Any) -> None:
    """Run a kernel with a thread for each of n pieces of work, on CuPy's current stream."""
    if n == 0:
        return
    cuda = _kernels().cuda
    blocks = -(-n // THREADS)
    if not device.is_cuda:  # the simulator, which has no streams
        kernel[blocks, THREADS](*arguments)
        return
    pointer = device.stream_pointer()
    stream = cuda.external_stream(pointer) if pointer else cuda.default_stream()
    kernel[blocks, THREADS, stream](*arguments)
