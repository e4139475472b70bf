"""The checks of `checks.py` accept right answers and reject corrupted ones."""

from __future__ import annotations

import checks
import numpy as np
import pytest
from samples import chain_graph, random_chain
from scipy import sparse


def rejected() -> pytest.RaisesExc[AssertionError]:
    return pytest.raises(AssertionError)


def test_same_multiset() -> None:
    values = np.array([[3.0, 1.0], [1.0, 2.0]])
    checks.check_same_multiset(values.T.copy(), values)
    for wrong in ([1.0, 1.0, 2.0, 2.0], [1.0, 1.0, 2.0], [1.0, 1.0, 2.0, 3.0 + 1e-15]):
        with rejected():
            checks.check_same_multiset(np.array(wrong), values)
    with rejected():
        checks.check_same_multiset(values.astype(np.float32), values)


def test_uniform() -> None:
    checks.check_uniform([1000, 1040, 970, 990])
    checks.check_uniform([2000, 1040, 970], share=[0.5, 0.25, 0.25])
    with rejected():
        checks.check_uniform([1000, 1200, 970, 990])
    with rejected():
        checks.check_uniform([1000, 1040, 970], share=[0.5, 0.25, 0.25])


def _corrupt(matrix: sparse.csr_array, part: str, at: int, value: int) -> sparse.csr_array:
    wrong = matrix.copy()
    getattr(wrong, part)[at] = value
    return wrong


def test_canonical_csr() -> None:
    matrix = sparse.csr_array(np.array([[0.0, 1.0, 2.0], [3.0, 0.0, 4.0]]))
    checks.check_canonical_csr(matrix)
    for part, at, value in [
        ("indices", 1, 1),  # twice the same column
        ("indices", 0, 2),  # not ascending
        ("indices", 3, 3),  # outside
        ("indices", 0, -1),
        ("indptr", 2, 3),
        ("indptr", 1, 5),
        ("indptr", 0, 1),
    ]:
        with rejected():
            checks.check_canonical_csr(_corrupt(matrix, part, at, value))


def test_adjacency() -> None:
    matrix = chain_graph(random_chain(3, [3, 4])).adjacency
    checks.check_adjacency(matrix)
    asymmetric, negative = matrix.copy(), matrix.copy()
    asymmetric.data[0] *= 2
    negative.data *= -1
    looped = sparse.csr_array(matrix + sparse.eye_array(7))
    for wrong in (asymmetric, negative, looped):
        with rejected():
            checks.check_adjacency(wrong)


def test_eigenpairs() -> None:
    laplacian = chain_graph(random_chain(5, [4, 6])).laplacian("sym").toarray()
    values, vectors = np.linalg.eigh(laplacian)
    checks.check_eigenpairs(laplacian, values, vectors, 1e-9)
    doubled = vectors.copy()
    doubled[:, 1] = vectors[:, 0]
    shifted = values.copy()
    shifted[3] += 1e-6
    for wrong_values, wrong_vectors in [
        (values, doubled),
        (values, 2 * vectors),
        (shifted, vectors),
        (values[::-1], vectors[:, ::-1]),
    ]:
        with rejected():
            checks.check_eigenpairs(laplacian, wrong_values, wrong_vectors, 1e-9)


def test_nearest_centre() -> None:
    points = np.array([[0.0], [1.0], [10.0], [11.0]])
    checks.check_nearest_centre(points, np.array([0, 0, 1, 1]), 1e-9)
    checks.check_nearest_centre(points, np.array([0, 0, 5, 5]), 1e-9)
    with rejected():
        checks.check_nearest_centre(points, np.array([0, 1, 1, 1]), 1e-9)


def test_same_partition() -> None:
    expected = np.array([0, 0, 1, 2])
    checks.check_same_partition(np.array([7, 7, 3, 0]), expected)
    for wrong in ([0, 0, 1, 1], [0, 1, 2, 3], [0, 1, 1, 2]):
        with rejected():
            checks.check_same_partition(np.array(wrong), expected)
