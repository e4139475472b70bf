"""`ncut selftest`: correctness and speed on this machine."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ncut.cli.options import Json
from ncut.plan import SETTINGS

if TYPE_CHECKING:
    from ncut.selftest.checks import CheckResult
    from ncut.selftest.timings import Timing


def selftest(
    device: Annotated[str, typer.Option(help=SETTINGS["device"].help)] = "cpu",
    timings: Annotated[
        bool, typer.Option(help="Time clusterings and training steps on CPU and device.")
    ] = True,
    json: Json = None,
) -> None:
    """Check ncut on this machine, or on its GPU, and print a report to paste into an issue.

    Exit code 1 if a check failed.
    """
    from ncut.files import check_output, write_json
    from ncut.selftest.checks import checks
    from ncut.selftest.machine import environment
    from ncut.selftest.timings import timings as measured

    silent = json == Path("-")
    if json and not silent:
        check_output(json)

    def show(line: str) -> None:
        if not silent:
            typer.echo(line)

    machine = environment(device)
    for name, found in machine.items():
        show(f"{name}: {found}")
    show("")
    made = []
    for check in checks(device):
        made.append(check)
        show(_line_of_check(check))
    passed = all(check.passed is not False for check in made)
    taken = []
    if timings:
        show("")
        for timing in measured(device):
            taken.append(timing)
            show(_line_of_timing(timing, device))
    if json:
        report = {
            "device": device,
            "passed": passed,
            "environment": machine,
            "checks": [dataclasses.asdict(check) for check in made],
            "timings": [dataclasses.asdict(timing) for timing in taken],
        }
        text = write_json(report, None if silent else json, 1, "selftest")
        if silent:
            typer.echo(text)
    if not passed:
        raise typer.Exit(1)


def _line_of_check(check: CheckResult) -> str:
    word = {True: "passed", False: "FAILED", None: "not made"}[check.passed]
    return f"{word:8} {check.name}: {check.found}"


def _line_of_timing(timing: Timing, device: str) -> str:
    places = {"the CPU": timing.on_cpu, device: timing.on_device}
    found = [f"{1e3 * s:.4g} ms on {where}" for where, s in places.items() if s is not None]
    return f"{timing.name}: {', '.join([*found, *filter(None, [timing.error])])}"
