"""Table A.11: networks that others trained on ImageNet, from weight files that the user names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ncut.analysis
from ncut.errors import InputError
from ncut.files import reading
from ncut.paper.records import Analysis, keep, load_report
from ncut.paper.results import RowResult, TableResult
from ncut.paper.runs import run_from
from ncut.paper.tables import IMAGENET, Published, Row, published
from ncut.report import Report

ARCHITECTURES = {
    "VGG-16": "vgg16",
    "VGG-19": "vgg19",
    "ResNet-18": "resnet18",
    "ResNet-34": "resnet34",
    "ResNet-50": "resnet50",
    "Inception-V3": "inception_v3",
}
"""The names of the table's networks, and what torchvision calls them."""

STATE_DICTS = (".pt", ".pth", ".safetensors")

VGG_BLOCKS = {"VGG-16": (2, 2, 3, 3, 3), "VGG-19": (2, 2, 4, 4, 4)}
"""Convolutions in each block of a VGG, whose Keras layers are block1_conv1, block1_conv2, ..."""


def measure_files(
    weights: Mapping[str, Path], out: Path, shuffles: int | None = None
) -> TableResult:
    """Measure the networks whose files are named; what is there already is kept.

    `weights` maps names of the table, such as "ResNet-50", to files: state dicts of torchvision
    (.pth, .pt, .safetensors; all but VGGs need torchvision installed), or what `ncut.analyze`
    reads by itself (.onnx, .keras, .h5; of VGGs also Keras weights alone). `shuffles`: how many
    to compare with; None: 100, as the paper.

    Raises
    ------
    InputError
        If a name is not in the table, no file is named, or one is missing.
    ModelError
        If a file cannot be read as a network.
    """
    if not weights:
        raise InputError(
            f"weights: table {IMAGENET} is of networks from files; name some, such as "
            "VGG-16=vgg16.pth"
        )
    for name, path in weights.items():
        if name not in ARCHITECTURES:
            raise InputError(f"weights: must be for {', '.join(ARCHITECTURES)}, got {name!r}")
        if not Path(path).is_file():
            raise InputError(f"weights: {path}, for {name}, is no file")
    return TableResult(IMAGENET, tuple(_rows(weights, out, shuffles)))


def _rows(weights: Mapping[str, Path], out: Path, shuffles: int | None) -> Iterator[RowResult]:
    for row in published():
        if row.table == IMAGENET and row.network in weights:
            path = Path(weights[row.network])
            analysis = Analysis(row.k, shuffles or row.shuffles or 0)
            report = _report(row, path, analysis, out)
            metrics = {"file": path.name}
            yield RowResult(Row(row, "trained", analysis), (run_from(0, report, metrics),))


def _report(row: Published, path: Path, analysis: Analysis, out: Path) -> Report:
    with reading(path, "a network", InputError), path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:12]
    kept = out / "imagenet" / f"{row.network}-{digest}-{analysis.name}.json"
    if kept.is_file():
        return load_report(kept)
    report = ncut.analysis.analyze(
        _model(row.network, path),
        k=analysis.k,
        shuffles=analysis.shuffles,
        null=analysis.null,
        normalize=analysis.normalize,
        name=f"{row.network} ({path.name})",
        **_options(row.network, path),
    )
    keep(kept, report.to_json)
    return report


def _model(network: str, path: Path) -> str | Path:
    """A state dict needs its architecture, unless it is a plain chain."""
    if path.suffix in STATE_DICTS and network not in VGG_BLOCKS:
        return f"torchvision:{ARCHITECTURES[network]}"
    return path


def _options(network: str, path: Path) -> dict[str, Any]:
    if path.suffix in STATE_DICTS:
        return {} if network in VGG_BLOCKS else {"weights": path}
    if network in VGG_BLOCKS and path.suffix == ".h5":
        return {
            "layers": [
                f"block{block}_conv{number}"
                for block, n in enumerate(VGG_BLOCKS[network], start=1)
                for number in range(1, n + 1)
            ]
        }
    return {}
