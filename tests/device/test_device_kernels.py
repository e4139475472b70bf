"""The CUDA kernels in numba's simulator, or on a GPU; what is done where they cannot run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from places import DEVICES

from ncut.device import cuda, cuda_kernels
from ncut.device.devices import host_device

SOURCE = Path(cuda_kernels.__file__)
CHECKS = Path(__file__).parent / "kernel_checks.py"


@pytest.mark.parametrize("place", ["simulator", *[name for name in DEVICES if name == "cuda"]])
def test_kernels_do_what_the_compiled_ones_do(place: str) -> None:
    simulated = {"NUMBA_ENABLE_CUDASIM": "1" if place == "simulator" else "0"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(CHECKS)],
        env=os.environ | simulated,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    n_tests = len(re.findall(r"^def test_", CHECKS.read_text(encoding="utf-8"), re.MULTILINE))
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed
    assert int(passed[1]) >= n_tests
    assert "skipped" not in done.stdout


def test_kernels_compile_for_gpus_and_can_be_launched() -> None:
    """By NVIDIA's compiler, which needs no GPU."""
    ptxas = shutil.which("ptxas") or shutil.which("/usr/local/cuda/bin/ptxas")
    if ptxas is None:
        pytest.skip("to run it, install NVIDIA's CUDA toolkit (nvcc) and put its bin into PATH")
    script = Path(__file__).parent / "compiled_kernels.py"
    simulated = {"NUMBA_ENABLE_CUDASIM": "0"}
    done = subprocess.run(
        [sys.executable, str(script), ptxas],
        env=os.environ | simulated,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout)
    kernels = re.findall(r"@cuda\.jit(?:\(\*.*\))?\ndef (\w+)", SOURCE.read_text(encoding="utf-8"))
    assert set(found) == set(kernels)
    for name, needed in found.items():
        threads = cuda_kernels.LLOYD_THREADS if name == "lloyd" else cuda.THREADS
        for capability, needs in needed.items():
            assert needs["registers"] * threads <= 65536, (name, capability)
            assert needs["spilled"] == 0, (name, capability)


def test_without_the_simulator_the_host_has_no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NUMBA_ENABLE_CUDASIM", raising=False)
    assert not cuda.usable(host_device())


def failing(*arguments: object) -> None:
    raise RuntimeError("no compiler\nand a traceback")


RIGHT = np.array([0x6627E8D5E169C58D, 0xBC57AC4C9B00DBD8], np.uint64)


def silent(*arguments: object) -> None:
    pass


@pytest.mark.parametrize(
    ("name", "kernel", "reason"),
    [
        ("keys", failing, "RuntimeError: no compiler"),
        ("keys", silent, "not so: random numbers are right"),
        ("lloyd", failing, "RuntimeError: no compiler"),
        ("lloyd", silent, "not so: kmeans is right"),
    ],
)
def test_kernels_that_do_not_run_are_not_used(
    name: str, kernel: Any, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their namespace's functions are."""
    monkeypatch.setattr(cuda, "_REASONS", {})
    monkeypatch.setenv("NUMBA_ENABLE_CUDASIM", "1")

    class Kernel:
        def __getitem__(self, configuration: object) -> object:
            return kernel

    class Known:
        """Draws the right numbers."""

        def __getitem__(self, configuration: object) -> object:
            return lambda *arguments: np.copyto(arguments[-1], RIGHT)

    monkeypatch.setattr(cuda_kernels, "keys", Known())
    monkeypatch.setattr(cuda_kernels, "own_distance", Kernel())
    monkeypatch.setattr(cuda_kernels, name, Kernel())
    assert cuda.why_not(host_device()) == reason
    assert not cuda.usable(host_device())


def test_arrays_are_passed_without_a_stream_to_wait_for() -> None:
    class Array:
        def __init__(self) -> None:
            self.__cuda_array_interface__ = {"shape": (3,), "stream": 7, "version": 3}

        def get(self) -> object: ...

    view = cuda._view(Array())
    assert view.__cuda_array_interface__ == {"shape": (3,), "stream": None, "version": 3}
    assert cuda._view(np.uint64(3)) == 3
