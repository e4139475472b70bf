"""Time ncut and its peers on the same graphs in one run, print a table, write it as JSON.

The environment variable NCUT_ISA makes it the table of a lower instruction set than the best.

Each contender does the whole job from the blocks of weights to the n-cut: shuffle, assemble,
embed, k-means, cut. Contenders take turns, medians are reported, everything may use as many
threads as --threads says: ncut shuffles in parallel, the peers' BLAS and OpenMP inside a graph;
"1 thread" times of the peers tell what they would gain from two processes instead. The peers
cluster --graphs graphs (the network and its first shuffles), and the time is scaled to all.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import networks
import numpy as np
import peers
import threadpoolctl

import ncut
from ncut import kernels

K = 12
RESULTS = Path(__file__).parent / "results"


def median_seconds(work: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Median time of a few runs after a warm-up, and the last result."""
    result = work() if repeats > 1 else None
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - start)
    return float(np.median(times)), result


def peer(
    graph: ncut.NeuronGraph,
    labels: Callable[[Any], Any],
    n_graphs: int,
    threads: int,
) -> tuple[list[float], list[float]]:
    """Seconds and n-cuts of a peer on the network and its first shuffles."""
    connected, _ = graph.without_isolated()
    blocks = peers.blocks_as_arrays(connected)
    rng = np.random.default_rng(1)
    seconds, ncuts = [], []
    with threadpoolctl.threadpool_limits(threads):
        for number in range(n_graphs):
            start = time.perf_counter()
            own = peers.shuffled(blocks, rng) if number else blocks
            adjacency = peers.assemble(connected, own)
            found = labels(adjacency)
            seconds.append(time.perf_counter() - start)
            ncuts.append(ncut.normalized_cut(adjacency, found))
    return seconds, ncuts


def compare_case(
    name: str,
    graph: ncut.NeuronGraph,
    *,
    n_init: int,
    shuffles: int,
    n_graphs: int,
    repeats: int,
    threads: int,
    slow_peers: bool = True,
) -> dict[str, Any]:
    """Times of ncut and the peers on one network."""
    contenders: dict[str, Callable[[Any], Any]] = {
        "ARPACK with shift, as the paper": lambda a: peers.shift_labels(a, K, n_init),
        "scikit-learn, ARPACK": lambda a: peers.sklearn_labels(a, K, n_init),
        "scipy eigsh + KMeans": lambda a: peers.scipy_labels(a, K, n_init),
    }
    if slow_peers:
        contenders |= {
            "scikit-learn, LOBPCG": lambda a: peers.sklearn_labels(a, K, n_init, "lobpcg"),
            "scikit-learn, AMG (pyamg)": lambda a: peers.sklearn_labels(a, K, n_init, "amg"),
        }
    case: dict[str, Any] = {
        "case": name,
        "vertices": graph.n_vertices,
        "edges": graph.n_edges,
        "k": K,
        "n_init": n_init,
        "shuffles": shuffles,
        "peers": {},
    }
    # The re-pairing test, which a report has by default and no peer can do, is timed apart.
    options: dict[str, Any] = {
        **{"k": K, "n_init": n_init, "shuffles": shuffles, "seed": 1, "tests": []},
    }
    seconds, report = median_seconds(
        lambda: ncut.analyze(graph, threads=threads, **options), repeats
    )
    refined = report.statistics["refined_ncut"]
    ours = [seconds]  # and once more beside each peer, so that slow phases of the machine meet all
    case["ncut"] = {
        "seconds": seconds,
        "ncut": report.ncut,
        "shuffled_mean": report.shuffled_mean,
        "shuffled_std": report.shuffled_std,
        "refined_ncut": refined.value,
        "refined_shuffled_mean": refined.mean,
        "solver": report.solver,
        "residual": report.residual,
    }
    print(f"{name}: {seconds:.2f} s", flush=True)
    for label, labels in contenders.items():
        entry: dict[str, Any] = {}
        for n_threads in sorted({1, threads}, reverse=True):
            try:
                seconds, ncuts = peer(graph, labels, n_graphs, n_threads)
            except Exception as error:  # a peer that cannot do it is a result too
                entry = {"failed": f"{type(error).__name__}: {error}"}
                break
            entry[f"seconds_{n_threads}"] = float(np.median(seconds)) * (shuffles + 1)
            shuffled = float(np.mean(ncuts[1:])) if n_graphs > 1 else None
            entry |= {"ncut": ncuts[0], "shuffled_mean": shuffled}
            print(f"{name}: {label}, {n_threads} threads: {seconds}", flush=True)
        case["peers"][label] = entry
        start = time.perf_counter()
        ncut.analyze(graph, threads=threads, **options)
        ours.append(time.perf_counter() - start)
    seconds = case["ncut"]["seconds"] = float(np.median(ours))
    case["ncut"]["all_seconds"] = ours
    case["ncut"]["seconds_with_tests"], _ = median_seconds(
        lambda: ncut.analyze(graph, threads=threads, **options | {"tests": None}), repeats
    )
    for entry in case["peers"].values():
        if "failed" not in entry:
            entry["ratio"] = entry[f"seconds_{threads}"] / seconds
            # What a user could get who clusters a graph per process, one thread each.
            entry["ratio_processes"] = entry["seconds_1"] / min(threads, shuffles + 1) / seconds
    print(f"{name}: {ours}", flush=True)
    return case


