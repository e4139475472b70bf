"""Two-colouring of a graph's layers, as in a chain."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ncut.graphs.neuron_graph import NeuronGraph


def two_colours(graph: NeuronGraph) -> list[int] | None:
    """A colour, 0 or 1, for each layer of a graph; see `coloured`."""
    pairs = ((block.source, block.target) for block in graph.blocks)
    return coloured(len(graph.layers), pairs)


def coloured(n: int, pairs: Iterable[tuple[int, int]]) -> list[int] | None:
    """A colour, 0 or 1, for each of n layers such that every pair joins different colours.

    None if there is no such colouring. In a component without layer 0, the first layer has colour
    0.
    """
    neighbours: list[set[int]] = [set() for _ in range(n)]
    for source, target in pairs:
        neighbours[source].add(target)
        neighbours[target].add(source)
    colour: dict[int, int] = {}
    for root in range(n):
        if root in colour:
            continue
        colour[root] = 0
        reached = [root]
        for layer in reached:
            for other in neighbours[layer]:
                if other not in colour:
                    colour[other] = 1 - colour[layer]
                    reached.append(other)
                elif colour[other] == colour[layer]:
                    return None
    return [colour[layer] for layer in range(n)]


def independent_layers(graph: NeuronGraph) -> list[list[int]]:
    """The layers in few groups such that no block joins two layers of a group.

    One or two groups if two colours suffice, the group with more vertices first. Else every layer
    goes into the first group without a neighbour of it. A block may join a layer to itself.
    """
    pairs = {(b.source, b.target) for b in graph.blocks if b.source != b.target}
    colours = coloured(len(graph.layers), pairs)
    if colours is None:
        colours = []
        for layer in range(len(graph.layers)):
            joined = {b for a, b in pairs if a == layer} | {a for a, b in pairs if b == layer}
            taken = {colours[other] for other in joined if other < layer}
            colours.append(min(set(range(len(taken) + 1)) - taken))
    groups: list[list[int]] = [[] for _ in range(max(colours) + 1)]
    for layer, colour in enumerate(colours):
        groups[colour].append(layer)
    return sorted(groups, key=lambda group: -sum(graph.layers[layer].size for layer in group))
