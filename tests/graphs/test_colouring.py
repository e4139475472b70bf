"""Two colours of layers, where they suffice, against networkx."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import chain_graph, random_chain, skip_graph

from ncut.graphs.colouring import two_colours
from ncut.types import Block, Layer


def layered(n: int, pairs: set[tuple[int, int]]) -> Any:
    """A graph of n layers as colouring reads it."""
    layers = tuple(Layer(str(number), number, 1) for number in range(n))
    blocks = tuple(Block(a, b, None) for a, b in sorted(pairs))  # type: ignore[arg-type]
    return SimpleNamespace(layers=layers, blocks=blocks)


@st.composite
def layered_graphs(draw: Callable[..., Any]) -> Any:
    n = draw(st.integers(1, 9))
    ends = st.tuples(st.integers(0, n - 1), st.integers(0, n - 1))
    pairs = draw(st.sets(ends, max_size=draw(st.integers(0, 12))))
    return layered(n, {(min(pair), max(pair)) for pair in pairs})


@given(layered_graphs())
def test_two_colours_are_found_where_they_suffice(graph: Any) -> None:
    colours = two_colours(graph)
    other = nx.Graph((block.source, block.target) for block in graph.blocks)
    other.add_nodes_from(range(len(graph.layers)))
    assert (colours is not None) == nx.is_bipartite(other)
    if colours is not None:
        assert len(colours) == len(graph.layers)
        assert all(colours[block.source] != colours[block.target] for block in graph.blocks)
        # The first layer of each component has colour 0.
        assert not any(colours[min(part)] for part in nx.connected_components(other))


def test_the_layers_of_a_chain_alternate() -> None:
    assert two_colours(chain_graph(random_chain(1, (5, 9, 5, 4)))) == [0, 1, 0, 1]


def test_a_triangle_has_no_two_colours() -> None:
    assert two_colours(skip_graph(1, (5, 6, 7), 0.9)) is None


@pytest.mark.parametrize("n", [1, 4])
def test_layers_without_blocks_have_one_colour(n: int) -> None:
    assert two_colours(layered(n, set())) == [0] * n
