"""Damaged files of every format, read in processes that may die: python tests/fuzz/fuzz.py --help

An input is made from its format and number alone. What comes of it is a graph (or report, rows,
sources), or an error of ncut that names the file; all else is a finding, kept once for each place
in the code: another exception, no memory, much memory, no end, a dead process, a file opened
outside of the guard, a message that names no file or carries control characters.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import platform
import random
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from mutations import mutated
from seeds import write_seeds

import ncut
from ncut.errors import MAX_MESSAGE
from ncut.files import guard, write_text

CHECKOUT = str(Path(__file__).resolve().parents[2]) + os.sep
"""Left out of tracebacks, which are the same on any machine without it."""
CHUNK = 10_000
"""Inputs between two times that the figures are written."""
BATCH = 1500
CPU_SECONDS = 20
"""Time of the processor for an input."""
SILENT_SECONDS = 600
"""Time in which a process waits and says nothing; not while it is stopped or gets no processor."""
MEMORY = 1 << 30
"""Bytes that a process may map in addition."""
GROWTH_MIB = 250
"""By how much an input may raise the largest resident size."""

SHARES = {
    "npz": 16, "pt": 14, "safetensors": 18, "onnx": 10, "keras": 2, "hdf5": 2, "folder": 4,
    "npy": 12, "graph": 10, "report": 10, "scan": 1, "list": 2, "gguf": 5, "jit": 7,
    "pt2": 5, "msgpack": 10, "tflite": 6, "tfjs": 4,
    "orbax": 3, "quantized": 3, "diffusers": 1,
}  # fmt: skip
"""Relative number of inputs of each format: fewer for formats that take ten times as long."""


class Doors:
    """A watch over Python's own ways to open files: it names those opened outside of the guard."""

    def __init__(self, home: Path) -> None:
        self._home, self._guards = str(home), set[int]()
        self._state, guard._state = guard._state, self._counted
        self.opened = ""
        sys.addaudithook(self._hook)

    def begin(self) -> None:
        """Reset the record before an input."""
        self._guards.clear()
        self.opened = ""

    def _counted(self, path: str | Path) -> object:
        """The state of a file, which the guard asks for when it begins, and when it ends."""
        self._guards ^= {id(sys._getframe(1))}
        return self._state(path)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event != "open" or self._guards or not str(arguments[0]).startswith(self._home):
            return
        path, mode, flags = arguments
        frame, writing = sys._getframe(1), bool(flags & (os.O_WRONLY | os.O_RDWR))
        while frame is not None and not writing:
            writing = frame.f_code.co_filename == ncut.files.writing.__file__
            frame = frame.f_back
        if not writing:
            self.opened = f"{Path(str(path)).suffix}, mode {mode}"


class Place:
    """A folder of one process, and where a damaged file goes in it."""

    def __init__(self, seeds: Path, home: Path) -> None:
        self.seeds, self.home = seeds, home
        home.mkdir(parents=True)

    def put(self, kind: str, seed: Path, data: bytes) -> Path:
        """Write a damaged file, with what belongs to it; the path to read."""
        if kind in ("folder", "scan", "tfjs", "orbax", "quantized", "diffusers"):
            top = self.seeds / kind / seed.relative_to(self.seeds / kind).parts[0]
            whole = self.home / "whole"
            shutil.rmtree(whole, ignore_errors=True)
            shutil.copytree(top, whole)
            (whole / seed.relative_to(top)).write_bytes(data)
            return whole
        path = self.home / f"input{seed.suffix}"
        path.write_bytes(data)
        return path


def use(kind: str, path: Path, number: int) -> None:
    """Do with a file what users do."""
    if kind == "report":
        report = ncut.Report.from_json(path)
        str(report), repr(report), report.to_json()
        if number % 40 == 0:
            report.to_html()
    elif kind == "scan":
        found = ncut.Scan(path)
        repr(found)
        for key in sorted((path / "reports").glob("*.json")):
            found.report(key.stem)
        if number % 4 == 0:
            options: dict[str, Any] = {"k": 2, "shuffles": 4, "jobs": 1, "backend": "threading"}
            ncut.scan(path.parents[1] / "runs", path, **options)
    elif kind == "list":
        from ncut.scans.sources import find_sources

        find_sources([path])
    else:
        graph = ncut.graph([path, path] if kind == "npy" else path)
        if number % 40 == 0 and graph.n_vertices < 2000:
            ncut.cluster(graph, k=2)
        if number % 50 == 0:
            saved = path.parent / "again.npz"
            graph.save(saved)
            assert ncut.NeuronGraph.load(saved).n_edges == graph.n_edges


def place_of(error: BaseException) -> str:
    """The identity of a finding: its class, and its innermost frames in ncut and overall."""
    package = str(Path(ncut.__file__).parent) + os.sep
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if frame.filename.startswith(package)]
    at = f"{ours[-1].filename.removeprefix(package)}:{ours[-1].lineno}" if ours else "?"
    return f"{type(error).__name__} at {at} in {Path(frames[-1].filename).name}:{frames[-1].name}"


