"""Blocks of weights -> NeuronGraph."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ncut.errors import InputError
from ncut.graphs.neuron_graph import NeuronGraph
from ncut.graphs.scale import in_range
from ncut.graphs.scratch import in_scratch_file
from ncut.graphs.validate import (
    WEIGHT_TYPES,
    canonical_csr,
    check_block,
)
from ncut.types import Block, Layer, LeftOut

if TYPE_CHECKING:
    from ncut.types import Weights

# Below this share of non-zeros a CSR product and a CSR shuffle beat the dense ones.
SPARSE_BELOW = 0.25

TILE = 128
"""Rows and columns that are transposed at a time."""

WIDE = {np.dtype(np.float32), np.dtype(np.float64)}


def build_graph(
    layers: Sequence[tuple[str, int]],
    blocks: Iterable[tuple[int, int, Weights, str]],
    *,
    left_out: Iterable[LeftOut] = (),
    name: str = "",
    scratch: Path | None = None,
) -> NeuronGraph:
    """Assemble a graph from its layers and the weights between them.

    Parameters
    ----------
    layers : sequence of (name, size)
        The layers, in the order of their vertices' numbers.
    blocks : iterable of (source, target, weights, name)
        Positions of two layers, the edge weights between them, an array or CSR matrix of shape
        (source size, target size) of finite non-negative numbers, and the parameter's name
        for messages. If several blocks lie between the same two layers, their weights add up.
        Within one layer, only the entries above the diagonal count, each for one undirected edge.
    left_out : iterable of LeftOut
        The parts of the model that are not in the graph.
    name : str
        The model's name, for reports.
    scratch : Path, optional
        A folder for large blocks, which are then not kept in memory.

    Raises
    ------
    InputError
        If there are no blocks, or a block has the wrong shape, negative, NaN or infinite entries,
        or only zeros.
    """
    starts = np.concatenate([[0], np.cumsum([size for _, size in layers])])
    built = tuple(
        Layer(layer_name, int(start), int(size))
        for (layer_name, size), start in zip(layers, starts, strict=False)
    )
    found: list[Block] = []
    last = _Last()
    for source, target, values, label in blocks:
        _check_ends(source, target, len(built), label)
        expected = (built[source].size, built[target].size)
        stored = last.stored(values, source, target)
        if stored is not None and values.shape == expected:
            found.append(Block(min(source, target), max(source, target), stored, label))
            continue
        # A matrix stored as its transpose is transposed without a copy.
        turned = source > target
        weights = _as_edge_weights(values, f"layer {label!r}", turned=turned)
        if turned:
            source, target = target, source
            expected = expected[::-1]
        if weights.shape != expected:
            order = -1 if turned else 1
            names = [built[source].name, built[target].name][::order]
            raise InputError(
                f"layer {label!r}: weights of shape {weights.shape[::order]}, but it lies between "
                f"{names[0]!r} and {names[1]!r}, which need {expected[::order]}"
            )
        entries = weights if isinstance(weights, np.ndarray) else weights.data
        n_nonzero = check_block(entries, f"layer {label!r}")
        stored = in_scratch_file(
            _compressed(weights, n_nonzero, within_layer=source == target), scratch
        )
        found.append(Block(source, target, stored, label))
        last = _Last(values, turned, source == target, stored)
        # Only the stored block may be alive while the next one is made.
        del values, weights, entries
    if not found:
        raise InputError("model: no weights found that connect two layers of neurons")
    found.sort(key=lambda block: (block.source, block.target))
    placed, exponent = in_range(found, scratch)
    return NeuronGraph(
        layers=built,
        blocks=placed,
        exponent=exponent,
        left_out=tuple(left_out),
        name=name,
        scratch=scratch,
    )


def _check_ends(source: int, target: int, n_layers: int, label: str) -> None:
    if not all(0 <= end < n_layers for end in (source, target)):
        raise InputError(
            f"layer {label!r}: cannot connect layers {source} and {target} of {n_layers}"
        )


class _Last:
    """The last stored block, so that the same weights are not stored twice in a row."""

    def __init__(
        self,
        values: Any = None,
        turned: bool = False,
        within_layer: bool = False,
        stored: Weights | None = None,
    ) -> None:
        shareable = isinstance(values, np.ndarray) and not within_layer
        self._values = weakref.ref(values) if shareable else None
        self._turned = turned
        self._stored = stored

    def stored(self, values: Any, source: int, target: int) -> Weights | None:
        """The stored block if it is of the same array in the same direction, else None."""
        same = self._values is not None and self._values() is values
        alike = source != target and self._turned == (source > target)
        return self._stored if same and alike else None


def _as_edge_weights(values: Any, what: str, *, turned: bool = False) -> Weights:
    """The weights, or their transpose, in a type and an order that kernels accept."""
    if not isinstance(values, np.ndarray) and hasattr(values, "tocsr"):
        matrix: Weights = values.T.tocsr() if turned else values.tocsr()
        wide = matrix.dtype in WIDE
        return matrix if wide else matrix.astype(np.float32)
    if isinstance(values, np.ma.MaskedArray):  # masked: no edge
        values = values.filled(0)
    array: NDArray[Any] = np.asarray(values)
    if array.ndim != 2:
        raise InputError(f"{what}: weights must be a matrix, got shape {array.shape}")
    if array.dtype.kind not in "fiu" and array.dtype.name not in WEIGHT_TYPES:
        raise InputError(f"{what}: weights must be real numbers, got dtype {array.dtype}")
    kept = array.dtype.name in WEIGHT_TYPES
    dtype = array.dtype.newbyteorder("=") if kept else np.dtype(np.float64)
    return _in_order(array.T if turned else array, dtype)


def _in_order(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """The array row by row in memory, in the type `dtype`."""
    if array.flags.c_contiguous or dtype.itemsize > 2 or array.dtype != dtype:
        return np.ascontiguousarray(array, dtype=dtype)
    # Tile by tile, as whole columns of a large matrix do not stay in the cache; the bits of
    # 16-bit floats are moved as integers, for which NumPy has fast loops.
    result = np.empty(array.shape, dtype=np.uint16)
    bits = array.view(np.uint16) if array.flags.f_contiguous else None
    if bits is None:
        return np.ascontiguousarray(array)
    for top in range(0, array.shape[0], TILE):
        for left in range(0, array.shape[1], TILE):
            tile = (slice(top, top + TILE), slice(left, left + TILE))
            result[tile] = bits[tile]
    return result.view(dtype)


def _compressed(weights: Weights, n_nonzero: int, *, within_layer: bool) -> Weights:
    """Store a block in the faster form for its density; CSR in float32 or wider.

    Blocks within one layer are always CSR, since half of their entries are unused.
    """
    n_entries = math.prod(weights.shape)
    if n_nonzero >= SPARSE_BELOW * n_entries and not within_layer:
        return weights if isinstance(weights, np.ndarray) else weights.toarray()
    if weights.dtype.itemsize == 2:
        weights = weights.astype(np.float32)
    from scipy import sparse

    # What follows works in place; index arrays may be shared with other matrices.
    ready = isinstance(weights, np.ndarray) or (
        weights.nnz == n_nonzero and weights.has_canonical_format
    )
    matrix = sparse.csr_array(weights, copy=not ready)
    matrix.eliminate_zeros()
    return canonical_csr(matrix)
