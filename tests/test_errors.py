"""Errors are ncut's own and the built-in ones that callers expect."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse

import ncut
from ncut.errors import import_extra
from ncut.report import Report

RNG = np.random.default_rng(3)
WEIGHTS = [RNG.normal(size=shape) for shape in ((8, 10), (10, 6), (6, 4))]


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (ncut.InputError, ValueError),
        (ncut.ModelError, ValueError),
        (ncut.MissingExtraError, ImportError),
    ],
)
def test_errors_can_be_caught_either_way(error: type[Exception], builtin: type[Exception]) -> None:
    assert issubclass(error, ncut.NcutError)
    assert issubclass(error, builtin)


def test_an_extra_that_is_there_is_imported() -> None:
    assert import_extra("json", "plot") is json


def test_a_missing_extra_is_named_with_the_command() -> None:
    with pytest.raises(ncut.MissingExtraError, match=r"'no_such_package'.*ncut\[plot\]"):
        import_extra("no_such_package.pyplot", "plot")


@pytest.fixture(scope="module")
def report() -> Report:
    return ncut.analyze(WEIGHTS, k=3, shuffles=2, tests="none")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r: ncut.analyze(WEIGHTS, k=3, refine="no"), "refine: must be True or False"),
        (lambda r: ncut.cluster(r.graph, 3, refine="no"), "refine: must be True or False"),
        (lambda r: ncut.cluster(WEIGHTS, 3), "graph: must be a NeuronGraph.*ncut.graph(model)"),
        (lambda r: ncut.shuffle(WEIGHTS), "graph: must be a NeuronGraph"),
        (lambda r: ncut.cluster(r.graph, 28), "k: must be less than 28, the number of vertices"),
        (lambda r: ncut.profile(WEIGHTS, k="2-5"), "k: must be several whole numbers"),
        (lambda r: ncut.graph([sparse.eye(3), sparse.eye(3)]), "weights 0: a scipy sparse matrix"),
        (lambda r: ncut.graph(b"net.npz"), "model: cannot read type bytes"),
        (lambda r: ncut.graph("~/net.npz"), "no such file; '~' is not expanded"),
        (lambda r: ncut.graph("https://x.org/net.npz"), "download the file first"),
        (lambda r: ncut.adjusted_p_values(0.05), "p_values: must be a sequence"),
        (lambda r: r.ablate(None), "evaluate: must be a function of the model, got None"),
        (lambda r: r.separate(0.5), "evaluate: must be a function of the model, got 0.5"),
        (lambda r: Report.from_json(None), "text_or_path: must be JSON or a path, got NoneType"),
        (lambda r: r.to_html(1), "1: cannot be written"),
        (lambda r: r.to_json("~/none/net.json"), "'~' is not expanded"),
        (lambda r: ncut.scan(None, "results"), "paths: must be a path or a sequence of paths"),
    ],
)
def test_arguments_that_cannot_be_used(
    report: Report, call: Callable[[Any], object], message: str, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    pattern = re.escape(message).replace(r"\.\*", ".*")
    with pytest.raises(ncut.NcutError, match=pattern):
        call(report)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("refine", [np.True_, True])
def test_flags_of_numpy_are_flags(refine: Any) -> None:
    assert ncut.analyze(WEIGHTS, k=3, shuffles=0, refine=refine).refine is True


def test_a_scan_into_the_home_folder_is_there(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    np.savez("net.npz", *WEIGHTS)
    found = ncut.scan("net.npz", "~/results", k=3, shuffles=2, tests="none", backend="threading")
    assert (tmp_path / "results" / "scan.json").exists()
    assert not (tmp_path / "~").exists()
    assert len(ncut.Scan("~/results").to_frame()) == len(found.to_frame()) == 1


def test_a_cluster_that_does_not_exist(report: Report) -> None:
    with pytest.raises(IndexError, match="cluster 3: must lie between 0 and 2"):
        report.clusters[3]


def test_a_notebook_shows_the_text_of_results(report: Report) -> None:
    found = report.ablate(lambda weights: float(sum(np.abs(w).sum() for w in weights)))
    assert repr(found) == str(found)
    assert "random sets" in repr(found)
    page = ncut.compare(report, report)._repr_html_()
    assert page.startswith("<pre>")
    assert "No clear change" in page
    assert "->" not in page
