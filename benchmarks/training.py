"""Time of the eigenvalue regularizer: alone, compared with alternatives, and in training steps.

cd benchmarks && python training.py [--runs 5] [--threads 2] [--code FOLDER]
Writes results/training-ISA.json; NCUT_ISA chooses a lower instruction set. FOLDER is a checkout of
nn-clustering-pytorch (it needs pathos), whose gradient is then timed too. Peers are given what is
best for them: the adjacency is assembled by torch operations on the weights, so that autograd
leads back to them.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import eigsh
from torch import Tensor, nn
from torch.nn import functional

import ncut
from ncut import kernels

RESULTS = Path(__file__).parent / "results" / f"training-{kernels.build()[1]}.json"
NETWORKS = {
    "784-256x4-10": (784, 256, 256, 256, 256, 10),
    "49-64x3-10": (49, 64, 64, 64, 10),
}
BATCH = 128
WEIGHT = 0.05
MOVED = 1e-3
"""Relative size of the random change of the weights between two calls, as of a step of Adam."""


def network(widths: Sequence[int]) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(widths):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def small_cnn() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 64, 3, padding=1), nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * 49, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip


def matrices(model: nn.Sequential) -> list[Tensor]:
    return [layer.weight for layer in model if isinstance(layer, nn.Linear)]


def laplacian(weights: Sequence[Tensor]) -> Tensor:
    """L_sym of a chain as a dense matrix, differentiable by the weights."""
    sizes = [weights[0].shape[1], *(weight.shape[0] for weight in weights)]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    adjacency = weights[0].new_zeros((int(starts[-1]),) * 2)
    for number, weight in enumerate(weights):
        rows = slice(int(starts[number + 1]), int(starts[number + 2]))
        columns = slice(int(starts[number]), int(starts[number + 1]))
        adjacency[rows, columns] = weight.abs()
    adjacency = adjacency + adjacency.T
    scale = adjacency.sum(1).rsqrt()
    identity = torch.eye(len(adjacency), dtype=adjacency.dtype)
    return identity - scale[:, None] * adjacency * scale


def dense(model: nn.Sequential) -> Tensor:
    """`torch.linalg.eigvalsh` and autograd."""
    return torch.linalg.eigvalsh(laplacian(matrices(model)))[1:4]


def arpack(model: nn.Sequential) -> Tensor:
    """SciPy's eigsh without a shift; the eigenvalues as u' L u, whose gradient is then right."""
    L = laplacian(matrices(model))
    shifted = sparse.csr_array(2 * np.eye(len(L)) - L.detach().double().numpy())
    _, vectors = eigsh(shifted, 4, which="LA")
    u = torch.as_tensor(vectors[:, ::-1][:, 1:].copy(), dtype=L.dtype)
    return ((L @ u) * u).sum(0)


def timed(run: Callable[[], object], before: Callable[[], object], n: int) -> list[float]:
    found = []
    for _ in range(n):
        before()
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return found


def moving(model: nn.Sequential) -> Callable[[], None]:
    """Changes the weights slightly, like a training step, and drops gradients."""
    generator = torch.Generator().manual_seed(0)

    @torch.no_grad()
    def move() -> None:
        for weight in matrices(model):
            weight.mul_(1 + MOVED * torch.randn(weight.shape, generator=generator))
        model.zero_grad()

    return move


def alone(name: str, runs: int, code: Path | None) -> dict[str, Any]:
    """Forward and backward of lambda_2 to lambda_4."""
    model = network(NETWORKS[name])
    regularizer = ncut.EigenvalueRegularizer(model, weight=WEIGHT)
    ways: dict[str, Callable[[], object]] = {
        "ncut, warm": lambda: regularizer().backward(),
        "ncut, from scratch": lambda: (
            ncut.laplacian_eigenvalues([weight.T for weight in matrices(model)]).sum().backward()
        ),
        "torch.linalg.eigvalsh": lambda: dense(model).sum().backward(),
        "SciPy eigsh, u' L u": lambda: arpack(model).sum().backward(),
    }
    if code is not None:
        ways["nn-clustering-pytorch"] = published(code, model)
    move = moving(model)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(runs):
        for way, run in ways.items():  # in turns, so that all see the same machine
            n = 50 if way == "ncut, warm" else 5 if way.startswith("ncut") else 1
            seconds[way].append(statistics.median(timed(run, move, n)))
    return {
        "network": name,
        "seconds": {way: round(statistics.median(found), 6) for way, found in seconds.items()},
        "products": regularizer.n_products,
        "restarts": regularizer.n_restarts,
        "errors": errors(model),
    }


def published(code: Path, model: nn.Sequential) -> Callable[[], object]:
    """The gradient of nn-clustering-pytorch, with one process."""
    sys.path.insert(0, str(code / "src"))
    from clusterability_gradient import LaplacianEigenvalues

    kinds = ["fc_weights"] * len(matrices(model))
    return lambda: LaplacianEigenvalues.apply(1, 3, "mlp", kinds, *matrices(model)).sum().backward()


def errors(model: nn.Sequential) -> dict[str, float]:
    """Errors of gradients in float32 and float64, relative to dense autograd in float64."""
    found = {}
    wide = network([matrices(model)[0].shape[1], *(len(w) for w in matrices(model))]).double()
    wide.load_state_dict(model.state_dict())
    dense(wide).sum().backward()
    expected = torch.cat([weight.grad.ravel() for weight in matrices(wide)])
    for dtype in (torch.float32, torch.float64):
        weights = [w.detach().to(dtype).T.requires_grad_() for w in matrices(wide)]
        ncut.laplacian_eigenvalues(weights).sum().backward()
        ours = torch.cat([weight.grad.T.double().ravel() for weight in weights])
        found[str(dtype)] = float((ours - expected).norm() / expected.norm())
    return found


def steps(name: str, runs: int, fused: bool) -> dict[str, Any]:
    """Milliseconds of a training step without and with the regularizer."""
    makers = {**{n: lambda n=n: network(NETWORKS[n]) for n in NETWORKS}, "small CNN": small_cnn}
    batch = 64 if name == "small CNN" else BATCH
    shape = (1, 28, 28) if name == "small CNN" else (NETWORKS[name][0],)
    images, labels = torch.rand(batch, *shape), torch.randint(10, (batch,))

    def step(regularized: bool, normalized: bool, every: int = 1) -> Callable[[], None]:
        model = makers[name]()
        optimizer = torch.optim.Adam(model.parameters(), fused=fused)
        regularizer = ncut.EigenvalueRegularizer(model, weight=WEIGHT, every=every)

        def run() -> None:
            if normalized:
                regularizer.normalize_()
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(images), labels)
            if regularized:
                loss = loss + regularizer()
            loss.backward()
            optimizer.step()

        return run

    ways = {
        "plain": step(False, False),
        "regularizer": step(True, False),
        "regularizer, normalized": step(True, True),
        "regularizer, normalized, every=4": step(True, True, every=4),
    }
    n = 20 if name == "small CNN" else 100
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for run in ways.values():
        timed(run, lambda: None, n)  # start vectors, buffers of the optimizer
    for _ in range(runs):
        for way, run in ways.items():
            # Means of four, as one of four steps costs more where every=4.
            times = timed(run, lambda: None, n)
            fours = [statistics.fmean(times[at : at + 4]) for at in range(0, n, 4)]
            seconds[way].append(statistics.median(fours))
    found = {way: statistics.median(values) for way, values in seconds.items()}
    return {
        "network": name,
        "optimizer": f"Adam(fused={fused})",
        "milliseconds": {way: round(1e3 * value, 4) for way, value in found.items()},
        "ratio": {way: round(value / found["plain"], 3) for way, value in found.items()},
    }


MEMORY = """
import resource, sys, torch, ncut
from torch import nn
model = nn.Sequential(nn.Linear(6144, 6144), nn.ReLU(), nn.Linear(6144, 6144))
if sys.argv[1] == "with":
    loss = ncut.EigenvalueRegularizer(model)()
else:
    loss = sum(0 * p.sum() for p in model.parameters())
    from ncut.training import regularizers
loss.backward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""
MEMORY_WEIGHTS = 4 * 2 * 6144**2


def memory() -> float:
    """Peak with a call and its backward pass over that of gradients alone, in weights."""
    peaks = []
    for which in ("without", "with"):
        command = [sys.executable, "-c", MEMORY, which]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(float(done.stdout))
    return round((peaks[1] - peaks[0]) / MEMORY_WEIGHTS, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--code", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    results = {
        "command": f"python training.py --runs {args.runs} --threads {args.threads}",
        "python": platform.python_version(),
        "versions": {package: version(package) for package in ("torch", "numpy", "scipy")},
        "threads": args.threads,
        "instruction_set": kernels.build()[1],
        "alone": [alone(name, args.runs, args.code) for name in NETWORKS],
        "steps": [
            steps(name, args.runs, fused)
            for name in (*NETWORKS, "small CNN")
            for fused in (False, True)
        ],
        "extra_memory_in_weights": memory(),
    }
    print(json.dumps(results, indent=1))
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
