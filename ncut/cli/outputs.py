"""The model and the output files of a command."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ncut.cli.messages import check_page
from ncut.errors import InputError

if TYPE_CHECKING:
    from ncut.report import Profile, Verdict


def existing_model(model: Path) -> Path:
    """The model's path or name; raise an error if there is no such file, before the long work."""
    from ncut.extract.formats import existing
    from ncut.extract.hub import is_on_hub
    from ncut.extract.named import is_named

    if str(model) == "-":
        raise InputError("model: cannot be read from standard input; name a file")
    if not (is_named(model) or is_on_hub(model) or os.path.isdir(model)):
        existing(model)
    return model


def check_outputs(model: Path, json: Path | None, html: Path | None, plot: Path | None) -> None:
    """Check the outputs before the long work."""
    from ncut.files import check_output
    from ncut.report.html import check_available
    from ncut.report.plots import check_format

    paths = [path for path in (json, html, plot) if path and path != Path("-")]
    for path in paths:
        check_output(path, model)
    if len({path.resolve() for path in paths}) < len(paths):
        raise InputError("--json, --html, --plot: the same file is named twice")
    check_page(html)
    if html:
        check_available()
    if plot:
        check_format(plot)


def print_result(found: Verdict | Profile, json: Path | None) -> None:
    """Print the summary or the JSON, then write the requested file."""
    if json == Path("-"):
        typer.echo(found.to_json())
        return
    typer.echo(str(found))
    if json:
        found.to_json(json)