def outcome_of(kind: str, path: Path, number: int) -> dict[str, Any]:
    """The outcome of an input, and its fault if any."""
    found: dict[str, Any] = {"outcome": "read"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            use(kind, path, number)
        except ncut.NcutError as error:
            found["outcome"] = "refused"
            text = str(error)
            shown = "".join(traceback.TracebackException.from_exception(error, limit=0).format())
            if any(not c.isprintable() and c != "\n" for c in text) or "\x1b" in shown:
                found["finding"] = f"control characters: {place_of(error)}"
            elif len(text) > MAX_MESSAGE:
                found["finding"] = f"a long message: {place_of(error)}"
            elif path.name not in text and not (kind == "npy" and "layer 'w" in text):
                found["finding"] = f"names no file: {place_of(error)}: {text[:80]}"
        except MemoryError as error:
            found |= {"outcome": "no memory", "finding": f"no memory: {place_of(error)}"}
        except BaseException as error:
            text = "".join(traceback.format_exception(error)).replace(CHECKOUT, "")[-2000:]
            found |= {"outcome": "raised", "finding": f"raised {place_of(error)}", "text": text}
    return found


def limit_time(allowed: int) -> int:
    """Let the system end this process after so much more time of the processor; until when."""
    until = int(time.process_time()) + CPU_SECONDS + 1
    if until > allowed:
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        resource.setrlimit(resource.RLIMIT_CPU, (until, hard))
    return until


def waits(child: int) -> bool:
    """Check whether a process waits for something other than the processor."""
    return Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] in "SD"


def read_batch(kind: str, seeds: list[Path], place: Place, numbers: range, out: int) -> None:
    """Read inputs, and say after each what came."""
    noise = os.open(os.devnull, os.O_WRONLY)
    os.dup2(noise, 1), os.dup2(noise, 2)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    contents = {seed: seed.read_bytes() for seed in seeds}
    doors = Doors(place.seeds)
    allowed, before = 0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with os.fdopen(out, "w") as lines:
        for number in numbers:
            rng = random.Random(f"{kind} {number}")
            seed = rng.choice(seeds)
            data = mutated(seed.suffix or seed.name, contents[seed], rng)
            if kind == "list" and any({*line.strip()} == {*b"/"} for line in data.split(b"\n")):
                data = contents[seed]  # a list that names the root has the whole disk searched
            path = place.put(kind, seed, data)
            allowed = limit_time(allowed)
            doors.begin()
            found = outcome_of(kind, path, number)
            after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            grown, before = (after - before) >> 10, after
            if doors.opened:
                found.setdefault("finding", f"opened outside of the guard: {doors.opened}")
            if grown > GROWTH_MIB and "finding" not in found:
                found["finding"] = f"grew by {grown // 100 * 100} MiB and more, {found['outcome']}"
            if "finding" in found and (kept := os.environ.get("NCUT_FUZZ_KEEP")):
                target = Path(kept) / f"{kind}-{number}"
                if path.is_dir():
                    shutil.copytree(path, target, dirs_exist_ok=True)
                else:
                    shutil.copy(path, target.with_suffix(path.suffix))
            print(json.dumps({"number": number, **found}), file=lines, flush=True)


class Stream:
    """The inputs of one format, read batch by batch in processes that are forked for that."""

    def __init__(self, kind: str, seeds: list[Path], place: Place) -> None:
        self.kind, self.seeds, self.place = kind, seeds, place
        self.outcomes: Counter[str] = Counter()
        self.cpu_seconds = 0.0
        self.findings: dict[str, dict[str, Any]] = {}

    def run(self, first: int, n: int) -> Stream:
        """Read inputs `first` to `first + n`."""
        at = first
        while at < first + n:
            at = self._batch(range(at, min(at + BATCH, first + n)))
        return self

    def _batch(self, numbers: range) -> int:
        """Read a batch until its process dies; return the number to continue with."""
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.close(reader)
                read_batch(self.kind, self.seeds, self.place, numbers, writer)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(99)
        os.close(writer)
        at, silent = numbers.start, 0
        with os.fdopen(reader) as lines:
            while True:
                if not select.select([lines], [], [], 1)[0]:
                    silent += waits(child)
                    if silent < SILENT_SECONDS:
                        continue
                    os.kill(child, signal.SIGKILL)
                if not (text := lines.readline()):
                    break
                line = json.loads(text)
                self._take(line)
                at, silent = line["number"] + 1, 0
        _, status, usage = os.wait4(child, 0)
        self.cpu_seconds += usage.ru_utime + usage.ru_stime
        if not status and at == numbers.stop:
            return at
        ended = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        endless = silent >= SILENT_SECONDS or ended == signal.SIGXCPU
        what = "no end" if endless else f"died, status {status}"
        self._take({"number": at, "outcome": what.split(",")[0], "finding": what})
        return at + 1

    def _take(self, line: dict[str, Any]) -> None:
        self.outcomes[line["outcome"]] += 1
        if "finding" in line:
            known = self.findings.setdefault(
                line["finding"], {"first": line["number"], "times": 0, "text": line.get("text", "")}
            )
            known["times"] += 1
            if known["times"] == 1:
                print(f"{self.kind} {line['number']}: {line['finding']}", flush=True)
                print(line.get("text", ""), flush=True)


