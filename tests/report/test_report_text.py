"""Plain text: the outcome in words, the summary, and no control characters."""

from __future__ import annotations

import io

import numpy as np
import pytest
import rich.console

from ncut.report import sentence
from ncut.report.text import shorten
from ncut.report.wording import meanings, p_text, spread_text, z_text
from ncut.types import Layer


def at_rank(make, n_shuffles: int, n_lower: int, **changes):
    """A report whose n-cut is above exactly `n_lower` of its shuffles' n-cuts."""
    shuffled = np.linspace(1.0, 2.0, n_shuffles)
    step = 1.0 / max(n_shuffles - 1, 1)
    ncut = 1.0 + step * (n_lower - 0.5)
    p_value = (n_lower + 1) / (n_shuffles + 1)
    return make(
        n_shuffles=n_shuffles,
        ncut=ncut,
        shuffled_ncuts=shuffled,
        p_value=p_value,
        **({"z_score": -0.5} | changes),
    )


@pytest.mark.parametrize(
    ("n_shuffles", "n_lower", "start"),
    [
        (50, 0, "More clusterable than all 50 shuffled networks (p = 0.020, Z = -0.50)."),
        (50, 1, "More clusterable than 49 of 50 shuffled networks (p = 0.039"),
        (50, 2, "Not distinguishable from its shuffles: 2 of 50 are at least as clusterable"),
        (50, 25, "Not distinguishable from its shuffles: 25 of 50 are at least"),
        (50, 48, "Not distinguishable from its shuffles: 48 of 50"),
        (50, 49, "Less clusterable than 49 of 50 shuffled networks (p = 0.980"),
        (50, 50, "Less clusterable than all 50 shuffled networks (p = 1.000"),
        (19, 0, "More clusterable than all 19 shuffled networks (p = 0.050"),
        (19, 1, "Not distinguishable from its shuffles: 1 of 19 is at least as clusterable"),
        (18, 0, "18 shuffled networks are too few to say how unusual its n-cut is (p = 0.053"),
        (10, 4, "10 shuffled networks are too few to say how unusual its n-cut is (p = 0.455"),
        (10, 9, "Not more clusterable than its shuffles: 9 of 10 are at least as clusterable (p ="),
        (1, 0, "1 shuffled network is too few to say"),
        (1, 1, "1 shuffled network is too few to say"),
    ],
)
def test_sentence(make, n_shuffles, n_lower, start):
    assert sentence(at_rank(make, n_shuffles, n_lower)).startswith(start)


def test_the_sentence_claims_no_more_than_the_shuffles_can_tell(make):
    """No number of n + 1 lies farther than sqrt(n) standard deviations from the mean."""
    assert sentence(at_rank(make, 50, 0, z_score=-15.7)).endswith("(p = 0.020, Z < -7.1).")
    assert sentence(at_rank(make, 50, 50, z_score=15.7)).endswith("(p = 1.000, Z > +7.1).")


def test_a_tie_counts_against_the_network(make):
    report = make(ncut=2.0, shuffled_ncuts=np.full(50, 2.0), p_value=1.0, z_score=None)
    assert sentence(report) == (
        "Not distinguishable from its shuffles: 50 of 50 are at least as clusterable (p = 1.000)."
    )


def test_sentence_without_shuffles(make):
    assert sentence(make(n_shuffles=0)) == "n-cut 1.500 of at most 3, not compared with shuffles."


@pytest.mark.parametrize(
    ("z", "text"), [(-13.24, "-13.2"), (-9.876, "-9.88"), (0.3, "+0.30"), (None, "-")]
)
def test_z_text(z, text):
    assert z_text(z) == text


@pytest.mark.parametrize(
    ("p", "text"),
    [(1 / 51, "0.020"), (1.0, "1.000"), (1 / 1001, "0.001"), (1 / 10001, "0.0001"), (None, "-")],
)
def test_p_text(p, text):
    assert p_text(p) == text


@pytest.mark.parametrize(
    ("std", "text"),
    [(0.0351, "2.000 ± 0.035"), (0.0, "2.000 ± 0.000"), (4e-16, "2.000 ± 0.000"),
     (2.5e-5, "2.000 ± 2.5e-05")],
)  # fmt: skip
def test_spread_text(make, std, text):
    assert spread_text(make(shuffled_mean=2.0, shuffled_std=std)) == text


def test_summary_shows_the_numbers(report):
    text = str(report)
    for part in (
        "mlp.npz",
        sentence(report),
        "1.500 with k = 3",
        spread_text(report),
        "n = 50, null model layer",
        "-13.2",
        "0.020 (smallest possible 1/51)",
        "12 in the graph, 1 isolated",
        "1,234",
        "6-4-3",
        "warning: one neuron has no edges",
    ):
        assert part in text
    lines = [line.split() for line in text.splitlines()]
    for layer, row in zip(report.layers, report.cluster_sizes().tolist(), strict=True):
        assert [layer.name, *map(str, row)] in lines


def test_summary_without_shuffles_has_no_statistics(make):
    text = str(make(n_shuffles=0))
    assert "shuffles " not in text
    assert "\nZ " not in text
    assert "None" not in text


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model": "m" * 200},
        {"sizes": (300_000, 4, 3), "k": 40},
        {"sizes": (5,) * 300, "k": 20},
        {"warnings": tuple("word " * 100 for _ in range(10))},
        {"null": "n" * 200},
        {"solver": "s" * 200},
        {"n_shuffles": 0, "model": ""},
    ],
)
def test_summary_keeps_to_its_size(make, changes):
    lines = str(make(**changes)).splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 40


def test_summary_counts_the_layers_it_hides(make):
    assert "… and 48 more layers" in str(make(sizes=(5,) * 53))
    assert "more layers" not in str(make(sizes=(5,) * 6))


def test_hidden_warnings_are_counted(make):
    assert "… and 2 more in report.warnings" in str(make(warnings=tuple("abcde")))


def test_summary_passes_no_control_characters_on(make):
    evil = "a\x1b[31m\nb\u202e\ud800"
    report = make(sizes=(3,), model=evil, null=evil, warnings=(evil,), layers=(Layer(evil, 0, 3),))
    text = str(report)
    assert all(c.isprintable() or c == "\n" for c in text)
    assert "a?[31m?b??" in text
    assert all(c.isprintable() for c in repr(report))


def test_meanings_name_every_k_and_null_model(make):
    rows = dict(meanings([make(k=3), make(k=2, null="layer-nonzero", n_shuffles=99)]))
    assert "(here 2 or 3)" in rows["n-cut"]
    assert "1 / 51 or 100 here" in rows["p"]
    assert "random positions in each layer; or each layer's non-zero" in rows["Shuffles"]


def test_meanings_without_shuffles_explain_the_ncut_only(make):
    assert [term for term, _ in meanings([make(n_shuffles=0)])] == ["n-cut"]


@pytest.mark.parametrize(
    ("text", "width", "short"), [("abcdef", 6, "abcdef"), ("abcdefg", 6, "ab…efg"), ("ab", 1, "…")]
)
def test_shorten(text, width, short):
    assert shorten(text, width) == short


def test_rich_prints_the_summary(report):
    console = rich.console.Console(file=io.StringIO(), width=100)
    console.print(report)
    printed = [line.rstrip() for line in console.file.getvalue().splitlines()]
    assert printed == [line.rstrip() for line in str(report).splitlines()]
