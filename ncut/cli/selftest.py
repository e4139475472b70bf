"""`ncut selftest`: does it give the right numbers here?"""

from __future__ import annotations

from typing import Annotated

import typer

from ncut.cli.options import Device


def selftest(
    device: Device = "cpu",
    timings: Annotated[bool, typer.Option(help="Time two clusterings on CPU and device.")] = True,
) -> None:
    """Check ncut on this machine, or on its GPU, and print a report to paste into an issue.

    Exit code 1 if a check failed.
    """
    from ncut import selftest as tests

    for name, found in tests.environment(device).items():
        typer.echo(f"{name}: {found}")
    typer.echo("")
    failed = False
    for check in tests.checks(device):
        word = {True: "passed", False: "FAILED", None: "not made"}[check.passed]
        typer.echo(f"{word:8} {check.name}: {check.found}")
        failed |= check.passed is False
    if timings:
        typer.echo("")
        for name, on_cpu, there in tests.timings(device):
            beside = "" if device == "cpu" else f", {there:.3f} s on {device}"
            typer.echo(f"{name}: {on_cpu:.3f} s on the CPU{beside}")
    if failed:
        raise typer.Exit(1)
