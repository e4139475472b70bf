"""The slow twins are right on examples that can be done by hand."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from ncut import reference
from ncut.types import Block

# Two pairs of neurons with strong edges, 1-3 and 2-4, and one weak edge 1-4.
WEIGHTS = np.array([[2.0, 1.0], [0.0, 3.0]])
A = np.array([[0, 0, 2, 1], [0, 0, 0, 3], [2, 0, 0, 0], [1, 3, 0, 0]], float)


def test_adjacency_and_degrees() -> None:
    for weights in (WEIGHTS, WEIGHTS.astype(np.float32), sparse.csr_array(WEIGHTS)):
        ours = reference.adjacency(4, [(0, 2, Block(0, 1, weights))])
        np.testing.assert_array_equal(ours, A)
    np.testing.assert_array_equal(reference.degrees(A), [3, 3, 2, 4])


def test_components() -> None:
    np.testing.assert_array_equal(reference.components(A), [0, 0, 0, 0])
    np.testing.assert_array_equal(reference.components(np.where(A > 1, A, 0)), [0, 1, 0, 1])
    np.testing.assert_array_equal(reference.components(np.zeros((3, 3))), [0, 1, 2])


def test_normalized_cut() -> None:
    labels = np.array([0, 1, 0, 1])
    volumes, cuts = reference.volumes_and_cuts(A, labels, 2)
    np.testing.assert_array_equal(volumes, [5, 7])
    np.testing.assert_array_equal(cuts, [1, 1])
    assert reference.normalized_cut(A, labels) == 1 / 5 + 1 / 7
    assert reference.normalized_cut(A, np.array([0, -1, 0, -1])) == 1 / 5
    assert reference.normalized_cut(A, np.array([0, 2, 0, 2])) == 1 / 5 + 1 / 7
    assert reference.normalized_cut(A, np.zeros(4, int)) == 0


def test_eigenvalues_of_a_complete_bipartite_graph() -> None:
    blocks = [(0, 3, Block(0, 1, np.ones((3, 2))))]
    values = reference.laplacian_eigenvalues(reference.adjacency(5, blocks))
    np.testing.assert_allclose(values, [0, 1, 1, 1, 2], atol=1e-12)


def test_lloyd() -> None:
    points = np.array([[0.0], [1.0], [10.0], [13.0]])
    labels, inertia = reference.lloyd(points, np.array([[0.0], [1.0]]))
    np.testing.assert_array_equal(labels, [0, 0, 1, 1])
    assert inertia == 0.5 + 4.5
    stopped, _ = reference.lloyd(points, np.array([[0.0], [1.0]]), max_iterations=0)
    np.testing.assert_array_equal(stopped, [0, 1, 1, 1])


def test_shuffles_keep_the_documented_properties() -> None:
    rng = np.random.default_rng(3)
    weights = np.where(rng.random((6, 7)) < 0.5, rng.random((6, 7)), 0)
    everywhere = reference.shuffle(weights, "layer", rng)
    in_place = reference.shuffle(weights, "layer-nonzero", rng)
    for shuffled in (everywhere, in_place):
        assert not np.array_equal(shuffled, weights)
        np.testing.assert_array_equal(np.sort(shuffled, axis=None), np.sort(weights, axis=None))
    np.testing.assert_array_equal(in_place != 0, weights != 0)
    assert not np.array_equal(everywhere != 0, weights != 0)
