"""Compare the graphs of vision models of torchvision and timm with the running models.

    python scripts/check_vision.py [MODEL ...]

Writes docs/models/vision.json; with names, only the rows of these models are renewed. For each
model, with random weights, a row has the graph's size, the share of weights in the graph, the
seconds taken, and whether changing a few vertices changes exactly their neighbours
(ncut/extract/perturbation.py). A surplus is a neighbour that did not change: positions are not
distinguished, so readers of a class token have edges from writers of the patches, and
data-dependent weights are treated as constants. Needs torchvision and timm.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torchvision

import ncut

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "extract"))
from ncut.extract.readers.traced import running as perturbation  # noqa: E402

TARGET = ROOT / "docs" / "models" / "vision.json"
N_VERTICES = 6
SMALL = 128

TORCHVISION = [
    "vgg16",
    "vgg16_bn",
    "vgg19",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnext50_32x4d",
    "wide_resnet50_2",
    "inception_v3",
    "googlenet",
    "densenet121",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "mobilenet_v3_small",
    "efficientnet_b0",
    "efficientnet_v2_s",
    "convnext_tiny",
    "regnet_x_400mf",
    "regnet_y_400mf",
    "shufflenet_v2_x1_0",
    "squeezenet1_0",
    "mnasnet1_0",
    "alexnet",
    "vit_b_32",
    "swin_t",
    "swin_v2_t",
    "maxvit_t",
]

TIMM = [
    "resnet50d",
    "resnetv2_50",
    "seresnet50",
    "ecaresnet26t",
    "resnest14d",
    "res2net50_26w_4s",
    "skresnet18",
    "dla34",
    "dpn68",
    "hrnet_w18_small",
    "xception41",
    "inception_v4",
    "mobilenetv4_conv_small",
    "ghostnet_100",
    "lcnet_050",
    "rexnet_100",
    "regnetz_b16",
    "nf_resnet26",
    "repvgg_a0",
    "cspdarknet53",
    "ese_vovnet19b_dw",
    "convnextv2_atto",
    "mixer_s32_224",
    "gmlp_ti16_224",
    "resmlp_12_224",
    "poolformer_s12",
    "caformer_s18",
    "mobileone_s0",
    "hgnetv2_b0",
    "focalnet_tiny_srf",
    "starnet_s1",
    "repvit_m0_9",
    "mambaout_femto",
    "fastvit_t8",
    "rdnet_tiny",
    "deit_tiny_patch16_224",
    "deit_tiny_distilled_patch16_224",
    "vit_tiny_patch16_224",
    "swin_tiny_patch4_window7_224",
    "swinv2_cr_tiny_224",
    "beit_base_patch16_224",
    "eva02_tiny_patch14_224",
    "vit_small_patch16_dinov3",
    "cait_xxs24_224",
    "xcit_nano_12_p16_224",
    "levit_128s",
    "pit_ti_224",
    "pvt_v2_b0",
    "twins_svt_small",
    "crossvit_tiny_240",
    "edgenext_xx_small",
    "mobilevit_xxs",
    "mobilevitv2_050",
    "efficientformerv2_s0",
    "coatnet_nano_rw_224",
    "tiny_vit_5m_224",
    "botnet26t_256",
    "hiera_tiny_224",
]

# The expected graph of an architecture: see tests/extract/test_full_size.py.
VERTICES = {
    "vgg16": 4224, "vgg19": 5504, "vgg16_bn": 4224, "resnet50": 24576, "inception_v3": 42272,
    "densenet121": 41760, "mobilenet_v2": 17056,
}  # fmt: skip


def made(library: str, name: str) -> tuple[torch.nn.Module, tuple[int, int]]:
    if library == "timm":
        model = timm.create_model(name, pretrained=False)
        return model, tuple(model.pretrained_cfg["input_size"][1:])
    slow_to_start = name in ("inception_v3", "googlenet")
    options: dict[str, Any] = {"init_weights": False} if slow_to_start else {}
    side = 299 if name == "inception_v3" else 224
    return torchvision.models.get_model(name, weights=None, **options), (side, side)


def read(library: str, name: str) -> dict[str, Any]:
    """A row of the table; errors are recorded in the row."""
    row: dict[str, Any] = {"model": name, "library": library}
    try:
        torch.manual_seed(0)
        model, size = made(library, name)
        perturbation.randomized(model)
        start = time.perf_counter()
        graph = ncut.graph(model)
        row["seconds"] = round(time.perf_counter() - start, 2)
        row["vertices"], row["edges"] = graph.n_vertices, graph.n_edges
        row["layers"] = len(graph.layers)
        whole = ncut.graph(model, scope="all")
        sizes = [(int(np.prod(p.shape)), p.placed) for p in whole.parameters]
        row["placed"] = round(sum(n for n, is_in in sizes if is_in) / sum(n for n, _ in sizes), 4)
        if name in VERTICES:
            row["expected_vertices"] = VERTICES[name]
        del graph, whole
        model.double()
        by_reader = ncut.graph(model, scope="all", residual="readers")
        outcome = checked(model, by_reader, size)
        row["checked"] = {
            "vertices": outcome.n_vertices,
            "edges": outcome.n_edges,
            "layers": outcome.n_readers,
            "missing": len(outcome.missing),
            "surplus": len(outcome.surplus),
        }
        row["examples"] = [*outcome.missing[:2], *outcome.surplus[:2]]
    except Exception as error:
        row["error"] = f"{type(error).__name__}: {error}"
    return row


def checked(model: torch.nn.Module, graph: ncut.NeuronGraph, size: tuple[int, int]) -> Any:
    """The check on a small image, if the model accepts any size."""
    for side in (SMALL, None):
        sides = size if side is None else (side, side)
        inputs = (torch.randn(1, 3, *sides, dtype=torch.float64),)
        try:
            return perturbation.check(model, graph, inputs, n=N_VERTICES)
        except Exception:
            if side is None:
                raise
    raise AssertionError


def told(row: dict[str, Any]) -> str:
    if "error" in row:
        return f"{row['model']:34} {row['error'][:200]}"
    checked = row["checked"]
    return (
        f"{row['model']:34} {row['vertices']:7} vertices {row['edges']:10} edges "
        f"{row['layers']:4} layers  placed {row['placed']:.4f}  {row['seconds']:6.2f} s  "
        f"{checked['missing']} missing, {checked['surplus']} surplus of {checked['edges']}"
    )


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    chosen = sys.argv[1:]
    models = [("torchvision", name) for name in TORCHVISION] + [("timm", name) for name in TIMM]
    known: dict[str, dict[str, Any]] = {}
    if chosen and TARGET.is_file():
        known = {row["model"]: row for row in json.loads(TARGET.read_text())["models"]}
    rows = []
    for library, name in models:
        if chosen and name not in chosen:
            rows += [known[name]] if name in known else []
            continue
        rows.append(read(library, name))
        print(told(rows[-1]), flush=True)
    versions = {m.__name__: m.__version__ for m in (torch, torchvision, timm)}
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(json.dumps({"versions": versions, "models": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
