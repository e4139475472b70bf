"""Rules for stopping: the bet against independent arithmetic, errors by exact enumeration."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import integrate, stats

from ncut.errors import InputError
from ncut.nulls.sequential import (
    EXCEEDANCES,
    MIN_SHUFFLES,
    RULES,
    Outcome,
    anytime_p_value,
    check_level,
    check_rule,
    check_sequential,
    stopping_point,
    wealth,
)

LEVELS = [0.001, 0.01, 0.05, 0.2, 0.5, 0.9]

PATHS = st.one_of(
    st.lists(st.booleans(), max_size=60),
    # Few shuffles as clusterable as the network: where the bet lives long.
    st.lists(st.integers(0, 39).map(lambda number: number == 0), max_size=200),
)


def path(*extreme: int, length: int) -> Any:
    """A sequence of `length` shuffles; those with these numbers (from 1) are as clusterable."""
    found = np.zeros(length, dtype=np.bool_)
    found[np.array(extreme, dtype=int) - 1] = True
    return found


def urn(paths: list[bool]) -> Fraction:
    """The probability of a path if the network is one of its shuffles: one bet at a time."""
    probability, r = Fraction(1), 0
    for t, extreme in enumerate(paths):
        chance = Fraction(r + 1, t + 2)
        probability *= chance if extreme else 1 - chance
        r += extreme
    return probability


# The bet.


@given(st.lists(st.booleans(), max_size=70), st.sampled_from(LEVELS))
def test_wealth_is_the_mean_of_what_simple_bets_win(shuffles: list[bool], level: float) -> None:
    # A simple bet takes a single probability q for true; the mixture spreads its stake over all
    # q below 0.9 * level. The wealth is a polynomial of q, for which the quadrature is exact.
    nodes, weights = np.polynomial.legendre.leggauss(40)
    q = 0.9 * level * (nodes + 1) / 2
    stakes = weights / 2
    expected, r = [1.0], 0
    for t, extreme in enumerate(shuffles):
        chance = (r + 1) / (t + 2)
        stakes = stakes * (q / chance if extreme else (1 - q) / (1 - chance))
        r += extreme
        expected.append(stakes.sum())
    found = wealth(np.array(shuffles, dtype=np.bool_), level)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-300)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("t", "r"), [(1, 0), (1, 1), (12, 0), (12, 2), (40, 3), (40, 40)])
def test_wealth_is_a_ratio_of_likelihoods(t: int, r: int, level: float) -> None:
    c = 0.9 * level
    area, _ = integrate.quad(lambda q: q**r * (1 - q) ** (t - r) / c, 0, c, epsabs=0)
    under_null = float(urn([True] * r + [False] * (t - r)))
    found = wealth(path(*range(1, r + 1), length=t), level)[-1]
    assert found == pytest.approx(area / under_null, rel=1e-8)
    assert found == pytest.approx(stats.binom.sf(r, t + 1, c) / c, rel=1e-8)


@pytest.mark.parametrize("level", LEVELS)
def test_wealth_is_a_martingale_under_the_null(level: float) -> None:
    for t in range(9):
        expected = 0.0
        for shuffles in itertools.product([False, True], repeat=t):
            now = wealth(np.array(shuffles, dtype=np.bool_), level)[-1]
            expected += float(urn(list(shuffles))) * now
            chance = (sum(shuffles) + 1) / (t + 2)
            steps = [wealth(np.array([*shuffles, one]), level)[-1] for one in (True, False)]
            assert chance * steps[0] + (1 - chance) * steps[1] == pytest.approx(now, rel=1e-9)
        assert expected == pytest.approx(1)


def test_the_urn_is_that_of_exchangeable_values() -> None:
    # Of 5 values in random order the first is the network's.
    counts: dict[tuple[bool, ...], int] = {}
    for order in itertools.permutations(range(5)):
        seen = tuple(value < order[0] for value in order[1:])
        counts[seen] = counts.get(seen, 0) + 1
    for shuffles in itertools.product([False, True], repeat=4):
        assert urn(list(shuffles)) == Fraction(counts.get(shuffles, 0), math.factorial(5))


# Errors under the null, exactly: a walk over (t, r), each with its probability.

Walk = Iterator[tuple[int, int, float]]


def walk(n: int, ends: Callable[[int, int], bool]) -> Walk:
    """(t, r, probability) of each state under the null in which a path ends, or has length n."""
    alive = {0: 1.0}
    for t in range(1, n + 1):
        following: dict[int, float] = {}
        for r, probability in alive.items():
            chance = (r + 1) / (t + 1)
            following[r + 1] = following.get(r + 1, 0.0) + probability * chance
            following[r] = following.get(r, 0.0) + probability * (1 - chance)
        alive = {}
        for r, probability in following.items():
            if t == n or ends(t, r):
                yield t, r, probability
            else:
                alive[r] = probability


def table(n: int, level: float) -> Any:
    """The wealth after t shuffles with r as clusterable, by the binomial distribution."""
    t, r = np.ogrid[: n + 1, : n + 2]
    return stats.binom.sf(r, t + 1, 0.9 * level) / (0.9 * level)


@pytest.mark.parametrize("level", [0.02, 0.05, 0.2, 0.5])
def test_betting_rejects_a_true_null_with_probability_level_at_most(level: float) -> None:
    n = 600
    won = table(n, level)
    ended = list(walk(n, lambda t, r: not level <= won[t, r] < 1 / level))
    assert sum(probability for *_, probability in ended) == pytest.approx(1)
    errors = sum(probability for t, r, probability in ended if won[t, r] >= 1 / level)
    assert level / 2 < errors <= level
    # Giving up costs next to nothing: without it, the error is hardly larger.
    stubborn = walk(n, lambda t, r: won[t, r] >= 1 / level)
    reached = sum(probability for t, r, probability in stubborn if won[t, r] >= 1 / level)
    assert errors <= reached <= min(level, errors + level**2)


@pytest.mark.parametrize("level", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("small", [0.05, 0.1, 0.3, 0.5, 0.9])
def test_anytime_p_values_are_valid_at_any_length(level: float, small: float) -> None:
    won = table(300, level)
    ended = walk(300, lambda t, r: won[t, r] >= 1 / small)
    assert sum(probability for t, r, probability in ended if won[t, r] >= 1 / small) <= small


@given(PATHS, st.sampled_from([0.05, 0.2, 0.5]))
def test_betting_ends_where_the_walk_says(shuffles: list[bool], level: float) -> None:
    n = max(len(shuffles), RULES["betting"].needed(level))
    won = table(n, level)
    counts = np.cumsum([0, *shuffles])
    wealths = [won[t, counts[t]] for t in range(counts.size)]
    expected = next(
        (
            t
            for t in range(MIN_SHUFFLES, counts.size)
            if wealths[t] < level or max(wealths[: t + 1]) >= 1 / level
        ),
        None,
    )
    found = stopping_point(np.array(shuffles, dtype=np.bool_), "betting", level, n)
    if expected is None:
        assert found is None or (found.n_shuffles, found.reason) == (n, "maximum reached")
        return
    assert found is not None
    assert found.n_shuffles == expected
    rejected = max(wealths[: expected + 1]) >= 1 / level
    assert found.reason == f"{'rejected' if rejected else 'futile'} at level {level:g}"
    assert (found.p_value <= level) == rejected


@pytest.mark.parametrize("n", [19, 50, 200])
def test_besag_clifford_p_values_have_their_own_probability(n: int) -> None:
    ended = [
        (probability, stopping_point(sample(t, r), "besag-clifford", 0.05, n))
        for t, r, probability in walk(n, lambda _, r: r == EXCEEDANCES)
    ]
    values = np.array([outcome.p_value for _, outcome in ended if outcome is not None])
    chances = np.array([probability for probability, _ in ended])
    assert values.size == chances.size
    for value in values:
        assert chances[values <= value].sum() == pytest.approx(value, rel=1e-9)
    for small in np.linspace(0.001, 1, 250):
        assert chances[values <= small].sum() <= small + 1e-12


def sample(t: int, r: int) -> Any:
    """A path of t shuffles with r as clusterable, the last of them at the end."""
    return path(*range(1, r), *([t] if r else []), length=t)


# Rules.


@pytest.mark.parametrize("rule", sorted(RULES))
@given(shuffles=PATHS, level=st.sampled_from([0.05, 0.2]), n=st.integers(50, 120))
@example(shuffles=[False] * 200, level=0.05, n=60)
@example(shuffles=[False] * 30 + [True] + [False] * 100, level=0.05, n=60)
def test_later_shuffles_change_nothing(
    rule: str, shuffles: list[bool], level: float, n: int
) -> None:
    all_of_them = np.array(shuffles, dtype=np.bool_)
    outcome = stopping_point(all_of_them, rule, level, n)
    for length in range(len(shuffles) + 1):
        found = stopping_point(all_of_them[:length], rule, level, n)
        if outcome is None or length < outcome.n_shuffles:
            assert found is None
        else:
            assert found == outcome
    assert outcome is not None or len(shuffles) < n


@given(PATHS, st.integers(0, 199), st.sampled_from(LEVELS))
def test_a_tie_never_makes_a_p_value_smaller(
    shuffles: list[bool], where: int, level: float
) -> None:
    strict = np.array(shuffles, dtype=np.bool_)
    tied = strict.copy()
    tied[where : where + 1] = True
    assert anytime_p_value(tied, level) >= anytime_p_value(strict, level) * (1 - 1e-12)


@pytest.mark.parametrize(
    ("rule", "level", "needed"),
    [
        ("betting", 0.05, 50),
        ("betting", 0.01, 254),
        ("besag-clifford", 0.05, 19),
        ("besag-clifford", 0.01, 99),
        ("besag-clifford", 0.07, 14),
        ("besag-clifford", 0.9, 1),
    ],
)
def test_shuffles_needed(rule: str, level: float, needed: int) -> None:
    assert RULES[rule].needed(level) == needed


@pytest.mark.parametrize("rule", sorted(RULES))
@given(level=st.floats(1e-4, 0.999))
@example(level=1 / 49)
@example(level=0.1)
def test_as_many_as_needed_reject_and_no_fewer(rule: str, level: float) -> None:
    n = RULES[rule].needed(level)
    outcome = stopping_point(np.zeros(n, dtype=np.bool_), rule, level, n)
    assert outcome is not None
    assert outcome.p_value <= level
    if n > 1:
        fewer = np.zeros(n - 1, dtype=np.bool_)
        p = 1 / n if rule == "besag-clifford" else anytime_p_value(fewer, level)
        assert p > level
        with pytest.raises(InputError, match=rf"^max_shuffles: {rule} needs at least {n} to"):
            stopping_point(fewer, rule, level, n - 1)


def test_besag_clifford_by_hand() -> None:
    def outcome(*extreme: int, length: int, n: int = 100) -> Outcome | None:
        return stopping_point(path(*extreme, length=length), "besag-clifford", 0.05, n)

    assert outcome(*range(1, 10), length=50) is None
    tenth = Outcome("besag-clifford", 40, "enough exceedances", 10 / 40)
    assert outcome(*range(1, 10), 40, length=50) == tenth
    assert outcome(*range(1, 10), 40, length=40, n=40) == tenth
    maximum = Outcome("besag-clifford", 100, "maximum reached", 4 / 101)
    assert outcome(3, 50, 99, length=100) == maximum


def test_betting_by_hand() -> None:
    def outcome(*extreme: int, length: int, n: int = 60) -> Outcome | None:
        return stopping_point(path(*extreme, length=length), "betting", 0.05, n)

    c = 0.045
    assert outcome(length=49) is None
    found = outcome(length=60)
    assert found is not None
    assert (found.n_shuffles, found.reason) == (50, "rejected at level 0.05")
    assert found.p_value == pytest.approx(c / (1 - (1 - c) ** 51))
    assert outcome(1, length=19) is None
    assert outcome(*range(1, 9), length=60) == Outcome("betting", 20, "futile at level 0.05", 1.0)
    found = outcome(40, length=60)
    assert found is not None
    assert (found.n_shuffles, found.reason) == (60, "maximum reached")
    # The largest wealth may be an earlier one.
    assert found.p_value == pytest.approx(c / (1 - (1 - c) ** 40))


def test_anytime_p_values_are_bounded_by_the_bet() -> None:
    assert anytime_p_value(np.zeros(0, dtype=np.bool_), 0.05) == 1
    assert anytime_p_value(np.ones(20, dtype=np.bool_), 0.05) == 1
    assert anytime_p_value(np.zeros(10_000, dtype=np.bool_), 0.05) == pytest.approx(0.045)


@pytest.mark.parametrize("n", [10, 2000])
def test_many_shuffles_as_clusterable_are_no_trouble(n: int) -> None:
    found = wealth(np.ones(n, dtype=np.bool_), 0.001)
    assert found[0] == 1
    assert 0 <= found[-1] < 1e-20
    assert (np.diff(found) <= 0).all()


def test_outcomes_are_plain_and_read_well() -> None:
    outcome = stopping_point(np.zeros(60, dtype=np.bool_), "betting", 0.05, np.int64(60))  # type: ignore[arg-type]
    assert str(outcome) == "betting stopped after 50 shuffles: rejected at level 0.05"
    assert outcome is not None
    assert (type(outcome.n_shuffles), type(outcome.p_value)) == (int, float)
    assert "after 1 shuffle:" in str(Outcome("betting", 1, "futile", 1.0))


# Arguments.


@pytest.mark.parametrize("rule", ["", "Betting", "bet", None, 3, ["betting"]])
def test_unknown_rules_are_refused(rule: object) -> None:
    with pytest.raises(InputError, match=r"^sequential: must be one of betting, besag-clifford"):
        check_rule(rule)
    with pytest.raises(InputError, match=r"^sequential: "):
        check_sequential(rule, 0.05, 100)


@pytest.mark.parametrize("level", [0, 1, 0.0, 1.0, -0.1, 5, math.nan, math.inf, "0.05", None, True])
def test_levels_must_be_probabilities(level: Any) -> None:
    with pytest.raises(InputError, match=r"^level: must lie between 0 and 1"):
        check_level(level)
    with pytest.raises(InputError, match=r"^level: "):
        anytime_p_value(np.zeros(3, dtype=np.bool_), level)


@pytest.mark.parametrize("n", [None, "100", 100.0, True])
def test_maximum_must_be_a_whole_number(n: object) -> None:
    with pytest.raises(InputError, match=r"^max_shuffles: must be a whole number"):
        check_sequential("betting", 0.05, n)


@pytest.mark.parametrize("n", [-1, 0, 1, 49])
def test_maximum_must_be_enough(n: int) -> None:
    with pytest.raises(InputError, match=r"at least 50 to reject at level 0\.05, got"):
        check_sequential("betting", 0.05, n)


def test_good_arguments_pass() -> None:
    assert check_rule("betting") == "betting"
    assert check_level(np.float32(0.5)) == 0.5
    check_sequential("betting", 0.05, 50)
    check_sequential("besag-clifford", 0.05, np.int64(19))
