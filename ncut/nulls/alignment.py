"""The null model that re-pairs the neurons of neighbouring layers.

Each layer keeps its matrix, with its zeros; only the pairing of outgoing with incoming weights is
redrawn, on the Sinkhorn residuals, so the test is invariant under scales of neurons. If the rows of
outgoing residuals are exchangeable given the other layers, this is a permutation test, exact for
every distribution. It tests whether clusters run through the layers.

In pruned networks neurons with many incoming weights have many outgoing weights, and free pairing
would test this correlation. Neurons are therefore exchanged only with neurons that have similar
numbers of outgoing weights.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncut.errors import InputError
from ncut.graphs import NeuronGraph
from ncut.graphs.scratch import in_scratch_file
from ncut.nulls.base import Null
from ncut.randomness import Purpose, numpy_generator

SMALLEST_STRATUM = 8
N_STRATA = 8
"""Smallest number of neurons in a stratum, and largest number of strata."""


class Alignment(Null):
    """Outgoing rows of each hidden layer permuted, within strata of similar numbers of weights."""

    normalize = "residual"

    def __init__(self, graph: NeuronGraph, seed: int) -> None:
        super().__init__(graph.normalized("residual").without_isolated()[0], seed)
        self._strata = {at: strata(_counts(self.graph, at)) for at in hidden_layers(self.graph)}

    @staticmethod
    def check(graph: NeuronGraph) -> None:
        if graph.sums == "stream":
            raise InputError(
                "null: 'alignment' re-pairs incoming and outgoing weights of neurons, which are "
                "the same edges in a residual stream; read the model with residual='readers', or "
                "use 'residual'"
            )
        if any(block.source == block.target for block in graph.blocks):
            raise InputError(
                "null: 'alignment' pairs the incoming weights of neurons with other outgoing ones; "
                "edges inside one layer (of an adjacency matrix, or of a recurrent layer) have no "
                "direction, so use 'residual'"
            )
        hidden = hidden_layers(graph)
        if not hidden:
            raise InputError(
                "null: 'alignment' needs a layer with incoming and outgoing weights; this graph "
                "has none, so use 'residual'"
            )
        for at in hidden:
            before = {block.tie for block in graph.blocks if block.target == at and block.tie}
            after = {block.tie for block in graph.blocks if block.source == at and block.tie}
            if before & after:
                raise InputError(
                    "null: 'alignment' needs independent weights on the two sides of a layer, but "
                    f"those of layer {graph.layers[at].name!r} are copies of each other; use "
                    "'residual'"
                )

    def orders(self, number: int) -> dict[int, NDArray[np.intp]]:
        return {
            at: _within(groups, numpy_generator(self.seed, Purpose.SHUFFLE, number + 1, at))
            for at, groups in self._strata.items()
        }

    def shuffle(self, number: int) -> NeuronGraph:
        graph, blocks, orders = self.graph, [], self.orders(number)
        for block in graph.blocks:
            order = orders.get(block.source)
            if order is not None:
                weights = _rows(block.weights, order)
                block = replace(block, weights=in_scratch_file(weights, graph.scratch))
            blocks.append(block)
        return replace(graph, blocks=tuple(blocks))


def hidden_layers(graph: NeuronGraph) -> list[int]:
    """Positions of the layers that have blocks on both sides."""
    return sorted({b.target for b in graph.blocks} & {b.source for b in graph.blocks})


def strata(counts: NDArray[np.int64]) -> list[NDArray[np.intp]]:
    """Groups of neurons with similar numbers of weights; equal numbers share a group.

    The groups depend only on the numbers in each, which re-pairing within groups preserves;
    re-pairing is therefore a permutation test within fixed groups.
    """
    least = max(SMALLEST_STRATUM, counts.size // N_STRATA)
    order = np.argsort(counts, kind="stable")
    ordered = counts[order]
    groups: list[NDArray[np.intp]] = []
    first = 0
    for end in [*(np.flatnonzero(np.diff(ordered)) + 1).tolist(), counts.size]:
        if end - first >= least:
            groups.append(order[first:end])
            first = end
    if first < counts.size:
        rest = order[first:]
        groups = [*groups[:-1], np.concatenate([groups[-1], rest])] if groups else [rest]
    return groups


def _counts(graph: NeuronGraph, layer: int) -> NDArray[np.int64]:
    """Numbers of outgoing weights of a layer's neurons."""
    counts = np.zeros(graph.layers[layer].size, dtype=np.int64)
    for block in graph.blocks:
        if block.source == layer:
            weights: Any = block.weights
            counts += np.asarray((weights != 0).sum(axis=1)).ravel().astype(np.int64)
    return counts


def _within(groups: list[NDArray[np.intp]], rng: np.random.Generator) -> NDArray[np.intp]:
    """A random order of the neurons in which every group keeps its positions."""
    order = np.empty(sum(group.size for group in groups), dtype=np.intp)
    for group in groups:
        order[group] = rng.permutation(group)
    return order


def _rows(weights: Any, order: NDArray[np.intp]) -> Any:
    if isinstance(weights, np.ndarray):
        return np.ascontiguousarray(weights[order])
    selected = weights[order]
    selected.indptr = selected.indptr.astype(weights.indptr.dtype, copy=False)
    selected.indices = selected.indices.astype(weights.indices.dtype, copy=False)
    selected.sort_indices()
    return selected
