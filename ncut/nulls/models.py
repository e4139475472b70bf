"""The null models: what a network could look like if its weights had no arrangement."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncut import kernels
from ncut.errors import InputError
from ncut.graphs import NeuronGraph
from ncut.randomness import MAX_GRAPHS, Purpose, check_seed, stream
from ncut.spectral.cut import as_graph
from ncut.types import Block

NULL_MODELS: dict[str, str] = {
    "layer": "all weights of a layer, zeros included, in random places",
    "layer-nonzero": "the non-zero weights of a layer permuted among their places",
    "layer-nonzero-kde": "the non-zero weights of a layer redrawn from their density, in place",
    "layer-kde": "the weights of a layer in random places, the non-zero ones redrawn",
}
"""Each null model's name, and what it does with the weights of a layer."""

KDE_BANDWIDTH = 0.01


def check_null(null: str) -> None:
    """Refuse a null model that does not exist."""
    if not isinstance(null, str) or null not in NULL_MODELS:
        raise InputError(f"null: must be one of {', '.join(NULL_MODELS)}, got {null!r}")


def shuffle(graph: Any, null: str = "layer", seed: int = 0, number: int = 0) -> NeuronGraph:
    """A network with the same weights as the graph's, layer by layer, without their arrangement.

    Vertices without edges are left out first, and each layer's matrices shrink accordingly, so
    that a weight cannot land at a neuron that the network does not use.

    Parameters
    ----------
    graph : NeuronGraph or scipy sparse symmetric adjacency
        A graph of one layer has its edges placed at random pairs of vertices.
    null : str, default "layer"
        "layer": permutes all entries of each block of weights. "layer-nonzero": permutes the
        non-zero entries among their places, so the topology stays. "layer-nonzero-kde": redraws
        the non-zero entries in place from a Gaussian kernel density estimate (bandwidth 0.01)
        of the block's non-zero entries. "layer-kde": the same after permuting all entries.
    seed, number : int, default 0
        Shuffle `number` of `seed` is the same everywhere: `ncut.analyze(..., seed=seed)`
        compares the network with numbers 0, 1, 2, and so on.

    Raises
    ------
    InputError
        If `null` is unknown.

    Source: Filan et al. (2021), section 1.2 and appendix A.6.
    """
    check_null(null)
    number = _check_number(number)
    connected, _ = as_graph(graph).without_isolated()
    return shuffle_connected(connected, null, check_seed(seed), number)


def _check_number(number: object) -> int:
    if isinstance(number, bool) or not isinstance(number, int | np.integer):
        raise InputError(f"number: must be a whole number, got {number!r}")
    if not 0 <= number < MAX_GRAPHS - 1:
        raise InputError(f"number: must lie between 0 and {MAX_GRAPHS - 2}, got {number}")
    return int(number)


def shuffle_connected(graph: NeuronGraph, null: str, seed: int, number: int) -> NeuronGraph:
    """`shuffle` for a graph without isolated vertices, arguments checked by the caller."""
    key = stream(Purpose.SHUFFLE, number + 1)
    blocks = tuple(
        Block(
            block.source,
            block.target,
            _shuffled(block, null, _BlockRandom(seed, key, 2 * position)),
            block.name,
        )
        for position, block in enumerate(graph.blocks)
    )
    return NeuronGraph(graph.layers, blocks, graph.left_out, graph.name)


class _BlockRandom:
    """The two substreams of one block: one for where its weights go, one for their values."""

    def __init__(self, seed: int, key: int, substream: int) -> None:
        self.places = (seed, key, substream)
        self.values = (seed, key, substream + 1)


def _shuffled(block: Block, null: str, random: _BlockRandom) -> Any:
    within_layer = block.source == block.target
    weights = block.weights
    if null in ("layer", "layer-kde"):
        weights = _permuted_everywhere(weights, within_layer, random)
    if null == "layer":
        return weights
    return _with_nonzeros(weights, null, random)


def _permuted_everywhere(weights: Any, within_layer: bool, random: _BlockRandom) -> Any:
    if isinstance(weights, np.ndarray):
        return kernels.permuted(weights, *random.places)
    indptr, indices = kernels.random_pattern(weights, within_layer, *random.places)
    data = kernels.permuted(weights.data, *random.values)
    return type(weights)((data, indices, indptr), shape=weights.shape)


def _with_nonzeros(weights: Any, null: str, random: _BlockRandom) -> Any:
    """The same topology with permuted or redrawn non-zero values."""
    if isinstance(weights, np.ndarray):
        # New values need not fit into 16 bits; permuted ones do.
        wide = weights.itemsize == 2 and null != "layer-nonzero"
        changed = weights.astype(np.float32) if wide else weights.copy()
        nonzero = changed != 0
        changed[nonzero] = _new_values(changed[nonzero], null, random)
        return changed
    data = _new_values(weights.data, null, random)
    return type(weights)((data, weights.indices, weights.indptr), shape=weights.shape)


def _new_values(
    values: NDArray[np.floating], null: str, random: _BlockRandom
) -> NDArray[np.floating]:
    if null == "layer-nonzero":
        return kernels.permuted(values, *random.values)
    drawn = np.empty_like(values)
    kernels.draw_kde(values, KDE_BANDWIDTH, drawn, *random.values)
    return drawn
