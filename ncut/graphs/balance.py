"""The unique rescaling of a network that equalizes each neuron's incoming and outgoing norms."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ncut.graphs.row_sums import PowerSums, unit_of

if TYPE_CHECKING:
    from ncut.graphs.data import GraphData

    Vector = NDArray[np.float64]

TOLERANCE = 1e-9
"""Largest |log(incoming / outgoing norm)| of a balanced neuron, in double precision."""

MAX_SWEEPS = 1000
"""Largest number of sweeps; balancing needs about ten."""

MAX_STEP = 2.0
"""Largest change of log c^2 in one Newton step, and the imbalance below which steps are tried."""

MAX_PRODUCTS = 200
"""Largest number of products with the Hessian in one Newton step."""

ROUNDING = 1e-12
"""A sum of squares that is larger by only this share counts as not larger."""


class _Sums(NamedTuple):
    """Squared weights into and out of each vertex, and of all edges, at some scale."""

    into: Vector
    out_of: Vector
    total: float


class Balance:
    """Minimizes the sum of squares S_ij g_j / g_i of a graph's weights over g = c^2.

    The sum is over the edges on paths between vertices with fixed g, that is, the edges that affect
    the network's function. It is convex in log g, and at its minimum each vertex has in = out;
    because of the paths, the minimum exists and is unique. There the squares form a flow that
    enters and leaves at fixed vertices, so the Hessian is that of a random walk that ends after as
    many steps as there are layers, and is well conditioned.

    Block descent (the layers in turn, each solved exactly: g = sqrt(out / in)) always converges,
    though slowly for deep networks. A Newton step after each sweep, kept if it lowers the sum,
    makes it fast.
    """

    def __init__(self, graph: GraphData, layers: Collection[int]) -> None:
        unit = unit_of(graph)
        self._graph, self._unit = graph, unit
        self._slices = {at: graph.layers[at].slice for at in layers}
        self._powers = [
            (
                block.source,
                block.target,
                PowerSums(
                    block.weights,
                    2,
                    unit,
                    keep=block.source in self._slices and block.target in self._slices,
                ),
            )
            for block in graph.blocks
        ]
        self._links = [
            link for link in self._powers if link[0] in self._slices and link[1] in self._slices
        ]
        self._fed, self._heard = self._reached()
        self._free = self._fed & self._heard
        self._fixed_into = np.zeros(graph.n_vertices)
        self._fixed_out = np.zeros(graph.n_vertices)
        for source, target, powers in self._powers:
            here, there = graph.layers[source].slice, graph.layers[target].slice
            if target in self._slices and source not in self._slices:
                self._fixed_into[there] += powers.into(np.ones(graph.layers[source].size))
            if source in self._slices and target not in self._slices:
                self._fixed_out[here] += powers.out_of(np.ones(graph.layers[target].size))
        for position in range(len(graph.layers)):
            if position not in self._slices:
                self._free[graph.layers[position].slice] = False

    def _reached(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Mark the vertices with a path to a vertex of fixed g, backwards and forwards."""
        layers = self._graph.layers
        fed = np.ones(self._graph.n_vertices, dtype=np.bool_)
        heard = fed.copy()
        for here in self._slices.values():
            fed[here] = heard[here] = False
        for at, here in self._slices.items():
            for source, target, powers in self._powers:
                if target == at:
                    fed[here] |= powers.into(fed[layers[source].slice].astype(np.float64)) > 0
        for at, here in reversed(self._slices.items()):
            for source, target, powers in self._powers:
                if source == at:
                    heard[here] |= powers.out_of(heard[layers[target].slice].astype(float)) > 0
        return fed, heard

    def with_dead_neurons(self, g: Vector) -> Vector:
        """g, completed for the neurons without a path to the network's input or to its output.

        The network's function does not depend on these neurons. Without inputs, their outgoing
        weights get a norm of 1; without readers, their incoming weights do; neurons with neither
        stay unchanged.
        """
        layers, unit = self._graph.layers, self._unit
        settled = np.ones(g.size)
        for here in self._slices.values():
            settled[here] = self._free[here]
        for at, here in reversed(self._slices.items()):
            sums = np.zeros(layers[at].size)
            for source, target, powers in self._powers:
                if source == at:
                    there = layers[target].slice
                    sums += powers.out_of(g[there] * settled[there])
            value = sums * unit * unit
            chosen = self._heard[here] & ~self._fed[here] & (value > 0) & (value < np.inf)
            g[here] = np.where(chosen, value, g[here])
            settled[here] += chosen
        for at, here in self._slices.items():
            sums = np.zeros(layers[at].size)
            for source, target, powers in self._powers:
                if target == at:
                    there = layers[source].slice
                    sums += powers.into(settled[there] / g[there])
            value = 1 / (sums * unit * unit)
            chosen = ~self._heard[here] & (value > 0) & (value < np.inf)
            g[here] = np.where(chosen, value, g[here])
            settled[here] += chosen
        return g

    def solve(self) -> Vector:
        """g, to an imbalance of TOLERANCE or the best within MAX_SWEEPS."""
        g = np.ones(self._free.size)
        for _ in range(MAX_SWEEPS):
            self._sweep(g)
            sums = self._sums(g)
            imbalance = self._imbalance(sums)
            if not imbalance > TOLERANCE:
                break
            if imbalance > MAX_STEP:
                continue
            step = self._newton_step(g, sums, imbalance)
            trial = g * np.exp(step * min(1.0, MAX_STEP / np.abs(step).max()))
            trial_sums = self._sums(trial)
            if trial_sums.total <= sums.total * (1 + ROUNDING):
                g = trial
                if not self._imbalance(trial_sums) > TOLERANCE:
                    break
        return g

    def _sweep(self, g: Vector) -> None:
        """Balance the layers one after the other."""
        free = self._free.astype(np.float64)
        for position, here in self._slices.items():
            into, out_of = self._fixed_into[here].copy(), self._fixed_out[here].copy()
            for source, target, powers in self._links:
                if target == position:
                    into += powers.into(free[self._slices[source]] / g[self._slices[source]])
                elif source == position:
                    out_of += powers.out_of(free[self._slices[target]] * g[self._slices[target]])
            g[here] = np.where(self._free[here], np.sqrt(out_of / into), 1.0)

    def _flows(self, g: Vector, x: Vector) -> tuple[Vector, Vector]:
        """Sums of S_ij g_j / g_i over links: times x_i into each j, times x_j out of each i."""
        into, out_of = np.zeros(g.size), np.zeros(g.size)
        for source, target, powers in self._links:
            here, there = self._slices[source], self._slices[target]
            into[there] += powers.into(x[here] / g[here]) * g[there]
            out_of[here] += powers.out_of(x[there] * g[there]) / g[here]
        return into, out_of

    def _sums(self, g: Vector) -> _Sums:
        free = self._free.astype(np.float64)
        into, out_of = self._flows(g, free)
        into = free * (into + self._fixed_into * g)
        leaving = free * self._fixed_out / g
        out_of *= free
        return _Sums(into, out_of + leaving, float(into.sum() + leaving.sum()))

    def _imbalance(self, sums: _Sums) -> float:
        """Largest |log(incoming / outgoing norm)|."""
        logs = np.log(sums.into[self._free] / sums.out_of[self._free])
        return float(np.abs(logs).max(initial=0.0) / 2)

    def _newton_step(self, g: Vector, sums: _Sums, imbalance: float) -> Vector:
        """The change of log g that solves H step = -gradient, by conjugate gradients.

        Source: Nocedal and Wright (2006), Numerical optimization, algorithm 7.1 (the Hessian is
        positive definite: no test for negative curvature).
        """
        diagonal = np.where(self._free, sums.into + sums.out_of, 1.0)
        residual = np.where(self._free, sums.out_of - sums.into, 0.0)
        step = np.zeros(g.size)
        direction = residual / diagonal
        size = first = _dot(residual, direction)
        for _ in range(MAX_PRODUCTS):
            into, out_of = self._flows(g, direction)
            image = np.where(self._free, diagonal * direction - into - out_of, 0.0)
            length = size / _dot(direction, image)
            step += length * direction
            residual -= length * image
            scaled = residual / diagonal
            before, size = size, _dot(residual, scaled)
            # Accurate enough for quadratic convergence, as with an exact step.
            if not size > first * min(0.1, imbalance) ** 2:
                break
            direction = scaled + (size / before) * direction
        return step


def _dot(x: Vector, y: Vector) -> float:
    return float((x * y).sum())
