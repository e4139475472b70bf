"""Colours of layers: two where they suffice, few groups of unjoined layers everywhere."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import chain_graph, random_chain, skip_graph

from ncut.graphs.colouring import independent_layers, two_colours
from ncut.types import Block, Layer


def layered(n: int, pairs: set[tuple[int, int]]) -> Any:
    """What colouring sees of a graph of n layers."""
    layers = tuple(Layer(str(number), number, 1) for number in range(n))
    blocks = tuple(Block(a, b, None) for a, b in sorted(pairs))  # type: ignore[arg-type]
    return SimpleNamespace(layers=layers, blocks=blocks)


@st.composite
def layered_graphs(draw: Callable[..., Any]) -> Any:
    n = draw(st.integers(1, 9))
    ends = st.tuples(st.integers(0, n - 1), st.integers(0, n - 1))
    pairs = draw(st.sets(ends, max_size=20))
    return layered(n, {(min(pair), max(pair)) for pair in pairs})


@given(layered_graphs())
def test_groups_have_each_layer_once_and_no_block_inside(graph: Any) -> None:
    groups = independent_layers(graph)
    assert sorted(layer for group in groups for layer in group) == list(range(len(graph.layers)))
    number = {layer: at for at, group in enumerate(groups) for layer in group}
    for block in graph.blocks:
        assert block.source == block.target or number[block.source] != number[block.target]
    if two_colours(graph) is not None:
        assert len(groups) <= 2
    most = max(
        len({b.source for b in graph.blocks if b.target == layer and b.source != layer})
        + len({b.target for b in graph.blocks if b.source == layer and b.target != layer})
        for layer in range(len(graph.layers))
    )
    assert len(groups) <= most + 1


def test_the_layers_of_a_chain_fall_into_two_groups_the_larger_first() -> None:
    assert independent_layers(chain_graph(random_chain(1, (5, 9, 5, 4)))) == [[1, 3], [0, 2]]


def test_every_layer_of_a_triangle_is_a_group() -> None:
    assert len(independent_layers(skip_graph(1, (5, 6, 7), 0.9))) == 3


@pytest.mark.parametrize("n", [1, 4])
def test_layers_without_blocks_are_one_group(n: int) -> None:
    assert independent_layers(layered(n, set())) == [list(range(n))]
