"""Misleading Z under conventions of scale.

    python scripts/limits.py

Writes docs/limits.json: the lower bound and its Z of one planted network before and after random
rescalings that preserve its function, under each convention of scale.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

import ncut

DOCS = Path(__file__).resolve().parents[1] / "docs"


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
        "planted_as_it_is_and_rescaled_twice": rescalings(),
    }
    text = json.dumps(results, indent=1)
    (DOCS / "limits.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