def phases(graph: ncut.NeuronGraph, n_init: int, threads: int) -> dict[str, Any]:
    """Seconds of each phase on one graph, for ncut and the peers."""
    from ncut.nulls.models import shuffle_connected
    from ncut.spectral.embedding import embed
    from ncut.spectral.kmeans import partition
    from ncut.spectral.operator import NormalizedAdjacency
    from ncut.threads import single_threaded_blas

    graph, _ = graph.without_isolated()
    blocks = peers.blocks_as_arrays(graph)
    adjacency = peers.assemble(graph, blocks)
    operator = NormalizedAdjacency(graph, threads)
    keys: dict[str, Any] = {"seed": 1, "graph_number": 0}
    rng = np.random.default_rng(1)
    with single_threaded_blas():
        ours = embed(operator, K, solver="auto", **keys)
        table = {
            "shuffle": lambda: shuffle_connected(graph, "layer", 1, 0),
            "assembly": lambda: NormalizedAdjacency(
                ncut.NeuronGraph(graph.layers, graph.blocks), 1
            ),
            "embedding": lambda: embed(operator, K, solver="auto", **keys),
            "k-means": lambda: partition(
                ours.points, K, n_init=n_init, seed=1, stream=0, threads=threads
            ),
        }
        result = {name: {"ncut": median_seconds(work, 5)[0]} for name, work in table.items()}
    points = peers.scipy_embedding(adjacency, K)
    with threadpoolctl.threadpool_limits(threads):
        for name, peer_name, work in (
            ("shuffle", "numpy", lambda: peers.shuffled(blocks, rng)),
            ("assembly", "scipy.sparse", lambda: peers.assemble(graph, blocks)),
            ("embedding", "ARPACK with shift", lambda: peers.shift_embedding(adjacency, K)),
            ("embedding", "scikit-learn", lambda: peers.sklearn_embedding(adjacency, K)),
            ("embedding", "scipy eigsh", lambda: peers.scipy_embedding(adjacency, K)),
            ("k-means", "scikit-learn", lambda: peers.scipy_kmeans(points, K, n_init)),
        ):
            result[name][peer_name] = median_seconds(work, 3)[0]
    return result


