"""Scans of folders that misbehave, into folders that do: nothing hangs, mixes or ends them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from scan_samples import OPTIONS, write_model

import ncut
from ncut.scans import running
from ncut.scans.rows import schema
from ncut.scans.sources import find_sources, source_of
from ncut.scans.store import JOURNAL_VERSION
from ncut.scans.tasks import forget_graph


def found_in(*paths):
    return [str(Path(source.path).name) for source in find_sources([*paths])]


# --- sources ------------------------------------------------------------------------------------


def test_links_in_circles_are_followed_once(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    write_model(folder / "a.npz", 0)
    for name in ("b", "c", "d"):
        (folder / name).symlink_to(folder)
    assert found_in(folder) == ["a.npz"]
    assert found_in(str(folder / "**" / "*.npz")) == ["a.npz"]


def test_folders_that_many_ways_lead_to_are_searched_once(tmp_path):
    last = tmp_path / "d0"
    last.mkdir()
    write_model(last / "a.npz", 0)
    for number in range(1, 30):  # 2**29 ways
        folder = tmp_path / f"d{number}"
        folder.mkdir()
        for name in ("left", "right"):
            (folder / name).symlink_to(last)
        last = folder
    assert len(find_sources([last])) == 1


def test_a_folder_keeps_its_name_behind_a_link(tmp_path):
    (tmp_path / "models" / "step-2").mkdir(parents=True)
    write_model(tmp_path / "models" / "step-2" / "a.npz", 0)
    (tmp_path / "models" / "best").symlink_to("step-2")
    (source,) = find_sources([tmp_path / "models"])
    assert Path(source.path).parent.name == "step-2"
    (tmp_path / "elsewhere").mkdir()
    write_model(tmp_path / "elsewhere" / "b.npz", 0)
    (tmp_path / "models" / "a-link").symlink_to(tmp_path / "elsewhere")
    assert found_in(tmp_path / "models") == ["a.npz", "b.npz"]


def test_patterns_match_as_those_of_the_library(tmp_path):
    import glob

    for name in ("a.npz", "x/a.npz", "x/y/b.npz", "x/.hidden/c.npz", "z.npz/d.npz"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_model(tmp_path / name, 0)
    for pattern in ("**/*.npz", "*/**/*.npz", "**/y/*", "x/**", "**/[ab].npz", "*.npz"):
        ours = {source.path for source in find_sources([str(tmp_path / pattern)])}
        matched = glob.glob(str(tmp_path / pattern), recursive=True)
        theirs = {source.path for source in find_sources(matched)}
        assert ours == theirs, pattern


def test_deep_folders(tmp_path):
    deep = tmp_path
    for _ in range(1200):
        deep /= "a"
        deep.mkdir()
    write_model(deep / "m.npz", 0)
    try:
        assert found_in(tmp_path) == ["m.npz"]
    finally:  # too deep for Python's own way to remove it
        subprocess.run(["rm", "-rf", tmp_path / "a"], check=True)


@pytest.mark.parametrize("name", ["m1²2.npz", "m-٣.npz", "run#3.npz", "=1+1.npz", "\x1b[31m.npz"])
def test_odd_names(name, models, scan, tmp_path):
    write_model(models / name, 5)
    (tmp_path / "list.txt").write_text(f"# one a line\nmodels/{name}\n", encoding="utf-8")
    found = scan([tmp_path / "list.txt"])
    assert str(found).endswith("1 models measured, 0 failed)")
    assert found.report(models / name) == ncut.analyze(models / name, **OPTIONS)


def test_a_name_that_is_no_text(models, scan, tmp_path):
    write_model(tmp_path / "x.npz", 5)
    os.rename(tmp_path / "x.npz", os.path.join(os.fsencode(models), b"m\xff.npz"))
    found = scan(models)
    assert str(found).endswith("4 models measured, 1 failed)")
    paths = [path for path in found.to_frame()["path"] if "\\xff" in path]
    assert len(paths) == 1
    found.to_html(tmp_path / "page.html")


def test_names_that_no_file_can_have(models, scan, tmp_path):
    write_model(models / "a.npz", 0)
    (tmp_path / "list.txt").write_text(f"models/a.npz\n{'x' * 5000}.npz\nmodels/\0.npz\n")
    assert str(scan([tmp_path / "list.txt"])).endswith("1 models measured, 2 failed)")
    with pytest.raises(ncut.InputError, match="no such file or folder"):
        scan("x" * 5000)
    with pytest.raises(ncut.InputError, match="not a pattern of paths: embedded null"):
        scan("x\0/*.npz")
    with pytest.raises(ncut.InputError, match="cannot be written: embedded null"):
        ncut.scan(models, "x\0y", **OPTIONS)


def test_pipes_are_rows_with_an_error(models, scan):
    os.mkfifo(models / "pipe.npz")
    assert "is a pipe" in scan(models).failed[str(models / "pipe.npz")]


def test_a_closed_folder_is_a_row_with_an_error(models, tmp_path, monkeypatch):
    closed = models / "closed"
    closed.mkdir()
    if os.getuid() == 0:  # nothing is closed to root
        access = os.access
        monkeypatch.setattr(os, "access", lambda p, mode: Path(p) != closed and access(p, mode))
    closed.chmod(0)
    try:
        found = ncut.scan(models, tmp_path / "out", backend="threading", **OPTIONS)
        assert "3 models measured, 2 failed" in str(found)
        with pytest.raises(ncut.InputError, match="closed cannot be read"):
            find_sources([closed])
    finally:
        closed.chmod(0o755)


def test_files_that_go_while_a_folder_is_watched(tmp_path, monkeypatch):
    (tmp_path / "a.npz").write_bytes(b"")
    listdir = os.listdir

    def and_gone(path):
        names = listdir(path)
        (tmp_path / "a.npz").unlink(missing_ok=True)
        return names

    monkeypatch.setattr(os, "listdir", and_gone)
    assert [source.fingerprint for source in running._present([tmp_path])] == [""]
    assert running._present([tmp_path]) == []
    monkeypatch.undo()
    shutil.rmtree(tmp_path)
    assert running._present([tmp_path]) == []


@pytest.mark.parametrize("seconds", [10**12, -(10**12)])
def test_times_that_no_calendar_has(seconds, models, scan, monkeypatch):
    from ncut.scans import schedule

    row = schedule.done_row

    def at_that_time(source, *arguments):
        from dataclasses import replace

        return row(replace(source, modified=float(seconds)), *arguments)

    monkeypatch.setattr(schedule, "done_row", at_that_time)
    frame = scan(models / "step-0.npz").to_frame()
    assert frame["status"].tolist() == ["done"]
    assert frame["modified"].isna().all()


# --- models that change -------------------------------------------------------------------------


@pytest.mark.parametrize("keeps_its_time", [False, True])
def test_a_model_that_is_written_anew_is_failed_and_then_begun_anew(
    keeps_its_time, models, scan, tmp_path
):
    path = models / "step-0.npz"
    before = ncut.analyze(path, **OPTIONS)
    seen = []

    def told(counts):
        seen.append(counts)
        if len(seen) == 4:
            state = path.stat()
            write_model(path, 50)
            if keeps_its_time:
                os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
            forget_graph()  # as a worker that had not read it yet

    found = scan(path, jobs=1, progress=told)
    assert "changed while it was measured; scan again" in found.failed[str(path)]
    after = ncut.analyze(path, **OPTIONS)
    assert scan(path).report(path) == after != before


def test_tensors_beside_an_onnx_file_are_a_part_of_it(tmp_path):
    for name in ("a.onnx", "a.onnx.data", "a.bin", "a.txt", "ab.bin", "b.onnx"):
        (tmp_path / name).write_bytes(b"x")

    def state():
        return source_of(tmp_path / "a.onnx").fingerprint

    assert source_of(tmp_path / "a.onnx").n_bytes == 3
    before = state()
    for name, counts in {"a.txt": False, "ab.bin": False, "a.onnx.data": True}.items():
        (tmp_path / name).write_bytes(b"other")
        assert (state() != before) == counts, name
        before = state()


# --- results that are damaged -------------------------------------------------------------------


def a_row(out):
    return sorted((out / "models").glob("*.parquet"))[0]


def rows_file(file, **columns):
    """A row of the right columns, which says nothing that a scan says."""
    import pyarrow
    import pyarrow.parquet

    row = {"key": "k", "path": "p", "group": "g", "status": "done", "ncut": 1.0, **columns}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row], schema=schema()), file)


DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "rubbish": lambda path: path.write_bytes(b"PAR1 rubbish PAR1"),
    "half": lambda path: os.truncate(path, path.stat().st_size // 2),
    "a folder": lambda path: path.unlink() or path.mkdir(),
    "a pipe": lambda path: path.unlink() or os.mkfifo(path),
    "no path": lambda path: rows_file(path, path=None),
    "a status": lambda path: rows_file(path, status="perhaps"),
    "no numbers": lambda path: rows_file(path),
    "infinite": lambda path: rows_file(path, status="failed", error="x", z_score=float("inf")),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_row_is_left_out_and_measured_anew(how, models, scan, tmp_path):
    scan(models)
    out = tmp_path / "out"
    path = a_row(out)
    DAMAGE[how](path)
    with pytest.warns(UserWarning, match=rf"{path.name}: damaged and left out; scan again"):
        frame = ncut.Scan(out).to_frame()
    assert len(frame) == 3
    if how == "a folder":
        path.rmdir()
    scan(models)
    assert len(ncut.Scan(out).to_frame()) == 4


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{", "[" * 10**5, '{"format": "ncut-scan", "format_version": 1}',
     '{"format": "ncut-scan", "format_version": 1, "settings": []}'],
)  # fmt: skip
def test_damaged_settings_are_named(content, models, scan, tmp_path):
    scan(models)
    (tmp_path / "out" / "scan.json").write_text(content)
    for call in (lambda: scan(models), lambda: ncut.Scan(tmp_path / "out")):
        with pytest.raises(ncut.InputError, match=r"scan\.json"):
            call()


GOOD = {"number": 1, "seconds": 0.5}


@pytest.mark.parametrize(
    "line",
    [
        b"\0" * 200,
        b"[]",
        b"{}",
        b"1",
        b"[" * 10**5,
        json.dumps({**GOOD, "result": {"x": 1}}).encode(),
        json.dumps({**GOOD, "result": None}).encode(),
        json.dumps({**GOOD, "number": "1", "result": {}}).encode(),
        json.dumps({**GOOD, "seconds": 10**400}).encode(),
        json.dumps({**GOOD, "number": -1, "result": {"format": "ncut-report"}}).encode(),
        json.dumps({**GOOD, "result": {"statistics": {"spectral_ncut": float("nan")},
                                       "repeated_ncut": None, "converged": True}}).encode(),
        json.dumps({**GOOD, "result": {"statistics": {"spectral_ncut": 0.5},
                                       "repeated_ncut": None, "converged": True}}).encode(),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kept", [0, 3])
def test_a_damaged_journal_is_gone_on_with_from_where_it_is_whole(
    line, kept, models, scan, tmp_path, monkeypatch
):
    path = models / "step-0.npz"

    def stop(counts):
        if counts.shuffles_done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan(path, jobs=1, progress=stop)
    source = source_of(path)
    journal = tmp_path / "out" / "journal" / f"{source.key}.jsonl"
    lines = journal.read_bytes().splitlines()
    first = {"fingerprint": source.fingerprint, "version": version("ncut")}
    assert json.loads(lines[0]) == first | {"journal": JOURNAL_VERSION}
    journal.write_bytes(b"\n".join([*lines[: 2 + kept], line, *lines[2 + kept :], b""]))
    counted = []
    found = scan(path, progress=lambda counts: counted.append(counts.shuffles_done))
    assert counted[0] >= kept
    assert found.report(path) == ncut.analyze(path, **OPTIONS)


def test_half_files_of_a_killed_scan_are_removed(models, scan, tmp_path):
    for folder in ("", "models", "reports", "journal"):
        place = tmp_path / "out" / folder
        place.mkdir(parents=True, exist_ok=True)
        (place / ".a.0123.part").write_text("half")
    scan(models)
    assert not [*(tmp_path / "out").rglob("*.part")]


def test_a_lock_that_is_a_link_is_not_followed(models, scan, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "lock").symlink_to(tmp_path / "target")
    with pytest.raises(ncut.InputError, match="lock"):
        scan(models)
    assert not (tmp_path / "target").exists()


def test_reports_are_read_from_the_scans_folder_only(models, scan, tmp_path):
    found = scan(models)
    ncut.analyze(models / "step-0.npz", **OPTIONS).to_json(tmp_path / "elsewhere.json")
    for key in ("../../elsewhere", str(tmp_path / "elsewhere"), "\0", "x" * 5000):
        with pytest.raises(ncut.InputError, match="no report"):
            found.report(key)
    assert found.report(source_of(models / "step-1.npz").key).model == "step-1"


FULL = """
import resource, signal, sys, ncut
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
ncut.scan(sys.argv[1], sys.argv[2], backend="threading", jobs=1, k=3, shuffles=2)  # imports
limit = int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    ncut.scan(sys.argv[1], sys.argv[4], backend="threading", jobs=1, k=3, shuffles=6,
              tests=[])
