"""The command line as a user has it: processes in a folder of their own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.fixture
def ncut(tmp_path):
    """Run `python -m ncut` in an empty folder; its output is in `stdout` and `stderr`."""

    def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "ncut", *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONIOENCODING": "utf-8", **environment},
            capture_output=True,
            encoding="utf-8",
            check=False,
        )

    return run
