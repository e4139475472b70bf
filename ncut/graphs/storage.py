"""NeuronGraph to and from one `.npz` file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ncut.errors import ModelError
from ncut.graphs.neuron_graph import NeuronGraph
from ncut.types import Block, Layer, LeftOut

FORMAT = "ncut-graph-1"
HEADER = "ncut_graph"


def save_graph(graph: NeuronGraph, path: str | Path) -> None:
    """Write a JSON header (layers, blocks, what was left out) and one array set per block."""
    header = {
        "format": FORMAT,
        "name": graph.name,
        "layers": [[layer.name, layer.size] for layer in graph.layers],
        "blocks": [[block.source, block.target, block.name] for block in graph.blocks],
        "left_out": [[item.name, list(item.shape), item.reason] for item in graph.left_out],
    }
    arrays: dict[str, Any] = {HEADER: np.array(json.dumps(header))}
    for number, block in enumerate(graph.blocks):
        if isinstance(block.weights, np.ndarray):
            arrays[f"block{number}"] = block.weights
        else:
            for part in ("data", "indices", "indptr"):
                arrays[f"block{number}_{part}"] = getattr(block.weights, part)
    with Path(path).open("wb") as file:
        np.savez(file, **arrays)


def is_graph_file(arrays: Any) -> bool:
    """Whether an open `.npz` file was written by `save_graph`."""
    return HEADER in arrays


def load_graph(path: str | Path) -> NeuronGraph:
    """Read what `save_graph` wrote; raise ModelError if the file holds something else."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if not is_graph_file(arrays):
                raise ModelError(f"{path}: not a graph saved by ncut; use ncut.graph(path)")
            return _from_arrays(arrays)
    except (OSError, ValueError, KeyError, EOFError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{path}: cannot be read as a saved graph: {error}") from error


def _from_arrays(arrays: Any) -> NeuronGraph:
    from scipy import sparse

    header = json.loads(str(arrays[HEADER]))
    if header.get("format") != FORMAT:
        raise ModelError(f"saved graph has format {header.get('format')!r}, expected {FORMAT!r}")
    layers: list[Layer] = []
    for name, size in header["layers"]:
        start = layers[-1].start + layers[-1].size if layers else 0
        layers.append(Layer(name, start, size))
    blocks: list[Block] = []
    for number, (source, target, name) in enumerate(header["blocks"]):
        key = f"block{number}"
        if key in arrays:
            weights = arrays[key]
        else:
            parts = tuple(arrays[f"{key}_{part}"] for part in ("data", "indices", "indptr"))
            shape = (layers[source].size, layers[target].size)
            weights = sparse.csr_array(parts, shape=shape)
            weights.sort_indices()
        blocks.append(Block(source, target, weights, name))
    return NeuronGraph(
        layers=tuple(layers),
        blocks=tuple(blocks),
        left_out=tuple(LeftOut(n, tuple(s), r) for n, s, r in header["left_out"]),
        name=header["name"],
    )