@contextmanager
def seeded(kinds: list[str], folder: Path | None = None) -> Iterator[list[tuple[str, Any, Place]]]:
    """Each format with its valid files, and the folder of its inputs."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        home = Path(name)
        seeds = write_seeds(home, kinds)
        ncut.cluster(ncut.graph([np.ones((3, 2)), np.ones((2, 3))]), k=2)  # what is imported late
        gc.freeze()  # what is imported need not be looked at in every process
        yield [(kind, seeds[kind], Place(home, home / f"in-{kind}")) for kind in kinds]


def run(n: int, first: int, formats: list[tuple[str, Any, Place]], jobs: int = 1) -> dict[str, Any]:
    """Read `n` inputs, shared among the formats; the figures and findings."""
    started = time.monotonic()
    streams = [Stream(*one) for one in formats]
    total = sum(SHARES[stream.kind] for stream in streams)
    each = [max(1, n * SHARES[stream.kind] // total) for stream in streams]
    each[0] += max(0, n - sum(each))
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("fork")) as pool:
        streams = list(pool.map(Stream.run, streams, [first] * len(streams), each))
    outcomes: Counter[str] = Counter()
    for stream in streams:
        outcomes.update(stream.outcomes)
    return {
        "inputs": sum(each), "first": first, "outcomes": dict(outcomes),
        "by_format": {stream.kind: dict(stream.outcomes) for stream in streams},
        "findings": {s.kind: s.findings for s in streams if s.findings},
        "seconds": round(time.monotonic() - started, 1),
        "cpu_seconds": {stream.kind: round(stream.cpu_seconds, 1) for stream in streams},
        "versions": {name: version(name) for name in
                     ("ncut", "numpy", "torch", "onnx", "h5py", "safetensors", "pyarrow")
                     if find_spec(name)},
        "python": platform.python_version(), "machine": platform.machine(),
    }  # fmt: skip


def together(before: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """The figures and findings of two runs."""
    if not before:
        return found
    outcomes = Counter(before["outcomes"])
    outcomes.update(found["outcomes"])
    by_format = {kind: Counter(counts) for kind, counts in before["by_format"].items()}
    for kind, counts in found["by_format"].items():
        by_format.setdefault(kind, Counter()).update(counts)
    findings = {kind: dict(known) for kind, known in before["findings"].items()}
    for kind, known in found["findings"].items():
        for text, one in known.items():
            old = findings.setdefault(kind, {}).setdefault(text, {**one, "times": 0})
            old["times"] += one["times"]
    return {
        **found,
        "inputs": before["inputs"] + found["inputs"],
        "first": before["first"],
        "outcomes": dict(outcomes),
        "by_format": {kind: dict(counts) for kind, counts in by_format.items()},
        "findings": findings,
        "seconds": round(before["seconds"] + found["seconds"], 1),
        "cpu_seconds": dict(Counter(before["cpu_seconds"]) + Counter(found["cpu_seconds"])),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=20_000, help="how many (20000)")
    parser.add_argument("--first", type=int, default=0, help="number of the first (0)")
    parser.add_argument("--formats", help=f"some of {','.join(SHARES)}")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time (1)")
    parser.add_argument("--keep", type=Path, help="a folder for inputs of findings")
    parser.add_argument("--folder", type=Path, help="where to work, as /dev/shm")
    parser.add_argument(
        "--json", type=Path,
        help="a file for the figures, written after each 10000 inputs; a run that was stopped "
        "goes on from there",
    )  # fmt: skip
    arguments = parser.parse_args()
    if arguments.keep:
        arguments.keep.mkdir(parents=True, exist_ok=True)
        os.environ["NCUT_FUZZ_KEEP"] = str(arguments.keep)
    kinds = arguments.formats.split(",") if arguments.formats else list(SHARES)
    found: dict[str, Any] = {}
    if arguments.json and arguments.json.exists():
        found = json.loads(arguments.json.read_text())
    at = found.get("next", arguments.first)
    end = arguments.first + arguments.inputs
    text = json.dumps(found, indent=1)
    with seeded(kinds, arguments.folder) as formats:
        while at < end:
            n = min(CHUNK, end - at)
            found = together(found, run(n, at, formats, arguments.jobs))
            at += n
            command = " ".join(["python", "tests/fuzz/fuzz.py", *sys.argv[1:]])
            text = json.dumps(found | {"command": command, "next": at}, indent=1)
            if arguments.json:
                write_text(arguments.json, text + "\n")
    print(text)
    return 1 if found["findings"] else 0


if __name__ == "__main__":
    sys.exit(main())
