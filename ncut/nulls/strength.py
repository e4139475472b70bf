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
    dtype = np.dtype(np.float64) if wide else np.result_type(np.float32, shuffled.dtype)
    original, matrix = block.weights.astype(dtype), shuffled.astype(dtype)
    if block.source == block.target:
        factors, deviation = _symmetric_factors(matrix, original)
        rows = columns = factors
    else:
        rows, columns, deviation = _factors(matrix, original)
    if not deviation <= ACCEPTED:
        raise InputError(
            f"null: 'strength' cannot restore the sums of block {block.name!r} (still off by "
            f"{deviation:.1g} after {MAX_SWEEPS} sweeps); use 'layer-nonzero'"
        )
    narrow = np.float64 if block.weights.dtype == np.float64 else np.float32
    scaled: Weights = _scaled(matrix, rows, columns, narrow)
    return scaled


def strength_deviation(block: Block, shuffled: Weights) -> float:
    """Largest relative difference between a row or column sum of the block and of `shuffled`."""
    deviations = [
        _deviation(_sums(shuffled.astype(np.float64), axis), _sums(block.weights, axis))
        for axis in (0, 1)
    ]
    return max(deviations)


def _factors(matrix: Any, original: Any) -> tuple[Vector, Vector, float]:
    """Factors of rows and columns, and the deviation of the sums that is left."""
    row_sums, column_sums = _sums(original, 1), _sums(original, 0)
    rows, columns = np.ones_like(row_sums), np.ones_like(column_sums)
    tolerance = TOLERANCE if matrix.dtype == np.float64 else 100 * TOLERANCE
    deviation = np.inf
    for _ in range(MAX_SWEEPS):
        weighted = matrix @ columns
        deviation = _deviation(rows * weighted, row_sums)
        if deviation <= tolerance:
            break
        rows = _quotient(row_sums, weighted)
        columns = _quotient(column_sums, rows @ matrix)
    return rows, columns, deviation


def _symmetric_factors(matrix: Any, original: Any) -> tuple[Vector, float]:
    """One factor for each vertex, for the upper triangle of a symmetric matrix."""
    wanted = _sums(original, 0) + _sums(original, 1)
    factors = np.ones_like(wanted)
    deviation = np.inf
    for _ in range(MAX_SWEEPS):
        sums = factors * (matrix @ factors + factors @ matrix)
        deviation = _deviation(sums, wanted)
        if deviation <= TOLERANCE:
            break
        factors = factors * np.sqrt(_quotient(wanted, sums))
    return factors, deviation


def _sums(matrix: Any, axis: int) -> Vector:
    return np.asarray(matrix.sum(axis=axis)).ravel()


def _deviation(found: Vector, wanted: Vector) -> float:
    return float(np.abs(_quotient(found, wanted) - 1).max(initial=0.0))


def _quotient(above: Vector, below: Vector) -> Vector:
    """Their quotient, and 1 for the rows and columns without weights."""
    return np.divide(above, below, out=np.ones_like(above), where=below > 0)


def _scaled(matrix: Any, rows: Vector, columns: Vector, dtype: Any) -> Any:
    if isinstance(matrix, np.ndarray):
        matrix *= rows[:, None]
        matrix *= columns
        return matrix.astype(dtype)
    data = matrix.data * columns[matrix.indices]
    data *= np.repeat(rows, np.diff(matrix.indptr))
    return type(matrix)((data.astype(dtype), matrix.indices, matrix.indptr), shape=matrix.shape)
