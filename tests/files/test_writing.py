"""Files are written completely or not at all, and never through another user's link."""

from __future__ import annotations

import os
import resource
import signal
import stat
import subprocess
import sys
import time

import numpy as np
import pytest

import ncut
from ncut.errors import InputError
from ncut.files import append_line, check_output, remove_parts, write_file, write_text


def writes(text):
    return lambda part: part.write_text(text)


@pytest.mark.parametrize("error", [OSError, ValueError, ZeroDivisionError, KeyboardInterrupt])
@pytest.mark.parametrize("old", ["the old text", None])
def test_an_error_while_writing_leaves_the_old_file(old, error, tmp_path):
    path = tmp_path / "file.txt"
    if old is not None:
        write_file(path, writes(old))

    def write(part):
        part.write_text("half of the n")
        raise error

    with pytest.raises(error if error is KeyboardInterrupt else InputError):
        write_file(path, write)
    assert [*path.parent.iterdir()] == ([] if old is None else [path])
    assert old is None or path.read_text() == old


def test_the_old_file_stays_until_the_new_one_is_on_disk(tmp_path, monkeypatch):
    path = tmp_path / "file.txt"
    path.write_text("old")
    events = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: events.append("fsync") or sync(file))
    monkeypatch.setattr(os, "replace", lambda *names: events.append("replace") or replace(*names))

    def write(part):
        assert part.parent == path.parent  # or it could not be renamed
        part.write_text("new")
        assert path.read_text() == "old"

    write_file(path, write)
    assert path.read_text() == "new"
    assert events == ["fsync", "replace", "fsync"]
    assert [*tmp_path.iterdir()] == [path]


def test_a_name_that_cannot_be_given_leaves_no_part(tmp_path):
    path = tmp_path / "file.txt"
    (path / "inside").mkdir(parents=True)
    with pytest.raises(InputError, match=r"file\.txt: cannot be written"):
        write_file(path, writes("new"))
    assert [*tmp_path.iterdir()] == [path]


def test_names_of_parts_are_never_the_same(tmp_path):
    names = set()
    for _ in range(50):
        write_file(tmp_path / "file.txt", lambda part: names.add(part) or part.write_text(""))
    assert len(names) == 50


def test_modes_match_other_programs(tmp_path):
    path = tmp_path / "file.txt"
    mask = os.umask(0o027)
    try:
        write_text(path, "a")
    finally:
        os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    path.chmod(0o604)
    write_text(path, "b")
    assert stat.S_IMODE(path.stat().st_mode) == 0o604


def test_a_link_of_ones_own_stays_and_a_strangers_is_replaced(tmp_path, monkeypatch):
    target, link = tmp_path / "target.txt", tmp_path / "link.txt"
    target.write_text("old")
    link.symlink_to(target)
    write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    me = os.geteuid()
    os.lchown(link, 12345, -1) if me == 0 else monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    write_text(link, "mine")
    assert not link.is_symlink()
    assert (link.read_text(), target.read_text()) == ("mine", "new")


def test_a_pipe_is_written_to_directly(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    check_output(pipe)
    write_text(pipe, "through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_parts_of_killed_processes_are_removed_when_they_are_old(tmp_path):
    old, new, other = (tmp_path / f for f in (".a.1.part", ".b.2.part", "c.part"))
    for path in (old, new, other):
        path.write_text("")
    os.utime(old, (0, 0))
    os.utime(other, (0, 0))
    ahead = tmp_path / ".d.3.part"  # a clock that went back
    ahead.write_text("")
    os.utime(ahead, (time.time() + 1e6,) * 2)
    remove_parts(tmp_path)
    assert sorted(tmp_path.iterdir()) == [new, ahead, other]
    remove_parts(tmp_path / "not there")


FULL = """
import resource, signal, sys
import numpy as np, ncut
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
graph = ncut.graph([np.ones((60, 50)), np.ones((50, 40))])
report = ncut.analyze(graph, k=3, shuffles=3)
resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))
writes = {
    "g.npz": graph.save, "r.json": report.to_json, "r.html": report.to_html,
    "p.png": lambda path: __import__("ncut.report.plots").report.plots.save_picture(
        report, __import__("pathlib").Path(path)),
}
for name, write in writes.items():
    try:
        write(sys.argv[1] + "/" + name)
    except ncut.InputError as error:
        assert "cannot be written: File too large" in str(error), error
    else:
        raise SystemExit(name + " was written")
"""


def test_results_that_were_there_survive_a_full_disk(tmp_path):
    for name in ("g.npz", "r.json", "r.html", "p.png"):
        (tmp_path / name).write_text(f"the old {name}")
    subprocess.run([sys.executable, "-W", "ignore", "-c", FULL, tmp_path], check=True)
    for path in tmp_path.iterdir():  # and no other file
        assert path.read_text() == f"the old {path.name}"


def test_a_journal_on_a_full_disk_is_an_error_of_ours(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        with pytest.raises(InputError, match=r"j\.jsonl: cannot be written"):
            append_line(tmp_path / "j.jsonl", bytes(100))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def test_a_saved_graph_of_any_name_is_found_under_it(tmp_path):
    graph = ncut.graph([np.ones((4, 3)), np.ones((3, 2))])
    graph.save(tmp_path / "graph")  # NumPy would add an ending
    assert ncut.NeuronGraph.load(tmp_path / "graph").n_edges == graph.n_edges
