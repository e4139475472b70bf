"""Whether the layers of a graph fall into two colours, as those of a chain do."""

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
    """A colour, 0 or 1, for each of n layers such that every pair joins different ones.

    None if there are no such colours. A layer that no path joins to layer 0 has the colour that
    its own first layer got, which is 0.
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
