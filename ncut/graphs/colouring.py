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