except ncut.InputError as error:
    assert "cannot be written" in str(error), error
else:
    raise SystemExit("there was room")
"""


@pytest.mark.parametrize("limit", [10, 300, 3000, 8000])
def test_a_full_disk_loses_nothing(limit, models, scan, tmp_path):
    (models / "broken.npz").unlink()
    places = (models, tmp_path / "first", str(limit), tmp_path / "out")
    subprocess.run([sys.executable, "-c", FULL, *places], check=True)
    assert not [*(tmp_path / "out").rglob("*.part")]
    found = scan(models)
    for path in models.iterdir():
        assert found.report(path) == ncut.analyze(path, **OPTIONS)


LIMITED = """
import resource, sys, ncut
from ncut.cli import main
models, first, out = sys.argv[1:]
options = {"k": 3, "shuffles": 6, "tests": [], "backend": "threading", "jobs": 1}
ncut.scan(models + "/step-0.npz", first, **options)  # imports
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + (1 << 29)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
found = ncut.scan(models, out, **options)
print(*found.failed.items())
sys.argv = ["ncut", "analyze", models + "/large.safetensors"]
main()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux can; run there")
def test_a_model_that_memory_does_not_hold_fails_alone(models, scan, tmp_path):
    (models / "broken.npz").unlink()
    entry = {"dtype": "F32", "shape": [20000, 20000], "data_offsets": [0, 16 * 10**8]}
    header = json.dumps({"0.weight": entry}).encode()
    with (models / "large.safetensors").open("wb") as file:  # of holes
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + 16 * 10**8)
    command = [sys.executable, "-c", LIMITED, models, tmp_path / "first", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "large.safetensors', 'MemoryError" in done.stdout.replace('"', "'"), done.stdout
    assert done.stderr == "ncut: error: not enough memory\n"
    for path in models.glob("step-*.npz"):
        assert ncut.Scan(tmp_path / "out").report(path) == ncut.analyze(path, **OPTIONS)


ROWS = """
import resource, sys, ncut
import pandas, pyarrow, pyarrow.compute, pyarrow.parquet
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    print(len(ncut.Scan(sys.argv[1]).to_frame()))
except MemoryError:
    print("MemoryError")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux can; run there")
@pytest.mark.parametrize("bytes_left", [0, 1 << 26])
def test_rows_are_read_where_memory_has_no_room_for_threads(bytes_left, models, scan):
    scan(models)
    command = [sys.executable, "-c", ROWS, scan.keywords["out"], str(bytes_left)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() in (str(len([*models.iterdir()])), "MemoryError"), done.stdout
    assert bytes_left == 0 or done.stdout.strip() != "MemoryError"


def test_a_clock_set_back(models, scan, monkeypatch):
    """Times of files are compared for equality only, and durations are of another clock."""
    (models / "broken.npz").unlink()
    path = models / "step-0.npz"
    os.utime(path, (time.time() + 1e6,) * 2)
    scan(models)
    monkeypatch.setattr(time, "time", lambda: 1e9)
    n_models = []
    scan(models, progress=lambda counts: n_models.append(counts.models))
    assert n_models == []
    write_model(path, 50)
    os.utime(path, (9e8, 9e8))
    found = scan(models, progress=lambda counts: n_models.append(counts.models))
    assert max(n_models) == 1
    assert found.report(path) == ncut.analyze(path, **OPTIONS)


def test_text_is_no_formula_in_csv(models, scan):
    from ncut.scans.wording import csv_text

    write_model(models / "a.npz", 0)
    frame = scan(models / "a.npz").to_frame()
    frame["path"], frame["error"] = "=cmd()", "@x"
    frame["model"], frame["z_score"] = "-2+3", -1.5
    head, row = csv_text(frame).splitlines()
    cells = dict(zip(head.split(","), row.split(","), strict=False))
    assert cells["path"] == "'=cmd()"
    assert cells["model"] == "'-2+3"
    assert float(row.split(",")[head.split(",").index("z_score")]) == -1.5
    assert np.isfinite(frame["ncut"]).all()


@pytest.mark.parametrize("target", ["/dev/full", "closed"])
def test_standard_output_that_takes_nothing(target, models):
    command = [sys.executable, "-m", "ncut", "analyze", models / "step-0.npz", "-k", "3",
               "--shuffles", "2"]  # fmt: skip
    if target == "closed":
        reader, writer = os.pipe()
        os.close(reader)
    else:
        writer = os.open(target, os.O_WRONLY)
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert done.returncode == 1, signal.strsignal(-done.returncode)
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 1
