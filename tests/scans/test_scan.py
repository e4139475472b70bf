"""scan(): the numbers of analyze(), once for each model, despite interruptions."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scan_samples import OPTIONS, write_model

import ncut
from ncut.axes import STATISTICS
from ncut.scans.sources import find_sources
from ncut.scans.store import Store


def rows(out):
    return ncut.Scan(out).to_frame().set_index("path")


def count_tasks(monkeypatch):
    """The tasks that are done from now on."""
    from ncut.scans import backends

    done = []
    measure = backends.measure
    monkeypatch.setattr(backends, "measure", lambda task: done.append(task) or measure(task))
    return done


def test_each_report_is_that_of_an_analysis(models, scan):
    found = scan(models)
    for number in range(3):
        path = models / f"step-{number}.npz"
        assert found.report(path) == ncut.analyze(path, **OPTIONS)
    assert str(found).endswith("3 models measured, 1 failed)")


def test_rows_have_the_reports_numbers(models, scan, tmp_path):
    found = scan(models, refine=True, normalize="l2")
    row = rows(tmp_path / "out").loc[str(models / "step-1.npz")]
    report = found.report(models / "step-1.npz")
    assert (row["status"], row["step"], row["k"], row["refine"]) == ("done", 1, 3, True)
    assert pd.isna(row["error"])
    for name in ("ncut", "z_score", "p_value", "shuffled_mean", "n_edges", "normalize", "solver"):
        assert row[name] == getattr(report, name), name
    np.testing.assert_array_equal(row["shuffled_ncuts"], report.shuffled_ncuts)
    assert set(STATISTICS) <= set(row.index)
    for name, compared in report.statistics.items():
        assert (row[name], row[f"{name}_z"]) == (compared.value, compared.z_score)
    assert row["n_vertices"] == 56
    assert list(row["warnings"]) == list(report.warnings)


def test_a_model_that_fails_is_a_row_with_its_error(models, scan, tmp_path):
    found = scan(models)
    row = rows(tmp_path / "out").loc[str(models / "broken.npz")]
    assert (row["status"], row["error_type"]) == ("failed", "ModelError")
    assert "not an .npz file" in row["error"]
    assert np.isnan(row["ncut"])
    assert found.failed == {str(models / "broken.npz"): row["error"]}
    with pytest.raises(ncut.InputError, match=r"it failed: .*not an .npz"):
        found.report(models / "broken.npz")
    with pytest.raises(ncut.InputError, match="not in the scan"):
        found.report(models / "other.npz")


def test_pandas_polars_and_duckdb_read_the_rows(models, scan, tmp_path):
    import duckdb
    import polars as pl

    scan(models)
    files = str(tmp_path / "out" / "models" / "*.parquet")
    by_pandas = pd.read_parquet(tmp_path / "out" / "models")
    assert sorted(by_pandas["status"]) == ["done"] * 3 + ["failed"]
    by_polars = pl.read_parquet(files)
    assert by_polars.filter(pl.col("status") == "done")["ncut"].null_count() == 0
    ((mean, n),) = duckdb.sql(f"select avg(ncut), count(*) from '{files}'").fetchall()
    assert n == by_polars.height == 4
    assert mean == pytest.approx(by_pandas["ncut"].mean())
    ((length,),) = duckdb.sql(
        f"select distinct len(shuffled_ncuts) from '{files}' where status = 'done'"
    ).fetchall()
    assert length == OPTIONS["shuffles"]


def test_a_second_scan_has_nothing_to_do(models, scan, tmp_path, monkeypatch):
    scan(models)
    before = rows(tmp_path / "out")
    done = count_tasks(monkeypatch)
    scan(models)
    assert done == []
    pd.testing.assert_frame_equal(rows(tmp_path / "out"), before)


def test_new_and_changed_models_are_measured(models, scan, tmp_path, monkeypatch):
    scan(models)
    before = rows(tmp_path / "out")["ncut"]
    write_model(models / "step-1.npz", 11)
    write_model(models / "step-9.npz", 9)
    done = count_tasks(monkeypatch)
    scan(models)
    after = rows(tmp_path / "out")["ncut"]
    assert len(done) == 2 * (OPTIONS["shuffles"] + 1)
    assert after[str(models / "step-0.npz")] == before[str(models / "step-0.npz")]
    assert after[str(models / "step-1.npz")] != before[str(models / "step-1.npz")]
    assert after[str(models / "step-9.npz")] > 0


def test_failed_models_are_tried_again_when_asked(models, scan, tmp_path, monkeypatch):
    scan(models)
    done = count_tasks(monkeypatch)
    scan(models)
    assert not done
    scan(models, retry_failed=True)
    assert {task.path for task in done} == {str(models / "broken.npz")}
    write_model(models / "broken.npz", 5)  # mended: no need to ask
    scan(models)
    assert not ncut.Scan(tmp_path / "out").failed


def test_other_settings_are_refused(models, scan):
    scan(models)
    with pytest.raises(ncut.InputError, match=r"other settings \(k 3, now 4\)"):
        scan(models, k=4)
    with pytest.raises(ncut.InputError, match="scope None, now 'all'"):
        scan(models, scope="all")


def test_another_scan_of_the_same_folder_is_refused(models, scan, tmp_path, monkeypatch):
    monkeypatch.setattr("ncut.scans.store.LOCK_SECONDS", 0.2)
    store = Store(scan(models).folder, ncut.Scan(tmp_path / "out").settings)
    with store.locked(), pytest.raises(ncut.InputError, match="another scan is writing"):
        scan(models)
    scan(models)


def test_journals_of_another_form_are_thrown_away(models, tmp_path):
    source, *_ = find_sources([models])
    store = Store(tmp_path / "out", {"k": 3})
    with store.locked():
        store.begin(source)
        journal = tmp_path / "out" / "journal" / f"{source.key}.jsonl"
        head = json.loads(journal.read_text())
        shuffle = {"statistics": {"spectral_ncut": 1.0}, "repeated_ncut": None, "converged": True}
        lines = [head, {"number": 1, "seconds": 1.0, "result": shuffle}]
        journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
        assert store.begin(source)[1].keys() == {1}
        del head["journal"]  # where the network had another number, and shuffles began at 0
        journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
        assert store.begin(source) == (None, {}, 0.0)


@pytest.mark.parametrize("rule", ["betting", "besag-clifford"])
def test_shuffles_auto_stops_by_the_rule(models, tmp_path, rule):
    options = {"k": 3, "shuffles": "auto", "sequential": rule, "max_shuffles": 60}
    found = ncut.scan(models, tmp_path / "auto", backend="threading", **options)
    for number in range(3):
        path = models / f"step-{number}.npz"
        report = found.report(path)
        assert report == ncut.analyze(path, **options)
        assert report.sequential


def test_no_shuffles(models, tmp_path):
    found = ncut.scan(models, tmp_path / "none", backend="threading", k=3, shuffles=0)
    assert found.report(models / "step-0.npz") == ncut.analyze(
        models / "step-0.npz", k=3, shuffles=0
    )
    assert found.to_frame()["z_score"].isna().all()


def test_a_journal_is_gone_on_with(models, scan, tmp_path, monkeypatch):
    """Ctrl-C after some tasks; half a line, as a kill leaves it, is not counted."""
    n = 0

    def stop(counts):
        nonlocal n
        n += 1
        if n == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan(models, jobs=1, progress=stop)
    journals = sorted((tmp_path / "out" / "journal").glob("*.jsonl"))
    begun = next(path for path in journals if len(path.read_bytes().splitlines()) > 2)
    kept = len(begun.read_bytes().splitlines()) - 1
    with begun.open("ab") as file:
        file.write(b'{"number": 4, "seconds": 0.1, "resu')
    done = count_tasks(monkeypatch)
    found = scan(models, jobs=1)
    path = next(source.path for source in _sources(models) if source.key == begun.stem)
    ours = [task for task in done if task.path == path]
    assert len(ours) == OPTIONS["shuffles"] + 1 - kept
    for number in range(3):
        model = models / f"step-{number}.npz"
        assert found.report(model) == ncut.analyze(model, **OPTIONS)
    assert not [*(tmp_path / "out" / "journal").iterdir()]


def _sources(models):
    from ncut.scans.sources import find_sources

    return find_sources([models])


def test_a_journal_of_other_files_is_not(models, scan, tmp_path):
    def stop(counts):
        if counts.shuffles_done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan([models / "step-0.npz"], jobs=1, progress=stop)
    write_model(models / "step-0.npz", 77)
    assert scan(models).report(models / "step-0.npz") == ncut.analyze(
        models / "step-0.npz", **OPTIONS
    )


def test_progress_counts_models_and_shuffles(models, scan):
    seen = []
    scan(models, progress=lambda counts: seen.append((counts.done, counts.failed, counts.shuffles)))
    assert seen[0] == (0, 0, 4 * OPTIONS["shuffles"])
    assert seen[-1] == (3, 1, 3 * OPTIONS["shuffles"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backend": "slurm"}, "backend: must be one of loky"),
        ({"backend": "dask"}, "scheduler: backend='dask' needs"),
        ({"scheduler": "tcp://x:1"}, "scheduler: has no effect"),
        ({"jobs": 0}, "jobs: must be a whole number"),
        ({"threads": 1.5}, "threads: must be a whole number"),
        ({"idle": 3.0}, "idle: has no effect"),
        ({"k": 1}, "k: "),
        ({"null": "x"}, "null: must be one of"),
        ({"norm": "l3"}, "norm: must be"),
        ({"example_inputs": 1}, "example_inputs: ncut.scan has no such argument"),
        ({"scratch": "/no/such/folder"}, "scratch: must be an existing folder"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(
    models, scan, tmp_path, options, words
):
    with pytest.raises(ncut.InputError, match=words):
        scan(models, **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", ["", "[]", '{"format": "x"}'])
def test_foreign_folders_are_refused(tmp_path, content):
    with pytest.raises(ncut.InputError, match="not the folder of a scan"):
        ncut.Scan(tmp_path)
    (tmp_path / "scan.json").write_text(content)
    with pytest.raises(ncut.InputError, match=r"scan.json"):
        ncut.Scan(tmp_path)


def test_settings_are_readable(models, scan, tmp_path):
    scan(models, scope="all", layers=["w0", "w1", "w2"])
    content = json.loads((tmp_path / "out" / "scan.json").read_text())
    assert content["settings"]["k"] == 3
    assert content["settings"]["layers"] == ["w0", "w1", "w2"]
    scan(models, scope="all", layers=["w0", "w1", "w2"])  # the same once more


def test_watching_includes_new_models(models, scan, tmp_path, monkeypatch):
    """A model that comes while others are measured is measured too; then nothing comes."""
    added = []

    def add(counts):
        if not added:
            write_model(models / "step-5.npz", 5)
            added.append(counts)

    monkeypatch.setattr("ncut.scans.running.POLL_SECONDS", 0.1)
    found = scan(models, watch=True, idle=1.0, progress=add)
    assert found.report(models / "step-5.npz").n_shuffles == OPTIONS["shuffles"]
    assert len(found.to_frame()) == 5


def test_a_saved_scratch_makes_no_difference(models, scan, tmp_path, monkeypatch):
    monkeypatch.setattr("ncut.graphs.scratch.SMALLEST", 1)
    found = scan(models, scratch=tmp_path)
    path = models / "step-2.npz"
    assert found.report(path) == ncut.analyze(path, **OPTIONS)


def test_the_course_and_the_page(models, scan, tmp_path):
    found = scan(models)
    ax = found.plot()
    assert ax.get_xlabel() == "step"
    assert len(ax.lines) == 2
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), [0, 1, 2])
    frame = found.to_frame()
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), frame[frame["status"] == "done"]["ncut"])
    with pytest.raises(ncut.InputError, match="statistic: must be one of"):
        found.plot("path")
    found.to_html(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "3 models measured, 1 failed" in page
    assert "not an .npz file" in page


def test_one_model_is_a_point_and_no_course(models, scan):
    ax = scan([models / "step-0.npz"]).plot()
    assert [label.get_text() for label in ax.get_yticklabels()] == ["step-0.npz"]
    assert [len(line.get_xdata()) for line in ax.lines] == [1]
