"""Export of graphs to other programs: networkx, Graphviz."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ncut import kernels
from ncut.errors import import_extra
from ncut.graphs.scale import in_own_unit

if TYPE_CHECKING:
    import networkx

    from ncut.graphs.data import GraphData


def neurons_to_networkx(graph: GraphData) -> networkx.Graph:
    """A node per vertex, an edge per pair of connected vertices."""
    nx = import_extra("networkx", "all")
    made = nx.from_scipy_sparse_array(in_own_unit(graph).adjacency)
    made.name = graph.name
    for layer in graph.layers:
        for index in range(layer.size):
            made.nodes[layer.start + index].update(layer=layer.name, index=index)
    return made


def layers_to_networkx(graph: GraphData) -> networkx.MultiDiGraph:
    """A node per layer, an edge per block."""
    nx = import_extra("networkx", "all")
    made = nx.MultiDiGraph(name=graph.name)
    for layer in graph.layers:
        made.add_node(layer.name, size=layer.size)
    for block in in_own_unit(graph).blocks:
        source, target = graph.layers[block.source], graph.layers[block.target]
        total = float(block.weights.sum(dtype="float64"))
        n_edges = kernels.count_edges(block.weights)
        made.add_edge(source.name, target.name, name=block.name, weight=total, n_edges=n_edges)
    return made


def to_dot(graph: GraphData) -> str:
    """Layers as boxes, blocks as arrows."""
    lines = [f"digraph {_quoted(graph.name)} {{", "  node [shape=box];"]
    for number, layer in enumerate(graph.layers):
        lines.append(f"  {number} [label={_quoted(layer.name, str(layer.size))}];")
    lines += [
        f"  {block.source} -> {block.target} [label={_quoted(block.name)}];"
        for block in graph.blocks
    ]
    return "\n".join([*lines, "}"])


def _quoted(*parts: str) -> str:
    """A string of the DOT language, with each part on a separate line."""
    escaped = (part.replace("\\", "\\\\").replace('"', '\\"') for part in parts)
    return '"' + "\\n".join(escaped) + '"'
