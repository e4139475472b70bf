"""Progress: a bar, a function, or nothing, at any end of the work."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest

import ncut
from ncut.progress import progress_callback

tqdm = pytest.importorskip("tqdm.auto", reason="pip install 'ncut[notebook]'")

RNG = np.random.default_rng(0)
WEIGHTS = [RNG.random(shape) for shape in [(12, 10), (10, 8)]]


@pytest.fixture
def bars(monkeypatch):
    """The bars of tqdm that are made from now on; they write into a string."""
    made = []

    class Bar(tqdm.tqdm):
        def __init__(self, **options):
            super().__init__(**options, file=io.StringIO(), mininterval=0)
            self.closed = 0
            made.append(self)

        def close(self):
            self.closed = getattr(self, "closed", 0) + 1
            super().close()

    monkeypatch.setattr(tqdm, "tqdm", Bar)
    return made


def drawn(bar):
    return bar.fp.getvalue()


@pytest.mark.parametrize("nothing", [None, False])
def test_nothing(nothing, bars):
    with progress_callback(nothing, "work") as told:
        assert told is None
    assert not bars


def test_a_function_is_handed_through(bars):
    with progress_callback(print, "work") as told:
        assert told is print
    assert not bars


def test_a_bar_ends_with_the_work(bars):
    with progress_callback(True, "work") as told:
        told(1, 4)
        told(3, 4)
        (bar,) = bars
        assert (bar.n, bar.total) == (3, 4)
        assert not bar.closed
        told(4, 4)
    assert bar.closed
    assert "work" in drawn(bar)
    assert "4/4" in drawn(bar)


def test_work_that_ends_early_leaves_a_full_bar(bars):
    with progress_callback(True, "work") as told:
        told(3, 1000)
    assert "3/3" in drawn(bars[0])


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_bar_is_closed_when_the_work_is_not_done(error, bars):
    def work():
        with progress_callback(True, "work") as told:
            told(3, 1000)
            raise error

    with pytest.raises(error):
        work()
    assert bars[0].closed
    assert bars[0].total == 1000


@pytest.mark.parametrize("wrong", [1, "yes", 0.5])
def test_anything_else_is_refused_before_the_work(wrong):
    with pytest.raises(ncut.InputError, match="progress: must be True or a function"):
        ncut.analyze("no such file", progress=wrong)
    with pytest.raises(ncut.InputError, match="progress: must be True or a function"):
        ncut.profile("no such file", progress=wrong)
    with pytest.raises(ncut.InputError, match="progress: must be True or a function"):
        ncut.verdict("no such file", progress=wrong)


def test_without_tqdm_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(ncut.MissingExtraError, match=r"ncut\[notebook\]"):
        ncut.analyze("no such file", progress=True)


def test_an_analysis_shows_its_shuffles(bars):
    found = ncut.analyze(WEIGHTS, k=2, shuffles=3, progress=True)
    assert "3/3" in drawn(bars[0])
    assert found == ncut.analyze(WEIGHTS, k=2, shuffles=3)
    assert len(bars) == 1


def test_a_profile_shows_its_shuffles(bars):
    ncut.profile(WEIGHTS, [2, 3], shuffles=3, progress=True)
    assert "3/3" in drawn(bars[0])


def test_a_verdict_shows_the_shuffles_of_all_its_analyses(bars):
    found = ncut.verdict(
        WEIGHTS, k=2, null="layer", normalize=["none", "l2"], rescalings=1, progress=True
    )
    total = sum(one.n_shuffles for one in (*found.reports, *found.rescaled, *found.tested))
    assert f"{total}/{total}" in drawn(bars[0])
    assert len(bars) == 1


def test_an_ablation_shows_its_evaluations(bars):
    report = ncut.analyze(WEIGHTS, k=2, shuffles=0)
    data = np.random.default_rng(1).random((5, 12))

    def loss(weights):
        return float(np.sum((data @ weights[0]).clip(0) @ weights[1]))

    found = report.ablate(loss, random_sets=2, progress=True)
    total = 1 + 3 * len(found.rows)
    assert f"{total}/{total}" in drawn(bars[0])


def test_ctrl_c_closes_the_bar_and_keeps_the_report(bars, monkeypatch):
    told = []

    def show(self, n=1):
        told.append(n)
        if len(told) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(tqdm.tqdm, "update", show)
    with pytest.raises(ncut.Interrupted) as stopped:
        ncut.analyze(WEIGHTS, k=2, shuffles=30, threads=1, progress=True)
    assert 2 <= stopped.value.finished.n_shuffles < 30
    assert bars[0].closed
