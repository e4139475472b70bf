"""Checks and times the regularizer on a CUDA device; prints JSON.

    python scripts/gpu_training.py training.json

writes it to a file too.

For networks of linear layers and of convolutions: one warm step (call and backward) in which any
synchronization is an error, its value and gradients against the CPU in float64, the copies in it
as the profiler sees them, and whether training steps keep to the eigenvalues. Then training steps
with and without the regularizer, on the device and on the CPU: medians in milliseconds. Without a
CUDA device it says so. Exit code 1 if a check fails.
"""

from __future__ import annotations

import copy
import itertools
import json
import statistics
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import ncut
from ncut.training import jacobi

VALUE, GRADIENT = 1e-4, 5e-3
"""Largest relative errors. Gradients are as accurate as the eigenvectors: about 1e-3."""

SIZES = {"49-64-64-64-10": (49, 64, 64, 64, 10), "784-256x4-10": (784, 256, 256, 256, 256, 10)}
WARM, STEPS, BATCH = 30, 200, 128


def multilayer(sizes: tuple[int, ...]) -> nn.Sequential:
    """A perceptron."""
    torch.manual_seed(0)
    found: list[nn.Module] = []
    for n_in, n_out in itertools.pairwise(sizes):
        found += [nn.Linear(n_in, n_out), nn.ReLU()]
    return nn.Sequential(*found[:-1])


def convolutions() -> nn.Sequential:
    """A network with batch norms and a convolution in many groups."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 32, 3, groups=8), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 20, 3),
    )  # fmt: skip


def settled(model: nn.Module) -> ncut.EigenvalueRegularizer:
    """A regularizer after some calls, so that the next is a warm one."""
    regularizer = ncut.EigenvalueRegularizer(model)
    for _ in range(10):
        regularizer().backward()
        torch.cuda.synchronize()
    model.zero_grad()
    return regularizer


def check_waits(model: nn.Module) -> dict[str, Any]:
    """A warm step in which waiting is an error, against the CPU in float64."""
    on_cpu = copy.deepcopy(model).double()
    model = model.cuda()
    regularizer = settled(model)
    torch.cuda.set_sync_debug_mode("error")
    try:
        term = regularizer()
        term.backward()
        waited = None
    except RuntimeError:
        waited = traceback.format_exc(limit=-4)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    if waited is not None:
        return {"passed": False, "waited": waited, "where": first_waits(regularizer)}
    expected = ncut.EigenvalueRegularizer(on_cpu, tolerance=1e-10)()
    expected.backward()
    value = abs(float(term.detach()) / float(expected.detach()) - 1)
    errors = [
        float((ours.grad.cpu().double() - theirs.grad).norm() / theirs.grad.norm())
        for ours, theirs in zip(model.parameters(), on_cpu.parameters(), strict=True)
        if theirs.grad is not None and ours.grad is not None and float(theirs.grad.norm()) > 1e-9
    ]
    return {
        "passed": value <= VALUE and bool(errors) and max(errors) <= GRADIENT,
        "value_error": value,
        "gradient_error": max(errors, default=None),
        "n_products": regularizer.n_products,
        "copies": attempted(copies, regularizer),
    }


def first_waits(regularizer: ncut.EigenvalueRegularizer) -> list[str]:
    """Where a step waits, each place once."""
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        regularizer().backward()
    torch.cuda.set_sync_debug_mode("default")
    return sorted({f"{warning.filename}:{warning.lineno}" for warning in told})


def copies(regularizer: ncut.EigenvalueRegularizer) -> dict[str, Any]:
    """Kernels, copies and waits of a step, as the profiler counts them."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        regularizer().backward()
    counts = {event.key: event.count for event in profile.key_averages()}
    named = ("Memcpy", "Synchronize", "cudaLaunchKernel", "cuLaunchKernel", "cudaMemcpy")
    return {key: count for key, count in counts.items() if any(name in key for name in named)}


def check_training(model: nn.Module) -> dict[str, Any]:
    """Steps of training, each compared with the CPU; how far the eigenvalues are off."""
    model = model.cuda()
    regularizer = ncut.EigenvalueRegularizer(model)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    worst = 0.0
    for _ in range(40):
        optimizer.zero_grad()
        term = regularizer()
        term.backward()
        exact = ncut.EigenvalueRegularizer(copy.deepcopy(model).cpu().double(), tolerance=1e-10)
        worst = max(worst, abs(float(term.detach()) / float(exact().detach()) - 1))
        optimizer.step()
    return {
        "passed": worst <= VALUE,
        "value_error": worst,
        "n_products": regularizer.n_products,
        "n_restarts": regularizer.n_restarts,
    }


