"""Are p-values uniform where they should be: on networks that are shuffles themselves?

    python scripts/calibration.py [--networks 500] [--shuffles 19]

Takes shuffles of the networks that come with ncut for networks, compares each with shuffles of its
own, and writes docs/calibration.json and docs/calibration.png. If p is uniform, a share p of the
networks has a p-value of at most p.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

import ncut
from ncut import networks
from ncut.axes import STATISTICS

DOCS = Path(__file__).resolve().parents[1] / "docs"
SHOWN = ("spectral_ncut", "refined_ncut", "lower_bound")
CASES = (("digits-unpruned", "layer"), ("digits-pruned", "layer"), ("digits-pruned", "strength"))


def p_values(name: str, null: str, n_networks: int, n_shuffles: int) -> dict[str, list[float]]:
    """p-values of many shuffles of a network, by each statistic and by betting."""
    graph = ncut.graph(networks.path(name))
    found: dict[str, list[float]] = {statistic: [] for statistic in (*SHOWN, "betting")}
    for number in range(n_networks):
        shuffled = ncut.shuffle(graph, null, seed=10_000, number=number)
        report = ncut.analyze(shuffled, shuffles=n_shuffles, null=null, seed=number)
        for statistic in SHOWN:
            found[statistic].append(report.statistics[statistic].p_value)
        auto = ncut.analyze(shuffled, shuffles="auto", max_shuffles=100, null=null, seed=number)
        found["betting"].append(auto.p_value)
    return found


def summary(values: dict[str, list[float]], n_shuffles: int) -> dict[str, Any]:
    """Share of networks at p <= 0.05 and 0.2, and the largest distance from uniform.

    Betting's p-values are made for one level and not uniform.
    """
    rows = {}
    for statistic, found in values.items():
        p = np.array(found)
        grid = np.arange(1, n_shuffles + 2) / (n_shuffles + 1)
        shares = np.array([(p <= g + 1e-12).mean() for g in grid])
        rows[statistic] = {
            "share_at_0.05": float((p <= 0.05).mean()),
            "share_at_0.2": float((p <= 0.2).mean()),
        }
        if statistic in SHOWN:
            rows[statistic]["largest_distance"] = float(np.abs(shares - grid).max())
    return rows


def draw(results: dict[str, dict[str, list[float]]], n_networks: int) -> None:
    figure, axes = plt.subplots(1, len(results), figsize=(3.4 * len(results), 3.4), sharey=True)
    for ax, (case, values) in zip(axes, results.items(), strict=True):
        ax.plot([0, 1], [0, 1], color="#c9cfd8", linewidth=1)
        band = 1.96 * np.sqrt(np.linspace(0, 1) * (1 - np.linspace(0, 1)) / n_networks)
        ax.fill_between(
            np.linspace(0, 1), np.linspace(0, 1) - band, np.linspace(0, 1) + band,
            color="#c9cfd8", alpha=0.4, linewidth=0,
        )  # fmt: skip
        for statistic in SHOWN:
            p = np.sort(values[statistic])
            shares = np.arange(1, p.size + 1) / p.size
            ax.step(p, shares, where="post", label=STATISTICS[statistic].title)
        ax.set(xlabel="p", title=case, xlim=(0, 1), ylim=(0, 1))
    axes[0].set_ylabel("share of networks with a p-value as small")
    axes[0].legend(frameon=False, fontsize="small")
    figure.tight_layout()
    figure.savefig(DOCS / "calibration.png", dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=int, default=500)
    parser.add_argument("--shuffles", type=int, default=19)
    arguments = parser.parse_args()
    results = {
        f"{name}, {null}": p_values(name, null, arguments.networks, arguments.shuffles)
        for name, null in CASES
    }
    tables = {case: summary(values, arguments.shuffles) for case, values in results.items()}
    content = {
        "command": f"python scripts/calibration.py --networks {arguments.networks} "
        f"--shuffles {arguments.shuffles}",
        "cases": tables,
    }
    (DOCS / "calibration.json").write_text(json.dumps(content, indent=1) + "\n")
    print(json.dumps(content, indent=1))
    draw(results, arguments.networks)


if __name__ == "__main__":
    main()
