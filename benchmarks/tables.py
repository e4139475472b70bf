"""Rewrite the tables of BENCHMARKS.md from the files in results/."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE = HERE.parent / "BENCHMARKS.md"
RESULTS = HERE / "results"
BEGIN, END = "<!-- tables: benchmarks/tables.py -->", "<!-- end of tables -->"


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def machine(results: dict[str, Any]) -> str:
    m = results["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in m["versions"].items())
    # Files from before there was a choice do not name the instruction set.
    kernels = f", {m['instruction_set']} kernels" if "instruction_set" in m else ""
    return (
        f"{m['cpu']}{kernels}, {results['threads']} threads, "
        f"CPython {m['python']}, {versions}; commit {m['commit']}, {m['date']}."
    )


def whole_analyses(results: dict[str, Any]) -> str:
    threads = results["threads"]
    rows = []
    for name, case in results["cases"].items():
        title = (
            f"**{name}**: {case['vertices']:,} vertices, {case['edges']:,} edges, "
            f"{case['shuffles']} shuffles, {case['n_init']} restarts"
        )
        rows.append([title, "", "", "", "", ""])
        ours = case["ncut"]
        row = ["ncut", f"{ours['seconds']:.2f}", "", ""]
        rows.append([*row, f"{ours['ncut']:.3f}", f"{ours['shuffled_mean']:.3f}"])
        row = ["the same, refined", "", "", "", f"{ours['refined_ncut']:.3f}"]
        rows.append([*row, f"{ours['refined_shuffled_mean']:.3f}"])
        if "seconds_with_tests" in ours:
            seconds = f"{ours['seconds_with_tests']:.2f}"
            rows.append(["the same, with the re-pairing test", seconds, "", "", "", ""])
        for label, peer in case["peers"].items():
            if "failed" in peer:
                rows.append([label, "failed", "", "", "", ""])
                continue
            mean = f"{peer['shuffled_mean']:.3f}" if peer["shuffled_mean"] else ""
            seconds = f"{peer[f'seconds_{threads}']:.1f}"
            ratios = [f"{peer['ratio']:.0f}x", f"{peer['ratio_processes']:.0f}x"]
            rows.append([label, seconds, *ratios, f"{peer['ncut']:.3f}", mean])
    header = ["", "seconds", "ratio", "ratio, a process per core", "n-cut", "shuffles' mean"]
    return table(header, rows)


def kernels(results: dict[str, Any]) -> str:
    """Shares of one core's peak rates, for each instruction set."""
    names = list(results)
    rows = [
        [row, *(f"{results[name][row]:.1f}" if row.endswith("/s") else f"{results[name][row]:.0%}"
                for name in names)]
        for row in results[names[0]]
    ]  # fmt: skip
    return table(["one core", *names], rows)


def phases(results: dict[str, Any]) -> str:
    rows = [
        [f"{case}, {phase}", who, f"{1e3 * seconds:.1f}", f"{seconds / times['ncut']:.0f}x"]
        for case, parts in results["phases"].items()
        for phase, times in parts.items()
        for who, seconds in times.items()
    ]
    return table(["one graph", "", "milliseconds", "ratio"], rows)


def scaling(results: dict[str, Any]) -> str:
    rows = [
        [
            f"{r['edges']:,}",
            f"{r['vertices']:,}",
            f"{r['seconds']:.2f}",
            f"{r['peak_bytes'] / 2**20:,.0f}",
            f"{r['weight_bytes'] / 2**20:,.0f}",
            f"{r['residual']:.0e}",
        ]
        for r in results["scaling"]
    ]
    header = ["edges", "vertices", "seconds", "peak MiB", "weights MiB", "residual"]
    return table(header, rows)


def certificate(results: dict[str, Any]) -> str:
    rows = [
        [case, what, f"{seconds:.2f}", f"{seconds / times['n-cuts alone']:.2f}x"]
        for case, times in results["certificate"]["seconds"].items()
        for what, seconds in times.items()
    ]
    measured = results["certificate"]
    remark = (
        "*analyze* adds to the n-cuts alone the refined n-cut, the lower bound, the other measures "
        f"and the noise of k-means. Commit {measured['commit']}, {measured['date']}.\n\n"
    )
    return remark + table(["network and its shuffles", "", "seconds", "ratio"], rows)


def reading(results: dict[str, Any]) -> str:
    """Milliseconds from a loaded model to its graph, and for the peers to trace it."""
    ways = list(results["rows"][0]["seconds"])
    header = ["ms", "vertices", "edges", *ways]
    rows = [
        [
            *(row["model"], f"{row['vertices']:,}", f"{row['edges']:,}"),
            *(f"{1e3 * row['seconds'][way]:.0f}" if way in row["seconds"] else "-" for way in ways),
        ]
        for row in results["rows"]
    ]
    versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    return (
        f"{table(header, rows)}\n\n`{results['command']}`: medians, in turns, "
        f"{results['threads']} threads, {versions}. Torch-Pruning finds which layers depend on "
        "each other, by autograd and a forward pass; torch.fx and torch.export find the "
        'operations. None of them looks at the weights, as ncut does but for "operations only".'
    )


