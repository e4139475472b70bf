"""p-value, mean, standard deviation and z-score of a network against its shuffles."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ncut.measure.finish import _as_clusterable, stop_rule
from ncut.nulls import compare
from ncut.nulls.sequential import Outcome, stopping_point
from ncut.plan import Plan
from ncut.types import ShuffledNetwork

VALUES = st.floats(0, 12).map(lambda value: round(value, 6))  # closer ones are ties


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


@pytest.mark.parametrize("low", [True, False])
def test_rounding_errors_of_zero_are_ties(low: bool) -> None:
    assert compare(0.0, np.array([1e-17, -3e-16, 0.0]), low=low).p_value == 1.0


def test_a_stopping_rule_counts_the_same_ties() -> None:
    plan = Plan.of(shuffles="auto")
    network: Any = SimpleNamespace(headline="spectral_ncut", ncut=0.3)
    shuffles = [ShuffledNetwork({"spectral_ncut": 0.1 + 0.2}, None, True)] * 20
    stop = stop_rule(network, plan)
    assert stop is not None
    assert stop(shuffles)
    assert stopping_point(_as_clusterable(network, shuffles), "betting", 0.05, 1000) == Outcome(
        "betting", 20, "futile at level 0.05", 1.0
    )
