"""Long use of one process: python tests/fuzz/endurance.py --analyses 2000 --models 1000

Analyses of models of several formats, and a scan of many small ones. Memory, open files, threads
and processes are told at tenths of the way; those of the last tenth are held against the second's.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import sys
import tempfile
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import ncut

GROWTH_MIB = 32
"""Memory that may be more at the end than after a tenth: what allocators keep."""


def state() -> dict[str, Any]:
    """Resources of a process."""
    gc.collect()
    status = dict(
        line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if line
    )
    return {
        "rss_mib": round(int(status["VmRSS"].split()[0]) / 1024, 1),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": int(status["Threads"]),
    }


def weights(seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    shapes = ((20, 16), (16, 12), (12, 8))
    return {f"w{n}": rng.normal(size=shape).astype("f4") for n, shape in enumerate(shapes)}


def models(folder: Path) -> list[Any]:
    """Models of several formats, a damaged one among them."""
    from safetensors.numpy import save_file

    found: list[Any] = [list(weights(0).values())]
    np.savez(folder / "a.npz", **weights(1))
    save_file(weights(2), folder / "a.safetensors")
    (folder / "bad.npz").write_bytes((folder / "a.npz").read_bytes()[:-30])
    found += [folder / name for name in ("a.npz", "a.safetensors", "bad.npz")]
    keras = Path(__file__).parents[1] / "extract" / "keras_files"
    return [*found, keras / "perceptron.keras", keras / "convolutional.keras"]


def analyses(n: int) -> list[dict[str, Any]]:
    """Analyse models in turn, and write what comes; the states on the way."""
    states = []
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(name)
        every = models(folder)
        for number in range(n):
            try:
                report = ncut.analyze(every[number % len(every)], k=3, shuffles=2, seed=number)
                report.to_json(folder / "r.json")
                if number % 50 == 0:
                    report.to_html(folder / "r.html")
            except ncut.ModelError:
                assert "bad" in str(every[number % len(every)])
            if (number + 1) % max(1, n // 10) == 0:
                states.append({"analyses": number + 1, **state()})
    return states


def scan(n: int, backend: str) -> dict[str, Any]:
    """Scan many small models; the states before and after, and how long it took."""
    states: list[dict[str, Any]] = []

    def told(counts: Any) -> None:
        ended = counts.done + counts.failed
        if ended and ended % max(1, n // 10) == 0 and (
            not states or states[-1]["models"] != ended
        ):  # fmt: skip
            states.append({"models": ended, **state()})

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "models"
        folder.mkdir()
        for number in range(n):
            np.savez(folder / f"step-{number}.npz", **weights(number))
        started = time.monotonic()
        found = ncut.scan(
            folder, Path(name) / "out", k=3, shuffles=2, backend=backend, progress=told
        )
        seconds = time.monotonic() - started
        rows = len(found.to_frame())
        assert rows == n, f"{rows} rows of {n}"
        assert not found.failed
    return {"seconds": round(seconds, 1), "states": states}


def is_flat(states: list[dict[str, Any]]) -> bool:
    """Check whether the last state is like an early one."""
    first, last = states[min(1, len(states) - 1)], states[-1]
    return (
        last["rss_mib"] <= first["rss_mib"] + GROWTH_MIB
        and last["descriptors"] <= first["descriptors"] + 1
        and last["threads"] <= first["threads"] + 1
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--analyses", type=int, default=2000)
    parser.add_argument("--models", type=int, default=1000)
    parser.add_argument("--backend", default="threading")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    command = " ".join(["python", "tests/fuzz/endurance.py", *sys.argv[1:]])
    found: dict[str, Any] = {"command": command, "analyses": analyses(arguments.analyses)}
    found["scan"] = scan(arguments.models, arguments.backend)
    found |= {"ncut": version("ncut"), "python": platform.python_version(),
              "machine": platform.machine()}  # fmt: skip
    found["flat"] = is_flat(found["analyses"]) and is_flat(found["scan"]["states"])
    text = json.dumps(found, indent=1)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")
    return 0 if found["flat"] else 1


if __name__ == "__main__":
    sys.exit(main())
