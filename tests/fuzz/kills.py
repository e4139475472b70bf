"""Work that is killed at random moments and gone on with: python tests/fuzz/kills.py --kills 500

Each kind of work runs in forked processes that are killed until one comes to its end. After each
kill every file must be whole, and at the end the results those of work that nobody killed.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import json
import os
import platform
import random
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import ncut

SCAN: dict[str, Any] = {"k": 3, "shuffles": 8, "jobs": 1, "threads": 1, "backend": "threading"}
TIMES = ("seconds", "measured", "path", "key", "group", "modified", "fingerprint")


class Work:
    """A kind of work in a folder; `told` is called with its progress."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def do(self, out: Path, told: Callable[[int], None]) -> None:
        """Start or resume the work."""
        raise NotImplementedError

    def check(self, out: Path, told: int) -> None:
        """Raise if a file is incomplete, or reported progress is missing."""
        raise NotImplementedError

    def result(self, out: Path) -> Any:
        """The result, for comparison."""
        raise NotImplementedError


class Scan(Work):
    """A scan of three models, gone on with."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        rng = np.random.default_rng(4)
        self.models = home / "models"
        self.models.mkdir()
        for number in range(3):
            weights = [rng.normal(size=shape) for shape in ((20, 16), (16, 12))]
            np.savez(self.models / f"m-{number}.npz", *weights)

    def do(self, out: Path, told: Callable[[int], None]) -> None:
        ncut.scan(self.models, out, progress=lambda counts: told(counts.shuffles_done), **SCAN)

    def check(self, out: Path, told: int) -> None:
        for path in (out / "reports").glob("[!.]*.json"):
            ncut.Report.from_json(path)
        rows = {path.stem for path in (out / "models").glob("[!.]*.parquet")}
        kept = len(rows) * SCAN["shuffles"]
        for path in (out / "journal").glob("[!.]*.jsonl"):
            if path.stem in rows:
                continue
            lines = path.read_bytes().split(b"\n")[:-1]
            kept += sum(json.loads(line).get("number", -1) >= 0 for line in lines)
        if kept < told:
            raise AssertionError(f"{told} shuffles were told of, and {kept} are there")

    def result(self, out: Path) -> Any:
        assert not [*out.rglob("*.part")], "half files are left"
        rows = ncut.Scan(out).to_frame().sort_values("path").to_dict("records")
        return [{name: repr(v) for name, v in row.items() if name not in TIMES} for row in rows]


class Results(Work):
    """Results that are written over those of before, again and again."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.graph = ncut.graph([np.ones((30, 20)), np.ones((20, 10))], name="g")
        self.report = ncut.analyze(self.graph, k=3, shuffles=3)

    def do(self, out: Path, told: Callable[[int], None]) -> None:
        out.mkdir(exist_ok=True)
        for number in range(6):
            self.graph.save(out / "g.npz")
            self.report.to_json(out / "r.json", indent=number % 3)
            self.report.to_html(out / "r.html")
            told(number + 1)

    def check(self, out: Path, told: int) -> None:
        for name, read in {
            "g.npz": ncut.NeuronGraph.load,
            "r.json": ncut.Report.from_json,
            "r.html": lambda path: path.read_text().index("</html>"),
        }.items():
            if (out / name).exists() or told:
                read(out / name)

    def result(self, out: Path) -> Any:
        return ncut.Report.from_json(out / "r.json").to_dict(), (out / "g.npz").stat().st_size


class Analyze(Work):
    """`ncut analyze` as a program, each time over the files of before."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        rng = np.random.default_rng(5)
        self.model = home / "m.npz"
        np.savez(self.model, rng.normal(size=(20, 16)), rng.normal(size=(16, 12)))

    def do(self, out: Path, told: Callable[[int], None]) -> None:
        from ncut.cli.app import app

        out.mkdir(exist_ok=True)
        files = [f"--{kind}={out / f'r.{kind}'}" for kind in ("json", "html")]
        for seed in range(2):
            options = [
                "-k",
                "3",
                "--shuffles",
                "3",
                "--threads",
                "1",
                "--no-profile",
                "--seed",
                str(seed),
            ]
            if app(["analyze", str(self.model), *options, *files], standalone_mode=False):
                raise KeyboardInterrupt  # an interrupted command returns its exit status
            told(seed + 1)

    def check(self, out: Path, told: int) -> None:
        if told or (out / "r.json").exists():
            ncut.Report.from_json(out / "r.json")
        if told or (out / "r.html").exists():
            assert (out / "r.html").read_text().rstrip().endswith("</html>")

    def result(self, out: Path) -> Any:
        return ncut.Report.from_json(out / "r.json").to_dict(), (out / "r.html").stat().st_size


class Paper(Work):
    """A network that is trained with checkpoints, pruned and measured, gone on with."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        sys.path.insert(0, str(Path(__file__).parents[1] / "paper"))
        from paper_data import write_idx_set

        from ncut.paper import training
        from ncut.paper.recipes import Recipe
        from ncut.paper.records import PRUNED, UNPRUNED, Analysis

        write_idx_set(home / "data" / "mnist", 1500, 100)
        training.SECONDS_BETWEEN_CHECKPOINTS = -1.0
        self.recipe = Recipe("small-mlp", "mnist-7x7", epochs=4, pruning_epochs=3)
        analysis = Analysis(k=3, shuffles=4)
        self.measures = ((UNPRUNED, analysis), (PRUNED, analysis))

    def _record(self, out: Path) -> Any:
        from ncut.paper.records import Record

        return Record(out, self.recipe, 0)

    def do(self, out: Path, told: Callable[[int], None]) -> None:
        from ncut.paper.running import Job, do

        do(Job(self._record(out), self.measures), self.home / "data")

    def check(self, out: Path, told: int) -> None:
        from ncut.paper.records import read_tensors

        for path in self._record(out).folder.glob("[!.]*"):
            if path.suffix == ".safetensors":
                read_tensors(path)
            elif path.suffix == ".json":
                json.loads(path.read_text())

    def result(self, out: Path) -> Any:
        record = self._record(out)
        found = [record.report(phase, analysis).to_dict() for phase, analysis in self.measures]
        tensors = (record.folder / "pruned.safetensors").read_bytes()
        return found, tensors


