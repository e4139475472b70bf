"""Whether the layers of a graph fall into two colours, as those of a chain do."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ncut.graphs.neuron_graph import NeuronGraph


def two_colours(graph: NeuronGraph) -> list[int] | None:
    """A colour, 0 or 1, for each layer such that every block joins different ones.

    None if there are no such colours. A layer that no path joins to layer 0 has the colour that
    its own first layer got, which is 0.
    """
    neighbours: list[set[int]] = [set() for _ in graph.layers]
    for block in graph.blocks:
        neighbours[block.source].add(block.target)
        neighbours[block.target].add(block.source)
    colour: dict[int, int] = {}
    for root in range(len(neighbours)):
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
    return [colour[layer] for layer in range(len(neighbours))]
