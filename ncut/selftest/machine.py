"""Description of the machine for problem reports."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ncut import kernels
from ncut.device.devices import check_device
from ncut.threads import n_threads

PACKAGES = (
    "ncut",
    "numpy",
    "scipy",
    "torch",
    "cupy-cuda12x",
    "cupy-cuda13x",
)


def environment(device: str) -> dict[str, str]:
    """Versions, and the device with its driver and memory.

    Parameters
    ----------
    device : str
        "cpu", "cuda" or "cuda:N".

    Returns
    -------
    dict of str to str
        Packages that are not installed are left out.

    Raises
    ------
    InputError
        If the name is invalid, or this machine has no such GPU.
    MissingExtraError
        If CuPy is not installed.
    """
    found = {
        "system": f"{platform.system()} {platform.machine()}, CPython {platform.python_version()}, "
        f"{n_threads(None)} cores",
        "compiled core": ", ".join(kernels.build()),
    }
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    on = check_device(device)
    if on is not None:
        with on.xp.cuda.Device(on.index):  # whose memory is queried
            found["device"] = _described(on.xp.cuda.runtime, on.index)
    return found


def _described(runtime: Any, index: int) -> str:
    properties = runtime.getDeviceProperties(index)
    free, total = runtime.memGetInfo()
    driver, library = (
        f"{number // 1000}.{number % 1000 // 10}"
        for number in (runtime.driverGetVersion(), runtime.runtimeGetVersion())
    )
    return (
        f"{properties['name'].decode()} (compute capability "
        f"{properties['major']}.{properties['minor']}), driver for CUDA {driver}, CuPy's CUDA "
        f"{library}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
    )
