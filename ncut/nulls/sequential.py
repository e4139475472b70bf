"""Stopping rules for shuffles, and their p-values.

A rule sees which shuffles, in the order of their numbers, are at least as clusterable as the
network. Its decision depends on that order alone, not on threads or on how often it is called. If
the network is one of its shuffles, shuffle t + 1 is at least as clusterable with probability (r +
1) / (t + 2), where r of the t before it are: Polya's urn. Shuffles that tie with the network count
as more clusterable than it, which makes p-values larger, never smaller.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from ncut.arguments import check_choice
from ncut.errors import InputError

EXCEEDANCES = 10
"""Besag and Clifford's h: p-values are known to about one part in its square root."""

MIN_SHUFFLES = 20
"""Smallest number of shuffles for betting, so that their spread can be reported."""

MIXTURE_SHARE = 0.9
"""The bet mixes over probabilities from 0 to this share of the level."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The point at which a rule stopped.

    Attributes
    ----------
    rule : str
        The rule's name.
    n_shuffles : int
        Number of shuffles used.
    reason : str
        The reason for stopping: "rejected" or "futile" at the level, "enough exceedances" or
        "maximum reached".
    p_value : float
        One-sided, in the direction of "more clusterable".
    """

    rule: str
    n_shuffles: int
    reason: str
    p_value: float

    def __str__(self) -> str:
        noun = "shuffle" if self.n_shuffles == 1 else "shuffles"
        return f"{self.rule} stopped after {self.n_shuffles} {noun}: {self.reason}"


class StoppingRule(Protocol):
    """A rule, made from the level and the largest number of shuffles."""

    def __init__(self, level: float, max_shuffles: int) -> None: ...

    @staticmethod
    def needed(level: float) -> int:
        """Number of shuffles needed to reject if none is as clusterable as the network."""
        ...

    def outcome(self, as_extreme: NDArray[np.bool_]) -> Outcome | None:
        """Stopping point within the first shuffles, shape (n,); None: continue."""
        ...


@dataclass(frozen=True, slots=True)
class BesagClifford:
    """Stop when EXCEEDANCES shuffles are at least as clusterable: p = h / n.

    At the maximum of n shuffles with only r, p = (r + 1) / (n + 1). Under the null hypothesis, the
    probability of a p-value of at most p equals p for each possible p. The rule saves shuffles if
    the network is not clusterable, and none if it is.

    Source: Besag and Clifford (1991), Sequential Monte Carlo p-values, Biometrika 78.
    """

    level: float
    max_shuffles: int

    name: ClassVar[str] = "besag-clifford"

    @staticmethod
    def needed(level: float) -> int:
        """Number n of shuffles for which 1 / (n + 1) is at most `level`."""
        n = max(1, math.ceil(1 / level) - 1)
        return n - 1 if n > 1 and 1 / n <= level else n

    def outcome(self, as_extreme: NDArray[np.bool_]) -> Outcome | None:
        """Stopping point within the first shuffles, shape (n,); None: continue."""
        seen = as_extreme[: self.max_shuffles]
        where = np.flatnonzero(seen)
        if where.size >= EXCEEDANCES:
            n = int(where[EXCEEDANCES - 1]) + 1
            return Outcome(self.name, n, "enough exceedances", EXCEEDANCES / n)
        if seen.size < self.max_shuffles:
            return None
        p = (where.size + 1) / (seen.size + 1)
        return Outcome(self.name, seen.size, "maximum reached", p)


@dataclass(frozen=True, slots=True)
class Betting:
    """Stop when a bet against "the network is one of its shuffles" is won or lost.

    The bet is won, and the null hypothesis rejected, when its `wealth` reaches 1 / level; it is
    given up as futile when the wealth lies below the level. Neither is decided before
    MIN_SHUFFLES. See `anytime_p_value` for the p-value and its smallest value.

    Source: Fischer and Ramdas (2025), Sequential Monte-Carlo testing by betting,
    arXiv:2401.07365: the binomial mixture strategy.
    """

    level: float
    max_shuffles: int

    name: ClassVar[str] = "betting"

    @staticmethod
    def needed(level: float) -> int:
        """Number n of shuffles for which 1 - (1 - c)**(n + 1) reaches c / level."""
        share = math.log1p(-MIXTURE_SHARE) / math.log1p(-MIXTURE_SHARE * level)
        return max(1, math.ceil(share) - 1)

    def outcome(self, as_extreme: NDArray[np.bool_]) -> Outcome | None:
        """Stopping point within the first shuffles, shape (n,); None: continue."""
        seen = as_extreme[: self.max_shuffles]
        won = wealth(seen, self.level)[1:]
        # Compared as p-values, so that the reported one is not a rounding error above the level.
        rejected = 1 / np.maximum.accumulate(np.maximum(won, self.level)) <= self.level
        enough = np.arange(1, seen.size + 1) >= MIN_SHUFFLES
        stops = np.flatnonzero(enough & (rejected | (won < self.level)))
        if stops.size:
            n = int(stops[0]) + 1
            word = "rejected" if rejected[n - 1] else "futile"
            return self._stopped(seen[:n], f"{word} at level {self.level:g}")
        if seen.size < self.max_shuffles:
            return None
        return self._stopped(seen, "maximum reached")

    def _stopped(self, seen: NDArray[np.bool_], reason: str) -> Outcome:
        return Outcome(self.name, seen.size, reason, anytime_p_value(seen, self.level))


