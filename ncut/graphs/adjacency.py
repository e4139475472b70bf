"""Adjacency matrix -> NeuronGraph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ncut.errors import InputError
from ncut.graphs.build import build_graph
from ncut.graphs.neuron_graph import NeuronGraph
from ncut.graphs.scale import in_range
from ncut.graphs.validate import canonical_csr, check_adjacency, check_structure
from ncut.types import Block, Layer, LeftOut

if TYPE_CHECKING:
    from scipy import sparse

    from ncut.types import Weights


def from_adjacency(
    adjacency: Any,
    *,
    name: str = "adjacency",
    layers: Sequence[tuple[str, int]] | None = None,
    argument: str = "adjacency",
) -> NeuronGraph:
    """Make a graph from a symmetric adjacency matrix, with one layer by default.

    Parameters
    ----------
    adjacency : scipy sparse matrix or array, or ndarray, shape (n, n)
        Finite non-negative edge weights, symmetric: mirrored entries may differ by a millionth of
        the largest weight of either vertex. The diagonal (self-loops) is left out; masked entries
        of numpy.ma are not edges.
    name : str
        The graph's name, for reports.
    layers : sequence of (name, size), optional
        The layers, in the order of the vertices; the sizes add up to n. Each pair of layers
        with edges gets a block.
    argument : str
        The matrix's name in messages.

    Raises
    ------
    InputError
        If the matrix is empty, not square, not symmetric, not finite, negative anywhere, not of
        real numbers, or without edges, or if the layers' sizes do not add up to n.
    """
    from scipy import sparse

    if isinstance(adjacency, np.ma.MaskedArray):
        adjacency = adjacency.filled(0)
    dense = isinstance(adjacency, np.ndarray)
    if not dense and not sparse.issparse(adjacency):
        raise InputError(
            f"{argument}: must be a scipy sparse matrix or an array, got {type(adjacency).__name__}"
        )
    if adjacency.ndim != 2:
        raise InputError(
            f"{argument}: must have 2 dimensions, n x n, got the shape {adjacency.shape}"
        )
    if adjacency.dtype.kind not in "fiub":
        raise InputError(f"{argument}: must be real numbers, got dtype {adjacency.dtype}")
    keep = adjacency.dtype in (np.float32, np.float64)
    dtype = adjacency.dtype if keep else np.dtype(np.float64)
    matrix = (
        np.ascontiguousarray(adjacency, dtype=dtype)
        if dense
        else _canonical(adjacency, dtype, argument)
    )
    check_adjacency(matrix, argument)
    upper = _above_diagonal(matrix)
    if not upper.nnz:
        raise InputError(f"{argument}: no edges outside the diagonal")
    n_loops = int(np.count_nonzero(matrix.diagonal()))
    left_out = [LeftOut("diagonal", (n_loops,), "self-loops")] if n_loops else []
    del matrix
    if layers is not None:
        total = sum(size for _, size in layers)
        if total != upper.shape[0]:
            raise InputError(
                f"layers: have {total} vertices together, but {argument} has {upper.shape[0]}"
            )
        return build_graph(layers, _between(layers, upper), left_out=left_out, name=name)
    blocks, exponent = in_range([Block(0, 0, upper, "adjacency")], None)
    return NeuronGraph(
        layers=(Layer("vertices", 0, upper.shape[0]),),
        blocks=blocks,
        exponent=exponent,
        left_out=tuple(left_out),
        name=name,
    )


def _canonical(adjacency: Any, dtype: np.dtype[Any], argument: str) -> sparse.csr_array:
    """A copy of a sparse matrix with a valid structure and without duplicate entries."""
    from scipy import sparse

    check_structure(adjacency, argument)
    # Converted first, so that duplicates of small integers add up without overflow.
    matrix: sparse.csr_array[Any, tuple[int, int]] = sparse.csr_array(
        adjacency.astype(dtype, copy=True)
    )
    matrix.sum_duplicates()
    return matrix


def _above_diagonal(matrix: NDArray[np.floating] | sparse.csr_array) -> sparse.csr_array:
    """The non-zero entries above the diagonal."""
    from scipy import sparse

    if not isinstance(matrix, np.ndarray):
        upper = sparse.csr_array(sparse.triu(matrix, k=1))
        upper.eliminate_zeros()
        return canonical_csr(upper)
    # scipy's conversion of a dense matrix first lists rows and columns as int64.
    triangle = np.triu(matrix, 1)
    there = triangle != 0
    indptr = np.concatenate([[0], np.cumsum(np.count_nonzero(there, axis=1))])
    index = np.int32 if indptr[-1] <= np.iinfo(np.int32).max else np.int64
    columns = np.broadcast_to(np.arange(matrix.shape[1], dtype=index), there.shape)
    made = sparse.csr_array(
        (triangle[there], columns[there], indptr.astype(index)), shape=matrix.shape
    )
    return canonical_csr(made)


def _between(
    layers: Sequence[tuple[str, int]], upper: sparse.csr_array
) -> Iterator[tuple[int, int, Weights, str]]:
    """The blocks for `build_graph` from the entries of an adjacency matrix above its diagonal."""
    ends = np.cumsum([size for _, size in layers])
    for source, (name, size) in enumerate(layers):
        rows = upper[ends[source] - size : ends[source]]
        targets = np.unique(np.searchsorted(ends, rows.indices, side="right"))
        for target in targets.tolist():
            other, width = layers[target]
            block = rows[:, ends[target] - width : ends[target]]
            yield source, target, block, f"{name} - {other}"
