"""Checks of ncut's numbers against independent references."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ncut.clusters import cluster
from ncut.device.devices import check_device
from ncut.extract import read_graph
from ncut.graphs import NeuronGraph
from ncut.networks import load
from ncut.nulls import shuffle_connected

K = 12
SHUFFLES = 12


@dataclass(frozen=True, slots=True)
class CheckResult:
    """Result of one check.

    Attributes
    ----------
    name : str
    passed : bool or None
        None: the check was not possible here.
    found : str
        The number and its tolerance, or the reason for none.
    """

    name: str
    passed: bool | None
    found: str


def checks(device: str) -> Iterator[CheckResult]:
    """The results of all checks; a check that raises has failed, and the others continue."""
    graph, dense = (
        read_graph(load(name)).without_isolated()[0]
        for name in ("digits-pruned", "digits-unpruned")
    )
    tasks: dict[str, Callable[[], CheckResult | None]] = {
        "eigenvalues": lambda: _eigenvalues(graph, device),
        "n-cut": lambda: _ncut(graph, device),
        "shuffles keep the weights": lambda: _same_weights(dense, device),
        "shuffles' distribution": lambda: _distribution(dense, device),
        "blocks from the host": lambda: _streamed(dense, device),
        "gradients": lambda: _gradients(device),
    }
    for name, task in tasks.items():
        try:
            done = task()
        except Exception as error:  # any error belongs in the report
            done = CheckResult(name, False, f"{type(error).__name__}: {error}")
        if done is not None:
            yield done


def _dense(graph: NeuronGraph) -> NDArray[np.float64]:
    return np.asarray(graph.adjacency.toarray(), dtype=np.float64)


def _eigenvalues(graph: NeuronGraph, device: str) -> CheckResult:
    from scipy.linalg import eigh

    A = _dense(graph)
    root = np.sqrt(A.sum(axis=1))
    wanted = eigh(np.eye(len(A)) - A / np.outer(root, root), eigvals_only=True)[1:K]
    found = cluster(graph, K, solver="krylov", device=device).eigenvalues[1:]
    error = float((np.abs(found - wanted) / wanted).max())
    return CheckResult(
        "eigenvalues", error <= 1e-4, f"{error:.1e} from LAPACK's, relative (at most 1e-4)"
    )


def _ncut(graph: NeuronGraph, device: str) -> CheckResult:
    found = cluster(graph, K, device=device)
    members = np.eye(K)[found.labels]
    A = _dense(graph)
    volume = A.sum(axis=1) @ members
    direct = float((1 - np.diag(members.T @ A @ members) / volume).sum())
    error = abs(found.ncut - direct)
    passed = error <= 1e-5
    finding = f"{found.ncut:.4f}, {error:.1e} from its definition (at most 1e-5)"
    if device != "cpu":
        apart = abs(found.ncut / cluster(graph, K).ncut - 1)
        passed &= apart <= 0.02
        finding += f", {apart:.1e} from the CPU's partition (at most 2e-2)"
    return CheckResult("n-cut", passed, finding)


def _shuffled(graph: NeuronGraph, device: str, number: int) -> list[NDArray[np.floating]]:
    """Each layer's weights in a shuffle made on the device."""
    on = check_device(device)
    if on is None:
        return [
            _array(block.weights) for block in shuffle_connected(graph, "layer", 0, number).blocks
        ]
    from ncut.device.graph import upload
    from ncut.device.shuffle import shuffle_on_device

    with on.cuda_stream():
        shuffled = shuffle_on_device(upload(graph, on), "layer", 0, number).host
    return [_array(block.weights) for block in shuffled.blocks]


def _array(weights: object) -> NDArray[np.floating]:
    dense = weights.toarray() if hasattr(weights, "toarray") else weights
    return np.asarray(dense)


def _same_weights(graph: NeuronGraph, device: str) -> CheckResult:
    kept = moved = True
    for block, shuffled in zip(graph.blocks, _shuffled(graph, device, 0), strict=True):
        before = _array(block.weights)
        kept &= bool(np.array_equal(np.sort(before, axis=None), np.sort(shuffled, axis=None)))
        moved &= not np.array_equal(before, shuffled)
    finding = "each layer's, in other places" if kept and moved else "not the same weights"
    return CheckResult("shuffles keep the weights", kept and moved, finding)


def _distribution(graph: NeuronGraph, device: str) -> CheckResult | None:
    if device == "cpu":
        return None  # nothing to compare with
    from scipy.stats import ks_2samp

    def bounds(where: str, first: int) -> list[float]:
        numbers = range(first, first + SHUFFLES)
        graphs = (read_graph(_shuffled(graph, where, number)) for number in numbers)
        return [cluster(one, K, n_init=1).lower_bound for one in graphs]

    p = float(ks_2samp(bounds(device, 0), bounds("cpu", SHUFFLES)).pvalue)
    finding = f"lower bounds beside the CPU's: p = {p:.2f} (above 1e-3)"
    return CheckResult("shuffles' distribution", p > 1e-3, finding)


def _streamed(graph: NeuronGraph, device: str) -> CheckResult | None:
    """The case of a GPU that is too small for the graph: no block stays there."""
    on = check_device(device)
    if on is None:
        return None
    from ncut.device.graph import upload
    from ncut.device.operator import DeviceOperator
    from ncut.spectral.embedding import embed

    found = []
    for place in (on, replace(on, budget=0)):
        with place.cuda_stream():
            copied = upload(graph, place)
            embedding = embed(DeviceOperator(copied, 1), K, solver="krylov", seed=0, graph_number=0)
            found.append((copied.resident_bytes, embedding.eigenvalues))
    (here, wanted), (there, values) = found
    error = float((np.abs(values - wanted)[1:] / wanted[1:]).max())
    return CheckResult(
        "blocks from the host",
        here > 0 == there and error <= 1e-4,
        f"eigenvalues {error:.1e} from those of blocks on the device, relative (at most 1e-4)",
    )


def _gradients(device: str) -> CheckResult:
    try:
        import torch
    except ImportError:
        return CheckResult("gradients", None, "torch is not installed")
    from ncut.training.eigenvalues import laplacian_eigenvalues

    torch.manual_seed(0)
    shapes = ((40, 36), (36, 44), (44, 38))
    weights = [torch.rand(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]

    def gradients_on(where: str) -> list[torch.Tensor]:
        values = laplacian_eigenvalues(weights, which=(2, 3, 4), device=where)
        return list(torch.autograd.grad(values.sum(), weights))

    gradients = gradients_on(device)
    directions = [torch.rand_like(weight) for weight in weights]
    slope = sum(float((g * d).sum()) for g, d in zip(gradients, directions, strict=True))
    step = 1e-5

    def value(sign: int) -> float:
        moved = [w.detach() + sign * step * d for w, d in zip(weights, directions, strict=True)]
        return float(laplacian_eigenvalues(moved, which=(2, 3, 4)).sum())

    wanted = (value(1) - value(-1)) / (2 * step)
    error = abs(slope - wanted) / abs(wanted)
    finding = f"{error:.1e} from finite differences, relative (at most 1e-4)"
    if device != "cpu":
        pairs = zip(gradients, gradients_on("cpu"), strict=True)
        apart = max(float((a - b).norm() / b.norm()) for a, b in pairs)
        error = max(error, apart)
        finding += f", {apart:.1e} from the CPU's (at most 1e-4)"
    return CheckResult("gradients", error <= 1e-4, finding)