RULES: dict[str, type[StoppingRule]] = {"betting": Betting, "besag-clifford": BesagClifford}
"""Each rule, by the name to pass as `sequential`."""


def check_rule(name: object) -> str:
    """Return the name of a rule, or name the known rules."""
    return check_choice("sequential", name, RULES)


def check_level(level: object) -> float:
    """Return a level as a float; refuse invalid levels."""
    number = isinstance(level, float | int | np.floating) and not isinstance(level, bool)
    if not number or not 0 < level < 1:  # type: ignore[operator]
        raise InputError(f"level: must lie between 0 and 1, got {level!r}")
    return float(level)  # type: ignore[arg-type]


def check_sequential(sequential: object, level: object, max_shuffles: object) -> None:
    """Refuse an unknown rule, and a rule that could never reject.

    Raises
    ------
    InputError
        If `sequential` is not a rule's name, `level` is not between 0 and 1, or `max_shuffles` is
        not a whole number large enough to reject at this level.
    """
    rule = check_rule(sequential)
    level = check_level(level)
    if isinstance(max_shuffles, bool) or not isinstance(max_shuffles, int | np.integer):
        raise InputError(f"max_shuffles: must be a whole number, got {max_shuffles!r}")
    needed = RULES[rule].needed(level)
    if max_shuffles < needed:
        raise InputError(
            f"max_shuffles: {rule} needs at least {needed} to reject at level {level:g}, "
            f"got {max_shuffles}"
        )


def stopping_point(
    as_extreme: NDArray[np.bool_], rule: str, level: float, max_shuffles: int
) -> Outcome | None:
    """The point at which a rule stops within the first n shuffles; None if it continues.

    Parameters
    ----------
    as_extreme : ndarray of bool, shape (n,)
        Which of the first n shuffles, in the order of their numbers, are at least as clusterable
        as the network. Shuffles after the stopping point change nothing.
    rule : {"betting", "besag-clifford"}
        The rule's name.
    level : float
        The level at which to decide.
    max_shuffles : int
        The largest number of shuffles.

    Raises
    ------
    InputError
        See `check_sequential`.
    """
    check_sequential(rule, level, max_shuffles)
    return RULES[rule](level, max_shuffles).outcome(as_extreme)


def wealth(as_extreme: NDArray[np.bool_], level: float) -> NDArray[np.float64]:
    """The wealth of a bet of 1 against the null hypothesis, before and after each shuffle.

    After t shuffles, r of them at least as clusterable, it is P(B > r) / c for B binomial with
    t + 1 trials of probability c = MIXTURE_SHARE * level, and the same as P(X <= c) / c for X
    from Beta(r + 1, t - r + 1): the likelihood of these shuffles if each were as clusterable
    with a probability uniform on [0, c], divided by their likelihood under Polya's urn. It is
    therefore a martingale under the null hypothesis.

    Returns
    -------
    ndarray of float64, shape (n + 1,)

    Source: Fischer and Ramdas (2025), arXiv:2401.07365: the binomial mixture strategy.
    """
    from scipy.special import betainc

    c = MIXTURE_SHARE * level
    t = np.arange(as_extreme.size + 1, dtype=np.float64)
    r = np.concatenate(([0.0], np.cumsum(as_extreme, dtype=np.float64)))
    after = np.asarray(betainc(r + 1, t - r + 1, c), dtype=np.float64) / c
    after[0] = 1.0
    return after


def anytime_p_value(as_extreme: NDArray[np.bool_], level: float) -> float:
    """1 / the largest `wealth` so far: a p-value that is valid whenever the shuffles end.

    By Ville's inequality, the wealth ever reaches 1 / p with probability at most p, so the reason
    for stopping does not matter; it may depend on another statistic. The wealth stays below 1 /
    (MIXTURE_SHARE * level): this p-value is made to decide at `level`, and is never smaller than
    0.9 of it, however clusterable the network is. It is therefore useless for corrections over many
    networks at the same level.

    Parameters
    ----------
    as_extreme : ndarray of bool, shape (n,)
        Which shuffles, in the order of their numbers, are at least as clusterable.
    level : float
        The level at which to decide.

    Raises
    ------
    InputError
        If `level` does not lie between 0 and 1.
    """
    return float(1 / wealth(as_extreme, check_level(level)).max())
