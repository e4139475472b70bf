"""Lowering the normalized cut by moving single vertices, the moves of a layer all at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ncut.device import cut
from ncut.device.cut import indicators
from ncut.device.devices import astype
from ncut.device.graph import DeviceGraph

LEAST_GAIN = 1e-12
"""What a step must lower the n-cut by, so that rounding errors cannot make it cycle."""


def refine(graph: DeviceGraph, labels: Any, k: int, max_passes: int) -> Any:
    """Labels with a normalized cut as low or lower, device int32, shape (n,).

    Vertices of a layer without edges inside it see nothing of each other's moves but the clusters'
    totals, and those add up: what the n-cut is after the first, the first two, ... of a list of
    moves is known exactly from running sums. Each step evaluates the best move of every vertex of
    a layer, puts them in order of what they gain alone, and makes those up to where the n-cut is
    lowest. In a layer with edges inside it, half as many moves are tried until the n-cut falls.

    The CPU's refinement makes one move after the other; both end where no single move lowers the
    n-cut, most often in different partitions.

    Parameters
    ----------
    graph : DeviceGraph
        Without isolated vertices.
    labels : device array of int32, shape (n,)
        Clusters from 0 to k - 1.
    k : int
    max_passes : int
        How often to look at all layers, at most.
    """
    state = _State(graph, labels, k)
    unchanged = 0
    for _ in range(max_passes):
        for number in range(len(graph.layers)):
            unchanged = 0 if state.improve(number) else unchanged + 1
            if unchanged >= len(graph.layers):
                return state.labels()
    return state.labels()


@dataclass(slots=True)
class _Totals:
    """Of each cluster: weight inside it (both directions), degrees, number of vertices."""

    inside: Any
    volume: Any
    size: Any

    def shares(self, xp: Any) -> Any:
        """inside / volume; the n-cut is k less their sum."""
        positive = self.volume > 0
        ones = xp.ones_like(self.volume)
        quotient = self.inside / xp.where(positive, self.volume, ones)
        return xp.where(positive, quotient, xp.zeros_like(self.volume))


class _State:
    """A partition, with the weight between each vertex and each cluster kept up to date."""

    def __init__(self, graph: DeviceGraph, labels: Any, k: int) -> None:
        self.graph, self.k = graph, k
        self.device, self.xp = graph.device, graph.device.xp
        self.members = indicators(self.device, labels, k, self.xp.float64)
        self.links = cut.links(graph, labels, k)
        self.inner = {block.source for block in graph.blocks if block.source == block.target}
        self.totals = self._summed(self.links, self.members)

    def labels(self) -> Any:
        return astype(self.xp.argmax(self.members, axis=1), self.xp.int32, self.xp)

    def improve(self, number: int) -> bool:
        """Make the best moves of a layer's vertices; whether there were any."""
        xp, rows = self.xp, self.graph.layers[number].slice
        change, gain = self._best_moves(rows)
        order = xp.argsort(-gain)
        after = self._after(change, rows, order)
        score = self._scores(after)
        now = xp.sum(self.totals.shares(xp))
        best = xp.argmax(score)
        found = self.device.to_host(xp.stack([xp.max(score) - now, astype(best, xp.float64, xp)]))
        if not found[0] > LEAST_GAIN:
            return False
        count = int(found[1]) + 1
        rank = xp.argsort(order)
        if number not in self.inner:
            self._move(number, self._first(change, rank, count))
            return True
        while count:
            moves = self._first(change, rank, count)
            if self._move(number, moves, better_than=float(self.device.to_host(now))):
                return True
            count //= 2
        return False

    def _best_moves(self, rows: slice) -> tuple[Any, Any]:
        """The best move of each vertex, -1 where it leaves and 1 where it goes, and its gain."""
        xp, totals = self.xp, self.totals
        links, members = self.links[rows, :], self.members[rows, :]
        degree = self.graph.degrees[rows][:, None]
        shares = totals.shares(xp)[None, :]
        own = members > 0
        zeros = xp.zeros_like(links)

        def of_own(values: Any) -> Any:
            return xp.sum(xp.where(own, values, zeros), axis=1)

        left = totals.volume[None, :] - degree
        rest = (totals.inside[None, :] - 2 * links) / xp.where(left > 0, left, xp.ones_like(left))
        lost = of_own(shares - xp.where(left > 0, rest, zeros))
        won = (totals.inside[None, :] + 2 * links) / (totals.volume[None, :] + degree) - shares
        won = xp.where(own, xp.full_like(won, -xp.inf), won)
        gain = xp.max(won, axis=1) - lost
        alone = of_own(totals.size[None, :] + zeros) < 2
        stays = (gain <= LEAST_GAIN) | alone
        there = indicators(self.device, xp.argmax(won, axis=1), self.k, xp.float64)
        change = xp.where(stays[:, None], zeros, there - members)
        return change, xp.where(stays, xp.zeros_like(gain), gain)

    def _after(self, change: Any, rows: slice, order: Any) -> _Totals:
        """The clusters' totals after each move in order, arrays of shape (moves, k)."""
        xp, totals = self.xp, self.totals

        def running(values: Any, start: Any) -> Any:
            return start[None, :] + _cumulated(xp.take(values, order, axis=0), xp)

        return _Totals(
            inside=running(2 * change * self.links[rows, :], totals.inside),
            volume=running(change * self.graph.degrees[rows][:, None], totals.volume),
            size=running(change, totals.size),
        )

    def _scores(self, after: _Totals) -> Any:
        """The sum of shares after each move; minus infinity where it empties a cluster."""
        xp = self.xp
        score = xp.sum(after.shares(xp), axis=1)
        emptied = xp.any((after.size < 0.5) & (self.totals.size > 0.5)[None, :], axis=1)
        return xp.where(emptied, xp.full_like(score, -xp.inf), score)

    def _first(self, change: Any, rank: Any, count: int) -> Any:
        """The first `count` moves, others left out."""
        return self.xp.where((rank < count)[:, None], change, self.xp.zeros_like(change))

    def _move(self, number: int, moves: Any, better_than: float | None = None) -> bool:
        """Make moves in a layer, unless the sum of shares is not `better_than` that."""
        xp, rows = self.xp, self.graph.layers[number].slice
        members, links = self.members + 0.0, self.links + 0.0  # copies
        members[rows, :] = members[rows, :] + moves
        self.graph.multiply(moves, {number: 0}, links, self.graph.starts)
        totals = self._summed(links, members)
        if better_than is not None:
            score = self.device.to_host(xp.sum(totals.shares(xp)))
            if not float(score) > better_than + LEAST_GAIN:
                return False
        self.links, self.members, self.totals = links, members, totals
        return True

    def _summed(self, links: Any, members: Any) -> _Totals:
        xp = self.xp
        return _Totals(
            inside=xp.sum(links * members, axis=0),
            volume=xp.sum(self.graph.degrees[:, None] * members, axis=0),
            size=xp.sum(members, axis=0),
        )


def _cumulated(values: Any, xp: Any) -> Any:
    """Running sums over the rows; the standard's name is younger than NumPy's."""
    cumulative = getattr(xp, "cumulative_sum", None) or xp.cumsum
    return cumulative(values, axis=0)
