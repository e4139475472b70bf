"""What can mislead: the null model "strength" on untrained networks, and Z under conventions.

    python scripts/limits.py

Writes docs/limits.json. First, untrained 60-50-40-30 networks with independent weights of three
distributions against their strength shuffles: the share with p <= 0.05 should be 0.05. Second, one
planted network before and after random rescalings that leave its function as it is, under each
convention of scale: Z of the lower bound.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np

import ncut

DOCS = Path(__file__).resolve().parents[1] / "docs"
SIZES = (60, 50, 40, 30)
N_NETWORKS = 40
STATISTICS = ("spectral_ncut", "refined_ncut", "lower_bound")
DRAWS = {
    "uniform": lambda rng, shape: rng.uniform(-1, 1, shape),
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "Student's t, 3 degrees of freedom": lambda rng, shape: rng.standard_t(3, shape),
}


def untrained(name: str) -> dict[str, dict[str, float]]:
    rng = np.random.default_rng(20210304)
    found: dict[str, list[ncut.Comparison]] = {statistic: [] for statistic in STATISTICS}
    for seed in range(N_NETWORKS):
        weights = [DRAWS[name](rng, shape) for shape in pairwise(SIZES)]
        report = ncut.analyze(weights, k=4, shuffles=39, null="strength", seed=seed)
        for statistic in STATISTICS:
            found[statistic].append(report.statistics[statistic])
    return {
        statistic: {
            "share_at_0.05": float(np.mean([c.p_value <= 0.05 for c in compared])),
            "mean_z": round(float(np.mean([c.z_score for c in compared])), 2),
        }
        for statistic, compared in found.items()
    }


def planted(rng: np.random.Generator) -> list[np.ndarray]:
    """Weights three times as large inside four groups as between them."""
    group = np.repeat(np.arange(4), 15)
    factor = np.where(group[:, None] == group[None, :], 1.0, 1 / 3)
    return [(0.5 + rng.random(factor.shape)) * factor for _ in range(3)]


def rescalings() -> dict[str, dict[str, list[float]]]:
    graph = ncut.graph(planted(np.random.default_rng(1)))
    graphs = [graph, *(graph.rescaled(seed, 1.0) for seed in (1, 2))]
    rows = {}
    for convention in ("none", "l2", "l1", "balanced"):
        reports = [
            ncut.analyze(one, k=4, shuffles=30, normalize=convention).statistics["lower_bound"]
            for one in graphs
        ]
        rows[convention] = {
            "lower_bound": [round(compared.value, 4) for compared in reports],
            "z": [round(compared.z_score, 1) for compared in reports],
        }
    return rows


def main() -> None:
    results = {
        "command": "python scripts/limits.py",
        "strength_on_untrained_networks": {name: untrained(name) for name in DRAWS},
        "planted_as_it_is_and_rescaled_twice": rescalings(),
    }
    text = json.dumps(results, indent=1)
    (DOCS / "limits.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
