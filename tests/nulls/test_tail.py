"""Fitted tails: against known distributions and scipy's laws, and how they speak of doubt."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ncut.nulls.tail import TailFit, fit_tail, moments_fit, n_excesses


def generator() -> np.random.Generator:
    return np.random.default_rng(8)


def fitted(value: float, shuffled: Any, *, low: bool = True) -> TailFit:
    found = fit_tail(value, shuffled, low=low)
    assert found is not None
    return found


def many(draw: Any, value: float, n: int, times: int) -> list[TailFit]:
    return [fitted(value, draw(size=n)) for _ in range(times)]


# Against known distributions.


@pytest.mark.parametrize(("n", "factor"), [(200, 3.0), (1000, 2.0)])
def test_normal_tail_at_a_thousandth(n: int, factor: float) -> None:
    fits = many(generator().normal, stats.norm.ppf(1e-3), n, 200)
    typical = float(np.median([fit.p_value for fit in fits]))
    assert 1e-3 / factor < typical < 1e-3 * factor


def test_far_below_one_in_n_it_is_too_large_for_normal_shuffles_and_says_so() -> None:
    fits = many(generator().normal, stats.norm.ppf(1e-4), 200, 100)
    assert 1e-4 < np.median([fit.p_value for fit in fits]) < 2e-3
    assert np.mean([fit.trustworthy for fit in fits]) < 0.1


@pytest.mark.parametrize("p", [1e-3, 1e-4])
def test_exponential_tail(p: float) -> None:
    rng = generator()
    fits = many(lambda size: -rng.exponential(size=size), math.log(p), 200, 200)
    typical = float(np.median([fit.p_value for fit in fits]))
    assert p / 2 < typical < p * 2
    covered = np.mean([fit.low <= p <= fit.high for fit in fits])
    assert covered > 0.9


@pytest.mark.parametrize("shape", [-0.4, -0.2, 0.0, 0.2])
def test_the_moments_find_shape_and_scale(shape: float) -> None:
    m = 20_000
    # The law's own quantiles instead of a sample.
    ascending = stats.genpareto.ppf((np.arange(m) + 0.5) / m, shape, scale=3.0)
    found, scale = moments_fit(ascending[::-1])
    assert found == pytest.approx(shape, abs=0.01)
    assert scale == pytest.approx(3.0, rel=0.01)


@given(st.lists(st.floats(0.01, 100), min_size=2, max_size=30))
def test_the_moments_match_hosking_and_wallis(excesses: list[float]) -> None:
    m = len(excesses)
    a0 = sum(excesses) / m
    a1 = sum((1 - (j - 0.35) / m) * x for j, x in enumerate(sorted(excesses), start=1)) / m
    k, alpha = a0 / (a0 - 2 * a1) - 2, 2 * a0 * a1 / (a0 - 2 * a1)
    shape, scale = moments_fit(np.array(sorted(excesses, reverse=True)))
    assert (float(shape), float(scale)) == pytest.approx((-k, alpha), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("low", [True, False])
def test_p_value_and_fit_match_the_law(low: bool) -> None:
    sign = -1 if low else 1
    shuffled = sign * generator().gumbel(size=400)
    found = fitted(sign * 7.0, shuffled, low=low)
    law = stats.genpareto(found.shape, scale=found.scale)
    assert found.p_value == pytest.approx(law.sf(7.0 - sign * found.threshold) / 4)
    excesses = sign * (shuffled - found.threshold)
    assert np.count_nonzero(excesses > 0) == found.n_excesses == 100
    expected = stats.cramervonmises(excesses[excesses > 0], law.cdf).pvalue
    assert found.fit_p_value == pytest.approx(expected)
    beyond = (7.0 - (sign * shuffled).max()) / found.scale
    assert found.extrapolation == pytest.approx(beyond)


def test_the_threshold_lies_halfway_to_the_next_shuffle() -> None:
    assert fitted(-1.0, np.arange(40.0)).threshold == 9.5


@pytest.mark.parametrize(
    ("n", "expected"), [(20, 10), (43, 10), (44, 11), (200, 50), (1000, 250), (5000, 250)]
)
def test_number_of_excesses(n: int, expected: int) -> None:
    assert n_excesses(n) == expected


# Properties.


def test_directions_mirror_each_other() -> None:
    shuffled = generator().normal(size=100)
    below, above = fitted(-2.5, shuffled), fitted(2.5, -shuffled, low=False)
    assert replace(below, threshold=-below.threshold) == above


def test_order_matters_for_nothing_and_twice_is_the_same() -> None:
    rng = generator()
    shuffled = rng.normal(size=100)
    found = fitted(-2.5, shuffled)
    assert fitted(-2.5, shuffled) == found
    assert fitted(-2.5, rng.permutation(shuffled)) == found


def test_arguments_are_left_alone() -> None:
    shuffled = generator().normal(size=100)
    before = shuffled.copy()
    fitted(-2.5, shuffled)
    np.testing.assert_array_equal(shuffled, before)


@given(
    st.lists(st.floats(-5, 5).map(lambda x: round(x, 1)), min_size=20, max_size=80),
    st.floats(-50, 5),
)
def test_p_values_are_probabilities_inside_their_interval(
    shuffled: list[float], value: float
) -> None:
    found = fit_tail(value, np.array(shuffled))
    if found is None:
        return
    assert 0 < found.low <= found.p_value <= found.high <= 1
    assert found.scale > 0
    assert found.extrapolation >= 0
    assert (found.extrapolation > 0) == (value < min(shuffled))
    for number in (found.shape, found.scale, found.threshold, found.fit_p_value):
        assert type(number) is float
        assert math.isfinite(number)


@pytest.mark.parametrize("value", [-1e-3, -0.1, -1.0, -1e6])
def test_a_law_that_ends_too_early_gives_way_to_an_exponential(value: float) -> None:
    shuffled = generator().uniform(size=200)
    found = fitted(value, shuffled)
    assert found.p_value > 0
    if value < -0.05:
        assert "exponential" in found.note
    if "exponential" in found.note:
        excesses = found.threshold - shuffled[shuffled < found.threshold]
        assert (found.shape, found.scale) == (0.0, pytest.approx(excesses.mean()))
    assert (value == -1e6) <= (not found.trustworthy)


# Where there is nothing to fit.


def test_too_few_shuffles() -> None:
    shuffled = generator().normal(size=20)
    assert fit_tail(-4.0, shuffled[:19]) is None
    assert fit_tail(-4.0, shuffled) is not None
    assert fit_tail(-4.0, np.zeros(0)) is None


@pytest.mark.parametrize(
    "shuffled", [[3.0] * 50, [0.1 + 0.2] * 25 + [0.3] * 25, [0.3] * 30 + [4.0] * 20]
)
def test_no_spread(shuffled: list[float]) -> None:
    assert fit_tail(0.0, np.array(shuffled)) is None


def test_a_value_that_is_not_in_the_tail() -> None:
    shuffled = np.arange(100.0)
    assert fit_tail(8.0, shuffled) is None
    assert fit_tail(7.5, shuffled) is not None
    assert fit_tail(50.0, shuffled) is None
    assert fit_tail(91.0, shuffled, low=False) is None
    assert fit_tail(91.5, shuffled, low=False) is not None


@pytest.mark.parametrize("strange", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite(strange: float) -> None:
    shuffled = generator().normal(size=100)
    assert fit_tail(strange, shuffled) is None
    shuffled[17] = strange
    assert fit_tail(-4.0, shuffled) is None


# Doubts.


def test_no_doubt_without_reason() -> None:
    found = fitted(-2.4, generator().normal(size=200))
    assert found.trustworthy
    assert found.note == ""


@pytest.mark.parametrize(
    ("value", "shuffled", "words"),
    [
        (-2.0, generator().normal(size=49), "only 49 shuffles"),
        (-30.0, generator().normal(size=200), "tail scales beyond every shuffle"),
        (-4.5, generator().normal(size=200), "the interval spans"),
        (-3.5, np.round(generator().normal(size=1000)), "the tail fits badly (p = "),
    ],
)
def test_doubts_are_reported(value: float, shuffled: Any, words: str) -> None:
    found = fitted(value, shuffled)
    assert not found.trustworthy
    assert words in found.note
    assert found.note in str(found)
    assert "not trustworthy" in str(found)


def test_sentence_is_never_that_of_an_exact_number() -> None:
    found = TailFit(2e-5, 1e-6, 2.2e-4, 0.0, 1.0, -1.0, 50, 0.4, 1.5, True, "")
    sentence = "about 2e-5 (1e-6 to 0.0002) by a fitted tail, extrapolated, not exact"
    assert str(found) == sentence
    doubted = replace(found, trustworthy=False, note="only 30 shuffles")
    assert str(doubted) == f"{sentence}, not trustworthy: only 30 shuffles"
    within = replace(found, p_value=0.012, extrapolation=0.0)
    assert str(within) == "about 0.01 (1e-6 to 0.0002) by a fitted tail, not exact"
    assert "1e-12" in str(replace(found, low=1e-12))
