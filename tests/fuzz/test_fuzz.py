"""A share of the fuzzers, in seconds: `make fuzz` has more of each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="limits processes as Linux can; run there"),
    pytest.mark.slow,
]
for package in ("torch", "onnx", "h5py", "transformers", "pyarrow", "msgpack", "tflite"):
    pytest.importorskip(package, reason="make test installs it, or pip install '.[dev]'")


def figures(script: str, *arguments: str) -> dict:
    """What a script finds; it fails if that is something."""
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
    found = figures("fuzz.py", "--inputs", "720")
    assert found["findings"] == {}
    assert set(found["outcomes"]) == {"read", "refused"}
    assert found["outcomes"]["read"] > 50
    assert all(sum(outcomes.values()) >= 5 for outcomes in found["by_format"].values())


def test_the_core_refuses_wrong_arguments() -> None:
    found = figures("core.py", "--calls", "1500")
    assert found["findings"] == {}
    assert found["outcomes"]["returned"] > 200
    assert found["outcomes"]["TypeError"] > 200


@pytest.mark.parametrize("kind", ["scan", "results", "paper"])
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
def use(kind, path, number):
    raise {error}
fuzz.use = use
found = fuzz.run(40, kinds=["npz", "npy"])
print(*(text for findings in found["findings"].values() for text in findings))
"""


@pytest.mark.parametrize(
    ("error", "finding"),
    [
        ("KeyError('x')", "raised KeyError at"),
        ("MemoryError", "no memory"),
        ("ncut.ModelError('who knows')", "names no file"),
        ("SystemExit(fuzz.os.kill(fuzz.os.getpid(), 11))", "died"),
        ("SystemExit([0 for _ in iter(int, 1)])", "no memory|no end|raised"),
    ],
)
def test_faults_would_be_found(error: str, finding: str) -> None:
    code = SEEDED.format(here=str(HERE), error=error)
    if "iter" in error:
        code = code.replace("found =", "fuzz.CPU_SECONDS = 1\nfuzz.MEMORY = 1 << 40\nfound =")
        code = code.replace("[0 for _ in iter(int, 1)]", "any(iter(int, 1))").replace(
            "run(40", "run(2"
        )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert any(word in done.stdout.splitlines()[-1] for word in finding.split("|")), done.stdout