def check_device() -> dict[str, Any]:
    """`laplacian_eigenvalues(device="cuda")` of weights on the CPU, in both types."""
    found = {}
    for dtype in (torch.float64, torch.float32):
        weights = [
            layer.weight.detach().T.to(dtype).requires_grad_()
            for layer in multilayer(SIZES["49-64-64-64-10"])
            if isinstance(layer, nn.Linear)
        ]
        exact = [weight.detach().double().requires_grad_() for weight in weights]
        there = ncut.laplacian_eigenvalues(weights, device="cuda")
        here = ncut.laplacian_eigenvalues(exact)
        gradients = torch.autograd.grad(there.sum(), weights)
        wanted = torch.autograd.grad(here.sum(), exact)
        found[f"{dtype}_value_error"] = float(
            (there.detach().cpu() / here.detach() - 1).abs().max()
        )
        found[f"{dtype}_gradient_error"] = max(
            float((a - b).norm() / b.norm()) for a, b in zip(gradients, wanted, strict=True)
        )
    return {"passed": max(found.values()) <= 1e-3, **found}


def check_tf32() -> dict[str, Any]:
    """The same with products rounded to TF32 by the user's choice."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        return check_waits(multilayer(SIZES["49-64-64-64-10"]))
    finally:
        torch.set_float32_matmul_precision(before)


def check_jacobi() -> dict[str, Any]:
    """The kernel for small eigenproblems: whether there is one, and its time and torch's."""
    device = torch.device("cuda", torch.cuda.current_device())
    compiled = jacobi.prepare(device)
    matrix = torch.randn((16, 16), dtype=torch.float64, device=device)
    matrix = matrix + matrix.T
    expected = torch.linalg.eigvalsh(matrix).flip(0)
    values, vectors = jacobi.eigh(matrix)
    residual = float((matrix @ vectors - vectors * values).abs().max())
    error = float((values - expected).abs().max())
    ways = {"used": jacobi.eigh, "operations": jacobi.rotated, "torch": torch.linalg.eigh}
    times = {name: median_ms(lambda way=way: way(matrix), 20) for name, way in ways.items()}
    right = max(error, residual) < 1e-10
    return {"passed": right, "compiled": compiled, "error": error, "milliseconds": times}


def median_ms(step: Callable[[], Any], steps: int, cuda: bool = True) -> float:
    """Median of a step's time; the device's queue is empty before and after each ten."""
    for _ in range(5):
        step()
    times = []
    for _ in range(max(steps // 10, 3)):
        if cuda:
            torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(10):
            step()
        if cuda:
            torch.cuda.synchronize()
        times.append((time.perf_counter() - start) * 100)
    return round(statistics.median(times), 4)


def timed(sizes: tuple[int, ...], device: str) -> dict[str, Any]:
    """Training steps with and without the regularizer, and the regularizer alone."""
    found: dict[str, Any] = {}
    for name in ("plain", "regularized", "regularizer_alone"):
        model = multilayer(sizes).to(device)
        regularizer = ncut.EigenvalueRegularizer(model)
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        x = torch.randn(BATCH, sizes[0], device=device)
        y = torch.randint(sizes[-1], (BATCH,), device=device)

        def step(
            name: str = name,
            model: nn.Module = model,
            regularizer: ncut.EigenvalueRegularizer = regularizer,
            optimizer: torch.optim.Optimizer = optimizer,
            x: Tensor = x,
            y: Tensor = y,
        ) -> None:
            optimizer.zero_grad()
            if name == "regularizer_alone":
                regularizer().backward()
                return
            loss = nn.functional.cross_entropy(model(x), y)
            (loss if name == "plain" else loss + regularizer()).backward()
            optimizer.step()

        for _ in range(WARM):
            step()
        found[f"{name}_ms"] = median_ms(step, STEPS, device == "cuda")
        found["n_products"] = regularizer.n_products
        found["n_restarts"] = regularizer.n_restarts
    found["regularized_over_plain"] = round(found["regularized_ms"] / found["plain_ms"], 3)
    return found


def attempted(function: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """What a check or a timing found, or the end of its traceback."""
    try:
        return function(*arguments)
    except Exception as error:
        torch.cuda.set_sync_debug_mode("default")
        return {
            "passed": False,
            "error": f"{type(error).__name__}: {error}",
            "where": traceback.format_exc(limit=-3),
        }


def main() -> int:
    """Print all of it; 1 if a check failed."""
    if not torch.cuda.is_available():
        print(json.dumps({"cuda": False, "note": "torch finds no CUDA device; nothing was run"}))
        return 0
    checks = {"jacobi": attempted(check_jacobi)}
    for name, sizes in SIZES.items():
        checks[f"waits {name}"] = attempted(check_waits, multilayer(sizes))
        checks[f"training {name}"] = attempted(check_training, multilayer(sizes))
    checks["waits convolutions"] = attempted(check_waits, convolutions())
    checks["device="] = attempted(check_device)
    checks["waits with TF32"] = attempted(check_tf32)
    times = {
        f"{name} {device}": attempted(timed, sizes, device)
        for name, sizes in SIZES.items()
        for device in ("cuda", "cpu")
    }
    report = {
        "cuda": True,
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "cuda_version": torch.version.cuda,
        "cpu_threads": torch.get_num_threads(),
        "passed": all(check["passed"] for check in checks.values()),
        "checks": checks,
        "times": times,
    }
    text = json.dumps(report, indent=1)
    print(text)
    for name in sys.argv[1:2]:
        Path(name).write_text(text + "\n")
    return 0 if report["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
