"""Time to read a model's graph, compared with the peers' time to trace the same model.

Needs an environment with torchvision and torch-pruning:
cd benchmarks && python reading.py [--runs 5] [--threads 2]
Writes results/reading.json. ncut's time includes the edge weights, and "operations only" does
not; the peers only find the operations (torch.fx, torch.export) or how layers depend on each other
(Torch-Pruning).
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch_pruning
import torchvision

import ncut
from ncut.extract.lowering.kinds import lower
from ncut.extract.readers.traced.module import read_module

RESULTS = Path(__file__).parent / "results" / "reading.json"
MODELS = ("vgg16", "resnet18", "resnet50", "inception_v3", "mobilenet_v2", "densenet121")
SIZE = {"inception_v3": 299}


def ways(model: Any, size: int) -> dict[str, Callable[[], Any]]:
    """The timed functions, by name; each is called with the loaded model."""
    inputs = torch.zeros(2, 3, size, size)

    def pruning() -> Any:
        # It learns the graph from autograd, and so needs gradients and a forward pass.
        return torch_pruning.DependencyGraph().build_dependency(model, example_inputs=inputs)

    return {
        "ncut": lambda: ncut.graph(model),
        "ncut, operations only": lambda: read_module(model, lower),
        "Torch-Pruning": pruning,
        "torch.fx": lambda: torch.fx.symbolic_trace(model),
        "torch.export": lambda: torch.export.export(model, (inputs,)).run_decompositions(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    for name in MODELS:
        settings = {"init_weights": False} if name == "inception_v3" else {}
        model = torchvision.models.get_model(name, weights=None, **settings).eval()
        graph = ncut.graph(model)
        row: dict[str, Any] = {
            "model": name,
            "vertices": graph.n_vertices,
            "edges": graph.n_edges,
            "seconds": {},
        }
        seconds: dict[str, list[float]] = {}
        timed = ways(model, SIZE.get(name, 224))
        for _ in range(args.runs):
            for way, run in timed.items():  # in turns, so that all share the machine's slow phases
                start = time.perf_counter()
                try:
                    run()
                except Exception as error:  # what a peer cannot read is a result too
                    row.setdefault("failures", {})[way] = f"{type(error).__name__}: {error}"[:120]
                    continue
                seconds.setdefault(way, []).append(time.perf_counter() - start)
        row["seconds"] = {way: round(statistics.median(s), 4) for way, s in seconds.items()}
        rows.append(row)
        print(name, row["seconds"], row.get("failures", ""))
    packages = ("torch", "torchvision", "torch-pruning", "numpy")
    found = {
        "command": f"python reading.py --runs {args.runs} --threads {args.threads}",
        "python": platform.python_version(),
        "versions": {package: version(package) for package in packages},
        "threads": args.threads,
        "rows": rows,
    }
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
