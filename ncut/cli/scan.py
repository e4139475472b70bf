"""The commands on many models: `ncut scan`, and `ncut report` on its output or on `--json`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ncut.cli.messages import check_page, wrote
from ncut.cli.options import takes_settings, warnings_in_one_line
from ncut.errors import InputError

if TYPE_CHECKING:
    from ncut.scans import Scan


@takes_settings(
    *("k", "shuffles", "null", "normalize", "preset", "seed", "solver", "n_init", "refine"),
    *("max_shuffles", "level", "sequential", "device", "tests"),
    tests="alignment, with 19 shuffles, where the graph allows it",
    graph=("scope", "norm", "residual", "layers", "unknown", "part"),
)
def scan(
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="Models, folders of models (searched recursively), quoted patterns such as "
            "'runs/**/*.pt', and .txt files with one path per line.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="Results folder; a later scan resumes there.")],
    settings: dict[str, Any],
    options: dict[str, Any],
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of concurrent tasks; a task is one shuffle of a model.",
            show_default="all cores, fewer if memory is short; on a GPU 1",
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Threads per task.", show_default="cores / jobs, on a cluster 1"),
    ] = None,
    backend: Annotated[
        str, typer.Option(help="Backend that runs the tasks: loky, threading, dask or ray.")
    ] = "loky",
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a Dask scheduler or a Ray cluster.")
    ] = None,
    scratch: Annotated[
        Path | None,
        typer.Option(help="Folder for graphs larger than 1 GiB, which are then kept on disk."),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Retry models that failed before.")
    ] = False,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Keep measuring new and changed models as they appear."),
    ] = False,
    idle: Annotated[
        float | None,
        typer.Option(min=0, help="With --watch, stop after this many seconds without new models."),
    ] = None,
) -> None:
    """Measure many models in parallel into one folder; resume where an earlier scan ended.

    Example: ncut scan runs/ --out results. The exit code is 1 if a model failed; its error is in
    the results and is shown at the end.
    """
    import ncut
    from ncut.report.console import scan_bars

    if scratch is not None:
        options["scratch"] = scratch
    with warnings_in_one_line(), scan_bars() as progress:
        found = ncut.scan(
            [str(path) for path in paths],
            out,
            jobs=jobs,
            threads=threads,
            backend=backend,
            scheduler=scheduler,
            retry_failed=retry_failed,
            watch=watch,
            idle=idle,
            progress=progress,
            **settings,
            **options,
        )
    _print_rows(found)
    wrote(out)
    if found.failed:
        raise typer.Exit(1)


def report(
    results: Annotated[
        Path,
        typer.Argument(
            help="A folder written by `ncut scan`, or a report written by `ncut analyze --json`.",
            show_default=False,
        ),
    ],
    html: Annotated[Path | None, typer.Option(help="Write an HTML page.")] = None,
    name: Annotated[str | None, typer.Option(help="The page's title.")] = None,
    step_pattern: Annotated[
        str | None,
        typer.Option(
            help="A regular expression whose group matches the training step in a model's path, "
            "for example 'it([0-9]+)'.",
            show_default="the number after step, epoch, checkpoint ..., or at the end",
        ),
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(help="Write the scan's rows as CSV; '-' prints them instead of the table."),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(help="Write a picture: a scan's n-cut over training, or a report's n-cut."),
    ] = None,
) -> None:
    """Show saved results: a scan's models and their development, or one network's report.

    Example: ncut report results --html scan.html
    """
    from ncut.files import check_output

    check_page(html)
    outputs = [path for path in (html, csv, plot) if path and path != Path("-")]
    for path in outputs:
        check_output(path, results if results.is_file() else None)
    if html:
        from ncut.report.html import check_available

        check_available()
    if plot:
        from ncut.report.plots import check_format

        check_format(plot)
    if results.is_dir():
        with warnings_in_one_line():
            _report_scan(results, html, csv, plot, name, step_pattern)
        wrote(html, csv, plot)
        return
    import ncut
    from ncut.report.console import print_summary

    if csv:
        raise InputError("--csv: applies only to the folder of a scan; leave it out")
    if step_pattern:
        raise InputError("--step-pattern: applies only to the folder of a scan; leave it out")
    one = ncut.Report.from_json(results)
    print_summary(one)
    if html:
        one.to_html(html, title=name)
    if plot:
        from ncut.report.plots import save_picture

        save_picture(one, plot)
    wrote(html, plot)


def _report_scan(
    folder: Path,
    html: Path | None,
    csv: Path | None,
    plot: Path | None,
    name: str | None,
    step_pattern: str | None,
) -> None:
    import ncut
    from ncut.files import write_text
    from ncut.report.plots import save_axes
    from ncut.scans.wording import csv_text

    try:
        found = ncut.Scan(folder, step_pattern=step_pattern)
    except InputError as error:
        raise InputError(str(error).replace("out: ", "", 1)) from error
    if csv == Path("-"):
        typer.echo(csv_text(found.to_frame()), nl=False)
    else:
        _print_rows(found)
    if html:
        found.to_html(html, title=name)
    if csv and csv != Path("-"):
        write_text(csv, csv_text(found.to_frame()))
    if plot:
        save_axes(lambda ax: found.plot(ax=ax), plot)


def _print_rows(found: Scan) -> None:
    """Print a row for each model, and the errors of failed models."""
    from ncut.report.console import print_rows
    from ncut.scans.wording import NAMES, failures, rows

    frame = found.to_frame()
    if measured := rows(frame):
        print_rows(NAMES, measured)
    for path, error in failures(frame):
        named = error if path in error else f"{path}: {error}"
        typer.echo(f"ncut: failed: {named}", err=True)
