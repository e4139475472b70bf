"""adjusted_rand_index: equal to scikit-learn's, and refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from ncut.errors import InputError
from ncut.spectral.agreement import adjusted_rand_index

LABELS = st.integers(1, 40).flatmap(
    lambda n: st.tuples(*(st.lists(st.integers(-2, 4), min_size=n, max_size=n) for _ in range(2)))
)


@given(LABELS)
def test_equals_scikit_learn(labels: tuple[list[int], list[int]]) -> None:
    a, b = labels
    expected = adjusted_rand_score(a, b)
    assert adjusted_rand_index(a, b) == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert adjusted_rand_index(b, a) == pytest.approx(expected, rel=1e-12, abs=1e-12)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.permutations(range(6)))
def test_the_same_partition_scores_one(labels: list[int], names: list[int]) -> None:
    assert adjusted_rand_index(labels, [names[label] for label in labels]) == 1.0


@pytest.mark.parametrize("labels", [[0], [3, 3, 3], [0, 1, 2, 3]])
def test_trivial_partitions_score_one(labels: list[int]) -> None:
    assert adjusted_rand_index(labels, labels) == 1.0


def test_one_cluster_against_singletons_scores_nothing() -> None:
    assert adjusted_rand_index([0, 0, 0, 0], [0, 1, 2, 3]) == 0.0


def test_many_things_do_not_overflow() -> None:
    n = 3_000_000
    a = np.arange(n, dtype=np.int32) % 3
    assert adjusted_rand_index(a, a) == 1.0
    assert abs(adjusted_rand_index(a, np.arange(n) * 2 // n)) < 1e-5


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([0, 1], [0, 1, 1], "shapes"),
        ([], [], "shapes"),
        ([[0, 1]], [[0, 1]], "shapes"),
        ([0.0, 1.0], [0, 1], "whole numbers"),
    ],
)
def test_refused(a: Any, b: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        adjusted_rand_index(a, b)


def test_memory_does_not_grow_with_the_product_of_the_numbers_of_clusters() -> None:
    pairs = np.arange(200_000) // 2
    assert adjusted_rand_index(pairs, pairs[::-1]) == 1.0
    assert adjusted_rand_index(pairs, np.roll(pairs, 1)) == pytest.approx(0.0, abs=1e-5)
