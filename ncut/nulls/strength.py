"""The null model that keeps every neuron's sums of incoming and of outgoing weights in bins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ncut.nulls.trades import Bins, Places, TradingNull, Vector, grid_bins, places_of
from ncut.randomness import NETWORK, Purpose, numpy_generator

if TYPE_CHECKING:
    from ncut.types import Block

WIDTH = 1.0
"""Width of a bin of sums, in standard deviations of a block's non-zero weights."""


class Strength(TradingNull):
    """The same weights, with each row's and column's sum kept in its bin of a grid.

    The grid of a line has a random origin, which depends only on the seed and the block.

    Sums are sufficient for effects a and b of rows and columns on weights of density
    f(w) exp(-(a + b) w), but not for factors: if neurons differ by factors, the test is not
    calibrated.
    """

    def notes(self) -> list[str]:
        return [
            "null='strength': p-values are too small on networks whose neurons differ in scale by "
            "factors, pruned ones above all, so that no conclusion rests on them; use 'residual', "
            "which is calibrated there",
            *super().notes(),
        ]

    def start(self, block: Block, substream: int) -> tuple[Places, Vector, Bins]:
        places, values = places_of(block)
        width = WIDTH * float(values.std()) if values.size else 0.0
        rng = numpy_generator(self.seed, Purpose.SHUFFLE, NETWORK, 1 + substream)
        rows, columns = (
            grid_bins(sums, width, rng.random(sums.size)) for sums in places.sums(values)
        )
        return places, values, (rows, columns)
