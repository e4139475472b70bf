"""Timings of ncut on this machine and its GPU."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from ncut.clusters import cluster
from ncut.graphs import NeuronGraph
from ncut.selftest import cases

K = 12
BATCH = 128
STEPS = 30

CASES = {
    "clustering the MLP 784-256x4-10": cases.mlp,
    "clustering VGG-16's channels": cases.vgg16,
    "clustering ResNet-50's channels": cases.resnet50,
}


@dataclass(frozen=True, slots=True)
class Timing:
    """Duration in seconds, a median of several runs after a warm-up.

    Attributes
    ----------
    name : str
    on_cpu, on_device : float or None
        None: not measured. Nothing is measured on a device if the device is the CPU.
    error : str
        The error, if any.
    """

    name: str
    on_cpu: float | None
    on_device: float | None
    error: str = ""


def timings(device: str) -> Iterator[Timing]:
    """The timings one after the other, in about ten seconds on the CPU.

    Parameters
    ----------
    device : str
        "cpu", "cuda" or "cuda:N".
    """
    for name, make in CASES.items():
        graph = make()
        yield _timing(name, device, partial(_clustering, graph))
    try:
        import torch  # noqa: F401
    except ImportError:
        return
    for name, regularized in (("plain", False), ("regularized", True)):
        yield _timing(
            f"training step of the MLP, {name}",
            device,
            partial(training_step, regularized),
        )


def _timing(name: str, device: str, seconds_on: Callable[[str], float]) -> Timing:
    found: dict[str, float] = {}
    error = ""
    for where in dict.fromkeys(("cpu", device)):
        try:
            found[where] = seconds_on(where)
        except Exception as raised:  # any error belongs in the report
            error = f"{where}: {type(raised).__name__}: {raised}"
    return Timing(name, found.pop("cpu", None), found.get(device), error)


def _clustering(graph: NeuronGraph, device: str) -> float:
    return _median(lambda: cluster(graph, K, device=device), 1, 3)


def training_step(regularized: bool, device: str) -> float:
    """Timing of a step by Adam on random data, with or without the regularizer."""
    import torch
    from torch import nn

    from ncut.training.regularizers import EigenvalueRegularizer

    torch.manual_seed(0)
    layers = [nn.Linear(n_in, n_out) for n_in, n_out in itertools.pairwise(cases.MLP)]
    parts = [part for layer in layers for part in (layer, nn.ReLU())]
    model = nn.Sequential(*parts[:-1]).to(device)
    regularizer = EigenvalueRegularizer(model)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    x = torch.randn(BATCH, cases.MLP[0], device=device)
    y = torch.randint(cases.MLP[-1], (BATCH,), device=device)

    def steps() -> None:
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            torch.autograd.backward(loss + regularizer() if regularized else loss)
            optimizer.step()
        if device != "cpu":
            torch.cuda.synchronize(device)

    return _median(steps, 1, 3) / STEPS


def _median(run: Callable[[], object], n_before: int, n_runs: int) -> float:
    """Seconds of a run, after some uncounted runs."""
    taken = []
    for _ in range(n_before + n_runs):
        started = time.perf_counter()
        run()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken[n_before:])
