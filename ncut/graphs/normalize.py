"""Conventions of scale: weights after a rescaling that preserves a ReLU network's function.

Multiplying a positively homogeneous neuron's incoming weights by a positive factor and dividing its
outgoing weights by it does not change its function (Neyshabur, Salakhutdinov and Srebro, 2015,
Path-SGD, section 2), so the scale of single neurons is arbitrary. Each convention here selects one
of the equivalent networks.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ncut import kernels
from ncut.arguments import check_choice
from ncut.axes import NORMALIZATIONS
from ncut.errors import InputError
from ncut.graphs.balance import Balance
from ncut.graphs.residual import residual_graph, without_dead_ends
from ncut.graphs.row_sums import PowerSums, row_chunks, same_places, unit_of
from ncut.graphs.scale import brought_into_range, in_own_unit
from ncut.graphs.scratch import in_scratch_file
from ncut.randomness import check_seed
from ncut.threads import single_threaded_blas

if TYPE_CHECKING:
    from ncut.graphs.data import G, GraphData
    from ncut.types import Block, Layer, Weights

    Vector = NDArray[np.float64]

NAMED = 4
"""Number of layers that warnings name; the rest are counted."""

FIRST_STREAM = 2**32
"""Random factors of layer l come from this stream + l; those of `Purpose` have 32 bits."""


def check_normalization(convention: object) -> str:
    """Return the convention of scale; refuse an unknown one."""
    return check_choice("normalize", convention, NORMALIZATIONS)


def normalized(graph: G, convention: str) -> G:
    """The graph with the network's weights under a convention of scale.

    Each neuron v of a layer that can be rescaled (see `rescalable_layers`) gets a factor c_v > 0,
    which multiplies its incoming weights and divides its outgoing ones: w_ij c_j / c_i.

    Parameters
    ----------
    graph : NeuronGraph
        Layers in the order in which the network computes them.
    convention : {"none", "l2", "l1", "balanced", "residual"}
        "none" returns the graph itself. "residual" scales every row and column of each block to a
        mean of 1 over its edges and leaves out hidden neurons with weights on one side only: see
        `graphs.residual`; it needs no rescalable layer. "l2", "l1": layer after layer, a neuron's
        incoming weights get a Euclidean norm, or a sum, of 1; neurons without incoming weights stay
        unchanged. "balanced": incoming and outgoing weights of each neuron get the same Euclidean
        norm. There is exactly one such network, the one with the least sum of squares. Only weights
        on a path from the network's input to its output count; neurons on no such path get a norm
        of 1 on the side that a path reaches. Layers without outgoing blocks stay unchanged; the
        result then depends on their scale.

    Returns
    -------
    NeuronGraph
        Blocks of 16 bits become float32; others keep their type, but float32 that cannot hold
        the result becomes float64. CSR blocks share their indices with the graph's. Factors are
        computed in double precision: norms are equal to the precision of the blocks' type, in
        float64 to 1e-9 for "balanced" (at worst what 1000 sweeps reach) and to rounding for
        "l2" and "l1". Weights below 1e-150 of the largest count as zero in a norm.

    Raises
    ------
    InputError
        If the convention is unknown, no layer can be rescaled, a block joins a layer with itself
        (an adjacency matrix has no direction), or a result exceeds the range of float64.

    Source: Stock, Graham, Gribonval and Jégou (2019), Equi-normalization of neural networks
    ("balanced"); the rescaling is that of Neyshabur et al. (2015).
    """
    check_normalization(convention)
    if convention == "none":
        return graph
    if convention == "residual":
        return residual_graph(graph)
    graph = in_own_unit(graph)  # unchanged layers keep their weights beside layers of norm 1
    if any(block.source == block.target for block in graph.blocks):
        raise InputError(
            "normalize: edges inside one layer (of an adjacency matrix) have no direction, so "
            "incoming edges are undefined; pass the layers of a network, or normalize='none'"
        )
    layers = _layers_of(graph, convention)
    if not layers:
        raise InputError(
            f"normalize: {_why_no_layer(graph)}; pass normalize='none' to take the weights as "
            "they are"
        )
    with np.errstate(all="ignore"):  # overflow is detected at the end
        if convention == "balanced":
            factors = _balancing_factors(graph, layers)
        else:
            factors = _unit_factors(graph, layers, 2 if convention == "l2" else 1)
    return _with_factors(graph, factors, "normalize")


def rescaled(graph: G, seed: int, sigma: float) -> G:
    """A network with the same function and randomly rescaled neurons.

    Parameters
    ----------
    graph : NeuronGraph
        Layers in the order in which the network computes them.
    seed : int
        The factors of a layer depend only on the seed and on the layer's position.
    sigma : float
        Standard deviation of the logarithm of the factors, which are independent. Layers known to
        be rescalable get factors even if their incoming or outgoing weights lie outside the graph;
        layers of unknown activation need both in the graph.

    Raises
    ------
    InputError
        If sigma is not a finite number of at least 0, no layer can be rescaled, a block joins a
        layer with itself, or a result exceeds the range of float64.

    Source: Neyshabur, Salakhutdinov and Srebro (2015), Path-SGD, section 2.
    """
    seed, sigma = check_seed(seed), check_sigma(sigma)
    if any(block.source == block.target for block in graph.blocks):
        raise InputError("graph: edges inside one layer have no direction and cannot be rescaled")
    written, read = _ends(graph)
    layers = [
        position
        for position, layer in enumerate(graph.layers)
        if layer.rescalable or (layer.rescalable is None and position in written & read)
    ]
    if not layers:
        raise InputError(f"graph: {_why_no_layer(graph)}")
    factors = np.ones(graph.n_vertices)
    with np.errstate(all="ignore"):
        for position in layers:
            layer = graph.layers[position]
            key = np.array([seed, FIRST_STREAM + position], dtype=np.uint64)
            random = np.random.Generator(np.random.Philox(key=key))
            factors[layer.slice] = np.exp(sigma * random.standard_normal(layer.size))
    return _with_factors(graph, factors, "sigma")


def rescalable_layers(graph: GraphData) -> list[int]:
    """Positions of the layers whose neurons get a factor.

    These are rescalable layers with incoming blocks, and layers of unknown activation with both
    incoming and outgoing blocks, which are therefore hidden. None if a block joins a layer with
    itself.
    """
    if any(block.source == block.target for block in graph.blocks):
        return []
    written, read = _ends(graph)
    return [
        position
        for position, layer in enumerate(graph.layers)
        if position in written
        and (layer.rescalable or (layer.rescalable is None and position in read))
    ]


def applicable_conventions(graph: GraphData) -> tuple[str, ...]:
    """The conventions with a factor for each neuron that `normalized` accepts for a graph."""
    return tuple(
        name
        for name in NORMALIZATIONS
        if name == "none" or (name != "residual" and _layers_of(graph, name))
    )


def normalization_notes(graph: GraphData, convention: str) -> list[str]:
    """Notes on the assumptions of a convention of scale and on unchanged layers."""
    check_normalization(convention)
    if convention == "none":
        return []
    if convention == "residual":
        n_left = int(
            np.count_nonzero(graph.degrees) - np.count_nonzero(without_dead_ends(graph).degrees)
        )
        if not n_left:
            return []
        neurons = "1 neuron has" if n_left == 1 else f"{n_left:,} neurons have"
        return [
            f"normalize='residual' left out neurons without effect: {neurons} no incoming or no "
            "outgoing weights"
        ]
    written, read = _ends(graph)
    chosen = _layers_of(graph, convention)
    tied = {end for block in graph.blocks if block.tie for end in (block.source, block.target)}
    fixed = [at for at in sorted(written & read) if graph.layers[at].rescalable is False]
    known = [at for at, layer in enumerate(graph.layers) if layer.rescalable]
    left = [
        ("their activation is not positively homogeneous", [at for at in fixed if at not in tied]),
        ("copies of their weights are used elsewhere", [at for at in fixed if at in tied]),
        (
            "their incoming weights are not in the graph",
            [at for at in known if at in read and at not in written],
        ),
        (
            "their outgoing weights are not in the graph",
            [at for at in known if at in written and at not in chosen],
        ),
    ]
    notes = [
        f"normalize={convention!r} left layers unchanged because {reason}: "
        f"{_listed([graph.layers[at] for at in positions])}"
        for reason, positions in left
        if positions
    ]
    if any(graph.layers[at].rescalable is None for at in chosen):
        notes.append(
            f"the activations are unknown; normalize={convention!r} assumed that they are "
            "positively homogeneous, like ReLU"
        )
    return notes


def _listed(layers: list[Layer]) -> str:
    names = ", ".join(layer.name for layer in layers[:NAMED])
    return names if len(layers) <= NAMED else f"{names} and {len(layers) - NAMED} more"


def check_sigma(sigma: object) -> float:
    """Return the standard deviation of a logarithm as a float; refuse invalid values."""
    real = isinstance(sigma, int | float | np.integer | np.floating) and not isinstance(sigma, bool)
    if not real or not math.isfinite(value := float(sigma)) or value < 0:  # type: ignore[arg-type]
        raise InputError(f"sigma: must be a finite number of at least 0, got {sigma!r}")
    return value


def _ends(graph: GraphData) -> tuple[set[int], set[int]]:
    """Positions of the layers with incoming blocks, and of the layers with outgoing blocks."""
    return {block.target for block in graph.blocks}, {block.source for block in graph.blocks}


def _layers_of(graph: GraphData, convention: str) -> list[int]:
    """The layers that a convention rescales: balancing needs weights on both sides."""
    layers = rescalable_layers(graph)
    read = _ends(graph)[1]
    return [at for at in layers if convention != "balanced" or at in read]


def _why_no_layer(graph: GraphData) -> str:
    written, read = _ends(graph)
    if not written & read:
        return (
            "no layer has both incoming and outgoing weights in the graph, so that there are no "
            "hidden neurons to rescale"
        )
    return (
        "no hidden layer can be rescaled without changing what the network computes (the "
        "activations are not positively homogeneous, or layers share weights)"
    )


def _unit_factors(graph: GraphData, layers: Collection[int], exponent: int) -> Vector:
    """The factors that give every neuron of these layers an incoming norm of 1."""
    factors, unit = np.ones(graph.n_vertices), unit_of(graph)
    with single_threaded_blas():
        for position in layers:
            here = graph.layers[position].slice
            sums = np.zeros(graph.layers[position].size)
            for block in graph.blocks:
                if block.target == position:
                    scale = factors[graph.layers[block.source].slice] ** -exponent
                    sums += PowerSums(block.weights, exponent, unit, keep=False).into(scale)
            norms = sums ** (1 / exponent) * unit
            factors[here] = np.where(sums > 0, 1 / norms, 1.0)
    return factors


def _balancing_factors(graph: GraphData, layers: Collection[int]) -> Vector:
    """The factors that make each neuron's incoming and outgoing norms equal."""
    with single_threaded_blas():
        balance = Balance(graph, layers)
        return np.sqrt(balance.with_dead_neurons(balance.solve()))


