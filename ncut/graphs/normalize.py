"""Conventions of scale: weights after a rescaling that leaves what a ReLU network computes.

A positively homogeneous neuron computes the same after its incoming weights are multiplied by a
positive factor and its outgoing ones divided by it (Neyshabur, Salakhutdinov and Srebro, 2015,
Path-SGD, section 2), so that the scale of single neurons says nothing about the network. Each
convention here is one choice among all these networks.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ncut import kernels
from ncut.axes import NORMALIZATIONS
from ncut.errors import InputError
from ncut.randomness import check_seed
from ncut.threads import single_threaded_blas

if TYPE_CHECKING:
    from ncut.graphs.neuron_graph import NeuronGraph
    from ncut.types import Block, Layer, Weights

    Vector = NDArray[np.float64]

TOLERANCE = 1e-9
"""Largest |log(incoming / outgoing norm)| of a balanced neuron, in double precision."""

MAX_SWEEPS = 1000
"""Balancing ends after so many sweeps, whatever it has reached; it needs about ten."""

MAX_STEP = 2.0
"""Largest change of log c^2 in one Newton step, and the imbalance from which they are tried."""

MAX_PRODUCTS = 200
"""Most products with the Hessian in one Newton step."""

ROUNDING = 1e-12
"""A sum of squares that is larger by this share counts as no larger."""

KEPT_ENTRIES = 2**24
"""Squares of larger dense blocks are not kept (128 MiB) but computed whenever they are needed."""

CHUNK_ENTRIES = 2**16

NAMED = 4
"""Warnings name so many layers and count the rest."""

FIRST_STREAM = 2**32
"""Random factors of layer l come from this stream + l; those of `Purpose` have 32 bits."""


def check_normalization(convention: object) -> str:
    """Return the convention of scale, or refuse one that does not exist."""
    if not isinstance(convention, str) or convention not in NORMALIZATIONS:
        names = ", ".join(NORMALIZATIONS)
        raise InputError(f"normalize: must be one of {names}, got {convention!r}")
    return convention


def normalized(graph: NeuronGraph, convention: str) -> NeuronGraph:
    """The graph with the weights that the network has under a convention of scale.

    Each neuron v of a layer that can be rescaled (see `rescalable_layers`) gets a factor c_v > 0,
    which multiplies its incoming weights and divides its outgoing ones: w_ij c_j / c_i.

    Parameters
    ----------
    graph : NeuronGraph
        Layers in the order in which the network computes them.
    convention : {"none", "l2", "l1", "balanced"}
        "none" returns the graph itself. "l2", "l1": layer after layer, a neuron's incoming
        weights get a Euclidean norm, or a sum, of 1; those without incoming weights stay.
        "balanced": incoming and outgoing weights of each neuron get the same Euclidean norm. There
        is exactly one such network, the one with the least sum of squares. Only weights on a path
        from the network's input to its output count; neurons on none get a norm of 1 on the side
        that a path reaches. Layers without outgoing blocks stay. What stays keeps its scale, on
        which the result then depends.

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
        If there is no such convention, no layer can be rescaled, a block joins a layer with
        itself (an adjacency matrix has no direction), or a result exceeds the range of float64.

    Source: Stock, Graham, Gribonval and Jégou (2019), Equi-normalization of neural networks
    ("balanced"); the rescaling is that of Neyshabur et al. (2015).
    """
    check_normalization(convention)
    if convention == "none":
        return graph
    if any(block.source == block.target for block in graph.blocks):
        raise InputError(
            "normalize: the edges inside one layer (of an adjacency matrix) have no direction, so "
            "nothing says which are incoming; pass the layers of a network, or normalize='none'"
        )
    layers = _layers_of(graph, convention)
    if not layers:
        raise InputError(
            f"normalize: {_why_no_layer(graph)}; pass normalize='none' to take the weights as "
            "they are"
        )
    with np.errstate(all="ignore"):  # what goes out of range is found at the end
        if convention == "balanced":
            factors = _balancing_factors(graph, layers)
        else:
            factors = _unit_factors(graph, layers, 2 if convention == "l2" else 1)
    return _with_factors(graph, factors, "normalize")


def rescaled(graph: NeuronGraph, seed: int, sigma: float) -> NeuronGraph:
    """A network that computes the same with other weights: neurons rescaled at random.

    Parameters
    ----------
    graph : NeuronGraph
        Layers in the order in which the network computes them.
    seed : int
        The factors of a layer depend on it and on the layer's position alone.
    sigma : float
        Standard deviation of the logarithm of the factors, which are independent. Layers known
        to be rescalable get them also where their incoming or outgoing weights lie outside of
        the graph; layers of unknown activation need both.

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


