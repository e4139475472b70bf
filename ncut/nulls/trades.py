"""Shuffled networks exchangeable with the network, given its weights and binned sums.

If the weights of a block have a density proportional to f(w) exp(-(a_i + b_j) w), for any f and any
effects a of its rows and b of its columns, then all arrangements are equally likely given the
multiset of weights and the sums of rows and columns. Real weights have only one arrangement with
exactly these sums, so the test conditions on the bins of a grid that contain the sums; it stays
exact for exchangeable weights (a = b = 0) at any width of the bins.

Arrangements are drawn by a chain of trades (csrc/trade.hpp). It runs from the network to a hub, and
from the hub once for each shuffle. The chain is reversible, so the network and its shuffles are
exchangeable however well the chain mixes: too few trades cost power, never validity.

Source: Besag and Clifford (1989), Generalized Monte Carlo significance tests, for the hub.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ncut import kernels
from ncut.graphs.row_sums import same_places
from ncut.nulls.base import Null, shuffle_key, substreams, with_weights
from ncut.randomness import NETWORK, Purpose, random_stream

if TYPE_CHECKING:
    from ncut.graphs import NeuronGraph
    from ncut.types import Block, Weights

SWEEPS = 10
"""Mean number of rounds of trades along rows, and along columns, to the hub and back."""

STUCK = 0.3
"""From this correlation with the network on, a warning names a layer as hardly moved."""

Vector = NDArray[np.float64]
Bins = tuple[Vector, Vector]


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Positions of a block's non-zero weights: a CSR matrix without its values.

    Attributes
    ----------
    indptr, indices : ndarray of int64, shapes (n_rows + 1,) and (m,)
    n_cols : int
    triangle : bool
        Whether the matrix is the strict upper triangle of a symmetric one.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.int64]
    n_cols: int
    triangle: bool

    def sums(self, values: Vector) -> tuple[Vector, Vector]:
        """Sums of the rows and of the columns; with `triangle` the vertices' sums, twice."""
        n_rows = self.indptr.size - 1
        rows: Vector = np.bincount(self.rows, values, minlength=n_rows).astype(np.float64)
        columns: Vector = np.bincount(self.indices, values, minlength=self.n_cols).astype(
            np.float64
        )
        return (rows + columns, rows + columns) if self.triangle else (rows, columns)

    @property
    def rows(self) -> NDArray[np.int64]:
        """The row of each value."""
        return np.repeat(np.arange(self.indptr.size - 1), np.diff(self.indptr))

    def traded(
        self, values: Vector, bins: Bins, seed: int, key: int, substream: int, sweeps: int = SWEEPS
    ) -> Vector:
        """The values after trades; the given values are not changed."""
        found = values.copy()
        kernels.trade(
            *(self.indptr, self.indices, self.n_cols, found, bins),
            triangle=self.triangle,
            halves=sweeps if self.triangle else 2 * sweeps,
            seed=seed,
            stream=key,
            substream=substream,
        )
        return found


def places_of(block: Block) -> tuple[Places, Vector]:
    """Positions and values of a block's non-zero weights, in double precision."""
    weights: Any = block.weights
    within = block.source == block.target
    if isinstance(weights, np.ndarray):
        present = np.asarray(weights != 0)
        counts, columns = present.sum(axis=1), np.nonzero(present)[1]
        values = weights[present]
    else:
        if (weights.data == 0).any():
            weights = weights.copy()
            weights.eliminate_zeros()
        counts, columns, values = np.diff(weights.indptr), weights.indices, weights.data
    indptr = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    places = Places(indptr, columns.astype(np.int64), weights.shape[1], within)
    return places, np.ascontiguousarray(values, dtype=np.float64)


def with_values(block: Block, values: Vector) -> Weights:
    """The block's weights with other values at its non-zero positions, in the block's type."""
    weights: Any = block.weights
    if isinstance(weights, np.ndarray):
        changed = weights.copy()
        changed[np.asarray(weights != 0)] = values.astype(weights.dtype)
        return changed
    data = weights.data.copy()
    data[weights.data != 0] = values.astype(data.dtype)
    made: Weights = same_places(weights, data)
    return made


def grid_bins(sums: Vector, width: float, offsets: Vector) -> Vector:
    """The bins of a grid that hold the sums: lower and upper limits, shape (2, n).

    offsets: origin of each line's grid, in units of the width.
    """
    if not width > 0:
        return np.stack([sums, sums])
    number = np.floor(sums / width + offsets)
    return np.stack([(number - offsets) * width, (number + 1 - offsets) * width])


def rank_correlation(places: Places, one: Vector, other: Vector) -> float:
    """Similarity of arrangements beyond the effects of rows and columns, from 0 to 1.

    The correlation of ranks after subtracting the mean of each row and then of each column.
    """
    from scipy.stats import rankdata

    def centred(values: Vector) -> Vector:
        ranks = rankdata(values)
        for lines, n in ((places.rows, places.indptr.size - 1), (places.indices, places.n_cols)):
            count = np.maximum(np.bincount(lines, minlength=n), 1)
            ranks = ranks - (np.bincount(lines, ranks, minlength=n) / count)[lines]
        return ranks

    a, b = centred(one), centred(other)
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return max(0.0, float(a @ b) / norm) if norm > 1e-9 * max(one.size, 1) else 1.0


class TradingNull(Null):
    """A null model by trades, from a hub shared by all shuffles of a seed."""

    def __init__(self, graph: NeuronGraph, seed: int) -> None:
        super().__init__(graph, seed)
        self._lock = threading.Lock()
        self._hubs: list[tuple[Places, Vector, Bins]] | None = None
        self._correlations: list[float] = []

    def start(self, block: Block, substream: int) -> tuple[Places, Vector, Bins]:
        """The traded values of a block, and the bins of its sums."""
        raise NotImplementedError

    def made(self, block: Block, places: Places, values: Vector) -> Weights:
        """A block's weights from traded values at their positions."""
        del places
        return with_values(block, values)

    def shuffle(self, number: int) -> NeuronGraph:
        key = shuffle_key(number)
        return with_weights(
            self.graph,
            [
                self.made(block, places, places.traded(hub, bins, self.seed, key, substream))
                for block, substream, (places, hub, bins) in zip(
                    self.graph.blocks, substreams(self.graph), self._at_hub(), strict=True
                )
            ],
        )

    def notes(self) -> list[str]:
        self._at_hub()
        stuck = [
            f"{block.name or number} ({moved:.2f})"
            for number, (block, moved) in enumerate(
                zip(self.graph.blocks, self._correlations, strict=True)
            )
            if moved > STUCK
        ]
        if not stuck:
            return []
        return [
            "null model: trades hardly move the weights of some layers (rank correlation with the "
            f"network: {', '.join(stuck)}); p stays exact, but has little power there"
        ]

    @property
    def correlation(self) -> float:
        """The largest rank correlation of a block's weights with its weights at the hub."""
        self._at_hub()
        return max(self._correlations, default=0.0)

    def _at_hub(self) -> list[tuple[Places, Vector, Bins]]:
        with self._lock:
            if self._hubs is None:
                key = random_stream(Purpose.SHUFFLE, NETWORK)
                hubs = []
                for block, substream in zip(self.graph.blocks, substreams(self.graph), strict=True):
                    places, values, bins = self.start(block, substream)
                    hub = places.traded(values, bins, self.seed, key, substream)
                    self._correlations.append(rank_correlation(places, values, hub))
                    hubs.append((places, hub, bins))
                self._hubs = hubs
            return self._hubs
