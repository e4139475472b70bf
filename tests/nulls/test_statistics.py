"""p-value, mean, standard deviation and z-score of a network against its shuffles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ncut.nulls import compare

VALUES = st.floats(0, 12)


@given(VALUES, st.lists(VALUES, min_size=1, max_size=40))
def test_definitions(ncut: float, shuffled: list[float]) -> None:
    found = compare(ncut, np.array(shuffled))
    n_as_low = sum(value <= ncut for value in shuffled)
    assert found.p_value == (n_as_low + 1) / (len(shuffled) + 1)
    assert 0 < found.p_value <= 1
    mean = sum(shuffled) / len(shuffled)
    std = (sum((value - mean) ** 2 for value in shuffled) / len(shuffled)) ** 0.5
    assert found.mean == pytest.approx(mean, abs=1e-12)
    assert found.std == pytest.approx(std, abs=1e-7)
    if std > 1e-6:
        assert found.z_score == pytest.approx((ncut - mean) / std, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(
    ("ncut", "p_value"), [(0.5, 1 / 5), (1.0, 2 / 5), (2.0, 4 / 5), (2.5, 4 / 5), (3.0, 1.0)]
)
def test_ties_count_as_low(ncut: float, p_value: float) -> None:
    assert compare(ncut, np.array([1.0, 2.0, 2.0, 3.0])).p_value == p_value


def test_z_uses_the_population_standard_deviation() -> None:
    found = compare(1.0, np.array([2.0, 4.0]))
    assert (found.mean, found.std, found.z_score) == (3.0, 1.0, -2.0)


@pytest.mark.parametrize("shuffled", [[3.0], [3.0] * 7, [0.1 + 0.2] * 3 + [0.3] * 3, [0.0] * 4])
def test_without_spread_there_is_no_z_score(shuffled: list[float]) -> None:
    found = compare(1.0, np.array(shuffled))
    assert found.z_score is None
    assert found.std == pytest.approx(0, abs=1e-12)
    assert found.mean == pytest.approx(shuffled[0])


def test_without_shuffles_there_is_nothing() -> None:
    found = compare(1.0, np.array([]))
    assert (found.mean, found.std, found.p_value, found.z_score) == (None,) * 4


def test_numbers_are_plain() -> None:
    found = compare(1.0, np.array([1.0, 2.0, 4.0]))
    for value in (found.mean, found.std, found.p_value, found.z_score):
        assert type(value) is float