def rescalable_layers(graph: NeuronGraph) -> list[int]:
    """Positions of the layers whose neurons get a factor.

    Layers marked rescalable that have incoming blocks, and layers of unknown activation that
    have both incoming and outgoing ones, so that they are hidden. None if a block joins a layer
    with itself.
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


def applicable_conventions(graph: NeuronGraph) -> tuple[str, ...]:
    """The conventions that `normalized` accepts for a graph."""
    return tuple(name for name in NORMALIZATIONS if name == "none" or _layers_of(graph, name))


def normalization_notes(graph: NeuronGraph, convention: str) -> list[str]:
    """Sentences on what a convention of scale took for granted or left as it is."""
    check_normalization(convention)
    if convention == "none":
        return []
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
        f"normalize={convention!r} left layers as they are, because {reason}: "
        f"{_listed([graph.layers[at] for at in positions])}"
        for reason, positions in left
        if positions
    ]
    if any(graph.layers[at].rescalable is None for at in chosen):
        notes.append(
            f"the activations are not known; normalize={convention!r} took them for positively "
            "homogeneous, as ReLU is"
        )
    return notes


def _listed(layers: list[Layer]) -> str:
    names = ", ".join(layer.name for layer in layers[:NAMED])
    return names if len(layers) <= NAMED else f"{names} and {len(layers) - NAMED} more"


def check_sigma(sigma: object) -> float:
    """Return the standard deviation of a logarithm as a float, or say what is wrong with it."""
    real = isinstance(sigma, int | float | np.integer | np.floating) and not isinstance(sigma, bool)
    if not real or not math.isfinite(value := float(sigma)) or value < 0:  # type: ignore[arg-type]
        raise InputError(f"sigma: must be a finite number of at least 0, got {sigma!r}")
    return value


def _ends(graph: NeuronGraph) -> tuple[set[int], set[int]]:
    """Positions of the layers with incoming blocks, and of those with outgoing ones."""
    return {block.target for block in graph.blocks}, {block.source for block in graph.blocks}


def _layers_of(graph: NeuronGraph, convention: str) -> list[int]:
    """The layers that a convention rescales: balancing needs weights on both sides."""
    layers = rescalable_layers(graph)
    read = _ends(graph)[1]
    return [at for at in layers if convention != "balanced" or at in read]


def _why_no_layer(graph: NeuronGraph) -> str:
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


class _Powers:
    """|w|^p of a block in units of the graph's, summed along rows or columns in float64.

    Parameters
    ----------
    weights : ndarray or scipy.sparse.csr_array
    exponent : {1, 2}
    unit : float
        Weights are divided by it, so that their squares have a range.
    keep : bool
        Whether they will be needed more than once.
    """

    def __init__(self, weights: Weights, exponent: int, unit: float, keep: bool) -> None:
        self._weights, self._exponent, self._unit = weights, exponent, unit
        self._kept: Any = None
        if not isinstance(weights, np.ndarray):
            self._kept = _same_places(weights, self._powers(weights.data))
        elif keep and weights.size <= KEPT_ENTRIES:
            self._kept = self._powers(weights)

    def into(self, x: Vector) -> Vector:
        """Sum over the sources i of |w_ij|^p x_i, for each target j."""
        if self._kept is not None:
            return x @ self._kept  # type: ignore[no-any-return]
        total = np.zeros(self._weights.shape[1])
        for rows, powers in self._chunks():
            total += x[rows] @ powers
        return total

    def out_of(self, x: Vector) -> Vector:
        """Sum over the targets j of |w_ij|^p x_j, for each source i."""
        if self._kept is not None:
            return self._kept @ x  # type: ignore[no-any-return]
        total = np.empty(self._weights.shape[0])
        for rows, powers in self._chunks():
            total[rows] = powers @ x
        return total

    def _chunks(self) -> Iterator[tuple[slice, Vector]]:
        for rows in _row_chunks(self._weights.shape):
            yield rows, self._powers(self._weights[rows])

    def _powers(self, values: Any) -> Vector:
        powers: Vector = values.astype(np.float64)
        if self._unit != 1:
            powers /= self._unit
        return np.square(powers, out=powers) if self._exponent == 2 else powers


def _unit(graph: NeuronGraph) -> float:
    """1 if all squares of weights lie in the range of float64, else the largest weight."""
    if kernels.wide_type(graph.blocks) == np.float32:
        return 1.0
    return max(float(block.weights.max()) for block in graph.blocks if block.weights.size) or 1.0


def _unit_factors(graph: NeuronGraph, layers: Collection[int], exponent: int) -> Vector:
    """The factors that give every neuron of these layers an incoming norm of 1."""
    factors, unit = np.ones(graph.n_vertices), _unit(graph)
    with single_threaded_blas():
        for position in layers:
            here = graph.layers[position].slice
            sums = np.zeros(graph.layers[position].size)
            for block in graph.blocks:
                if block.target == position:
                    scale = factors[graph.layers[block.source].slice] ** -exponent
                    sums += _Powers(block.weights, exponent, unit, keep=False).into(scale)
            norms = sums ** (1 / exponent) * unit
            factors[here] = np.where(sums > 0, 1 / norms, 1.0)
    return factors


def _balancing_factors(graph: NeuronGraph, layers: Collection[int]) -> Vector:
    """The factors that make each neuron's incoming and outgoing norms equal."""
    with single_threaded_blas():
        balance = _Balance(graph, layers)
        return np.sqrt(balance.with_dead_neurons(balance.solve()))


