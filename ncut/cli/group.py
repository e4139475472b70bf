"""The command line as a whole: order of commands, quiet and verbose, one style of errors.

Exit codes: 0 done, 1 an error that the user can fix, 2 wrong usage, 130 Ctrl-C.
"""

from __future__ import annotations

import os
import re
import sys
import time
import traceback
from typing import Any, cast

import typer
from typer.core import TyperCommand, TyperGroup

from ncut.cli.messages import Level, level, one_line, set_level
from ncut.errors import NcutError

# Some versions of typer bundle click; its classes are reached through a public one.
USAGE_ERROR: type[Exception] = cast(Any, typer.BadParameter.__mro__[1])
CLICK_ERROR: type[Exception] = cast(Any, typer.BadParameter.__mro__[2])
INTERRUPTED = 130
WRONG_USAGE = 2
FLAGS = {"-q": Level.QUIET, "--quiet": Level.QUIET, "-v": Level.VERBOSE, "--verbose": Level.VERBOSE}
ORDER = (
    "demo",
    "info",
    "analyze",
    "compare",
    "profile",
    "scan",
    "report",
    "formats",
    "paper",
    "selftest",
)
EXAMPLES = """Start here: ncut demo

ncut info model.safetensors

ncut analyze model.pt --html report.html

ncut compare before.pt after.pt

ncut profile model.npz --k 2-20

ncut scan runs/ --out results

ncut report results --html scan.html

Shell completion: ncut --install-completion. Any command: -q prints less, -v more."""


class _FlagsWithoutType:
    """Help that shows flags without the type `bool`."""

    def get_params(self, ctx: Any) -> list[Any]:
        found: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for one in found:
            if getattr(one, "is_bool_flag", False) and one.metavar is None:
                one.metavar = ""
        return found


class Command(_FlagsWithoutType, TyperCommand):
    """A command of the group `Commands`."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; an error names an option as it is typed."""
        try:
            return super().invoke(ctx)
        except NcutError as error:
            name, colon, rest = str(error).partition(":")
            flags = {one.name: one.opts[0] for one in self.params if one.opts[0].startswith("--")}
            error.args = (flags.get(name, name) + colon + rest,)
            raise


class Commands(_FlagsWithoutType, TyperGroup):
    """Commands in the order of a first use; errors in one line."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names, in the order of a first use."""
        names = super().list_commands(ctx)
        return sorted(names, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))

    def main(
        self,
        args: Any = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command and exit; usage errors are shown like any other error."""
        try:
            code = super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
        except (CLICK_ERROR, typer.Abort) as error:
            code = 1
            if isinstance(error, USAGE_ERROR):
                code = WRONG_USAGE
            message = _message(error) if isinstance(error, CLICK_ERROR) else ""
            if message:  # none if the help was shown for want of arguments
                _print_error(message)
        if not standalone_mode:
            return code
        sys.exit(code if isinstance(code, int) else 0)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Extract -q, --quiet, -v and --verbose from anywhere before a `--`; expand `~`."""
        end = args.index("--") if "--" in args else len(args)
        chosen = [FLAGS[arg] for arg in args[:end] if arg in FLAGS]
        set_level(chosen[-1] if chosen else Level.NORMAL)
        rest = [arg for arg in args[:end] if arg not in FLAGS] + args[end:]
        return super().parse_args(ctx, [_expanded(arg) for arg in rest])

    def invoke(self, ctx: Any) -> Any:
        """Run a command; errors that ncut raises on purpose become one line and exit code 1."""
        started = time.monotonic()
        if level() is Level.QUIET:
            from ncut.report import console

            console.QUIET[0] = True
        try:
            found = super().invoke(ctx)
            if level() is Level.VERBOSE:
                typer.echo(f"ncut: done in {time.monotonic() - started:.1f} s", err=True)
            return found
        except NcutError as error:
            _print_error(one_line(error))
            raise typer.Exit(1) from error
        except KeyboardInterrupt:
            typer.echo("ncut: interrupted", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except MemoryError as error:
            _print_error("not enough memory")
            raise typer.Exit(1) from error


def _expanded(arg: str) -> str:
    """Expand `~`, as in --out=~/results, where not every shell does."""
    option, path = re.fullmatch(r"(--[a-z-]+=)?(.*)", arg, re.DOTALL).groups("")  # type: ignore[union-attr]
    return option + os.path.expanduser(path)


def _message(error: Any) -> str:
    """Show a usage error and a pointer to the help, or the whole help."""
    context = getattr(error, "ctx", None)
    text = str(error.format_message())
    return f"{text} (see {context.command_path} --help)" if context and text else text


def _print_error(message: str) -> None:
    """Print an error; with -v also a traceback."""
    if level() is Level.VERBOSE and sys.exc_info()[0] is not None:
        typer.echo(traceback.format_exc().rstrip(), err=True)
    typer.echo(f"ncut: error: {one_line(message)}", err=True)
