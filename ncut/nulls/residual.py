"""The null model of weights that are exchangeable after removal of the scales of neurons.

Its networks have the Sinkhorn residuals of each block rearranged by trades. The scales of rows and
columns carry the least information on the arrangement if the residuals' powers x^p are traded with
their sums in bins, for the p at which the sums are efficient estimates of the scales: the minimum
of CV(x^p)^2 / p^2 (2 for normal weights, small for heavy tails, large for uniform weights).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from ncut.graphs import NeuronGraph
from ncut.graphs.residual import residual
from ncut.graphs.row_sums import same_places
from ncut.nulls.trades import Bins, Places, TradingNull, Vector, places_of, with_values

if TYPE_CHECKING:
    from ncut.types import Block, Weights

WIDTH = 0.5
"""Width of a bin of sums, in standard deviations of a block's powers."""

EXPONENTS = np.geomspace(0.1, 8.0, 45)


class Residual(TradingNull):
    """Residuals exchanged between neurons with sums of their powers kept, and rescaled."""

    normalize = "residual"

    def __init__(self, graph: NeuronGraph, seed: int) -> None:
        super().__init__(graph.normalized("residual").without_isolated()[0], seed)
        self._exponents: dict[int, float] = {}
        self._places: dict[int, Any] = {}

    def start(self, block: Block, substream: int) -> tuple[Places, Vector, Bins]:
        places, values = places_of(block)
        p = efficient_exponent(values)
        self._exponents[id(block)] = p
        shape = (places.indptr.size - 1, places.n_cols)
        matrix = sparse.csr_array((values**p, places.indices, places.indptr), shape=shape)
        self._places[id(block)] = same_places(matrix, np.empty(0))
        powers: Vector = residual(matrix, places.triangle).data
        width = WIDTH * float(powers.std()) if powers.size else 0.0
        rows, columns = (
            np.stack([sums - width / 2, sums + width / 2]) for sums in places.sums(powers)
        )
        return places, powers, (rows, columns)

    def made(self, block: Block, places: Places, values: Vector) -> Weights:
        # A power of a matrix with scaled rows and columns is the power with scaled rows and
        # columns.
        again = values ** (1 / self._exponents[id(block)])
        scaled = residual(same_places(self._places[id(block)], again), places.triangle)
        return with_values(block, scaled.data)


def efficient_exponent(values: Vector) -> float:
    """The p at which sums of x^p best estimate scales of rows and columns; positive values."""
    if values.size < 2:
        return 1.0
    logs = np.log(values)
    powers = np.exp(EXPONENTS[:, None] * (logs - logs.max()))
    spread = powers.std(axis=1) / powers.mean(axis=1) / EXPONENTS
    return float(EXPONENTS[np.argmin(spread)])