def _with_factors(graph: G, factors: Vector, argument: str) -> G:
    """The graph with weights w_ij c_j / c_i."""
    blocks = tuple(
        replace(
            block,
            weights=in_scratch_file(
                _scaled(
                    block,
                    factors[graph.layers[block.source].slice],
                    factors[graph.layers[block.target].slice],
                    argument,
                ),
                graph.scratch,
            ),
        )
        for block in graph.blocks
    )
    return brought_into_range(replace(graph, blocks=blocks))


def _scaled(block: Block, source: Vector, target: Vector, argument: str) -> Weights:
    """The block's weights in the narrowest type, float32 or wider, that can hold them."""
    weights = block.weights
    narrow = np.float64 if weights.dtype == np.float64 else np.float32
    if (source == 1).all() and (target == 1).all():
        return weights if weights.dtype.itemsize > 2 else weights.astype(narrow)
    for dtype in dict.fromkeys((narrow, np.float64)):
        with np.errstate(all="ignore"):
            values = _product(weights, source, target, dtype)
        found = kernels.scan(values)
        lost = found.n_nonzero != kernels.count_edges(weights)
        if not (lost or found.n_nan or found.n_infinite):
            fitting: Weights = values
            if not isinstance(weights, np.ndarray):
                fitting = same_places(weights, values)
            return fitting
    raise InputError(
        f"{argument}: the rescaled weights of {block.name!r} exceed the range of float64"
    )


def _product(weights: Weights, source: Vector, target: Vector, dtype: Any) -> Any:
    """w_ij target_j / source_i in this type, rounded once; for CSR the values of its entries."""
    left = 1 / source
    if not isinstance(weights, np.ndarray):
        entries = weights.data * target[weights.indices]
        entries *= np.repeat(left, np.diff(weights.indptr))
        return entries.astype(dtype)
    values = np.empty(weights.shape, dtype=dtype)
    for rows in row_chunks(weights.shape):
        chunk = weights[rows].astype(np.float64)
        chunk *= target
        chunk *= left[rows, None]
        values[rows] = chunk
    return values
