"""Volumes and cuts of partitions, against dense NumPy."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from samples import Placed, placed_blocks

from ncut import kernels, reference
from ncut.types import Block


def labelled(placed: Placed, k: int, seed: int) -> np.ndarray:
    """A random label for each vertex, -1 for those without edges."""
    labels = np.random.default_rng(seed).integers(0, k, placed[0]).astype(np.int32)
    labels[reference.degrees(reference.adjacency(*placed)) == 0] = -1
    return labels


@given(placed_blocks(), st.integers(1, 5), st.integers(1, 10_000))
def test_volumes_and_cuts_equal_the_dense_ones(placed: Placed, k: int, seed: int) -> None:
    labels = labelled(placed, k, seed)
    volume, cut = kernels.volumes_and_cuts(placed[1], labels, k)
    expected_volume, expected_cut = reference.volumes_and_cuts(
        reference.adjacency(*placed), labels, k
    )
    np.testing.assert_allclose(volume, expected_volume, rtol=1e-13, atol=0)
    np.testing.assert_allclose(cut, expected_cut, rtol=1e-13, atol=0)
    assert (cut <= volume).all()


@given(placed_blocks())
def test_one_cluster_cuts_nothing_and_each_vertex_alone_everything(placed: Placed) -> None:
    n_vertices, blocks = placed
    volume, cut = kernels.volumes_and_cuts(blocks, np.zeros(n_vertices, np.int32), 1)
    assert cut[0] == 0
    degrees = kernels.degrees(*placed)
    np.testing.assert_allclose(volume[0], degrees.sum(), rtol=1e-13)
    alone = np.arange(n_vertices, dtype=np.int32)
    volume, cut = kernels.volumes_and_cuts(blocks, alone, n_vertices)
    np.testing.assert_array_equal(volume, cut)
    np.testing.assert_allclose(volume, degrees, rtol=1e-13, atol=0)


def test_a_cut_of_nothing_is_exactly_zero_beside_heavy_edges() -> None:
    # A cut computed as volume minus inner weight would leave a rounding error.
    weights = np.array([[1e15, 0.0], [0.0, 0.1]])
    blocks = [(0, 2, Block(0, 1, weights))]
    volume, cut = kernels.volumes_and_cuts(blocks, np.array([0, 1, 0, 1], np.int32), 2)
    np.testing.assert_array_equal(cut, [0, 0])
    np.testing.assert_array_equal(volume, [2e15, 0.2])


@given(placed_blocks(), st.integers(1, 5), st.integers(1, 10_000))
def test_inner_squares_equal_the_dense_ones(placed: Placed, k: int, seed: int) -> None:
    labels = labelled(placed, k, seed)
    for first_row, first_col, block in placed[1]:
        n_rows, n_cols = block.weights.shape
        rows, cols = labels[first_row : first_row + n_rows], labels[first_col : first_col + n_cols]
        squares = kernels.inner_squares(block, rows, cols)
        expected = reference.inner_squares(reference.dense(block.weights), rows, cols)
        np.testing.assert_allclose(squares, expected, rtol=1e-13, atol=0)
        assert squares.inside <= squares.total


@given(placed_blocks(), st.integers(1, 5), st.integers(1, 10_000))
def test_links_are_products_with_indicators(placed: Placed, k: int, seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, k, placed[0]).astype(np.int32)
    links = kernels.links(*placed, labels, k, k + 2)
    expected = reference.adjacency(*placed) @ np.eye(k + 2)[labels]
    np.testing.assert_allclose(links, expected, rtol=1e-13, atol=0)
