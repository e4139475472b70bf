"""Table A.11: networks that others trained on ImageNet, from weight files that the user names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ncut.analysis
from ncut.arguments import check_choice
from ncut.errors import InputError
from ncut.files import reading
from ncut.paper.architectures import graph_of_weights
from ncut.paper.measure import kernel_norm
from ncut.paper.recipes import PROCEDURES
from ncut.paper.records import Analysis, keep, load_report
from ncut.paper.results import RowResult, TableResult
from ncut.paper.runs import run_from
from ncut.paper.tables import AS_PUBLISHED, IMAGENET, Deviations, Published, Row, published
from ncut.report import Report
from ncut.types import KernelNorm

ARCHITECTURES = {
    "VGG-16": "vgg16",
    "VGG-19": "vgg19",
    "ResNet-18": "resnet18",
    "ResNet-34": "resnet34",
    "ResNet-50": "resnet50",
    "Inception-V3": "inception_v3",
}
"""The names of the table's networks, with torchvision's names."""

STATE_DICTS = (".pt", ".pth", ".safetensors")

VGG_BLOCKS = {"VGG-16": (2, 2, 3, 3, 3), "VGG-19": (2, 2, 4, 4, 4)}
"""Convolutions in each block of a VGG, whose Keras layers are block1_conv1, block1_conv2, ..."""


def measure_files(
    weights: Mapping[str, Path], out: Path, options: Deviations = AS_PUBLISHED
) -> TableResult:
    """Measure the networks in the given files; existing results are kept.

    `weights` maps names of the table, such as "ResNet-50", to files: Keras weights of the package
    `image-classifiers`, as in the paper (.h5); state dicts of torchvision (.pth, .pt, .safetensors;
    all but VGGs need torchvision installed); or whole models that `ncut.analyze` reads by itself
    (.onnx, .keras, .h5). `options`: the number of shuffles, 100 by default, and the procedure,
    which determines the edge weight of a convolution.

    Raises
    ------
    InputError
        If a name is not in the table, no file is named, one is missing, or Keras weights are of
        another network.
    ModelError
        If a file cannot be read as a network.
    """
    if not weights:
        raise InputError(
            f"weights: table {IMAGENET} measures networks from files; name some, such as "
            "VGG-16=vgg16.pth"
        )
    for name, path in weights.items():
        if name not in ARCHITECTURES:
            raise InputError(f"weights: must be for {', '.join(ARCHITECTURES)}, got {name!r}")
        if not Path(path).is_file():
            raise InputError(f"weights: {path}, for {name}, does not exist or is not a file")
    check_choice("procedure", options.procedure, PROCEDURES)
    return TableResult(IMAGENET, tuple(_rows(weights, out, options)))


def _rows(weights: Mapping[str, Path], out: Path, options: Deviations) -> Iterator[RowResult]:
    norm = kernel_norm(options.procedure)
    for row in published():
        if row.table == IMAGENET and row.network in weights:
            path = Path(weights[row.network])
            analysis = Analysis(row.k, options.shuffles or row.shuffles or 0)
            report = _report(row, path, analysis, norm, out)
            metrics = {"file": path.name, "norm": norm}
            yield RowResult(Row(row, "trained", analysis), (run_from(0, report, metrics),))


def _report(row: Published, path: Path, analysis: Analysis, norm: KernelNorm, out: Path) -> Report:
    with reading(path, "a network", InputError), path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:12]
    kept = out / "imagenet" / f"{row.network}-{digest}-{analysis.name}-{norm}.json"
    if kept.is_file():
        return load_report(kept)
    model, how = _model(row.network, path, norm)
    report = ncut.analysis.analyze(
        model,
        k=analysis.k,
        shuffles=analysis.shuffles,
        null=analysis.null,
        normalize=analysis.normalize,
        **how,
    )
    keep(kept, report.to_json)
    return report


def _model(network: str, path: Path, norm: KernelNorm) -> tuple[Any, dict[str, Any]]:
    """The model or its graph, and the options for reading it."""
    how: dict[str, Any] = {"norm": norm, "name": f"{network} ({path.name})"}
    if path.suffix in STATE_DICTS:
        if network in VGG_BLOCKS:
            return path, how
        return f"torchvision:{ARCHITECTURES[network]}", how | {"weights": path}
    if path.suffix != ".h5":
        return path, how
    if network in VGG_BLOCKS:
        layers = [
            f"block{block}_conv{number}"
            for block, n in enumerate(VGG_BLOCKS[network], start=1)
            for number in range(1, n + 1)
        ]
        return path, how | {"layers": layers}
    graph = graph_of_weights(network, path, norm)
    return (path, how) if graph is None else (graph, {})
