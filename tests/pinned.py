"""Thirty measurements with fixed settings, whose JSON a change of the code must not change.

`python tests/pinned.py FILE` writes all of it: on one machine the files of two versions of ncut are
equal byte for byte. tests/pinned_reports.json has the numbers that are the same on every machine,
to rounding; `python tests/pinned.py --numbers FILE` writes them.
"""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

import ncut


def chain(sizes: tuple[int, ...] = (12, 16, 16, 8), parts: int = 4, seed: int = 5) -> list[Any]:
    """Weight matrices with planted clusters, ten times weaker between them."""
    rng = np.random.default_rng(seed)
    groups = [np.arange(n) % parts for n in sizes]
    return [
        np.where(a[:, None] == b, 1.0, 0.1) * rng.normal(size=(a.size, b.size))
        for a, b in itertools.pairwise(groups)
    ]


def large() -> list[Any]:
    """A chain that is large enough for the solvers of large graphs."""
    return chain((150, 200, 200, 100))


def pruned(seed: int = 6) -> list[Any]:
    """The same with the weaker half of each layer's weights at zero."""
    layers = chain(seed=seed)
    return [np.where(abs(w) > np.quantile(abs(w), 0.5), w, 0.0) for w in layers]


def adjacency() -> Any:
    """Three groups of vertices without layers, one vertex isolated."""
    rng = np.random.default_rng(8)
    group = np.arange(40) % 3
    dense = np.where(group[:, None] == group, 1.0, 0.05) * rng.random((40, 40))
    dense = np.triu(dense, 1)
    dense[7] = dense[:, 7] = 0
    return sparse.csr_array(dense + dense.T)


def convolutions() -> list[Any]:
    """Weights of three convolutions, (out, in, height, width)."""
    rng = np.random.default_rng(9)
    return [rng.normal(size=shape) for shape in ((8, 3, 3, 3), (12, 8, 3, 3), (10, 12, 3, 3))]


def torch_module() -> Any:
    """A ReLU network that tells how it was initialized."""
    import torch

    torch.manual_seed(3)
    linear, relu = torch.nn.Linear, torch.nn.ReLU
    return torch.nn.Sequential(linear(10, 14), relu(), linear(14, 14), relu(), linear(14, 6))


def analysed(model: Callable[[], Any], **settings: Any) -> Callable[[], Any]:
    return lambda: ncut.analyze(model(), **{"k": 4, "shuffles": 8, "seed": 1, **settings})


def profiled(model: Callable[[], Any], **settings: Any) -> Callable[[], Any]:
    settings = {"k": range(2, 6), "shuffles": 5, "seed": 1, **settings}
    return lambda: ncut.profile(model(), **settings)


def judged(model: Callable[[], Any], **settings: Any) -> Callable[[], Any]:
    settings = {"k": 4, "shuffles": 19, "rescalings": 1, "seed": 1, **settings}
    return lambda: ncut.verdict(model(), **settings)


def scanned(**settings: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        for name, weights in (("a", chain()), ("b", pruned())):
            np.savez(f"{folder}/{name}.npz", *weights)
        models = [f"{folder}/a.npz", f"{folder}/b.npz"]
        settings = {"k": 3, "shuffles": 4, "jobs": 1, "backend": "threading", **settings}
        ncut.scan(models, f"{folder}/out", **settings)
        reports = sorted(Path(folder, "out", "reports").glob("*.json"))
        found = [json.loads(path.read_text()) for path in reports]
        return sorted(found, key=lambda report: report["model"])


CASES: dict[str, Callable[[], Any]] = {
    "chain": analysed(chain),
    "chain, paper's k": analysed(chain, k=None),
    "chain, hcai-torch": analysed(chain, preset="hcai-torch", k=None, shuffles=6),
    "chain, no shuffles": analysed(chain, shuffles=0),
    "chain, refined": analysed(chain, refine=True),
    "chain, l1": analysed(chain, normalize="l1"),
    "chain, l2": analysed(chain, normalize="l2", refine=True),
    "chain, balanced": analysed(chain, normalize="balanced"),
    "chain, krylov": analysed(large, solver="krylov"),
    "chain, gram": analysed(chain, solver="gram"),
    "chain, shift-invert": analysed(large, solver="shift-invert", shuffles=2),
    "chain, dense": analysed(chain, solver="dense"),
    "chain, arpack": analysed(chain, solver="arpack", shuffles=3),
    "chain, three restarts": analysed(chain, n_init=3, seed=2**63),
    "chain, betting": analysed(chain, shuffles="auto", max_shuffles=60),
    "chain, Besag and Clifford": analysed(
        chain, shuffles="auto", max_shuffles=60, level=0.1, sequential="besag-clifford"
    ),
    "chain, noise repeated": analysed(chain, shuffles=25, n_init=1),
    "wide chain": analysed(lambda: chain((40, 60, 60, 20), 5, 7), k=5),
    "pruned": analysed(pruned, null="layer-nonzero"),
    "pruned, kde": analysed(pruned, null="layer-kde"),
    "pruned, nonzero kde": analysed(pruned, null="layer-nonzero-kde"),
    "pruned, strength": analysed(pruned, null="strength"),
    "pruned, tied": analysed(pruned, null="tied"),
    "adjacency": analysed(adjacency, k=3),
    "convolutions": analysed(convolutions, name="convolutions"),
    "torch": analysed(torch_module),
    "torch, init": analysed(torch_module, null="init"),
    "profile": profiled(chain),
    "profile, l2": profiled(pruned, normalize="l2", null="layer-nonzero", n_init=4),
    "profile, no shuffles": profiled(adjacency, shuffles=0),
    "verdict": judged(chain, normalize=["none", "l2"], null="layer"),
    "verdict of a pruned network": judged(pruned, normalize="none"),
    "scan": scanned,
    "scan, auto": lambda: scanned(shuffles="auto", max_shuffles=50, refine=True),
}


def documents() -> Iterator[tuple[str, Any]]:
    """Each case's name and its JSON as plain data."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, measured in CASES.items():
            found = measured()
            yield name, found if isinstance(found, list) else found.to_dict()


def numbers(document: Any) -> dict[str, Any]:
    """The numbers of a report, profile or verdict that agree on every machine up to rounding."""
    if isinstance(document, list):
        return {str(number): numbers(one) for number, one in enumerate(document)}
    if document["format"] == "ncut-verdict":
        cells = document["cells"]
        return {"outcomes": [cell["outcome"] for cell in cells]} | {
            "p": [cell["p_value"] for cell in cells]
        }
    if document["format"] == "ncut-profile":
        gaps = [gap["value"] for gap in document["gaps"]]
        return {"ks": document["ks"], "gaps": gaps, "suggested": document["suggested_k"]}
    names = ("k", "n_init", "seed", "null", "normalize", "preset", "refine", "n_edges", "p_value")
    return {
        **{name: document[name] for name in names},
        "n_shuffles": len(document["shuffled_ncuts"]),
        "eigenvalues": document["eigenvalues"],
        "degrees": sum(document["degrees"]),
    }


def main(arguments: list[str]) -> None:
    only_numbers = arguments[0] == "--numbers"
    found = {name: numbers(one) if only_numbers else one for name, one in documents()}
    text = json.dumps(found, indent=None if not only_numbers else 0)
    Path(arguments[-1]).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
