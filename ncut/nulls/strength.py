"""Shuffled weights scaled so that every neuron keeps the sums that it has in the network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ncut.errors import InputError

if TYPE_CHECKING:
    from ncut.types import Block, Weights

TOLERANCE = 1e-6
"""Largest relative deviation of a sum at which the scaling ends."""

ACCEPTED = 1e-3
"""Largest relative deviation that is accepted when MAX_SWEEPS are over."""

MAX_SWEEPS = 2000

DOUBLE_ENTRIES = 2**24
"""Larger dense blocks are scaled in their own precision, to save memory."""

Vector = NDArray[np.floating]


def with_strengths_of(block: Block, shuffled: Weights) -> Weights:
    """Shuffled weights with the row and column sums of a block's own, zeros in the same places.

    Rows and columns are multiplied by factors in turn (iterative proportional fitting). As the
    block itself has these sums and these zeros, such factors exist, and the sums converge.

    Raises
    ------
    InputError
        If they are still off by more than ACCEPTED after MAX_SWEEPS.

    Source: Sinkhorn and Knopp (1967), Concerning nonnegative matrices and doubly stochastic
    matrices; Rothblum and Schneider (1989), Scalings of matrices which have prespecified row sums
    and column sums, for existence.
    """
    dense = isinstance(shuffled, np.ndarray)
    wide = not dense or shuffled.size <= DOUBLE_ENTRIES
    matrix = shuffled.astype(np.float64 if wide else np.result_type(np.float32, shuffled.dtype))
    sums = [wanted.astype(matrix.dtype) for wanted in _strengths(block, block.weights)]
    tolerance = TOLERANCE if matrix.dtype == np.float64 else 100 * TOLERANCE
    if block.source == block.target:
        rows, deviation = _symmetric_factors(matrix, sums[0], tolerance)
        columns = rows
    else:
        rows, columns, deviation = _factors(matrix, sums[0], sums[1], tolerance)
    if not deviation <= ACCEPTED:
        raise InputError(
            f"null: 'strength' cannot restore the sums of layer {block.name!r} (still off by "
            f"{deviation:.1g} after {MAX_SWEEPS} sweeps); use 'layer-nonzero'"
        )
    narrow = np.float64 if block.weights.dtype == np.float64 else np.float32
    scaled: Weights = _scaled(matrix, rows, columns, narrow)
    return scaled


def _strengths(block: Block, weights: Any) -> list[Vector]:
    """Sums of the rows and of the columns; inside a layer, where these are one, their sum."""
    rows, columns = (
        np.asarray(weights.sum(axis=axis, dtype=np.float64)).ravel() for axis in (1, 0)
    )
    return [rows + columns] if block.source == block.target else [rows, columns]


def _factors(
    matrix: Any, row_sums: Vector, column_sums: Vector, tolerance: float
) -> tuple[Vector, Vector, float]:
    """Factors of rows and columns, and the deviation of the sums that is left."""
    rows, deviation = np.ones_like(row_sums), np.inf
    for _ in range(MAX_SWEEPS):
        # The columns come first, so that their sums are right wherever this ends.
        columns = _quotient(column_sums, rows @ matrix)
        weighted = matrix @ columns
        deviation = _deviation(rows * weighted, row_sums)
        if deviation <= tolerance:
            break
        rows = _quotient(row_sums, weighted)
    return rows, columns, deviation


def _symmetric_factors(matrix: Any, wanted: Vector, tolerance: float) -> tuple[Vector, float]:
    """One factor for each vertex, for the upper triangle of a symmetric matrix."""
    factors = np.ones_like(wanted)
    deviation = np.inf
    for _ in range(MAX_SWEEPS):
        sums = factors * (matrix @ factors + factors @ matrix)
        deviation = _deviation(sums, wanted)
        if deviation <= tolerance:
            break
        factors = factors * np.sqrt(_quotient(wanted, sums))
    return factors, deviation


def _deviation(found: Vector, wanted: Vector) -> float:
    return float(np.abs(_quotient(found, wanted) - 1).max(initial=0.0))


def _quotient(above: Vector, below: Vector) -> Vector:
    """Their quotient, and 1 for the rows and columns without weights."""
    return np.divide(above, below, out=np.ones_like(above), where=below > 0)


def _scaled(matrix: Any, rows: Vector, columns: Vector, dtype: Any) -> Any:
    """The weights times the factors, those too small for the type kept just above zero."""
    least = np.finfo(dtype).tiny
    if isinstance(matrix, np.ndarray):
        nonzero = matrix > 0
        matrix *= rows[:, None]
        matrix *= columns
        return np.maximum(matrix, least, out=matrix, where=nonzero).astype(dtype)
    data = matrix.data * columns[matrix.indices]
    data *= np.repeat(rows, np.diff(matrix.indptr))
    data = np.maximum(data, least).astype(dtype)
    return type(matrix)((data, matrix.indices, matrix.indptr), shape=matrix.shape)
