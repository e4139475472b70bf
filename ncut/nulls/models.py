"""The null models: what a network could look like if its weights had no arrangement."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncut import kernels
from ncut.arguments import suggests_names
from ncut.axes import NULL_MODELS
from ncut.errors import InputError
from ncut.graphs import NeuronGraph
from ncut.graphs.scratch import settled
from ncut.nulls.strength import with_strengths_of
from ncut.randomness import MAX_GRAPHS, Purpose, check_seed, stream
from ncut.spectral.cut import as_graph
from ncut.types import Block, Null

KDE_BANDWIDTH = 0.01


def check_null(null: str) -> str:
    """Return a null model's name, or refuse one that does not exist."""
    if not isinstance(null, str) or null not in NULL_MODELS:
        raise InputError(f"null: must be one of {', '.join(NULL_MODELS)}, got {null!r}")
    return null


def check_null_fits(graph: NeuronGraph, null: str) -> None:
    """Refuse a null model that needs to know what the graph does not tell."""
    if null == "init" and any(block.initial is None for block in graph.blocks):
        names = ", ".join(repr(block.name) for block in graph.blocks if block.initial is None)
        raise InputError(
            "null: 'init' needs to know how the layers were initialized, which only torch modules "
            f"with reset_parameters() tell, read with initial=True; not known of {names}"
        )


def null_notes(graph: NeuronGraph, null: str) -> list[str]:
    """Sentences on what a null model cannot do for a graph without isolated vertices."""
    if null == "strength":
        return [
            "null='strength' changes the weights, so that it is no exact permutation test: with "
            "heavy-tailed weights an untrained network can come out more clusterable, with "
            "uniform ones its lower bound less clusterable than its shuffles"
        ]
    if null != "tied":
        return []
    if not uses_weights_twice(graph):
        return ["no layer's weights are used twice, so that null='tied' is the same as 'layer'"]
    seen: set[str] = set()
    alone = []
    for position, (block, original) in enumerate(zip(graph.blocks, originals(graph), strict=True)):
        if block.tie in seen and original == position:
            alone.append(block.name)
        if block.tie:
            seen.add(block.tie)
    if not alone:
        return []
    return [
        f"null='tied' shuffles {', '.join(alone)} apart from what they are copies of: without "
        "isolated neurons they have other shapes or other numbers of zeros"
    ]


def uses_weights_twice(graph: NeuronGraph) -> bool:
    """Whether two layers have the same weights."""
    sharing: dict[str, set[str]] = {}
    for block in graph.blocks:
        if block.tie:
            sharing.setdefault(block.tie, set()).add(block.name)
    return any(len(names) > 1 for names in sharing.values())


@suggests_names()
def shuffle(graph: Any, null: Null = "layer", seed: int = 0, number: int = 0) -> NeuronGraph:
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
        "strength": as "layer-nonzero", then rows and columns scaled so that each vertex keeps its
        sums in each block. "tied": as "layer", with copies of one block permuted alike. "init":
        draws from each layer's distribution at initialization, where the graph was read from a
        torch module with `initial=True`.
    seed, number : int, default 0
        Shuffle `number` of `seed` is the same everywhere: `ncut.analyze(..., seed=seed)`
        compares the network with numbers 0, 1, 2, and so on.

    Raises
    ------
    InputError
        If `null` is unknown, or needs what the graph does not tell.

    Source: Filan et al. (2021), section 1.2 and appendix A.6.
    """
    check_null(null)
    number = _check_number(number)
    connected, _ = as_graph(graph).without_isolated()
    check_null_fits(connected, null)
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
    if null == "tied":
        shuffled = _copies_alike(graph, seed, key)
    else:
        shuffled = [
            settled(
                shuffled_block(block, null, seed, key, substream, graph.exponent), graph.scratch
            )
            for block, substream in zip(graph.blocks, substreams(graph), strict=True)
        ]
    blocks = zip(graph.blocks, shuffled, strict=True)
    return replace(graph, blocks=tuple(replace(block, weights=w) for block, w in blocks))


def substreams(graph: NeuronGraph) -> list[int]:
    """The first of the two substreams of random numbers of each block.

    What one layer's weights make of several blocks is shuffled alike, as the layer is.
    """
    return [2 * original for original in originals(graph, within_layer=True)]


class _BlockRandom:
    """The two substreams of one block: one for where its weights go, one for their values."""

    def __init__(self, seed: int, key: int, substream: int) -> None:
        self.places = (seed, key, substream)
        self.values = (seed, key, substream + 1)


def originals(graph: NeuronGraph, *, within_layer: bool = False) -> list[int]:
    """For each block the position of the one that it is a copy of, or its own.

    `within_layer`: of another block of the same layer only, not of a layer that shares weights.
    """
    firsts: dict[Any, int] = {}
    found = []
    for position, block in enumerate(graph.blocks):
        if not block.tie:
            found.append(position)
            continue
        shape = block.weights.shape[::-1] if block.tie_transposed else block.weights.shape
        # One permutation suits all copies with as many stored entries.
        n_stored = getattr(block.weights, "nnz", None)
        layer = block.name if within_layer else ""
        found.append(firsts.setdefault((block.tie, layer, shape, n_stored), position))
    return found


def shuffled_block(
    block: Block, null: str, seed: int, key: int, substream: int, exponent: int
) -> Any:
    """One block's weights, shuffled by the random numbers of its own two substreams.

    exponent: of the unit of its weights.
    """
    bandwidth = float(np.ldexp(KDE_BANDWIDTH, -exponent))
    return _shuffled(block, null, _BlockRandom(seed, key, substream), bandwidth)


def _shuffled(block: Block, null: str, random: _BlockRandom, bandwidth: float) -> Any:
    weights, within_layer = block.weights, block.source == block.target
    if null == "init":
        return _initial(block, random)
    if null in ("layer", "layer-kde"):
        weights = _permuted_everywhere(weights, within_layer, random)
    if null == "layer":
        return weights
    if null == "strength":
        return with_strengths_of(block, _with_nonzeros(weights, "layer-nonzero", random))
    return _with_nonzeros(weights, null, random, bandwidth)


def _permuted_everywhere(weights: Any, within_layer: bool, random: _BlockRandom) -> Any:
    if isinstance(weights, np.ndarray):
        return kernels.permuted(weights, *random.places)
    indptr, indices = kernels.random_pattern(weights, within_layer, *random.places)
    data = kernels.permuted(weights.data, *random.values)
    return type(weights)((data, indices, indptr), shape=weights.shape)


def _copies_alike(graph: NeuronGraph, seed: int, key: int) -> list[Any]:
    """All blocks' entries permuted, the copies of a block in the order of the first of them."""
    copied = originals(graph)
    widest: dict[int, np.dtype[Any]] = {}
    for block, original in zip(graph.blocks, copied, strict=True):
        own = block.weights.dtype
        if own.itemsize > widest.setdefault(original, own).itemsize:
            widest[original] = own
    return [
        settled(
            _permuted_as(block, widest[original], _BlockRandom(seed, key, 2 * original)),
            graph.scratch,
        )
        for block, original in zip(graph.blocks, copied, strict=True)
    ]


