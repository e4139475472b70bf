"""`ncut scan` and `ncut report`."""

from __future__ import annotations

import io
import json
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from ncut import Report, Scan, analyze

SIZES = (12, 10, 8, 6)
SMALL = ("--k", "3", "--shuffles", "6", "--backend", "threading")


def write_model(path, seed):
    rng = np.random.default_rng(seed)
    shapes = enumerate(pairwise(SIZES))
    np.savez(path, **{f"w{number}": rng.normal(size=shape) for number, shape in shapes})


@pytest.fixture
def runs(tmp_path):
    """Three checkpoints."""
    folder = tmp_path / "runs"
    folder.mkdir()
    for number in range(3):
        write_model(folder / f"step-{number}.npz", number)
    return folder


def test_scan_prints_a_row_for_each_model(ncut, runs, tmp_path):
    result = ncut("scan", "runs", "--out", "results", *SMALL)
    assert (result.returncode, result.stderr) == (0, "ncut: wrote results\n")
    for number in range(3):
        report = analyze(runs / f"step-{number}.npz", k=3, shuffles=6)
        assert Scan(tmp_path / "results").report(runs / f"step-{number}.npz") == report
        (line,) = (line for line in result.stdout.splitlines() if f"step-{number}" in line)
        assert f"{report.ncut:.3f}" in line
    again = ncut("scan", "runs", "--out", "results", *SMALL)
    assert (again.returncode, again.stdout) == (0, result.stdout)


def test_scan_takes_files_and_patterns_and_lists(ncut, runs, tmp_path):
    (tmp_path / "list.txt").write_text("runs/step-0.npz\n# a comment\nruns/step-[12].npz\n")
    ncut("scan", "list.txt", "runs/step-1.npz", "--out", "results", *SMALL)
    assert len(Scan(tmp_path / "results").to_frame()) == 3


def test_a_failed_model_is_reported_and_sets_the_exit_code(ncut, runs, tmp_path):
    (runs / "broken.npz").write_bytes(b"no model")
    result = ncut("scan", "runs", "--out", "results", *SMALL)
    assert result.returncode == 1
    assert "step-2" in result.stdout
    assert result.stderr.startswith("ncut: failed: ")
    assert "broken.npz" in result.stderr
    write_model(runs / "broken.npz", 9)
    mended = ncut("scan", "runs", "--out", "results", "--retry-failed", *SMALL)
    assert (mended.returncode, mended.stderr) == (0, "ncut: wrote results\n")


def test_options_reach_the_library(ncut, runs, tmp_path):
    options = ("--null", "layer-nonzero", "--normalize", "l2", "--seed", "3", "--n-init", "2")
    ncut("scan", "runs/step-0.npz", "--out", "results", "--refine", *SMALL, *options)
    assert Scan(tmp_path / "results").report(runs / "step-0.npz") == analyze(
        runs / "step-0.npz",
        k=3,
        shuffles=6,
        null="layer-nonzero",
        normalize="l2",
        seed=3,
        n_init=2,
        refine=True,
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--backend", "slurm"), "backend: must be one of loky, threading, dask, ray"),
        (("--scheduler", "tcp://127.0.0.1:1"), "scheduler: has no effect"),
        (("--backend", "dask"), "scheduler: backend='dask' needs the address"),
        (("--idle", "3"), "idle: has no effect without watch"),
        (("--scratch", "nowhere"), "scratch: must be an existing folder"),
    ],
)
def test_impossible_settings_are_one_line_errors(ncut, runs, tmp_path, options, message):
    result = ncut("scan", "runs", "--out", "results", *options)
    assert result.returncode == 1
    assert result.stderr.startswith("ncut: error: ")
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "results").exists()


def test_watch_ends_when_nothing_is_new(ncut, runs, tmp_path):
    result = ncut("scan", "runs", "--out", "results", "--watch", "--idle", "4", *SMALL)
    assert result.returncode == 0
    assert len(Scan(tmp_path / "results").to_frame()) == 3


def test_a_report_of_a_scan(ncut, runs, tmp_path):
    scanned = ncut("scan", "runs", "--out", "results", *SMALL)
    result = ncut(
        "report", "results", "--html", "out.html", "--csv", "out.csv", "--plot", "out.png"
    )
    assert result.returncode == 0
    assert result.stderr == "".join(f"ncut: wrote out.{kind}\n" for kind in ("html", "csv", "png"))
    assert result.stdout == scanned.stdout
    assert "step-2" in (tmp_path / "out.html").read_text(encoding="utf-8")
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    frame = Scan(tmp_path / "results").to_frame()
    read = pd.read_csv(io.StringIO((tmp_path / "out.csv").read_text(encoding="utf-8")))
    assert list(read.columns) == list(frame.columns)
    np.testing.assert_array_equal(read["ncut"], frame["ncut"])
    assert json.loads(read["shuffled_ncuts"][1]) == frame["shuffled_ncuts"][1].tolist()


def test_a_report_of_one_model(ncut, runs, tmp_path):
    analyzed = ncut("analyze", "runs/step-0.npz", "--json", "one.json", *SMALL[:4])
    result = ncut("report", "one.json", "--html", "one.html", "--plot", "one.svg")
    assert (result.returncode, result.stderr) == (0, "ncut: wrote one.html\nncut: wrote one.svg\n")
    assert result.stdout.splitlines()[0] == analyzed.stdout.splitlines()[0]
    report = Report.from_json(tmp_path / "one.json")
    assert f"{report.ncut:.3f}" in (tmp_path / "one.html").read_text(encoding="utf-8")
    refused = ncut("report", "one.json", "--csv", "one.csv")
    assert (refused.returncode, "--csv: applies only to the folder" in refused.stderr) == (1, True)


def test_a_folder_that_is_no_scan(ncut, runs):
    result = ncut("report", "runs")
    assert result.returncode == 1
    assert result.stderr.startswith("ncut: error: ")
    assert "runs" in result.stderr
