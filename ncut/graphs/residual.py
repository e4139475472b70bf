"""Sinkhorn residuals: the part of a network's weights that no rescaling of neurons changes.

A block W = R S C with positive diagonal R and C has exactly one such S whose every row and column
has a mean of 1 over its edges, for any positions of its zeros, since the pattern itself has such
sums. Rescaling neurons, or any single row or column, changes only R and C.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ncut import kernels
from ncut.errors import InputError
from ncut.graphs.row_sums import same_places
from ncut.graphs.scale import brought_into_range
from ncut.graphs.scratch import in_scratch_file

if TYPE_CHECKING:
    from ncut.graphs.data import G
    from ncut.types import Block, Weights

TOLERANCE = 1e-12
"""Largest deviation of a row's or column's mean from 1 at which the scaling ends."""

ACCEPTED = 1e-6
"""Largest accepted deviation if it cannot be reduced further."""

MAX_SWEEPS = 30
"""Number of alternating scalings of rows and columns before Newton's method takes over."""


def residual_graph(graph: G) -> G:
    """The graph of the Sinkhorn residuals of its blocks, without ineffective neurons.

    Neurons of hidden layers without incoming or without outgoing weights lose their other weights,
    since the output does not depend on them.

    Returns
    -------
    NeuronGraph
        Weights with a mean of 1 along every row and every column of each block (along all edges
        of a vertex in a block inside one layer), float64 where the block's are, else float32.

    Raises
    ------
    InputError
        If the weights of a block differ too much to be scaled in double precision.

    Source: Sinkhorn and Knopp (1967), Concerning nonnegative matrices and doubly stochastic
    matrices; Rothblum and Schneider (1989), Scalings of matrices which have prespecified row sums
    and column sums, for existence and uniqueness.
    """
    graph = without_dead_ends(graph)
    blocks = tuple(
        replace(block, weights=in_scratch_file(_residual_of(block), graph.scratch))
        for block in graph.blocks
    )
    return brought_into_range(replace(graph, blocks=blocks, exponent=0))


def without_dead_ends(graph: G) -> G:
    """The graph without the weights of hidden neurons with weights on one side only."""
    n_layers = len(graph.layers)
    present: list[Any] = [_places(block.weights) for block in graph.blocks]
    alive = [np.ones(layer.size, dtype=bool) for layer in graph.layers]
    written = {b.target for b in graph.blocks if b.source != b.target}
    read = {b.source for b in graph.blocks if b.source != b.target}
    inside = {b.source for b in graph.blocks if b.source == b.target}
    hidden = (written & read) - inside
    while True:
        into = [np.zeros(layer.size) for layer in graph.layers]
        out_of = [np.zeros(layer.size) for layer in graph.layers]
        for block, places in zip(graph.blocks, present, strict=True):
            into[block.target] += alive[block.source].astype(np.float64) @ places
            out_of[block.source] += places @ alive[block.target].astype(np.float64)
        now = [
            alive[at] & (into[at] > 0) & (out_of[at] > 0) if at in hidden else alive[at]
            for at in range(n_layers)
        ]
        if all(np.array_equal(a, b) for a, b in zip(alive, now, strict=True)):
            break
        alive = now
    if all(one.all() for one in alive):
        return graph
    blocks = tuple(
        replace(block, weights=_only(block.weights, alive[block.source], alive[block.target]))
        for block in graph.blocks
    )
    if not any(_places(block.weights).sum() for block in blocks):
        raise InputError(
            "normalize: 'residual' leaves out neurons without incoming or outgoing weights, which "
            "removes all of this network"
        )
    return replace(graph, blocks=blocks)


def _places(weights: Any) -> Any:
    """The positions of the non-zero weights, in storage order."""
    return weights != 0


def _only(weights: Any, rows: NDArray[np.bool_], columns: NDArray[np.bool_]) -> Weights:
    """The weights of these rows and columns, zero elsewhere."""
    if rows.all() and columns.all():
        kept: Weights = weights
        return kept
    if isinstance(weights, np.ndarray):
        dense: Weights = weights * (rows[:, None] & columns).astype(weights.dtype)
        return dense
    entries = np.repeat(rows, np.diff(weights.indptr)) & columns[weights.indices]
    only = same_places(weights, weights.data * entries)
    only = only.copy()
    only.eliminate_zeros()
    made: Weights = only
    return made


def _residual_of(block: Block) -> Weights:
    weights: Any = block.weights
    narrow = np.float64 if weights.dtype == np.float64 else np.float32
    if isinstance(weights, np.ndarray):
        inside = block.source == block.target
        dense: Weights = residual(weights.astype(np.float64), inside, block.name).astype(narrow)
        return dense
    scaled = residual(same_places(weights, weights.data.astype(np.float64)),
                      block.source == block.target, block.name)  # fmt: skip
    made: Weights = same_places(weights, scaled.data.astype(narrow))
    return made


def residual(matrix: Any, within_layer: bool = False, name: str = "") -> Any:
    """The residual of a matrix (dense or CSR, float64, not negative), zeros in the same places.

    within_layer: whether it is the upper triangle of a symmetric matrix.
    """
    values = matrix if isinstance(matrix, np.ndarray) else matrix.data
    largest = float(values.max()) if values.size else 0.0
    if not largest > 0:
        return matrix
    values = values / largest
    matrix = values if isinstance(matrix, np.ndarray) else same_places(matrix, values)
    n_rows = matrix.shape[0]
    x, deviation = kernels.sinkhorn(
        matrix, triangle=within_layer, tolerance=TOLERANCE, max_sweeps=MAX_SWEEPS
    )
    if not deviation <= ACCEPTED:
        raise InputError(
            f"normalize: 'residual' cannot scale the weights of layer {name!r}, which differ by "
            f"too many orders of magnitude (means of rows and columns are still off by "
            f"{deviation:.1g})"
        )
    left, right = (x, x) if within_layer else (x[:n_rows], x[n_rows:])
    if isinstance(matrix, np.ndarray):
        matrix *= left[:, None]
        matrix *= right
        return matrix
    data = matrix.data * right[matrix.indices] * np.repeat(left, np.diff(matrix.indptr))
    return same_places(matrix, data)
