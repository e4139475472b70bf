"""The null models: networks whose weights have no arrangement."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from ncut.arguments import check_choice, suggests_names
from ncut.axes import NULL_MODELS
from ncut.errors import InputError
from ncut.graphs import NeuronGraph
from ncut.nulls.base import Null
from ncut.randomness import MAX_GRAPHS, check_seed
from ncut.spectral.cut import as_graph
from ncut.types import Null as NullName


def check_null(null: str) -> str:
    """Return a null model's name, or refuse one that does not exist."""
    return check_choice("null", null, NULL_MODELS)


def class_of(null: str) -> type[Null]:
    """The class that makes a null model's networks."""
    module, name = NULL_MODELS[null].made_by.split(":")
    found: type[Null] = getattr(import_module(module), name)
    return found


def check_null_fits(graph: NeuronGraph, null: str) -> None:
    """Refuse a null model that needs information missing from the graph."""
    class_of(null).check(graph)


def fitted(graph: NeuronGraph, null: str, seed: int) -> Null:
    """The null model's object for a graph without isolated vertices that `check_null_fits`."""
    return class_of(null)(graph, seed)


@suggests_names()
def shuffle(graph: Any, null: NullName = "layer", seed: int = 0, number: int = 0) -> NeuronGraph:
    """A network with the graph's weights, layer by layer, in a random arrangement.

    Vertices without edges are removed first, and each layer's matrices shrink accordingly, so that
    no weight is assigned to a neuron that the network does not use.

    Parameters
    ----------
    graph : NeuronGraph or scipy sparse symmetric adjacency
        In a graph of one layer, edges are placed at random pairs of vertices.
    null : str, default "layer"
        "layer": permutes all entries of each block of weights. "layer-nonzero": permutes the
        non-zero entries among their positions, so the topology stays. "layer-nonzero-kde": redraws
        the non-zero entries in place from a Gaussian kernel density estimate (bandwidth 0.01) of
        the block's non-zero entries. "layer-kde": the same after permuting all entries. "strength":
        exchanges the non-zero entries so that each vertex's sums in each block stay in narrow bins.
        "residual": the same on the residuals (see `NeuronGraph.normalized`), which are the weights
        of the shuffled networks. "alignment": the residuals, with each hidden layer's outgoing
        weights given to other neurons of the layer. "tied": like "layer", with copies of one block
        permuted alike. "init": draws from each layer's distribution at initialization, for graphs
        read from a torch module with `initial=True`.
    seed, number : int, default 0
        Shuffle `number` of `seed` is the same everywhere: `ncut.analyze(..., seed=seed)`
        compares the network with numbers 0, 1, 2, and so on.

    Raises
    ------
    InputError
        If `null` is unknown, or needs information missing from the graph.

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
    """Shuffle a graph without isolated vertices; the caller has checked the arguments."""
    return fitted(graph, null, seed).shuffle(number)


def normalization_of(null: str, normalize: str | None, otherwise: str) -> str:
    """The convention of scale: the one requested, else the null model's, else the default.

    Raises
    ------
    InputError
        If the null model has a fixed convention and another one is requested.
    """
    own = class_of(null).normalize
    if own and normalize not in (None, own):
        raise InputError(
            f"normalize: null={null!r} compares networks only under normalize={own!r}, got "
            f"{normalize!r}; leave it out"
        )
    return own or (otherwise if normalize is None else normalize)
