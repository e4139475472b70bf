"""Ctrl-C inside one call of a kernel that would take minutes."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from ncut import kernels

CALLS = {
    "kmeans": """
points = rng.normal(size=(200_000, 12)).astype(DTYPE)
def call():
    kernels.kmeans(points, 64, n_init=1000, max_iterations=10_000, tolerance=0.0, seed=0, stream=0,
                   threads=THREADS)
""",
    "sinkhorn": """
matrix = rng.random((2000, 2000)) ** 8
def call():
    kernels.sinkhorn(matrix, triangle=False, tolerance=0.0, max_sweeps=10_000)
""",
    "trade": """
n = 1500
indptr, indices = np.arange(0, n * n + 1, n), np.tile(np.arange(n), n)
values, bins = rng.random(n * n), np.tile([[-1e9], [1e9]], n)
def call():
    kernels.trade(indptr, indices, n, values, (bins, bins), triangle=False, halves=100_000, seed=0,
                  stream=0, substream=0)
""",
}

INTERRUPTED = """
import os, signal, threading, time
import numpy as np
from ncut import kernels

rng = np.random.default_rng(0)
# Shells start processes in the background with Ctrl-C ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
CALL
sent = []
def interrupt():
    time.sleep(0.3)
    sent.append(time.process_time())
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt, daemon=True).start()
try:
    call()
except KeyboardInterrupt:
    print(time.process_time() - sent[0])
"""


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals: run on Linux")
@pytest.mark.parametrize(
    ("kernel", "dtype", "threads"),
    [
        ("kmeans", "float32", 1),
        ("kmeans", "float32", 3),
        ("kmeans", "float64", 1),
        ("sinkhorn", "float64", 1),
        ("trade", "float64", 1),
    ],
)
def test_ctrl_c_ends_a_kernel(kernel: str, dtype: str, threads: int) -> None:
    call = CALLS[kernel].replace("DTYPE", repr(dtype)).replace("THREADS", str(threads))
    command = [sys.executable, "-c", INTERRUPTED.replace("CALL", call)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    assert float(done.stdout) < 2.0, done.stderr  # seconds of the processor


HANDLED = """
import os, signal, threading
import numpy as np
from ncut import kernels

points = np.random.default_rng(0).normal(size=(20_000, 8)).astype(np.float32)
calls = []
signal.signal(signal.SIGUSR1, lambda *_: calls.append(1))
done = threading.Event()
def send():
    while not done.wait(0.02):
        os.kill(os.getpid(), signal.SIGUSR1)
threading.Thread(target=send, daemon=True).start()
labels, inertia = kernels.kmeans(points, 12, n_init=30, max_iterations=100, tolerance=0.0, seed=5,
                                 stream=1, threads=2)
done.set()
assert calls
print(repr(inertia), labels.sum())
"""


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals: run on Linux")
def test_handlers_that_return_change_nothing() -> None:
    points = np.random.default_rng(0).normal(size=(20_000, 8)).astype(np.float32)
    labels, inertia = kernels.kmeans(
        points, 12, n_init=30, max_iterations=100, tolerance=0.0, seed=5, stream=1, threads=2
    )
    command = [sys.executable, "-c", HANDLED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    assert done.stdout.split() == [repr(inertia), str(labels.sum())]
