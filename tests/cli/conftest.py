"""The command line as a user has it: processes in a folder of their own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from forking import Commands


@pytest.fixture
def ncut(commands: Commands, tmp_path: Path) -> Callable[..., CompletedProcess[str]]:
    """Run `python -m ncut` in an empty folder; its output is in `stdout` and `stderr`."""
    return partial(commands.run, cwd=tmp_path)
