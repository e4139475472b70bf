"""Two colours for the layers of a graph, where they suffice."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st
from samples import chain_graph, random_chain, skip_graph

from ncut.graphs.colouring import coloured, two_colours

LAYERS = st.integers(1, 7).flatmap(
    lambda n: st.tuples(
        st.just(n), st.sets(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=9)
    )
)


@given(LAYERS)
def test_the_first_of_all_colourings_if_there_is_any(
    layers: tuple[int, set[tuple[int, int]]],
) -> None:
    n, pairs = layers
    all_colourings = map(list, itertools.product((0, 1), repeat=n))
    right = [one for one in all_colourings if all(one[a] != one[b] for a, b in pairs)]
    assert coloured(n, pairs) == (right[0] if right else None)


def test_colours_of_graphs() -> None:
    assert two_colours(chain_graph(random_chain(1, (5, 9, 5, 4)))) == [0, 1, 0, 1]
    assert two_colours(skip_graph(1, (5, 6, 7), 0.9)) is None
