"""The commands on many models: `ncut scan`, and `ncut report` on what it or `--json` wrote."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ncut.cli.options import takes_settings, warnings_in_one_line
from ncut.cli.told import check_page, wrote
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
            help="Models, folders of models (searched through), patterns in quotes such as "
            "'runs/**/*.pt', and .txt files with a path on each line.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="The folder for results; a later scan goes on there.")],
    settings: dict[str, Any],
    options: dict[str, Any],
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Tasks at a time: a shuffle of a model is a task.",
            show_default="all cores, fewer for models that the memory holds fewer of; on a GPU 1",
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Threads of a task.", show_default="cores / jobs, on a cluster 1"),
    ] = None,
    backend: Annotated[
        str, typer.Option(help="Where tasks run: loky, threading, dask or ray.")
    ] = "loky",
    scheduler: Annotated[
        str | None, typer.Option(help="Address of Dask's scheduler, or of a Ray cluster.")
    ] = None,
    scratch: Annotated[
        Path | None,
        typer.Option(help="A folder for graphs of more than a GiB, which then need no memory."),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try models again that failed before.")
    ] = False,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Go on with new and changed models as they appear."),
    ] = False,
    idle: Annotated[
        float | None,
        typer.Option(min=0, help="With --watch, end after so many seconds with nothing new."),
    ] = None,
) -> None:
    """Measure many models in parallel, into one folder; go on where an earlier scan ended.

    For example: ncut scan runs/ --out results. Exit code 1 if a model failed; its error is in the
    results and shown at the end.
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
    _tell(found)
    wrote(out)
    if found.failed:
        raise typer.Exit(1)


def report(
    results: Annotated[
        Path,
        typer.Argument(
            help="A folder that `ncut scan` wrote, or a report that `ncut analyze --json` wrote.",
            show_default=False,
        ),
    ],
    html: Annotated[Path | None, typer.Option(help="Write an HTML page.")] = None,
    name: Annotated[str | None, typer.Option(help="The page's title.")] = None,
    step_pattern: Annotated[
        str | None,
        typer.Option(
            help="A regular expression whose group is the training step in a model's path, such "
            "as 'it([0-9]+)'.",
            show_default="the number behind step, epoch, checkpoint ..., or at the end",
        ),
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the scan's rows as CSV.")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Write a picture: the course of a scan, a report's n-cut.")
    ] = None,
) -> None:
    """Show saved results: the models of a scan and their course, or one network's report.

    For example: ncut report results --html scan.html
    """
    from ncut.files import check_output

    check_page(html)
    outputs = [path for path in (html, csv, plot) if path]
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
        raise InputError("--csv: is for the folder of a scan; leave it out")
    if step_pattern:
        raise InputError("--step-pattern: is for the folder of a scan; leave it out")
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
    _tell(found)
    if html:
        found.to_html(html, title=name)
    if csv:
        write_text(csv, csv_text(found.to_frame()))
    if plot:
        save_axes(lambda ax: found.plot(ax=ax), plot)


def _tell(found: Scan) -> None:
    """Print a row for each model, and the errors of those that failed."""
    from ncut.report.console import print_rows
    from ncut.scans.wording import NAMES, failures, rows

    frame = found.to_frame()
    if measured := rows(frame):
        print_rows(NAMES, measured)
    for path, error in failures(frame):
        named = error if path in error else f"{path}: {error}"
        typer.echo(f"ncut: failed: {named}", err=True)
