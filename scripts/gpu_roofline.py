"""What a clustering on a GPU has to move and to compute, and the least time that takes on an H100.

    python scripts/gpu_roofline.py docs/gpu/roofline.json

Prints a table. Runs the code of devices on NumPy's arrays and counts, for each stage, the
operations on arrays, the bytes that they read and write, and their floating-point operations in
float32 and float64. k-means, which a GPU does in kernels of its own, is counted by what these
kernels do. Needs no GPU, and measures none: a time is the larger of bytes over bandwidth and
operations over rate.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from ncut.device import cluster, kmeans, refine, shuffle
from ncut.device.devices import Device
from ncut.device.graph import DeviceGraph, upload
from ncut.device.operator import DeviceOperator
from ncut.device.random import random_keys
from ncut.device.solve import DIRECT_SIZE
from ncut.graphs import NeuronGraph
from ncut.selftest import cases
from ncut.spectral.solvers import small_side

K, N_INIT = 12, 25
BANDWIDTH, FLOAT32, FLOAT64 = 3.35e12, 67e12, 34e12
"""NVIDIA's figures for an H100 SXM: bytes and operations per second, without tensor cores."""

LAUNCH = 22e-6
"""Seconds that an operation of CuPy took on the host beside an H200, where it was measured."""

CASES: dict[str, Callable[[], NeuronGraph]] = {
    "MLP 784-256x4-10": cases.mlp,
    "the channels of VGG-16": cases.vgg16,
    "the channels of ResNet-50": cases.resnet50,
    "12 layers of 2,048": lambda: cases.chain(map(abs, cases.random_layers((2048,) * 12))),
    "12 layers of 4,096": lambda: cases.chain(map(abs, cases.random_layers((4096,) * 12))),
}


@dataclasses.dataclass
class Work:
    """What a stage does."""

    operations: int = 0
    bytes: float = 0
    flops32: float = 0
    flops64: float = 0

    @property
    def seconds(self) -> float:
        """The least time on an H100."""
        return max(self.bytes / BANDWIDTH, self.flops32 / FLOAT32 + self.flops64 / FLOAT64)


WORK: dict[str, Work] = collections.defaultdict(Work)
STAGES = ["other"]


def counted(inputs: Any, output: Any, flops: float | None = None, *, more_bytes: float = 0) -> None:
    """One operation; an arithmetic one for each number of its result unless told."""
    work = WORK[STAGES[-1]]
    arrays = [array for array in _flat(inputs) if isinstance(array, np.ndarray)]
    results = [array for array in _flat(output) if isinstance(array, np.ndarray | np.generic)]
    work.operations += 1
    work.bytes += more_bytes + sum(array.nbytes for array in (*arrays, *results))
    wide = any(array.dtype == np.float64 for array in (*arrays, *results))
    flops = float(sum(array.size for array in results)) if flops is None else flops
    if wide:
        work.flops64 += flops
    else:
        work.flops32 += flops


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, tuple | list):
        for one in value:
            yield from _flat(one)
    elif isinstance(value, dict):
        yield from _flat(list(value.values()))
    else:
        yield value


class Counted(np.ndarray):
    """An array whose operations are counted; views are free."""

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        out = options.pop("out", None)
        if out is not None:
            options["out"] = _plain(out)
        result = getattr(ufunc, method)(*_plain(inputs), **_plain(options))
        flops = 2.0 * result.size * inputs[0].shape[-1] if ufunc is np.matmul else None
        counted(inputs, result, flops)
        return out[0] if out is not None else _counting(result)

    def __array_function__(self, function: Any, kinds: Any, inputs: Any, options: Any) -> Any:
        return NAMESPACE.call(function, inputs, options)

    def __setitem__(self, at: Any, value: Any) -> None:
        counted((value,), np.asarray(self.view(np.ndarray)[_plain(at)]))
        self.view(np.ndarray)[_plain(at)] = _plain(value)

    def astype(self, dtype: Any, copy: bool = True, **options: Any) -> Any:  # type: ignore[override]
        """As NumPy's; free where nothing is converted."""
        if not copy and self.dtype == dtype:
            return self
        result = self.view(np.ndarray).astype(dtype, **options)
        counted((self,), result, 0.0)
        return _counting(result)


