"""Devices: names, errors without a GPU, and arrays."""

from __future__ import annotations

import sys
import types
from typing import Any

import numpy as np
import pytest
from places import NAMESPACES

import ncut
from ncut.device.devices import astype, check_device, concat, host_device
from ncut.errors import InputError, MissingExtraError
from ncut.plan import Plan


class _RuntimeError(Exception):
    pass


def fake_cupy(n_devices: int, free: int = 1000) -> Any:
    """The part of CuPy that describes the hardware."""

    def count() -> int:
        if n_devices < 0:
            raise _RuntimeError("cudaErrorInsufficientDriver: driver too old")
        return n_devices

    class Context:
        def __init__(self, index: int) -> None:
            self.index = index

        def __enter__(self) -> None:
            pass

        def __exit__(self, *error: object) -> None:
            pass

    module: Any = types.ModuleType("cupy")
    module.cuda = types.SimpleNamespace(
        Device=Context,
        runtime=types.SimpleNamespace(
            getDeviceCount=count,
            memGetInfo=lambda: (free, 2 * free),
            CUDARuntimeError=_RuntimeError,
        ),
    )
    module.get_default_memory_pool = lambda: types.SimpleNamespace(free_bytes=lambda: 500)
    return module


def test_the_cpu_is_no_device() -> None:
    assert check_device("cpu") is None


@pytest.mark.parametrize("bad", ["gpu", "cuda:", "cuda:-1", "cuda:x", "CPU", "", None, 0])
def test_other_names_are_refused(bad: Any) -> None:
    with pytest.raises(InputError, match="device: must be 'cpu', 'cuda' or 'cuda:N'"):
        check_device(bad)
    with pytest.raises(InputError, match="device: must be"):
        Plan.of(device=bad)


def test_without_cupy_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    weights = [np.ones((3, 3))] * 2
    with pytest.raises(MissingExtraError, match=r"pip install 'ncut\[gpu\]'"):
        ncut.analyze(weights, k=2, shuffles=0, device="cuda")
    with pytest.raises(MissingExtraError, match=r"ncut\[gpu\]"):
        ncut.cluster(ncut.graph(weights), k=2, device="cuda:0")
    with pytest.raises(MissingExtraError, match=r"ncut\[gpu\]"):
        ncut.profile(weights, k=[2], shuffles=0, device="cuda")


def test_a_machine_without_a_usable_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(-1))
    with pytest.raises(InputError, match=r"no CUDA GPU .*driver too old.*use device='cpu'"):
        check_device("cuda")


@pytest.mark.parametrize(("n", "words"), [(0, "0 CUDA GPUs"), (1, "1 CUDA GPU;"), (2, "2 CUDA")])
def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch, n: int, words: str) -> None:
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(n))
    with pytest.raises(InputError, match=words):
        check_device(f"cuda:{n}")


def test_a_gpu_is_found_with_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(2))
    found = check_device("cuda:1")
    assert found is not None
    assert (found.name, found.index, found.is_cuda) == ("cuda:1", 1, True)
    assert found.budget == 1200  # of the 1000 bytes free and the 500 that CuPy holds
    first = check_device("cuda")
    assert first is not None
    assert first.name == "cuda:0"


@pytest.mark.parametrize("name", NAMESPACES)
def test_arrays_are_copied_to_and_from_the_device(name: str) -> None:
    device = host_device(NAMESPACES[name], budget=4000)
    assert device.name == name
    assert not device.is_cuda
    host = np.arange(12, dtype=np.float32).reshape(3, 4)
    there = device.asarray(host)
    np.testing.assert_array_equal(device.to_host(there), host)
    wide = astype(there, device.xp.float64, device.xp)
    assert wide.dtype == device.xp.float64
    joined = device.to_host(concat([wide, wide], device.xp, axis=1))
    np.testing.assert_array_equal(joined, np.hstack([host, host]))
    with device.cuda_stream():
        pass
    assert device.tile_bytes == 250


def test_a_scan_of_a_gpu_is_not_mixed_with_one_of_the_cpu() -> None:
    from ncut.plan import Plan

    assert "device" not in Plan.of().recorded()  # folders from before there were devices
    assert Plan.of(device="cuda:1").recorded()["device"] == "cuda"
    assert Plan.of(device="cuda:1").device == "cuda:1"
