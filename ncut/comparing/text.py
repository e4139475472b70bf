"""A comparison in words, at most 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ncut.axes import STATISTICS
from ncut.report.text import WIDTH, shorten
from ncut.report.wording import (
    name_of,
    ncut_text,
    p_text,
    printable,
    spread_text,
    statistic_title,
    z_text,
)

if TYPE_CHECKING:
    from ncut.comparing.pairs import Difference, Pair
    from ncut.report import Report

# Number of standard errors from which a change is clear.
CLEAR = 2.0
MAX_MOVED = 8


def summary(reports: Sequence[Report], pairs: Sequence[Pair]) -> str:
    """A table of the models, and the changes of each pair."""
    width = max(len(shorten(name_of(one), 30)) for one in reports)
    width = max(width, len("network"))
    lines = [f"{'network':<{width}}{'n-cut':>9}{'shuffles':>18}{'Z':>9}{'p':>9}"]
    lines += [
        f"{shorten(name_of(one), 30):<{width}}{ncut_text(one.ncut):>9}{spread_text(one):>18}"
        f"{z_text(one.z_score):>9}{p_text(one.p_value):>9}"
        for one in reports
    ]
    for pair in pairs:
        lines += ["", f"{shorten(name_of(pair.a), 36)} -> {shorten(name_of(pair.b), 36)}"]
        lines += textwrap.wrap(sentence(pair), WIDTH)
        lines += ["", f"{'statistic':<18}{'change':>10}{'beyond shuffles':>22}"]
        lines += [
            f"{_title(one):<18}{one.change:>+10.3f}{excess_text(one):>22}"
            for one in pair.differences
        ]
        lines += ["", *textwrap.wrap(moved_sentence(pair), WIDTH)]
        lines += [
            f"  {shorten(printable(one.layer), 40)} {one.index}: {one.before} -> {one.after}"
            for one in pair.moved[:MAX_MOVED]
        ]
        if len(pair.moved) > MAX_MOVED:
            lines.append(f"  … and {len(pair.moved) - MAX_MOVED:,} more")
    return "\n".join(lines)


def sentence(pair: Pair) -> str:
    """Name the network that is more clusterable relative to its shuffles."""
    change = pair.headline
    if change.excess is None or change.error is None:
        return f"The n-cut changes by {change.change:+.3f}; there are no shuffles to compare with."
    how = f"{change.excess:+.3f} ± {change.error:.3f}"
    if abs(change.excess) <= CLEAR * change.error:
        return (
            f"No clear change: relative to its shuffles the n-cut changes by {how}, less than "
            f"{CLEAR:g} standard errors."
        )
    more = "more" if change.excess < 0 else "less"
    return (
        f"{name_of(pair.b)} is {more} clusterable than {name_of(pair.a)}: relative to its shuffles "
        f"the n-cut changes by {how}."
    )


def moved_sentence(pair: Pair) -> str:
    """The agreement of the two partitions."""
    if pair.rand_index is None:
        return "The networks have no layer in common, so their clusters cannot be compared."
    text = (
        f"{len(pair.moved):,} of {pair.n_neurons:,} neurons moved away from their matched cluster; "
        f"adjusted Rand index {pair.rand_index:.2f} (1: the same partition, 0: chance)."
    )
    if len(pair.layers) < max(len(pair.a.layers), len(pair.b.layers)):
        text += f" Only the {len(pair.layers)} layers of the same name and size are compared."
    return text


def excess_text(one: Difference) -> str:
    """The change beyond the shuffles' with its standard error, or a dash."""
    if one.excess is None or one.error is None:
        return "-"
    return f"{one.excess:+.3f} ± {one.error:.3f}"


def clear(one: Difference) -> str:
    """The meaning of a statistic's change."""
    if one.excess is None or one.error is None or one.statistic not in STATISTICS:
        return ""
    if abs(one.excess) <= CLEAR * one.error or not np.isfinite(one.excess):
        return "· no clear change"
    low = STATISTICS[one.statistic].low_is_clusterable
    return "▲ more clusterable" if (one.excess < 0) == low else "▼ less clusterable"


def _title(one: Difference) -> str:
    return statistic_title(one.statistic)