class _Sums(NamedTuple):
    """Squares of the weights into and out of each vertex, and of all edges, at some scale."""

    into: Vector
    out_of: Vector
    total: float


class _Balance:
    """Minimizes the sum of squares S_ij g_j / g_i of a graph's weights over g = c^2.

    The sum is over the edges that lie on a path from a vertex whose g is fixed to another, that
    is, over those that matter to what the network computes. It is convex in log g, and where it
    is least each vertex has in = out; by the paths it is attained, at one point only. There
    the squares are a flow that enters and leaves at fixed vertices, so that the Hessian is that
    of a random walk which ends after as many steps as there are layers, and well conditioned.

    Block descent (the layers in turn, each solved exactly: g = sqrt(out / in)) always converges,
    though slowly for deep networks. A Newton step after each sweep makes it fast, kept if it
    lowers the sum.
    """

    def __init__(self, graph: NeuronGraph, layers: Collection[int]) -> None:
        unit = _unit(graph)
        self._graph, self._unit = graph, unit
        self._slices = {at: graph.layers[at].slice for at in layers}
        self._powers = [
            (
                block.source,
                block.target,
                _Powers(
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
        """Which vertices a path of edges joins to one whose g is fixed, backwards and forwards."""
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
        """g with that of the neurons that no path joins to the network's input, or its output.

        What the network computes does not depend on them. They get a norm of 1, that of the
        outgoing weights if they hear nothing, that of the incoming ones if nothing hears them;
        those that have neither stay as they are.
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
        """g, to an imbalance of TOLERANCE or as near as MAX_SWEEPS come."""
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
            # Exact enough for the error to square, as that of an exact step does.
            if not size > first * min(0.1, imbalance) ** 2:
                break
            direction = scaled + (size / before) * direction
        return step


def _dot(x: Vector, y: Vector) -> float:
    return float((x * y).sum())


def _with_factors(graph: NeuronGraph, factors: Vector, argument: str) -> NeuronGraph:
    """The graph with weights w_ij c_j / c_i."""
    blocks = tuple(
        replace(
            block,
            weights=_scaled(
                block,
                factors[graph.layers[block.source].slice],
                factors[graph.layers[block.target].slice],
                argument,
            ),
        )
        for block in graph.blocks
    )
    return replace(graph, blocks=blocks)


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
                fitting = _same_places(weights, values)
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
    for rows in _row_chunks(weights.shape):
        chunk = weights[rows].astype(np.float64)
        chunk *= target
        chunk *= left[rows, None]
        values[rows] = chunk
    return values


def _row_chunks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Rows of a matrix in parts that fit the cache in double precision."""
    step = max(1, CHUNK_ENTRIES // max(shape[1], 1))
    for first in range(0, shape[0], step):
        yield slice(first, first + step)


def _same_places(weights: Any, data: NDArray[np.floating]) -> Any:
    """A CSR matrix with other values at the same places, sharing the arrays that say where."""
    matrix = type(weights)((data, weights.indices, weights.indptr), shape=weights.shape)
    matrix.indices, matrix.indptr = weights.indices, weights.indptr
    return matrix
