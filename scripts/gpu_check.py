"""Time analyses on a GPU beside the CPU of the same machine, and compare their numbers; JSON.

    python scripts/gpu_check.py [--device cuda] [--runs 5] [--out gpu.json]

Random weights: an MLP of the paper's shape, a chain like VGG-16's, one of a wide ResNet's size.
Each clustering is timed alone (its median), then an analysis with shuffles on each.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import ncut
from ncut.device.devices import check_device

CASES = {
    "MLP 784-256x4-10": (784, 256, 256, 256, 256, 10),
    "VGG-16's channels": (64, 64, 128, 128, *(256,) * 3, *(512,) * 6),
    "24,576 vertices, 44 million edges": (2048,) * 12,
    "49,152 vertices, 185 million edges": (4096,) * 12,
}
SHUFFLES = 20


def median_seconds(run: Callable[[], Any], runs: int) -> tuple[float, Any]:
    """After a first run that is not counted."""
    run()
    taken = []
    for _ in range(runs):
        started = time.perf_counter()
        result = run()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken), result


def weights_of(widths: tuple[int, ...]) -> list[Any]:
    """Random weights in float32."""
    rng = np.random.default_rng(0)
    pairs = itertools.pairwise(widths)
    return [rng.standard_normal(pair, dtype=np.float32) for pair in pairs]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--cases", type=int, default=len(CASES))
    args = parser.parse_args()
    device = check_device(args.device)
    found: dict[str, Any] = {"device": args.device}
    if device is not None:
        properties = device.xp.cuda.runtime.getDeviceProperties(device.index)
        found |= {"name": properties["name"].decode(), "budget": device.budget}
    for name, widths in list(CASES.items())[: args.cases]:
        graph = ncut.graph(weights_of(widths))
        row: dict[str, Any] = {"edges": graph.n_edges, "vertices": graph.n_vertices}
        for where in dict.fromkeys(("cpu", args.device)):
            runs = args.runs if graph.n_edges < 1e8 else 2

            def cluster(where: str = where, graph: Any = graph) -> Any:
                return ncut.cluster(graph, 12, seed=0, device=where)

            def analyze(where: str = where, graph: Any = graph) -> Any:
                return ncut.analyze(graph, shuffles=SHUFFLES, seed=0, device=where)

            seconds, result = median_seconds(cluster, runs)
            started = time.perf_counter()
            report = analyze()
            row[where] = {
                "clustering, s": seconds,
                f"analysis with {SHUFFLES} shuffles, s": time.perf_counter() - started,
                "n-cut": result.ncut,
                "refined n-cut": result.refined_ncut,
                "lower bound": result.lower_bound,
                "eigenvalues": result.eigenvalues.tolist(),
                "solver": result.solver,
                "shuffled": [report.shuffled_mean, report.shuffled_std],
                "shuffled lower bound": float(report.statistics["lower_bound"].shuffled.mean()),
            }
        ours, theirs = (np.array(row[where]["eigenvalues"]) for where in (args.device, "cpu"))
        row["eigenvalues' largest relative difference"] = float(
            (np.abs(ours - theirs)[1:] / theirs[1:]).max()
        )
        found[name] = row
        print(name, json.dumps(row, indent=1), flush=True)
        if args.out:
            args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
