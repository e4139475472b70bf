"""Reads networkx graphs."""

from __future__ import annotations

import sys
from itertools import groupby
from numbers import Real
from typing import TYPE_CHECKING, Any

from ncut.errors import InputError
from ncut.graphs import NeuronGraph, from_adjacency

if TYPE_CHECKING:
    import networkx


def is_networkx(model: Any) -> bool:
    """Check whether a model is a networkx graph; does not import networkx."""
    networkx = sys.modules.get("networkx")
    return networkx is not None and isinstance(model, networkx.Graph)


def read_networkx(model: networkx.Graph) -> NeuronGraph:
    """The undirected graph of a `networkx.Graph` or `networkx.MultiGraph`.

    Parameters
    ----------
    model : networkx.Graph or networkx.MultiGraph
        The edge attribute "weight", 1 if missing, is an edge's weight; weights of parallel edges
        add up, and self-loops are left out. Vertices are in the order of `list(model.nodes)`; node
        names are not kept. If the nodes have an attribute "layer", in the format of
        `NeuronGraph.to_networkx`, consecutive nodes with the same value form a layer.

    Raises
    ------
    InputError
        If the graph is directed, a weight is not a finite non-negative number, there are no edges,
        or the nodes of a layer are not consecutive.
    """
    import networkx as nx

    if model.is_directed():
        raise InputError(
            "model: a directed networkx graph; the edges must be undirected. Pass "
            "model.to_undirected(), or where the two directions have different weights the sparse "
            "matrix A + A.T of A = networkx.to_scipy_sparse_array(model)"
        )
    if not model.number_of_edges():
        raise InputError("model: a networkx graph without edges")
    layers = _layers(model)
    try:
        adjacency = nx.to_scipy_sparse_array(model, weight="weight")
        usable = adjacency.dtype.kind in "fiub"
    except (TypeError, ValueError):  # raised by NumPy and SciPy for strings, None and lists
        usable = False
    if not usable:
        raise InputError(
            f"model: the edges' attribute 'weight' must be real numbers{_no_number(model)}; for "
            "another attribute pass networkx.to_scipy_sparse_array(model, weight=its name)"
        )
    return from_adjacency(
        adjacency, name=str(model.name or "graph"), layers=layers, argument="model"
    )


def _no_number(model: networkx.Graph) -> str:
    """A message on the first edge with a non-numeric weight."""
    for u, v, weight in model.edges(data="weight", default=1):
        if not isinstance(weight, Real):
            return f", got {weight!r} between {u!r} and {v!r}"
    return ""


def _layers(model: networkx.Graph) -> list[tuple[str, int]] | None:
    """Names and sizes of the layers from the nodes' attributes; None without them."""
    known = [str(name) for _, name in model.nodes(data="layer") if name is not None]
    if not known:
        return None
    if len(known) < len(model):
        raise InputError(
            f"model: {len(known)} of {len(model)} nodes of the networkx graph have an attribute "
            "'layer'; give it to all of them, or to none"
        )
    layers = [(name, len(list(nodes))) for name, nodes in groupby(known)]
    names = [name for name, _ in layers]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(
            f"model: the nodes with attribute 'layer' {twice!r} do not follow each other in the "
            "networkx graph; add the nodes layer by layer, or remove the attribute"
        )
    return layers
