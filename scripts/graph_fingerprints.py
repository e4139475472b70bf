"""Fingerprints of all graphs in the tests of the readers, and their changes.

    python scripts/graph_fingerprints.py          # compare with tests/conformance/fingerprints.json
    python scripts/graph_fingerprints.py --write  # after a change that was meant

A fingerprint covers the layers, the blocks with their numbers of edges and sums of weights, the
left-out parts and the placed parameters of each graph that a test reads, in order. A refactoring
leaves all of them equal; a fix changes some, and its commit says which and why.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "tests" / "conformance" / "fingerprints.json"
ALL = "tests/extract"


def facts(graph: Any) -> dict[str, Any]:
    """The content of a fingerprint; sums with the digits common to all machines."""
    return {
        "layers": [(x.name, x.size, x.rescalable, list(x.read_by)) for x in graph.layers],
        "blocks": [
            (b.source, b.target, b.name, b.tie, int(np.count_nonzero(_values(b))), _sums(b))
            for b in graph.blocks
        ],
        "left out": sorted((x.name, x.reason) for x in graph.left_out),
        "parameters": [(p.name, p.placed) for p in graph.parameters],
        "sums": graph.sums,
    }


def digest(graph: Any) -> dict[str, str]:
    """The hash of each part."""
    return {
        part: hashlib.sha256(json.dumps(fact).encode()).hexdigest()[:10]
        for part, fact in facts(graph).items()
    }


def _values(block: Any) -> Any:
    return block.weights if isinstance(block.weights, np.ndarray) else block.weights.data


def _sums(block: Any) -> str:
    with np.errstate(all="ignore"):
        return f"{np.asarray(_values(block), dtype=np.float64).sum():.3g}"


class Recorder:
    """A pytest plugin that takes the fingerprint of each graph made by a test."""

    def __init__(self) -> None:
        self.found: dict[str, list[dict[str, str]]] = {}
        self.test = ""
        for name in ("assembly.assemble", "options"):
            module = importlib.import_module(f"ncut.extract.{name}")
            module.assemble = self._noting(module.assemble)  # type: ignore[attr-defined]

    def _noting(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def assemble(*args: Any, **kwargs: Any) -> Any:
            graph = original(*args, **kwargs)
            if self.test:
                self.found.setdefault(self.test, []).append(digest(graph))
            return graph

        return assemble

    def pytest_runtest_setup(self, item: Any) -> None:
        """Set the current test, and the seeds for reproducible weights."""
        import torch

        self.test = item.nodeid
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002


def main() -> int:
    """Run the tests, and compare or write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--write", action="store_true", help="write what was found")
    parser.add_argument("tests", nargs="*", default=[ALL], help="what to run")
    options = parser.parse_args()
    os.chdir(ROOT)
    import pytest

    recorder = Recorder()
    pytest.main(["-q", "-p", "no:cacheprovider", *options.tests], plugins=[recorder])
    known = json.loads(FILE.read_text()) if FILE.exists() else {}
    changed = _print_changes(known, recorder.found)
    if options.write:
        kept = {} if options.tests == [ALL] else known
        FILE.write_text(json.dumps(kept | recorder.found, indent=0, sort_keys=True) + "\n")
        print(f"{sum(map(len, recorder.found.values()))} graphs of {len(recorder.found)} tests")
    return 1 if changed and not options.write else 0


def _print_changes(known: dict[str, Any], found: dict[str, Any]) -> int:
    """Tests whose graphs have changed, with the changes."""
    changed = 0
    for test, digests in found.items():
        before = known.get(test)
        if before is None or digests == before:
            continue
        parts = {
            part
            for old, new in zip(before, digests, strict=False)
            for part in new
            if old.get(part) != new[part]
        }
        changed += 1
        what = ", ".join(sorted(parts))
        print(f"{test}: {len(before)} -> {len(digests)} graphs; changed: {what}")
    new = len(found.keys() - known.keys())
    print(f"{changed} tests have other graphs; {new} are new; {len(found)} ran")
    return changed


if __name__ == "__main__":
    sys.exit(main())
