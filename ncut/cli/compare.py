"""`ncut compare`: comparison of models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ncut.cli.messages import check_page, wrote
from ncut.cli.options import Json, takes_settings, warnings_in_one_line


@takes_settings(
    *("k", "shuffles", "null", "normalize", "preset", "seed", "refine", "solver", "n_init"),
    *("threads", "device"),
    whole=("shuffles",),
)
def compare(
    models: Annotated[
        list[Path],
        typer.Argument(
            help="Two or more models, or reports written by `ncut analyze --json` (.json).",
            show_default=False,
        ),
    ],
    settings: dict[str, Any],
    options: dict[str, Any],
    json: Json = None,
    html: Annotated[Path | None, typer.Option(help="Write the comparison as an HTML page.")] = None,
    name: Annotated[str | None, typer.Option(help="The page's title.")] = None,
) -> None:
    """Compare models: paired differences, and neurons that changed cluster.

    Example: ncut compare before.pt after.pt --html change.html
    """
    import ncut
    from ncut.comparing.entry import check_settings, is_report
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
    check_settings(models, settings | options)
    reports = []
    for model in models:
        if is_report(model):
            reports.append(ncut.Report.from_json(model))
            continue
        with warnings_in_one_line(), progress_bar(model.name) as progress:
            reports.append(ncut.analyze(model, progress=progress, **settings, **options))
    found = ncut.compare(*reports)
    typer.echo(found.to_json() if json == Path("-") else str(found))
    if json and json != Path("-"):
        found.to_json(json)
    if html:
        found.to_html(html, title=name)
    wrote(json, html)