def _permuted_as(block: Block, dtype: np.dtype[Any], random: _BlockRandom) -> Any:
    """All entries permuted as those of the block's original are, where this type holds both."""
    weights, within_layer = block.weights, block.source == block.target
    # How large arrays are dealt out depends on the size of an entry.
    if weights.dtype.itemsize < dtype.itemsize:
        weights = weights.astype(dtype)
    if block.tie_transposed:
        weights = _transposed(_permuted_everywhere(_transposed(weights), within_layer, random))
    else:
        weights = _permuted_everywhere(weights, within_layer, random)
    return weights.astype(block.weights.dtype, copy=False)


def _transposed(matrix: Any) -> Any:
    """The transpose in the form that blocks have: C-contiguous, or CSR in order."""
    if isinstance(matrix, np.ndarray):
        return np.ascontiguousarray(matrix.T)
    converted = matrix.T.tocsr()
    converted.sort_indices()
    return converted


def _initial(block: Block, random: _BlockRandom) -> Any:
    """Weights drawn from the block's distribution at initialization."""
    initial, weights = block.initial, block.weights
    assert initial is not None  # check_null_fits
    sample = np.ascontiguousarray(initial.sample)
    if initial.everywhere:
        drawn = np.empty(weights.shape, dtype=sample.dtype)
        kernels.draw_kde(sample, 0.0, drawn.reshape(-1), *random.values)
        return np.triu(drawn, k=1) if block.source == block.target else drawn
    drawn = np.empty(weights.nnz if hasattr(weights, "nnz") else (weights != 0).sum(), sample.dtype)
    kernels.draw_kde(sample, 0.0, drawn, *random.values)
    if isinstance(weights, np.ndarray):
        changed = np.zeros(weights.shape, dtype=sample.dtype)
        changed[weights != 0] = drawn
        return changed
    return type(weights)((drawn, weights.indices, weights.indptr), shape=weights.shape)


def _with_nonzeros(
    weights: Any, null: str, random: _BlockRandom, bandwidth: float = KDE_BANDWIDTH
) -> Any:
    """The same topology with permuted or redrawn non-zero values."""
    if isinstance(weights, np.ndarray):
        # New values need not fit into 16 bits; permuted ones do.
        wide = weights.itemsize == 2 and null != "layer-nonzero"
        changed = weights.astype(np.float32) if wide else weights.copy()
        nonzero = changed != 0
        changed[nonzero] = _new_values(changed[nonzero], null, random, bandwidth)
        return changed
    data = _new_values(weights.data, null, random, bandwidth)
    return type(weights)((data, weights.indices, weights.indptr), shape=weights.shape)


def _new_values(
    values: NDArray[np.floating], null: str, random: _BlockRandom, bandwidth: float
) -> NDArray[np.floating]:
    if null == "layer-nonzero":
        return kernels.permuted(values, *random.values)
    drawn = np.empty_like(values)
    kernels.draw_kde(values, bandwidth, drawn, *random.values)
    return drawn
