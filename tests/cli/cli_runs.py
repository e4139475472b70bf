"""A small model's settings, and runs of the command line on a terminal."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys

SIZES = (12, 10, 8, 6)


SMALL = ("--k", "3", "--shuffles", "6")


def assert_one_line_error(result: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert result.returncode == 1
    assert result.stdout == ""
    assert re.fullmatch(r"ncut: error: [^\n]+\n", result.stderr), result.stderr
    for part in parts:
        assert part in result.stderr


def on_terminal(arguments, folder, *, interrupt_at: str | None = None) -> tuple[int, str, str]:
    """Run with standard error on a terminal: exit code, standard output, terminal output."""
    terminal, side = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "ncut", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"},
        stdout=subprocess.PIPE,
        stderr=side,
        encoding="utf-8",
    )
    os.close(side)
    shown = ""
    while True:
        try:
            data = os.read(terminal, 4096)
        except OSError:  # Linux says so when the other side is closed
            break
        if not data:
            break
        shown += data.decode(errors="replace")
        if interrupt_at and re.search(interrupt_at, shown):
            process.send_signal(signal.SIGINT)
            interrupt_at = None
    output, _ = process.communicate()
    os.close(terminal)
    return process.returncode, output, shown