def scaling(n_edges: int, threads: int) -> dict[str, Any]:
    """One random chain clustered once, in a separate process to measure its peak memory."""
    command = [sys.executable, __file__, "--chain", str(n_edges), "--threads", str(threads)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    print(f"chain of {n_edges:.0e} edges: {result}", flush=True)
    return result


def one_chain(n_edges: int, threads: int) -> None:
    weights = (np.abs(matrix, out=matrix) for matrix in networks.random_chain(n_edges))
    import scipy.linalg  # noqa: F401 (so that the libraries are not counted)

    ncut.cluster(networks.chain(networks.random_positive((40, 40, 40))), K)
    libraries = peak_bytes()
    graph = networks.chain(weights)
    start = time.perf_counter()
    found = ncut.cluster(graph, K, n_init=25, threads=threads)
    seconds = time.perf_counter() - start
    weight_bytes = 4 * graph.n_edges
    print(
        json.dumps(
            {
                "vertices": graph.n_vertices,
                "edges": graph.n_edges,
                "seconds": seconds,
                "peak_bytes": peak_bytes() - libraries,
                "weight_bytes": weight_bytes,
                "ncut": found.ncut,
                "residual": found.residual,
                "solver": found.solver,
            }
        )
    )


def peak_bytes() -> int:
    """The peak memory of this process."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024


def certificate(graph: ncut.NeuronGraph, n_init: int, shuffles: int, threads: int) -> Any:
    """Seconds of the n-cuts alone, of an analysis with all its statistics, and of a profile."""
    from ncut.nulls import at_once_and_inside, fitted, side_by_side_in_order
    from ncut.spectral.embedding import embed
    from ncut.spectral.kmeans import partition
    from ncut.spectral.operator import NormalizedAdjacency
    from ncut.threads import single_threaded_blas

    connected, _ = graph.without_isolated()

    def plain(one: ncut.NeuronGraph, number: int, n_threads: int) -> float:
        operator = NormalizedAdjacency(one, n_threads)
        embedding = embed(operator, K, solver="auto", seed=1, graph_number=number)
        labels = partition(
            embedding.points, K, n_init=n_init, seed=1, stream=4 * number + 1, threads=n_threads
        )
        return ncut.normalized_cut(one, labels)

    def all_plain() -> list[float]:
        shuffled = fitted(connected, "layer", 1)
        at_once, inside = at_once_and_inside(connected, threads)

        def one(number: int) -> float:
            return plain(shuffled.connected(number, "none"), number + 1, inside)

        with single_threaded_blas():
            first = plain(connected, 0, threads)
            return [first, *side_by_side_in_order(one, shuffles, at_once)]

    options: dict[str, Any] = {"shuffles": shuffles, "seed": 1, "threads": threads}
    contenders: dict[str, Callable[[], Any]] = {
        "n-cuts alone": all_plain,
        "analyze": lambda: ncut.analyze(graph, k=K, n_init=n_init, **options),
        "profile, k = 2 to 20": lambda: ncut.profile(graph, range(2, 21), **options),
    }
    # In turns, so that a slow phase of the machine meets all of them.
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(6):
        for name, work in contenders.items():
            start = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(times[1:])) for name, times in seconds.items()}


def machine() -> dict[str, Any]:
    cpu = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    packages = ("ncut", "numpy", "scipy", "scikit-learn", "pyamg")
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return {
        "cpu": cpu,
        "instruction_set": kernels.build()[1],
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
        "commit": commit,
        "date": datetime.date.today().isoformat(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--graphs", type=int, default=4, help="graphs that the peers cluster")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cases", default="mlp,vgg,resnet,phases,certificate,scaling")
    parser.add_argument("--largest", type=float, default=1e9, help="edges of the largest chain")
    parser.add_argument("--chain", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.chain:
        one_chain(args.chain, args.threads)
        return
    cases = args.cases.split(",")
    path = RESULTS / f"engine-{kernels.build()[1]}.json"
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    before = results.get("machine", {})
    results |= {"machine": machine(), "threads": args.threads}
    common: dict[str, Any] = {"threads": args.threads, "repeats": args.repeats}
    measured: dict[str, Any] = results.setdefault("cases", {})

    def save() -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(results, indent=1) + "\n")

    if "mlp" in cases:
        for pruned in (False, True):
            name, graph = networks.mlp(pruned)
            measured[name] = compare_case(
                name, graph, n_init=25, shuffles=50, n_graphs=args.graphs, **common
            )
            save()
    if "vgg" in cases:
        measured["vgg16"] = compare_case(
            "vgg16", networks.vgg16(), n_init=100, shuffles=20, n_graphs=args.graphs, **common
        )
        save()
    if "phases" in cases:
        name, graph = networks.mlp(False)
        results["phases"] = {
            name: phases(graph, 25, args.threads),
            "vgg16": phases(networks.vgg16(), 100, args.threads),
        }
        save()
    if "certificate" in cases:
        graphs = {name: (graph, 25, 50) for name, graph in map(networks.mlp, (False, True))}
        graphs["vgg16"] = (networks.vgg16(), 100, 20)
        seconds = {
            name: certificate(graph, n_init, shuffles, args.threads)
            for name, (graph, n_init, shuffles) in graphs.items()
        }
        when = {key: results["machine"][key] for key in ("commit", "date")}
        results["certificate"] = {**when, "seconds": seconds}
        print(results["certificate"], flush=True)
        if cases == ["certificate"]:  # the other numbers are from another day
            results["machine"] = before or results["machine"]
        save()
    if "scaling" in cases:
        sizes = [int(n) for n in (1e5, 1e6, 1e7, 1e8, 1e9) if n <= args.largest]
        results["scaling"] = [scaling(n, args.threads) for n in sizes]
        save()
    if "resnet" in cases:
        # Each peer takes minutes for one graph, so only one graph is timed.
        common["repeats"] = 2
        measured["resnet50"] = compare_case(
            "resnet50",
            networks.resnet50(),
            n_init=100,
            shuffles=2,
            n_graphs=1,
            slow_peers=False,
            **common,
        )
        save()


if __name__ == "__main__":
    main()
