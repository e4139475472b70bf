"""A share of the fuzzers, in seconds: `make fuzz` has more of each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).parent
pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="limits processes as Linux can; run there"),
    pytest.mark.slow,
]
for package in (
    "torch",
    "onnx",
    "h5py",
    "transformers",
    "pyarrow",
    "msgpack",
    "tflite",
    "tensorstore",
    "diffusers",
):
    if find_spec(package) is None:
        pytest.skip(f"{package}: run make test, or pip install '.[dev]'", allow_module_level=True)


def figures(script: str, *arguments: str) -> dict:
    """The findings of a script, which fails if there are any."""
    done = subprocess.run(
        [sys.executable, HERE / script, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    return json.loads(done.stdout[done.stdout.index("\n{") if "\n{" in done.stdout else 0 :])


def test_damaged_files_give_graphs_or_errors_of_ours() -> None:
    """Half a minute: 760 files of all formats, and the packages that write the first of each."""
    found = figures("fuzz.py", "--inputs", "760")
    assert found["findings"] == {}
    assert set(found["outcomes"]) == {"read", "refused"}
    assert found["outcomes"]["read"] > 50
    assert all(sum(outcomes.values()) >= 5 for outcomes in found["by_format"].values())


def test_the_core_refuses_wrong_arguments() -> None:
    found = figures("core.py", "--calls", "1500")
    assert found["findings"] == {}
    assert found["outcomes"]["returned"] > 200
    assert found["outcomes"]["TypeError"] > 200


@pytest.mark.parametrize("kind", ["scan", "results", "analyze", "paper"])
def test_killed_work_is_gone_on_with(kind: str) -> None:
    sys.path.insert(0, str(HERE))
    import kills

    found = kills.run(kind, 6)
    assert found["wrong"] == []
    assert found["kills"] >= 6


SEEDED = """
import sys
sys.path.insert(0, {here!r})
import fuzz, ncut, seeds
def fault(code):
    def use(kind, path, number):
        exec(code)
    return use
for code, n in {cases!r}:
    fuzz.use = fault(code)
    fuzz.CPU_SECONDS, fuzz.MEMORY = (20, 1 << 30) if n > 2 else (1, 1 << 40)
    with fuzz.seeded(["npz", "npy"]) as formats:
        found = fuzz.run(n, 0, formats)
    print("found", *(text for findings in found["findings"].values() for text in findings))
"""
FAULTS = {
    "raise KeyError('x')": "raised KeyError at",
    "raise MemoryError": "no memory",
    "raise ncut.ModelError('who knows')": "names no file",
    "open(path, 'rb').close()": "opened outside of the guard",
    "fuzz.os.kill(fuzz.os.getpid(), 11)": "died",
    "any(iter(int, 1))": "no end",
}


def test_faults_would_be_found() -> None:
    cases = [(code, 2 if "iter" in code else 40) for code in FAULTS]
    done = subprocess.run(
        [sys.executable, "-c", SEEDED.format(here=str(HERE), cases=cases)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    told = [line for line in done.stdout.splitlines() if line.startswith("found")]
    for finding, line in zip(FAULTS.values(), told, strict=True):
        assert finding in line, done.stdout