def training(runs: list[dict[str, Any]]) -> str:
    """The eigenvalue regularizer alone, and its share of a training step."""
    alone, steps = [], []
    for run in runs:
        kernels = run["instruction_set"]
        for row in run["alone"]:
            ours = row["seconds"]["ncut, warm"]
            for way, seconds in row["seconds"].items():
                time, ratio = f"{1e3 * seconds:.2f}", f"{seconds / ours:.0f}x"
                alone.append([kernels, row["network"], way, time, ratio])
        for row in run["steps"]:
            times = (
                f"{milliseconds:.2f} ({row['ratio'][way]:.2f}x)"
                for way, milliseconds in row["milliseconds"].items()
            )
            steps.append([kernels, row["network"], row["optimizer"], *times])
    results = runs[0]
    errors = "; ".join(
        f"{row['network']}: "
        + ", ".join(f"{value:.0e} in {kind[6:]}" for kind, value in row["errors"].items())
        for row in results["alone"]
    )
    versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    header = ["ms a step", "network", "optimizer", *results["steps"][0]["milliseconds"]]
    return (
        "Eigenvalues 2 to 4 of the normalized Laplacian, forward and backward, between small "
        "changes of the weights (*warm*: from the last eigenvectors to a residual of 1e-3; *from "
        "scratch*: to 2e-6):\n\n"
        f"{table(['kernels', 'network', '', 'ms', 'of ncut, warm'], alone)}\n\n"
        "A whole step of training, batches of 128 (CNN: 64), without and with it:\n\n"
        f"{table(header, steps)}\n\n"
        f"Errors of the gradient, relative to dense autograd in float64: {errors}. A call and its "
        f"backward pass raise the peak of memory by {results['extra_memory_in_weights']:.2f} times "
        f"the weights, over a backward pass without it. `{results['command']}`: medians, in turns, "
        f"{results['threads']} threads, {versions}."
    )


def estimator(results: dict[str, Any]) -> str:
    """NormalizedCutClustering and SpectralClustering on the same affinity matrices."""
    rows = []
    for row in results["rows"]:
        title = f"**{row['case']}**: {row['entries']:,} entries"
        rows.append([title, "", "", f"at least {row['bound']:.4f}", ""])
        ours = row["seconds"]["ncut"]
        for who, seconds in row["seconds"].items():
            ratio = "" if who.startswith("ncut") else f"{seconds / ours:.1f}x"
            agreement = f"{row['agreement'][who]:.3f}"
            rows.append([who, f"{seconds:.3f}", ratio, f"{row['ncut'][who]:.4f}", agreement])
    header = ["", "seconds", "ratio", "n-cut", "Rand index with ours"]
    return (
        f"`NormalizedCutClustering` beside scikit-learn's `SpectralClustering(affinity="
        f'"precomputed", assign_labels="kmeans")`: {results["n_clusters"]} clusters, '
        f"{results['n_init']} restarts, the same matrix and threads, medians of runs in turns (one "
        "run where it takes more than 20 s). Ours computes the refined n-cut and the lower bound "
        'in any case; "refined" returns those labels.\n\n'
        f"{table(header, rows)}\n\n`{results['command']}`: {machine(results)}"
    )


def main() -> None:
    def read(name: str) -> Any:
        return json.loads((RESULTS / f"{name}.json").read_text())

    def best_first(pattern: str) -> list[dict[str, Any]]:
        """One file per instruction set."""
        return [
            read(stem) for stem in sorted((p.stem for p in RESULTS.glob(pattern)), reverse=True)
        ]

    best, *others = best_first("engine-*.json")  # the best has all cases
    sections = [
        "## Kernels\n\n" + kernels(read("kernels")),
        f"## Whole analyses\n\n{machine(best)}\n\n{whole_analyses(best)}",
        *(f"{machine(one)}\n\n{whole_analyses(one)}" for one in others),
        *(
            f"## {title}\n\n{section(best)}"
            for title, key, section in (
                ("Phases", "phases", phases),
                ("Certificate and profile", "certificate", certificate),
                ("Growth", "scaling", scaling),
            )
            if key in best  # `run.py --cases` may have left some out
        ),
        "## Reading a model\n\n" + reading(read("reading")),
        "## Training\n\n" + training(best_first("training-*.json")),
        "## Affinity matrices\n\n" + estimator(read("estimator")),
    ]
    text = "\n\n".join(sections)
    print(text)
    page = PAGE.read_text()
    head, rest = page.split(BEGIN)
    _, tail = rest.split(END)
    PAGE.write_text(f"{head}{BEGIN}\n\n{text}\n\n{END}{tail}")


if __name__ == "__main__":
    main()