KINDS: dict[str, type[Work]] = {
    "scan": Scan, "results": Results, "analyze": Analyze, "paper": Paper
}  # fmt: skip


def import_all(work: Work, out: Path) -> None:
    """Import the modules of the work, first in a separate process: imports may start threads."""
    names = out.with_suffix(".modules")
    if os.fork() == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        with contextlib.suppress(BaseException):
            work.do(out, lambda _: None)
        names.write_text("\n".join(sys.modules))
        os._exit(0)
    os.wait()
    for name in names.read_text().split():
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    gc.freeze()  # or each process looks at all of it


def used(child: int) -> float:
    """Seconds of the processor that a process took so far; they pass while others keep it busy."""
    return time.clock_gettime(~child << 3 | 2)  # the clock of a process, as Linux numbers them


def in_child(work: Work, out: Path, after: float | None, how: int) -> tuple[bool, int, float]:
    """Work in a process that is killed after some seconds: whether it ended, and its progress."""
    reader, writer = os.pipe()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # until the child can catch it
    child = os.fork()
    if child == 0:
        os.close(reader)
        log = os.open(out.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1), os.dup2(log, 2)
        code = 0
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            work.do(out, lambda number: os.write(writer, f"{number}\n".encode()) and None)
        except KeyboardInterrupt:
            code = 130
        except BaseException:
            traceback.print_exc()
            code = 1
        os._exit(code)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    os.close(writer)
    text = b""
    with os.fdopen(reader, "rb", 0) as lines:
        while after is not None and used(child) < after:
            if select.select([lines], [], [], 0.01)[0]:
                text += (new := lines.read(4096))
                if not new:  # it has come to its end
                    break
        if after is not None:
            os.kill(child, how)
        text += lines.read()
    told = [int(line) for line in text.split(b"\n")[:-1]]
    _, status, usage = os.wait4(child, 0)
    seconds = usage.ru_utime + usage.ru_stime
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) not in (0, 130):
        raise AssertionError(out.with_suffix(".log").read_text()[-3000:])
    ended = os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0
    return ended, told[-1] if told else 0, seconds


def run(kind: str, n: int, seed: int = 0) -> dict[str, Any]:
    """Kill a kind of work `n` times; return the number of kills, and the failures."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        work = KINDS[kind](home)
        import_all(work, home / "first")
        _, _, seconds = in_child(work, home / "whole", None, 0)
        whole = work.result(home / "whole")
        kills = rounds = 0
        wrong: list[str] = []
        while kills < n and len(wrong) < 5:
            out = home / f"out{rounds}"
            rounds += 1
            try:
                ended = False
                while not ended:
                    enough = kills >= n
                    after = (
                        None if enough else rng.uniform(0, seconds * rng.choice((0.3, 0.8, 1.1)))
                    )
                    how = rng.choice(
                        (signal.SIGKILL, signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
                    )
                    ended, told, _ = in_child(work, out, after, how)
                    kills += not ended
                    work.check(out, told)
                if work.result(out) != whole:
                    wrong.append(f"round {rounds}: another result")
            except Exception:
                wrong.append(traceback.format_exc()[-1500:])
            shutil.rmtree(out, ignore_errors=True)
    return {"what": KINDS[kind].__doc__, "kills": kills, "ends": rounds, "wrong": wrong}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=500, help="of all kinds together")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="a file for the figures; kinds in it are done")
    arguments = parser.parse_args()
    kinds = arguments.kinds.split(",")
    each = -(-arguments.kills // len(kinds))
    found: dict[str, Any] = {}
    if arguments.json and arguments.json.exists():
        found = json.loads(arguments.json.read_text())["kinds"]
    command = " ".join(["python", "tests/fuzz/kills.py", *sys.argv[1:]])
    for kind in kinds:
        if kind not in found:
            found[kind] = run(kind, each, arguments.seed) | {
                "command": command, "ncut": version("ncut"), "python": platform.python_version(),
                "machine": platform.machine(),
            }  # fmt: skip
        kills = sum(one["kills"] for one in found.values())
        text = json.dumps({"kills": kills, "kinds": found}, indent=1)
        if arguments.json:
            arguments.json.write_text(text + "\n")
    print(text)
    return 1 if any(one["wrong"] for one in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
