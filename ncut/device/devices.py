"""Devices for arrays: CUDA through CuPy, or any array namespace on the host for tests.

This package uses the functions common to NumPy (1.26 or later), CuPy (13 or later) and the array
API standard; the few differences are handled here.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncut.errors import InputError, import_extra
from ncut.spectral.namespaces import astype, concat

__all__ = [
    "Device",
    "astype",
    "check_device",
    "check_device_name",
    "concat",
    "dtype_name",
    "host_device",
]

SHARE_OF_FREE_MEMORY = 0.8
"""Default budget of a device; the rest is for libraries and other processes."""

LARGEST_TILE = 2**28
"""Bytes of a block converted, or copied from the host, at a time."""


@dataclass(frozen=True, slots=True, eq=False)
class Device:
    """A place for arrays and the namespace that works on them.

    Attributes
    ----------
    name : str
        "cuda:0", "cuda:1" and so on; on the host, the namespace's name.
    xp : module
        Its array namespace.
    budget : int
        Bytes that arrays may take together; blocks beyond it stay on the host.
    index : int
        Number of the CUDA device; -1 on the host.
    """

    name: str
    xp: Any
    budget: int
    index: int = -1

    @property
    def is_cuda(self) -> bool:
        """Check whether this is a GPU."""
        return self.index >= 0

    @property
    def has_extras(self) -> bool:
        """Check whether the namespace has sparse matrices and 16-bit numbers."""
        return self.is_cuda or self.xp is np

    @property
    def tile_bytes(self) -> int:
        """Bytes of a block to convert, or to copy from the host, at a time."""
        return min(self.budget // 16, LARGEST_TILE)

    def asarray(self, host: Any) -> Any:
        """A copy of a NumPy array on the device (on the host possibly the array itself)."""
        return self.xp.asarray(host)

    def to_host(self, array: Any) -> NDArray[Any]:
        """A device array as a NumPy array; waits for its computation."""
        host: NDArray[Any] = array.get() if self.is_cuda else np.asarray(array)
        return host

    @contextmanager
    def cuda_stream(self) -> Generator[None, None, None]:
        """Compute on a CUDA stream exclusive to this thread; waits for it at the end."""
        if not self.is_cuda:
            yield
            return
        with self.xp.cuda.Device(self.index):
            stream = _idle_stream(self)
            try:
                with stream:
                    yield
                stream.synchronize()
            finally:
                _IDLE_STREAMS[self.index].append(stream)


_IDLE_STREAMS: dict[int, list[Any]] = {}
"""By CUDA device. Streams are reused because CuPy keeps freed memory for its stream."""


def _idle_stream(device: Device) -> Any:
    idle = _IDLE_STREAMS.setdefault(device.index, [])
    try:
        return idle.pop()
    except IndexError:
        return device.xp.cuda.Stream(non_blocking=True)


def dtype_name(dtype: Any) -> str:
    """A type's name in any namespace."""
    if isinstance(dtype, type | np.dtype):
        return np.dtype(dtype).name
    return str(dtype).rpartition(".")[2]


def host_device(xp: Any = np, budget: int = 2**40) -> Device:
    """A namespace's arrays on the host, which replace a GPU in tests."""
    return Device(name=xp.__name__.removeprefix("array_api_"), xp=xp, budget=budget)


def check_device_name(device: object) -> str:
    """Return a device's name; refuse invalid names without access to the hardware."""
    if not isinstance(device, str) or not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise InputError(f"device: must be 'cpu', 'cuda' or 'cuda:N', got {device!r}")
    return device


def check_device(device: str) -> Device | None:
    """The device of that name, ready for use; None for "cpu".

    Raises
    ------
    InputError
        If the name is invalid, or this machine has no such GPU.
    MissingExtraError
        If CuPy is not installed.
    """
    check_device_name(device)
    if device == "cpu":
        return None
    cupy = import_extra("cupy", "gpu")
    try:
        n_devices = int(cupy.cuda.runtime.getDeviceCount())
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise InputError(
            f"device: no CUDA GPU can be used here ({error}); use device='cpu'"
        ) from error
    index = int(device.partition(":")[2] or 0)
    if index >= n_devices:
        raise InputError(
            f"device: {device!r} requested, but this machine has {n_devices} CUDA "
            f"GPU{'' if n_devices == 1 else 's'}; 'cuda:0' is the first"
        )
    with cupy.cuda.Device(index):
        free, _ = cupy.cuda.runtime.memGetInfo()
        # CuPy's memory pool counts as free as well.
        free += cupy.get_default_memory_pool().free_bytes()
    return Device(f"cuda:{index}", cupy, int(SHARE_OF_FREE_MEMORY * free), index)
