"""Cluster many graphs that are hard for eigensolvers, and compare with exact eigenvalues.

    python scripts/hard_graphs.py [--cases 100000] [--largest 2000] [--first 1000000]
        [--solver auto] [--out docs/hard_graphs.json]

Graphs, numbers of clusters and scales are as in tests/hard_graphs.py, with other seeds. Writes the
numbers of cases by family and solver, the largest errors, and every fault with its seed. The file
is rewritten after each thousand cases, and a run resumes where the file ends.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from hard_graphs import clustered, judged, task  # noqa: E402

from ncut.errors import InputError  # noqa: E402

EACH = 1000
SEVERE = ("largest_share_of_error", "largest_looseness")


def measured(seed: int, largest: int, solver: str) -> dict[str, Any]:
    """Measure a case: its outcome."""
    one = task(seed, largest)
    row: dict[str, Any] = {"family": one.hard.family, "solver": "refused", "converged": None}
    try:
        found = clustered(one, solver)
    except InputError as error:
        faults = [] if solver != "auto" else [str(error)]
        return row | {"faults": faults, "share": 0.0, "looseness": 0.0}
    outcome = judged(one, found, must_converge=solver == "auto")
    return row | {
        "solver": outcome.solver,
        "converged": outcome.converged,
        "faults": list(outcome.faults),
        "share": outcome.share if outcome.converged else 0.0,
        "looseness": outcome.looseness if outcome.converged else 0.0,
    }


def added(total: dict[str, Any], row: dict[str, Any], seed: int) -> None:
    """Add a case to the counts."""
    total["cases"] += 1
    total["converged"] += bool(row["converged"])
    for what in ("families", "solvers"):
        name = row["family" if what == "families" else "solver"]
        total[what][name] = total[what].get(name, 0) + 1
    for name, value in zip(SEVERE, (row["share"], row["looseness"]), strict=True):
        if value > total[name]["value"]:
            total[name] = {"value": value, "seed": seed, "family": row["family"]}
    total["faults"] += [{"seed": seed, "what": fault} for fault in row["faults"]]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--largest", type=int, default=2000)
    parser.add_argument("--first", type=int, default=1_000_000)
    parser.add_argument("--solver", default="auto")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "hard_graphs.json")
    chosen = parser.parse_args()
    asked = {"first": chosen.first, "largest": chosen.largest, "solver": chosen.solver}
    total: dict[str, Any] = {
        **asked,
        **{"cases": 0, "converged": 0, "families": Counter(), "solvers": Counter(), "faults": []},
        **{name: {"value": 0.0} for name in SEVERE},
    }
    if chosen.out.exists():
        before = json.loads(chosen.out.read_text())
        if {name: before[name] for name in asked} == asked:
            total = before
    while total["cases"] < chosen.cases:
        for _ in range(min(EACH, chosen.cases - total["cases"])):
            seed = chosen.first + total["cases"]
            added(total, measured(seed, chosen.largest, chosen.solver), seed)
        chosen.out.write_text(json.dumps(total, indent=1) + "\n")
        print(f"{total['cases']:,} cases, {len(total['faults'])} faults", flush=True)


if __name__ == "__main__":
    main()
