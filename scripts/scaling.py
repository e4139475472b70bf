"""Time of a large model by stage: one clustering and one shuffle, as JSON.

    python scripts/scaling.py FOLDER --scratch SCRATCH [--threads 2]

The stages of a shuffle are timed on a shuffle. A product is one of the eigensolver's, of the
normalized adjacency matrix (or of its square on the smaller side) with a block of 16 vectors.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ncut
from ncut.nulls.models import shuffle_connected
from ncut.spectral import clustering, krylov
from ncut.spectral.kmeans import restarts
from ncut.spectral.operator import NormalizedAdjacency


class Clock:
    """Seconds spent inside wrapped functions."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.calls: dict[str, int] = {}

    def call(self, stage: str, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        started = time.perf_counter()
        try:
            return function(*args, **options)
        finally:
            spent = time.perf_counter() - started
            self.seconds[stage] = self.seconds.get(stage, 0.0) + spent
            self.calls[stage] = self.calls.get(stage, 0) + 1

    def around(self, owner: Any, name: str, stage: str) -> None:
        function = getattr(owner, name)

        def timed(*args: Any, **options: Any) -> Any:
            return self.call(stage, function, *args, **options)

        setattr(owner, name, timed)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scratch", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    clock = Clock()
    graph = clock.call("read", ncut.graph, args.folder, scratch=args.scratch)
    connected, _ = clock.call("leave out isolated", graph.without_isolated)
    shuffled = clock.call("shuffle", shuffle_connected, connected, "layer", 0, 0)
    clock.around(clustering, "embed", "eigenvectors")
    clock.around(krylov, "_orthonormalized", "of them orthonormalization")
    product = "apply_gram" if NormalizedAdjacency(shuffled, 1).bipartite else "apply"
    clock.around(NormalizedAdjacency, product, "of them products")
    clock.around(clustering, "partition", "k-means")
    clock.around(NormalizedAdjacency, "refine", "refinement")
    clock.around(clustering, "measure", "n-cut and modularity")
    clock.call(
        "clustering a shuffle",
        clustering.cluster_connected,
        *(NormalizedAdjacency(shuffled, args.threads), 12),
        n_init=restarts("auto", shuffled.n_vertices),
        solver="auto",
        refine=False,
        seed=0,
        graph_number=1,
    )
    print(
        json.dumps(
            {
                "vertices": graph.n_vertices,
                "edges": graph.n_edges,
                "bytes of blocks": graph.n_bytes,
                "threads": args.threads,
                "k": 12,
                "restarts of k-means": restarts("auto", shuffled.n_vertices),
                "seconds": {stage: round(spent, 2) for stage, spent in clock.seconds.items()},
                "products": clock.calls.get("of them products", 0),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
