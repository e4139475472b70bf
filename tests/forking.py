"""`python -m ncut` in separate processes, forked from one with the slow imports done.

A command runs as it would from a shell: the folder, the environment and the standard streams are
its own, and the interpreter ends as it always does, but for the objects, which it leaves to the
operating system: freeing those of all imported modules takes longer than most commands.
Environment variables that the interpreter or a library reads as it starts have no effect; a test
of those starts its own process, and so do those of what a command imports.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import subprocess
import sys
import threading
from pathlib import Path

IMPORTED = ("scipy.sparse.linalg", "scipy.stats", "typer", "pandas", "jinja2", "matplotlib.figure",
            "joblib", "pyarrow.parquet", "ncut.cli.app", "ncut.analysis", "ncut.profiles",
            "ncut.verdicts", "ncut.extract.readers.files", "ncut.report.html",
            "ncut.report.console", "ncut.report.plots", "ncut.scans")  # fmt: skip


class Commands:
    """Runs commands one after the other; `close` ends the process that forks them."""

    def __init__(self, folder: Path) -> None:
        self.out, self.err = folder / "out", folder / "err"
        self.server = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        )

    def run(
        self, *arguments: object, cwd: Path, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run `python -m ncut` with these arguments in a folder, without input."""
        assert not [name for name in environment if name.startswith("PYTHON")]
        request = {
            "arguments": [*map(str, arguments)],
            "cwd": str(cwd),
            "environment": {**os.environ, **environment},
            "streams": [os.devnull, str(self.out), str(self.err)],
        }
        assert self.server.stdin
        assert self.server.stdout
        print(json.dumps(request), file=self.server.stdin, flush=True)
        code = int(self.server.stdout.readline())
        output, error = (path.read_text(encoding="utf-8") for path in (self.out, self.err))
        return subprocess.CompletedProcess(request["arguments"], code, output, error)

    def close(self) -> None:
        """End the process."""
        self.server.communicate()


def serve() -> list[str] | None:
    """Fork for each request and tell its exit code; in the forked process, the arguments."""
    for name in IMPORTED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    # A forked process need not collect, and copy the pages of, what was imported before.
    gc.freeze()
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            request = json.loads(line)
            os.chdir(request["cwd"])
            os.environ.clear()
            os.environ.update(request["environment"])
            for number, path in enumerate(request["streams"]):
                flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC if number else os.O_RDONLY
                os.dup2(os.open(path, flags), number)
            sys.path[0] = request["cwd"]
            arguments: list[str] = request["arguments"]
            return arguments
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    return None


def end(code: int) -> None:
    """End the interpreter with all that precedes the freeing of objects."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


if __name__ == "__main__":
    found = serve()
    if found is not None:
        sys.argv[1:] = found
        try:
            runpy.run_module("ncut", run_name="__main__", alter_sys=True)
        except SystemExit as error:
            if isinstance(error.code, int):
                with contextlib.suppress(OSError, ValueError):  # told at an ordinary end
                    end(error.code)
            raise