def _plain(value: Any) -> Any:
    if isinstance(value, Counted):
        return value.view(np.ndarray)
    if isinstance(value, tuple | list):
        return type(value)(_plain(one) for one in value)
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return value


def _counting(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.view(Counted)
    if isinstance(value, np.generic):
        return np.asarray(value).view(Counted)
    return tuple(map(_counting, value)) if type(value) is tuple else value


FREE = {"reshape", "asarray", "result_type", "ascontiguousarray", "isdtype", "finfo", "astype"}
SORT_BYTES = 256
"""For each entry: a radix sort reads and writes key and number, 16 bytes, for each 8 bits of 64."""

QR_FLOPS = 4
"""Operations of a QR decomposition for each number of the matrix and each column."""


class Namespace(types.ModuleType):
    """NumPy, counting."""

    def __getattr__(self, name: str) -> Any:
        found = getattr(np, name)
        if isinstance(found, type) or not callable(found):
            return Linalg() if name == "linalg" else found
        return lambda *inputs, **options: self.call(found, inputs, options)

    @staticmethod
    def call(function: Any, inputs: Any, options: Any) -> Any:
        """A function of NumPy."""
        result = function(*_plain(inputs), **_plain(options))
        if function.__name__ == "argsort":
            counted((), (), more_bytes=SORT_BYTES * result.size)
        elif function.__name__ not in FREE:
            counted(inputs, result)
        return _counting(result)


class Linalg:
    """The decompositions that are used."""

    @staticmethod
    def qr(matrix: Any) -> Any:
        """Householder's."""
        result = tuple(np.linalg.qr(_plain(matrix)))
        counted((matrix,), result, QR_FLOPS * matrix.size * matrix.shape[1])
        return _counting(result)

    @staticmethod
    def eigh(matrix: Any) -> Any:
        """By reduction to a tridiagonal matrix: about 9 n^3 with all vectors."""
        result = tuple(np.linalg.eigh(_plain(matrix)))
        counted((matrix,), result, 9.0 * len(matrix) ** 3)
        return _counting(result)


NAMESPACE = Namespace("counted")


class CountingDevice(Device):
    """A device of the host whose operations are counted."""

    @property
    def has_scipy(self) -> bool:
        """Its blocks are dense."""
        return True

    def asarray(self, host: Any) -> Any:
        """A copy to the device is not its own traffic."""
        return _counting(np.asarray(host))

    def to_host(self, array: Any) -> Any:
        """Nor is one back."""
        return _plain(np.asarray(array))


@contextlib.contextmanager
def stage(name: str) -> Iterator[None]:
    """Count for this stage."""
    STAGES.append(name)
    try:
        yield
    finally:
        STAGES.pop()


def staged(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, counted for a stage."""

    def run(*inputs: Any, **options: Any) -> Any:
        with stage(name):
            return function(*inputs, **options)

    return run


def count_kmeans(device: Device, points: Any, k: int, *, n_init: int, **options: Any) -> Any:
    """k-means as a GPU's kernels do it: distances of all points to all centres, in each pass."""
    iterations: list[int] = []
    right = kmeans._Lloyd._reassign

    def reassign(run: Any) -> Any:
        iterations.append(run.centres.shape[0])
        return right(run)

    with patch.object(kmeans._Lloyd, "_reassign", reassign), stage("nowhere"):
        labels = kmeans_partition(device, points, k, n_init=n_init, **options)
    n, d = points.shape
    n_candidates = 2 + int(np.log(k))
    work = WORK["k-means"]
    # Starts: distances to each candidate, their running sums, and how many of these are passed.
    work.operations += 12 * (k - 1) + 20
    starts = n_init * (k - 1) * n
    work.flops32 += starts * n_candidates * 3 * d
    work.bytes += starts * (n_candidates * 13 + 36) + (k - 1) * n * d * 4
    # Iterations: points stay in the cache of a GPU; labels are read, and written where they change.
    work.flops32 += sum(iterations) * n * k * 3 * d
    work.bytes += sum(iterations) * n * (4 * d + 4)
    return labels


kmeans_partition = kmeans.partition


def one_kernel(device: Device, n: int, **options: Any) -> Any:
    """Random numbers of 64 bits as a GPU's kernel makes them: they are written once."""
    with stage("nowhere"):
        keys = random_keys(device, n, **options)
    counted((), keys)
    return keys


def measured(graph: NeuronGraph) -> dict[str, Any]:
    """The stages of one clustering and of one shuffle."""
    WORK.clear()
    device = CountingDevice("counted", NAMESPACE, 2**40)
    with (
        patch.object(cluster, "embed_on_device", staged("eigenvectors", cluster.embed_on_device)),
        patch.object(refine, "refine", staged("refinement", refine.refine)),
        patch.object(kmeans, "partition", count_kmeans),
        stage("measures"),
    ):
        placed = upload(graph, device)
        solver = chosen(placed)
        found = cluster.cluster_on_device(placed, K, n_init=N_INIT, solver=solver)
    stages = {name: WORK[name] for name in ("eigenvectors", "k-means", "refinement", "measures")}
    whole = Work(
        *(
            sum(getattr(work, field.name) for work in stages.values())
            for field in dataclasses.fields(Work)
        )
    )
    with stage("a shuffle"), patch.object(shuffle, "random_keys", one_kernel):
        shuffle.shuffle_on_device(placed, "layer", 0, 0)
    stages |= {"a clustering": whole, "a shuffle": WORK["a shuffle"]}
    return {
        "vertices": graph.n_vertices,
        "edges": graph.n_edges,
        "weights in bytes": placed.resident_bytes,
        "solver": found.solver,
        "stages": {
            name: {
                **dataclasses.asdict(work),
                "least seconds": work.seconds,
                "seconds of launching": work.operations * LAUNCH,
            }
            for name, work in {
                **stages,
                "a clustering": whole,
                "a shuffle": WORK["a shuffle"],
            }.items()
        },
    }


def chosen(graph: DeviceGraph) -> str:
    """The solver that a GPU would take."""
    return "gram" if small_side(DeviceOperator(graph)) <= DIRECT_SIZE else "krylov"


def short(number: float) -> str:
    """Two digits."""
    return f"{float(f'{number:.2g}'):g}"


def table(found: dict[str, Any]) -> list[str]:
    """The lines of a table in Markdown: gigabytes, operations on arrays, milliseconds."""
    stages = ("eigenvectors", "k-means", "refinement", "measures", "a clustering", "a shuffle")
    head = ("graph", "edges, million", "GB", "GFLOP in float32, float64", "operations on arrays")
    lines = [f"| {' | '.join((*head, 'starting them, ms', *stages))} |"]
    lines.append("|" + "---|" * (len(head) + 1 + len(stages)))
    for name, case in found["cases"].items():
        whole = case["stages"]["a clustering"]
        cells = [
            name,
            short(case["edges"] / 1e6),
            short(whole["bytes"] / 1e9),
            f"{short(whole['flops32'] / 1e9)}, {short(whole['flops64'] / 1e9)}",
            f"{whole['operations']:,}",
            short(1e3 * whole["seconds of launching"]),
            *(short(1e3 * case["stages"][stage]["least seconds"]) for stage in stages),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Count all cases; print a table, and write everything to a file."""
    found = {
        "assumed": {
            "bytes per second": BANDWIDTH,
            "float32 operations per second": FLOAT32,
            "float64 operations per second": FLOAT64,
            "seconds to launch an operation": LAUNCH,
            "k": K,
            "n_init": N_INIT,
        },
        "cases": {},
    }
    for name, make in CASES.items():
        found["cases"][name] = measured(make())
    print("\n".join(table(found)))
    for file in sys.argv[1:2]:
        Path(file).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
