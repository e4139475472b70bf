"""Check and time the claims of docs/gpu.md in one session of at most nine minutes; writes JSON.

    python scripts/gpu_session.py session.json               # on a machine with a GPU
    python scripts/gpu_session.py session.json --device numpy  # dry run: the same code on NumPy

Runs in this order while time remains: the checks of `ncut selftest`; clusterings, shuffles and
analyses on the device and on the CPU, with their n-cuts, lower bounds and eigenvalues; the bytes
that a clustering and a shuffle copy to the device and back, and the number of products; training
steps with and without the regularizer, and its gradients compared with the CPU's in float64; the
tests of devices on the GPU. The file is written after each part, so that an interrupted session
keeps its results. The exit code is 1 if a check fails. Times of a dry run are meaningless; its
counts are exact.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

import ncut
from ncut.device.devices import Device, check_device, host_device
from ncut.device.graph import upload
from ncut.device.operator import DeviceOperator
from ncut.device.shuffle import shuffle_on_device
from ncut.graphs import NeuronGraph
from ncut.selftest import cases, checks, machine, timings
from ncut.spectral.embedding import embed

K = 12
TOLERANCE = 1e-5
MANY_EDGES = 1e8
"""Number of edges from which an analysis has fewer shuffles."""

SECONDS = 540.0

VALUES, NCUTS, GRADIENTS = 1e-4, 2e-2, 5e-3
"""Tolerated relative differences from the CPU."""

CASES: dict[str, Callable[[], NeuronGraph]] = {
    "MLP 784-256x4-10": cases.mlp,
    "the channels of VGG-16": cases.vgg16,
    "the channels of ResNet-50": cases.resnet50,
    "12 layers of 2,048": lambda: cases.chain(map(abs, cases.random_layers((2048,) * 12))),
    "12 layers of 4,096": lambda: cases.chain(map(abs, cases.random_layers((4096,) * 12))),
}


class Counting(Device):
    """A device that counts the bytes copied to it and back."""

    counts: dict[str, int] = {}  # noqa: RUF012

    def asarray(self, host: Any) -> Any:
        """A copy on the device, counted."""
        self.counts["to the device"] = self.counts.get("to the device", 0) + host.nbytes
        return super().asarray(host)

    def to_host(self, array: Any) -> Any:
        """A copy on the host, counted."""
        on_host = super().to_host(array)
        self.counts["back"] = self.counts.get("back", 0) + on_host.nbytes
        return on_host


def counting(device: Device) -> Counting:
    """The device, counting."""
    return Counting(*(getattr(device, field.name) for field in dataclasses.fields(device)))


def transfers(graph: NeuronGraph, device: Device) -> dict[str, Any]:
    """Bytes copied by an embedding and by a shuffle, and the bytes that panels would add."""
    device, found = counting(device), {}
    shapes: list[tuple[int, int]] = []

    class Spied(DeviceOperator):
        def apply_gram(self, x: Any) -> Any:
            shapes.append(x.shape)
            return super().apply_gram(x)

        def apply(self, x: Any) -> Any:
            shapes.append(x.shape)
            return super().apply(x)

    with device.cuda_stream():
        for part in ("weights", "eigenvectors", "a shuffle"):
            Counting.counts = dict.fromkeys(("to the device", "back"), 0)
            if part == "weights":
                placed = upload(graph, device)
                operator = Spied(placed, 1)
            elif part == "eigenvectors":
                embed(operator, K, solver="krylov", seed=0, graph_number=0)
            else:
                shuffle_on_device(placed, "layer", 0, 0)
            found[part] = Counting.counts
    *lanczos, _ = shapes  # the last is Rayleigh and Ritz's
    each_way = sum(4 * rows * columns for rows, columns in lanczos)
    return found | {"products": len(lanczos), "panels each way, if they moved": each_way}


def seconds(run: Callable[[], Any], runs: int) -> tuple[float, Any]:
    """Median after an uncounted first run, and the last result."""
    taken, result = [], run()
    for _ in range(runs):
        started = time.perf_counter()
        result = run()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken), result


def clustering(graph: NeuronGraph, device: str, runs: int) -> dict[str, Any]:
    """Times of a clustering and an analysis, on the device and on the CPU."""
    n_shuffles = 20 if graph.n_edges < MANY_EDGES else 3
    row: dict[str, Any] = {"vertices": graph.n_vertices, "edges": graph.n_edges}
    found = {}
    for where in ("cpu", device):
        taken, found[where] = seconds(partial(ncut.cluster, graph, K, device=where), runs)
        started = time.perf_counter()
        report = ncut.analyze(graph, shuffles=n_shuffles, device=where)
        row[where] = {
            "clustering, s": taken,
            f"analysis with {n_shuffles} shuffles, s": time.perf_counter() - started,
            "n-cut": found[where].ncut,
            "refined n-cut": found[where].refined_ncut,
            "lower bound": found[where].lower_bound,
            "solver": found[where].solver,
            "shuffled": [report.shuffled_mean, report.shuffled_std],
        }
    ours, theirs = found[device], found["cpu"]
    values = np.abs(ours.eigenvalues - theirs.eigenvalues)[1:] / theirs.eigenvalues[1:]
    apart = {
        "eigenvalues": float(values.max()),
        "lower bound": abs(ours.lower_bound / theirs.lower_bound - 1),
        "refined n-cut": abs(ours.refined_ncut / theirs.refined_ncut - 1),
    }
    allowed = {"eigenvalues": VALUES, "lower bound": VALUES, "refined n-cut": NCUTS}
    right = all(apart[name] <= allowed[name] for name in apart)
    return row | {"apart": apart, "passed": right}


def shuffling(graph: NeuronGraph, device: Device) -> dict[str, Any]:
    """Times of a shuffle on the device, including the copy back, and of a shuffle on the CPU."""
    with device.cuda_stream():
        placed = upload(graph, device)
        there, found = seconds(partial(shuffle_on_device, placed, "layer", 0, 0), 3)
    here, _ = seconds(partial(ncut.shuffle, graph, "layer", 0, 0), 3)
    before, after = graph.blocks[0].weights, found.host.blocks[0].weights
    kept = np.array_equal(np.sort(before, axis=None), np.sort(after, axis=None))
    return {"device, s": there, "cpu, s": here, "passed": kept}


def gradients(device: str) -> dict[str, Any]:
    """The regularizer's value and gradients for the MLP, compared with the CPU's in float64."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    layers = [nn.Linear(n_in, n_out) for n_in, n_out in itertools.pairwise(cases.MLP)]
    model = nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU())))
    exact = copy.deepcopy(model).double()
    model.to(device)
    # Untrained weights have eigenvalues close together: the default leaves gradients 11 % off.
    regularizer = ncut.EigenvalueRegularizer(model, tolerance=TOLERANCE)
    for _ in range(3):  # the last two start from the eigenvectors of the one before
        model.zero_grad()
        term = regularizer()
        term.backward()
    expected = ncut.EigenvalueRegularizer(exact, tolerance=1e-10)()
    expected.backward()
    errors = [
        float((ours.grad.double().cpu() - theirs.grad).norm() / theirs.grad.norm())
        for ours, theirs in zip(model.parameters(), exact.parameters(), strict=True)
        if ours.grad is not None and theirs.grad is not None and theirs.grad.any()
    ]
    value = abs(float(term.detach()) / float(expected.detach()) - 1)
    right = value <= VALUES and bool(errors) and max(errors) <= GRADIENTS
    return {"value": value, "gradient": max(errors, default=None), "passed": right}


