"""Differences of means and orders of rows, against the noise of few networks."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ncut.paper.comparison import (
    Sample,
    agreeing_pairs,
    difference,
    distance,
    pairs_by_noise,
    pooled,
)

SAMPLES = st.builds(Sample, st.integers(2, 10), st.floats(-12, 12), st.floats(0.01, 3))


@given(SAMPLES, SAMPLES)
def test_a_difference_is_that_of_students_test(a, b):
    found = difference(a, b)
    t, p = stats.ttest_ind_from_stats(a.mean, a.std, a.n, b.mean, b.std, b.n)
    assert found.degrees == a.n + b.n - 2
    assert found.value / found.standard_error == pytest.approx(t, abs=1e-9)
    if abs(p - 0.05) > 1e-6:
        assert found.excludes_zero == (p < 0.05)
    low, high = stats.t.interval(0.95, found.degrees, found.value, found.standard_error)
    assert high - low == pytest.approx(2 * found.half_width)


def test_intervals_of_one_distribution_exclude_zero_in_a_twentieth_of_cases():
    random = np.random.default_rng(0)

    def sample(n):
        values = random.normal(9.0, 0.3, n)
        return Sample(n, values.mean(), values.std(ddof=1))

    for n in (2, 5):
        share = np.mean([difference(sample(n), sample(5)).excludes_zero for _ in range(2000)])
        assert 0.035 < share < 0.065


@pytest.mark.parametrize(
    "unknown", [Sample(1, 2.0, None), Sample(1, 2.0, 0.5), Sample(4, 2.0, None)]
)
def test_one_side_lends_the_other_its_spread(unknown):
    known = Sample(5, 3.0, 0.25)
    for pair in ((known, unknown), (unknown, known)):
        assert pooled(*pair) == (0.25, 4)
        assert difference(*pair).standard_error == pytest.approx(
            0.25 * math.sqrt(1 / 5 + 1 / unknown.n)
        )
    assert difference(unknown, unknown) is None
    assert distance(unknown, 1.0, 3.0) is None


def test_equal_networks_have_no_spread():
    assert pooled(Sample(3, 1.0, 0.0)) is None


@pytest.mark.parametrize(("mean", "expected"), [(1.0, -1.0), (2.0, 0.0), (2.5, 0.0), (3.5, 0.5)])
def test_a_distance_from_a_range(mean, expected):
    found = distance(Sample(4, mean, 0.2), 2.0, 3.0)
    assert found.value == pytest.approx(expected)
    assert (found.standard_error, found.degrees) == (pytest.approx(0.1), 3)


def test_pairs_in_the_same_order():
    assert agreeing_pairs([1, 2, 3], [4, 5, 6]) == 3
    assert agreeing_pairs([1, 2, 3], [6, 5, 4]) == 0
    assert agreeing_pairs([1, 3, 2], [4, 5, 6]) == 2
    assert agreeing_pairs([1, 1], [4, 5]) == 0
    assert agreeing_pairs([1], [4]) == 0


def test_agreement_by_noise_is_the_sum_over_pairs_of_rows():
    random = np.random.default_rng(1)
    rows = [
        (Sample(n, 0.0, std), Sample(5, mean, std))
        for n, mean, std in zip((1, 2, 5, 2, 3), random.normal(0, 1, 5),
                                random.uniform(0.1, 1, 5), strict=True)
    ]  # fmt: skip
    expected = 0.0
    for a, b in itertools.combinations(rows, 2):
        chances = [
            stats.norm.cdf(
                (a[1].mean - b[1].mean)
                / math.hypot(*(row[1].std / math.sqrt(row[side].n) for row in (a, b)))
            )
            for side in (0, 1)
        ]
        expected += math.prod(chances) + math.prod(1 - chance for chance in chances)
    mean, low, high = pairs_by_noise(rows)
    assert mean == pytest.approx(expected, abs=0.05)
    assert low < expected < high <= 10


def test_without_noise_all_pairs_agree_and_with_nothing_else_half():
    def rows(std, gap):
        return [(Sample(2, 0.0, std), Sample(5, gap * i, std)) for i in range(5)]

    assert pairs_by_noise(rows(1e-9, 1.0)) == (10.0, 10, 10)
    mean, low, high = pairs_by_noise(rows(1.0, 0.0))
    assert mean == pytest.approx(5.0, abs=0.05)
    assert low < 3 < 7 < high
    assert pairs_by_noise(rows(None, 1.0)) is None
    assert pairs_by_noise(rows(1.0, 1.0)[:1]) is None
