"""The command `ncut`: its commands, and exit codes.

0: done. 1: an error that the user can fix, shown in one line. 2: wrong usage. 130: Ctrl-C.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from typing import Annotated

import typer

from ncut.cli import analyze, compare, info, paper, profile, scan, selftest
from ncut.cli.group import EXAMPLES, Command, Commands
from ncut.cli.messages import AsciiFallback, one_line

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Measure whether a trained network's neurons form groups.",
    epilog=EXAMPLES,
)

app.add_typer(paper.commands, name="paper")
for command in (
    *(analyze.demo, info.info, info.formats, analyze.analyze, profile.profile),
    *(scan.scan, scan.report, compare.compare, selftest.selftest),
):
    app.command(cls=Command)(command)


def main() -> None:
    """Run the command line; the entry point of the command `ncut`.

    If standard output is full, or a pipe that closes early, the exit code is 1. Characters that its
    encoding lacks are written in ASCII, with a note, so that no result is lost.
    """
    if sys.stdout is None:  # closed from the start: discard, and let no file get its number
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8")
    spelled = AsciiFallback()
    codecs.register_error("ncut", spelled)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="ncut")
    try:
        try:
            app(prog_name="ncut")
        finally:
            sys.stdout.flush()
            spelled.note()
    except OSError as error:
        # The rest of the buffer would be written, and fail again, when the interpreter exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno != errno.EPIPE:
            what = error.filename or "standard output"
            typer.echo(f"ncut: error: {one_line(what)}: {one_line(error.strerror)}", err=True)
        sys.exit(1)


def _show_version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(f"ncut {version('ncut')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="The version.")
    ] = False,
) -> None:
    """Measure whether a trained network's neurons form groups."""