def training(device: str) -> dict[str, Any]:
    """Gradients, and milliseconds of training steps with and without the regularizer."""
    found = gradients(device)
    for name, regularized in (("plain", False), ("regularized", True)):
        for where in dict.fromkeys(("cpu", device)):
            found[f"{name}, {where}, ms"] = 1e3 * timings.training_step(regularized, where)
    return found


def selftest(device: str, left_out: str) -> dict[str, Any]:
    """The checks of `ncut selftest`."""
    done = [dataclasses.asdict(check) for check in checks.checks(device) if check.name != left_out]
    return {"checks": done, "passed": all(check["passed"] for check in done)}


def tests() -> dict[str, Any]:
    """The tests that use a GPU if available."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "tests/device"]
    command += ["tests/training/test_device_training.py", "-p", "no:cacheprovider"]
    with_cuda = os.environ | {"NCUT_TEST_CUDA": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=with_cuda, timeout=180)
    return {"passed": done.returncode == 0, "end": done.stdout[-2000:]}


def parts(args: argparse.Namespace) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The parts of the session, in order."""
    dry = args.device == "numpy"  # then torch computes on the CPU
    device = "cuda" if dry else args.device
    on = check_device(device)
    assert on is not None
    yield "selftest", partial(selftest, device, "gradients" if dry else "")
    for name in args.only:
        graph = CASES[name]()
        yield f"transfers: {name}", partial(transfers, graph, on)
        yield f"shuffling: {name}", partial(shuffling, graph, on)
        yield f"clustering: {name}", partial(clustering, graph, device, args.runs)
    yield "training", partial(training, "cpu" if dry else device)
    if not dry:
        yield "tests", tests


@contextmanager
def numpy_as_cuda() -> Iterator[None]:
    """Map "cuda" to NumPy arrays on the host, as in the tests."""

    def found(asked: str) -> Device | None:
        return None if asked == "cpu" else host_device()

    rooms = [f"ncut.{room}" for room in ("clusters", "measure.place", "selftest.checks")]
    with ExitStack() as stack:
        for room in (__name__, *rooms):
            stack.enter_context(patch(f"{room}.check_device", found))
        yield


def main(arguments: list[str] | None = None) -> int:
    """Run the session; returns 1 if a check fails."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=[*CASES, []], default=list(CASES))
    parser.add_argument("--parts", default="", help="parts whose names begin so")
    args = parser.parse_args(arguments)
    if args.device != "numpy":
        return session(args)
    with numpy_as_cuda():
        return session(args)


def session(args: argparse.Namespace) -> int:
    """Run all parts that fit in the time."""
    started = time.monotonic()
    about = machine.environment("cpu" if args.device == "numpy" else args.device)
    found: dict[str, Any] = {"device": args.device, "machine": about, "parts": {}}
    for name, part in parts(args):
        if not name.startswith(args.parts):
            continue
        before = time.monotonic()
        if before - started > SECONDS:
            found["parts"][name] = {"left out": "no time"}
            continue
        try:
            result = part()
        except Exception as error:  # the others go on
            where = traceback.format_exc(limit=-3)
            result = {"passed": False, "error": f"{type(error).__name__}: {error}", "where": where}
        found["parts"][name] = result | {"took, s": round(time.monotonic() - before, 3)}
        print(name, json.dumps(result)[:400], flush=True)
        found["passed"] = all(one.get("passed", True) for one in found["parts"].values())
        args.out.write_text(json.dumps(found, indent=1) + "\n")
    return 0 if found.get("passed") else 1


if __name__ == "__main__":
    sys.exit(main())
