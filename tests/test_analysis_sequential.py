"""`ncut.analyze` with as many shuffles as the decision takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from analyses import interrupted, run
from samples import (
    planted_chain,
    random_chain,
)

import ncut
from ncut.axes import STATISTICS
from ncut.nulls.sequential import anytime_p_value, stopping_point


def contents(report: ncut.Report) -> dict[str, Any]:
    return dict(report.to_dict())


@pytest.mark.parametrize("rule", ["betting", "besag-clifford"])
@pytest.mark.parametrize("clusterable", [True, False])
def test_shuffles_end_by_the_rule(rule: str, clusterable: bool) -> None:
    weights = planted_chain(3, 3, 8, 3, 0.05)[0] if clusterable else random_chain(3, (20, 25, 15))
    settings: dict[str, Any] = {"k": 3, "shuffles": "auto", "max_shuffles": 80, "sequential": rule}
    report = run(weights, **settings)
    assert rule in report.sequential
    assert report.sequential in str(report)
    assert (report.p_value <= 0.05) == clusterable
    n = report.n_shuffles
    assert n <= 80
    np.testing.assert_array_equal(
        report.shuffled_ncuts, run(weights, k=3, shuffles=n).shuffled_ncuts
    )
    assert contents(run(weights, **settings, threads=1)) == contents(report)
    assert report.tail() is None


AUTO: dict[str, Any] = {"shuffles": "auto", "max_shuffles": 60, "n_init": 2, "k": 3}


@pytest.mark.parametrize("rule", ["betting", "besag-clifford"])
@pytest.mark.parametrize("noise", [0.05, 0.6, 0.85, 1.0])
def test_the_end_is_where_the_rule_says(rule: str, noise: float) -> None:
    weights, _ = planted_chain(5, 3, 8, 3, noise)
    report = run(weights, sequential=rule, **AUTO)
    whole = run(weights, **(AUTO | {"shuffles": 60}))
    n = report.n_shuffles
    for name, one in report.statistics.items():
        np.testing.assert_array_equal(one.shuffled, whole.statistics[name].shuffled[:n])
        assert one.value == whole.statistics[name].value
    # The rule, asked of all shuffles at once and after each.
    as_low = whole.shuffled_ncuts <= whole.ncut
    outcome = stopping_point(as_low, rule, 0.05, 60)
    assert outcome is not None
    assert (outcome.n_shuffles, outcome.p_value) == (n, report.p_value)
    assert all(stopping_point(as_low[:t], rule, 0.05, 60) is None for t in range(n))
    assert report.sequential == str(outcome)
    for name, one in report.statistics.items():
        if name != report.headline:
            low = STATISTICS[name].low_is_clusterable
            as_extreme = one.shuffled <= one.value if low else one.shuffled >= one.value
            assert one.p_value == anytime_p_value(as_extreme, 0.05)
    flat = " ".join(str(report).split())
    assert f"({report.sequential})" in flat
    assert f"(n = {n}, null model layer)" in flat
    assert not any("stopped after" in text for text in report.warnings)
    assert ncut.Report.from_json(report.to_json()) == report
    for threads in (1, 3):
        assert contents(run(weights, sequential=rule, threads=threads, **AUTO)) == contents(report)


def test_the_largest_number_of_shuffles_is_never_passed() -> None:
    # Neither as unusual as the level nor hopeless, by making the level extreme.
    calls: list[tuple[int, int]] = []
    weights, _ = planted_chain(5, 3, 8, 3, 0.05)
    options = AUTO | {"level": 0.02, "max_shuffles": 130}
    report = run(weights, progress=lambda done, total: calls.append((done, total)), **options)
    assert "rejected at level 0.02" in report.sequential
    assert report.n_shuffles < 130
    assert {total for _, total in calls} == {130}
    assert len(calls) <= 130
    limit = run(weights, sequential="besag-clifford", **AUTO)
    assert limit.sequential.endswith("after 60 shuffles: maximum reached")
    assert limit.p_value == 1 / 61


def test_the_refined_n_cut_decides_where_it_is_the_headline() -> None:
    weights = random_chain(3, (20, 25, 15))
    report = run(weights, refine=True, sequential="besag-clifford", **AUTO)
    refined = report.statistics["refined_ncut"]
    assert np.count_nonzero(refined.shuffled <= refined.value) == 10
    assert report.p_value == refined.p_value == 10 / report.n_shuffles


@pytest.mark.parametrize(
    "arguments",
    [
        {"level": 0}, {"level": "x"}, {"level": float("nan")}, {"max_shuffles": 48},
        {"max_shuffles": 60.0}, {"max_shuffles": True}, {"sequential": None},
        {"sequential": "besag-clifford", "max_shuffles": 18},
    ],
    ids=str,
)  # fmt: skip
def test_rules_that_cannot_decide_are_refused(arguments: dict[str, Any]) -> None:
    name = "max_shuffles" if "max_shuffles" in arguments else next(iter(arguments))
    with pytest.raises(ncut.InputError, match=f"{name}: "):
        run(**(AUTO | arguments))


def test_interruption_of_an_open_number_of_shuffles_says_so() -> None:
    weights, _ = planted_chain(5, 3, 8, 3, 0.05)
    report = interrupted(30, weights, **AUTO)
    n = report.n_shuffles
    assert 29 <= n < 50
    assert report.sequential == f"betting was interrupted after {n} shuffles"
    # Not 1 / (n + 1): the number of shuffles was not settled beforehand.
    assert report.p_value == anytime_p_value(np.zeros(n, dtype=np.bool_), 0.05)
    assert report.tail() is None
    assert "smallest possible" not in str(report)
    assert any(f"stopped after {n} of 60 shuffles" in text for text in report.warnings)
