"""Time NormalizedCutClustering and scikit-learn's SpectralClustering on the same affinities.

cd benchmarks && python estimator.py [--runs 5] [--threads 2] [--small]
Writes results/estimator.json. Both get a precomputed affinity matrix, as many restarts of k-means
and as many threads, take turns, and are judged by the n-cut of their labels. Ours is timed with
the refined n-cut and the lower bound that it always computes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import threadpoolctl
from run import machine
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from sklearn.cluster import SpectralClustering
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.neighbors import kneighbors_graph

import ncut

RESULTS = Path(__file__).parent / "results" / "estimator.json"
N_CLUSTERS, N_INIT = 8, 10
ONCE_ABOVE = 20.0
"""Seconds above which a contender is not run again."""


def points(n: int) -> np.ndarray[Any, Any]:
    """Touching blobs in ten dimensions."""
    found, _ = make_blobs(n, n_features=10, centers=N_CLUSTERS, cluster_std=4.0, random_state=1)
    return np.asarray(found)


def neighbours(n: int) -> sparse.csr_array:
    graph = kneighbors_graph(points(n), 15, n_jobs=-1)
    return sparse.csr_array(0.5 * (graph + graph.T))


def curve(n: int) -> sparse.csr_array:
    """The 10 nearest neighbours of points along two turns of a spiral."""
    random = np.random.default_rng(1)
    at = np.sort(random.uniform(0, 4 * np.pi, n))
    along = np.stack([at * np.cos(at), at * np.sin(at)], axis=1)
    graph = kneighbors_graph(along + 0.02 * random.standard_normal((n, 2)), 10)
    return sparse.csr_array(graph.maximum(graph.T))


def grid(rows: int, columns: int) -> sparse.csr_array:
    """Each cell of a rectangle joined with its four neighbours."""
    one, other = (
        sparse.diags_array([np.ones(m - 1)] * 2, offsets=[1, -1]) for m in (rows, columns)
    )
    along = sparse.kron(sparse.eye_array(rows), other)
    return sparse.csr_array(sparse.kron(one, sparse.eye_array(columns)) + along)


def roads(side: int) -> sparse.csr_array:
    """The largest component of a grid with a quarter of its edges removed and uneven weights."""
    random = np.random.default_rng(1)
    upper = sparse.coo_array(sparse.triu(grid(side, side)))
    kept = random.random(upper.nnz) < 0.75
    weights = random.uniform(0.2, 1.2, kept.sum())
    upper = sparse.coo_array((weights, (upper.row[kept], upper.col[kept])), shape=upper.shape)
    whole = sparse.csr_array(upper + upper.T)
    _, piece = connected_components(whole)
    inside = np.flatnonzero(piece == np.bincount(piece).argmax())
    return sparse.csr_array(whole[inside][:, inside])


def cases(small: bool) -> Iterator[tuple[str, Any]]:
    for n in (500, 1000) if small else (2000, 10_000, 30_000):
        yield f"15 nearest neighbours, n = {n:,}", neighbours(n)
    for n in (500,) if small else (2000, 5000):
        yield f"neighbours on a curve, n = {n:,}", curve(n)
    for rows, columns in ((20, 30),) if small else ((40, 50), (50, 100)):
        yield f"grid of {rows} x {columns}", grid(rows, columns)
    for side in (25,) if small else (48, 75):
        matrix = roads(side)
        yield f"like roads, n = {matrix.shape[0]:,}", matrix
    for n in (500,) if small else (2000, 5000):
        yield f"RBF, dense, n = {n:,}", rbf_kernel(points(n), gamma=0.01)


def contenders(threads: int) -> dict[str, Callable[[], Any]]:
    def theirs(eigen_solver: str) -> Any:
        return SpectralClustering(
            N_CLUSTERS,
            affinity="precomputed",
            assign_labels="kmeans",
            eigen_solver=eigen_solver,
            n_init=N_INIT,
            random_state=0,
        )

    def ours(refine: bool) -> Any:
        return ncut.NormalizedCutClustering(
            N_CLUSTERS, n_init=N_INIT, refine=refine, random_state=0, n_jobs=threads
        )

    return {
        "ncut": lambda: ours(False),
        "ncut, refined": lambda: ours(True),
        "scikit-learn, ARPACK": lambda: theirs("arpack"),
        "scikit-learn, LOBPCG": lambda: theirs("lobpcg"),
        "scikit-learn, AMG (pyamg)": lambda: theirs("amg"),
    }


def labelled(estimator: Any, affinity: Any) -> tuple[float, Any]:
    """Seconds of one fit, and its labels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # disconnected graphs, solvers that stop early
        start = time.perf_counter()
        labels = estimator.fit_predict(affinity)
        return time.perf_counter() - start, labels


def compare(name: str, affinity: Any, runs: int, threads: int) -> dict[str, Any]:
    """All contenders in turns on one affinity matrix."""
    measured = sparse.csr_array(affinity)
    # Both get the older class of sparse matrices, as not all of scikit-learn's solvers take arrays.
    given = sparse.csr_matrix(affinity) if sparse.issparse(affinity) else affinity
    made = contenders(threads)
    seconds: dict[str, list[float]] = {who: [] for who in made}
    labels: dict[str, Any] = {}
    with threadpoolctl.threadpool_limits(threads):
        for _ in range(runs):
            for who, make in made.items():
                if max(seconds[who], default=0.0) > ONCE_ABOVE:
                    continue
                took, labels[who] = labelled(make(), given)
                seconds[who].append(took)
    row = {
        "case": name,
        "entries": int(measured.nnz),
        "bound": ncut.NormalizedCutClustering(N_CLUSTERS, random_state=0).fit(given).lower_bound_,
        "seconds": {who: statistics.median(times) for who, times in seconds.items()},
        "all_seconds": seconds,
        "ncut": {who: ncut.normalized_cut(measured, found) for who, found in labels.items()},
        "agreement": {
            who: float(adjusted_rand_score(labels["ncut"], found)) for who, found in labels.items()
        },
    }
    for who in made:
        print(f"{name}: {who}: {row['seconds'][who]:.3f} s, n-cut {row['ncut'][who]:.4f}")
    return row


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--small", action="store_true", help="small matrices; nothing is written")
    chosen = parser.parse_args()
    rows = [compare(*case, chosen.runs, chosen.threads) for case in cases(chosen.small)]
    if chosen.small:
        return
    results = {
        "command": f"python estimator.py --runs {chosen.runs} --threads {chosen.threads}",
        "threads": chosen.threads,
        "n_clusters": N_CLUSTERS,
        "n_init": N_INIT,
        "machine": machine(),
        "rows": rows,
    }
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
