"""NeuronGraph to and from one `.npz` file."""

from __future__ import annotations

import io
import json
import math
import os
import zipfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from ncut.errors import InputError, ModelError
from ncut.files import Budget, reading, regular_file, write_file
from ncut.graphs.scale import brought_into_range
from ncut.graphs.validate import (
    WEIGHT_TYPES,
    bfloat16,
    canonical_csr,
    check_block,
    check_structure,
)
from ncut.types import Block, Layer, LeftOut, Parameter

if TYPE_CHECKING:
    from ncut.graphs.data import G, GraphData
    from ncut.types import Weights

FORMAT = "ncut-graph-1"
HEADER = "ncut_graph"


def save_graph(graph: GraphData, path: str | Path) -> None:
    """Write a JSON header (layers, blocks, left-out parts) and one set of arrays per block."""
    header = {
        "format": FORMAT,
        "name": graph.name,
        "sums": graph.sums,
        "layers": [[layer.name, layer.size] for layer in graph.layers],
        "exponent": graph.exponent,
        "rescalable": [layer.rescalable for layer in graph.layers],
        "read_by": [layer.read_by for layer in graph.layers],
        "blocks": [[block.source, block.target, block.name] for block in graph.blocks],
        "ties": [[block.tie, block.tie_transposed] for block in graph.blocks],
        "parameters": [[p.name, list(p.shape), p.placed, p.role] for p in graph.parameters],
        "left_out": [[item.name, list(item.shape), item.reason] for item in graph.left_out],
    }
    arrays: dict[str, Any] = {HEADER: np.array(json.dumps(header))}
    for number, block in enumerate(graph.blocks):
        if isinstance(block.weights, np.ndarray):
            bfloat16 = block.weights.dtype.name == "bfloat16"  # NumPy's format has no such type
            arrays[f"block{number}"] = block.weights.view(np.uint16) if bfloat16 else block.weights
        else:
            for part in ("data", "indices", "indptr"):
                arrays[f"block{number}_{part}"] = getattr(block.weights, part)

    def write(part: Path) -> None:
        with part.open("wb") as file:  # NumPy would append a suffix to a name
            np.savez(file, **arrays)

    write_file(path, write)


def is_graph_file(arrays: Any) -> bool:
    """Tell whether an open `.npz` file was written by `save_graph`."""
    return HEADER in arrays


def load_graph(path: str | Path, kind: type[G]) -> G:
    """Read a file of `save_graph` as a graph of the given class.

    Raises
    ------
    ModelError
        If the file does not contain a saved graph.
    """
    with reading(path, "a saved graph"):
        check_npz(regular_file(path))
        # np.load does not close a file that it fails to read.
        with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            if not is_graph_file(arrays):
                raise ModelError(f"{path}: not a graph saved by ncut; use ncut.graph(path)")
            return _from_arrays(arrays, kind, Budget(Path(path), os.stat(path).st_size))


def check_npz(path: Path) -> None:
    """Compare the declared sizes of an `.npz` file's arrays with the stored bytes.

    Raises
    ------
    ModelError
        If an array is larger than its member, or the arrays unpack to more than weights can.
    """
    budget = Budget(path, path.stat().st_size)
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            budget.entry(member, f"array {name!r}")
            if member.filename == name:
                continue
            with reading(f"{path}: array {name!r}", ".npy"), archive.open(member) as file:
                shape, _, dtype = npy_header(file)
            n_bytes = math.prod(shape) * dtype.itemsize
            if n_bytes > member.file_size:
                raise ModelError(
                    f"{path}: array {name!r} declares the shape {shape}, but the file has "
                    f"{member.file_size} bytes for it"
                )


MAX_NPY_HEADER = 10_000
"""Bytes; the limit of NumPy, whose own headers have 118."""


def npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, Fortran order, and type of an open `.npy` file, which is read up to its data.

    Raises
    ------
    ModelError
        If the array has a negative size, or holds objects.
    """
    version = np.lib.format.read_magic(file)
    read = {
        (1, 0): (2, np.lib.format.read_array_header_1_0),
        (2, 0): (4, np.lib.format.read_array_header_2_0),
    }
    if version not in read:
        raise ModelError(f"version {version} of the .npy format is not that of plain numbers")
    n_bytes, parse = read[version]
    size = file.read(n_bytes)
    length = int.from_bytes(size, "little")
    if length > MAX_NPY_HEADER:  # NumPy would refuse it too, but after allocating it
        raise ModelError(f"says that its header has {length} bytes")
    shape, by_columns, dtype = parse(io.BytesIO(size + file.read(length)))
    if min(shape, default=0) < 0:
        raise ModelError(f"says to have shape {shape}")
    if dtype.hasobject:
        raise ModelError("holds pickled objects, which may run code; save an array of numbers")
    return shape, by_columns, dtype


def _check_saved_block(weights: Any, source: Layer, target: Layer, name: str) -> None:
    """Check a header: kernels trust their input, so a damaged or forged file must stop here."""
    values = weights if isinstance(weights, np.ndarray) else weights.data
    if weights.shape != (source.size, target.size) or values.dtype.name not in WEIGHT_TYPES:
        raise ModelError(f"saved graph: block {name!r} has the wrong shape or type")
    try:
        check_block(values, f"saved graph: block {name!r}")
    except InputError as error:
        raise ModelError(str(error)) from error


def _sparse_block(parts: tuple[Any, ...], shape: tuple[int, int], what: str) -> Weights:
    """A block of the stored arrays, which may be forged."""
    from scipy import sparse

    matrix = sparse.csr_array(parts, shape=shape)
    try:
        check_structure(matrix, what)
    except InputError as error:
        raise ModelError(str(error)) from error
    n_stored = matrix.nnz
    matrix = canonical_csr(matrix)
    if matrix.nnz < n_stored:
        raise ModelError(f"{what} holds an entry twice")
    return matrix


def _from_arrays(arrays: Any, kind: type[G], budget: Budget) -> G:
    header = json.loads(str(arrays[HEADER]))
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ModelError(f"saved graph does not have format {FORMAT!r}")
    layers = _layers(header, budget)
    blocks = _blocks(header, arrays, layers)
    exponent = header.get("exponent", 0)
    if not isinstance(exponent, int) or isinstance(exponent, bool):
        raise ModelError(f"saved graph: has the exponent {exponent!r}")
    return brought_into_range(
        kind(
            layers=layers,
            blocks=blocks,
            left_out=tuple(
                LeftOut(_text(n), _shape(s), _text(r)) for n, s, r in header["left_out"]
            ),
            name=_text(header["name"]),
            sums=_text(header.get("sums", "")),
            exponent=exponent,
            parameters=tuple(
                Parameter(_text(n), _shape(s), bool(placed), _text(role))
                for n, s, placed, role in header.get("parameters", [])
            ),
        )
    )


def _layers(header: dict[str, Any], budget: Budget) -> tuple[Layer, ...]:
    """The layers of a header; their roles are later additions to the format."""
    layers: list[Layer] = []
    n_layers = len(header["layers"])
    roles = zip(
        header.get("rescalable", [None] * n_layers),
        header.get("read_by", [()] * n_layers),
        strict=True,
    )
    for (name, size), (rescalable, read_by) in zip(header["layers"], roles, strict=True):
        start = layers[-1].start + layers[-1].size if layers else 0
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise ModelError(f"saved graph: layer {name!r} has size {size!r}")
        if not (rescalable is None or isinstance(rescalable, bool)):
            raise ModelError(f"saved graph: layer {name!r} is marked {rescalable!r}")
        budget.take(f"layer {name!r}", 8 * size)  # the degrees of its neurons
        layers.append(Layer(_text(name), start, size, rescalable, tuple(map(_text, read_by))))
    return tuple(layers)


def _blocks(header: dict[str, Any], arrays: Any, layers: tuple[Layer, ...]) -> tuple[Block, ...]:
    """The blocks of a header, with their arrays; ties are later additions to the format."""
    blocks: list[Block] = []
    ties = header.get("ties", [("", False)] * len(header["blocks"]))
    before = (0, 0)
    for number, ((source, target, name), (tie, transposed)) in enumerate(
        zip(header["blocks"], ties, strict=True)
    ):
        inside = type(source) is type(target) is int and 0 <= source <= target < len(layers)
        if not inside or before > (source, target):
            raise ModelError(f"saved graph: block {name!r} lies between unknown layers")
        before = (source, target)
        weights = _weights(arrays, number, layers[source], layers[target], name)
        _check_saved_block(weights, layers[source], layers[target], name)
        blocks.append(Block(source, target, weights, _text(name), _text(tie), bool(transposed)))
    if not blocks:
        raise ModelError("saved graph: has no blocks of weights")
    return tuple(blocks)


def _weights(arrays: Any, number: int, source: Layer, target: Layer, name: str) -> Weights:
    """The stored weights of a block: dense, or sparse and above the diagonal within a layer."""
    from scipy import sparse

    key = f"block{number}"
    within = source is target
    if key in arrays and not within:
        dense = np.ascontiguousarray(arrays[key])
        return dense.view(bfloat16()) if dense.dtype == np.uint16 else dense
    names = ("data", "indices", "indptr")
    parts = arrays[key] if key in arrays else tuple(arrays[f"{key}_{n}"] for n in names)
    weights = _sparse_block(parts, (source.size, target.size), f"saved graph: block {name!r}")
    if within and sparse.tril(weights).nnz:
        raise ModelError(f"saved graph: block {name!r} must lie above the diagonal")
    return weights


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ModelError(f"saved graph: expected a string, got {value!r}")
    return value


def _shape(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or any(type(size) is not int or size < 0 for size in value):
        raise ModelError(f"saved graph: expected a shape, got {value!r}")
    return tuple(value)
