"""Large arrays from the host to a GPU by way of page-locked memory."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncut.device.devices import Device


class _Staging:
    """Two page-locked buffers: while one is copied to the device, the other is filled."""

    SIZE = 2**25

    def __init__(self, device: Device) -> None:
        from cupyx import empty_pinned

        self._device = device
        self._buffers = [empty_pinned((self.SIZE,), np.uint8) for _ in range(2)]
        self._free: list[Any] = [None, None]
        self._turn = 0

    def copy(self, host: NDArray[Any]) -> Any:
        """A contiguous array on the device; returns while the last of it is under way."""
        cupy = self._device.xp
        array = cupy.empty(host.shape, dtype=host.dtype)
        target = array.reshape(-1).view(np.uint8)
        source = host.reshape(-1).view(np.uint8)
        stream = cupy.cuda.get_current_stream()
        for start in range(0, source.size, self.SIZE):
            turn, self._turn = self._turn, 1 - self._turn
            if self._free[turn] is not None:
                self._free[turn].synchronize()
            part = source[start : start + self.SIZE]
            pinned = self._buffers[turn][: part.size]
            pinned[:] = part
            target[start : start + part.size].set(pinned, stream=stream)
            self._free[turn] = stream.record()
        return array


_OF_THREAD = threading.local()


def staged(device: Device, host: NDArray[Any]) -> Any:
    """A copy through this thread's page-locked buffers."""
    buffers: dict[int, _Staging] = _OF_THREAD.__dict__.setdefault("staging", {})
    if device.index not in buffers:
        buffers[device.index] = _Staging(device)
    return buffers[device.index].copy(host)
