"""`ncut compare`: models side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ncut.cli.options import Json, Normalize, NullModel, Seed, Threads, given, warnings_in_one_line
from ncut.cli.told import check_page, wrote


def compare(
    models: Annotated[
        list[Path],
        typer.Argument(
            help="Two or more models, or reports that `ncut analyze --json` wrote (.json).",
            show_default=False,
        ),
    ],
    k: Annotated[
        int | None, typer.Option("--k", "-k", min=2, help="Number of clusters.", show_default="12")
    ] = None,
    shuffles: Annotated[
        int | None,
        typer.Option(min=0, help="Shuffled networks for each model.", show_default="50"),
    ] = None,
    null: NullModel = None,
    normalize: Normalize = None,
    seed: Seed = 0,
    threads: Threads = None,
    json: Json = None,
    html: Annotated[Path | None, typer.Option(help="Write the comparison as an HTML page.")] = None,
    name: Annotated[str | None, typer.Option(help="The page's title.")] = None,
) -> None:
    """Compare models: paired differences, and which neurons changed their cluster.

    For example: ncut compare before.pt after.pt --html change.html
    """
    import ncut
    from ncut.files import check_output
    from ncut.report.console import progress_bar

    if len(models) < 2:
        raise typer.BadParameter("needs two or more models", param_hint="MODELS")
    check_page(html)
    for path in (json, html):
        if path and path != Path("-"):
            for model in models:
                check_output(path, model)
    if html:
        from ncut.report.html import check_available

        check_available()
    settings = given(k=k, shuffles=shuffles, null=null, normalize=normalize, threads=threads)
    reports = []
    for model in models:
        if model.suffix == ".json":
            reports.append(ncut.Report.from_json(model))
            continue
        with warnings_in_one_line(), progress_bar(model.name) as progress:
            reports.append(ncut.analyze(model, seed=seed, progress=progress, **settings))
    found = ncut.compare(*reports)
    typer.echo(found.to_json() if json == Path("-") else str(found))
    if json and json != Path("-"):
        found.to_json(json)
    if html:
        found.to_html(html, title=name)
    wrote(json, html)
