"""The command `ncut`: arguments -> analysis -> report, and exit codes.

0: done. 1: an error that the user can mend, told in one line. 2: wrong usage. 130: Ctrl-C.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from ncut.errors import InputError, MissingExtraError, ModelError, NcutError

if TYPE_CHECKING:
    from ncut.report import Report

INTERRUPTED = 130


class _Commands(TyperGroup):
    """Turns errors that ncut raises on purpose into one line and exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except NcutError as error:
            typer.echo(f"ncut: error: {_one_line(error)}", err=True)
            raise typer.Exit(1) from error
        except KeyboardInterrupt:
            typer.echo("ncut: interrupted", err=True)
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="How clusterable is a trained neural network?",
)

Model = Annotated[
    Path,
    typer.Argument(
        help="A file with weights: .npz, .pt, .pth or .safetensors.",
        show_default=False,
    ),
]
Scope = Annotated[
    str | None,
    typer.Option(
        help="Which layers are in the graph of a convolutional network: 'paper' or 'all'.",
        show_default="paper",
    ),
]
Norm = Annotated[
    str | None,
    typer.Option(
        help="How a convolution kernel becomes one edge weight: 'l1' or 'l2'.", show_default="l1"
    ),
]
Shuffles = Annotated[int, typer.Option(min=0, help="Shuffled networks to compare with.")]
Threads = Annotated[
    int | None, typer.Option(min=1, help="Threads to use.", show_default="all cores")
]


def main() -> None:
    """Run the command line; the entry point of the command `ncut`."""
    app(prog_name="ncut")


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
    """How clusterable is a trained neural network?"""


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="The HTML report to write.")] = Path("ncut-demo.html"),
    shuffles: Shuffles = 50,
    threads: Threads = None,
) -> None:
    """Analyze two small networks that come with ncut, before and after pruning."""
    from ncut.report.console import print_comparison
    from ncut.report.files import check_output, write_text
    from ncut.report.html import check_available, html_page

    check_output(out)
    try:
        check_available()
        missing = None
    except MissingExtraError as error:
        missing = error
    reports = [
        _demo_report(name, shuffles, threads) for name in ("digits-unpruned", "digits-pruned")
    ]
    print_comparison(reports)
    if missing:
        typer.echo(f"ncut: no HTML report written: {_one_line(missing)}", err=True)
        return
    write_text(out, html_page(reports, "A network of handwritten digits, before and after pruning"))
    typer.echo(f"\nWith pictures: {out}")


@app.command()
def info(model: Model, scope: Scope = None, norm: Norm = None) -> None:
    """Show the graph of a model without clustering it: layers, blocks, what was left out.

    And what `ncut analyze` would cost, in time and memory.
    """
    import ncut
    from ncut.estimate import estimate
    from ncut.report.console import print_cost, print_graph
    from ncut.threads import n_threads

    with _warnings_in_one_line():
        graph = ncut.graph(_existing(model), **_given(scope=scope, norm=norm))
        print_graph(graph)
    cost = estimate(graph)
    what = f"ncut analyze with 50 shuffles and k = 12 on {n_threads(None)} threads"
    print_cost(cost.seconds, cost.peak_bytes, what)


@app.command()
def analyze(
    model: Model,
    k: Annotated[int, typer.Option("--k", "-k", min=2, help="Number of clusters.")] = 12,
    shuffles: Shuffles = 50,
    null: Annotated[
        str,
        typer.Option(
            help="How weights are shuffled: 'layer', 'layer-nonzero', 'layer-nonzero-kde' or "
            "'layer-kde'."
        ),
    ] = "layer",
    seed: Annotated[int, typer.Option(help="The same seed gives the same numbers.")] = 0,
    scope: Scope = None,
    norm: Norm = None,
    solver: Annotated[str, typer.Option(help="The eigensolver.")] = "auto",
    n_init: Annotated[str, typer.Option(help="Restarts of k-means: a number or 'auto'.")] = "auto",
    refine: Annotated[
        bool, typer.Option("--refine", help="Lower every n-cut by moving single neurons.")
    ] = False,
    threads: Threads = None,
    json: Annotated[
        Path | None,
        typer.Option(help="Write the report as JSON; '-' prints it instead of the summary."),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write the report as an HTML page.")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Write a picture, such as a .png, .svg or .pdf.")
    ] = None,
) -> None:
    """Measure how clusterable a network is, by itself and against shuffled networks."""
    import ncut
    from ncut.report.console import progress_bar

    _existing(model)
    _check_outputs(model, json, html, plot)
    interrupted = False
    with _warnings_in_one_line(), progress_bar() as progress:
        try:
            report = ncut.analyze(
                model,
                k=k,
                shuffles=shuffles,
                null=null,
                seed=seed,
                solver=solver,
                n_init=_count_or_auto(n_init),
                refine=refine,
                threads=threads,
                progress=progress,
                **_given(scope=scope, norm=norm),
            )
        except ncut.AnalysisInterrupted as stopped:
            report, interrupted = stopped.report, True
    _deliver(report, json, html, plot)
    if interrupted:
        raise KeyboardInterrupt


def _deliver(report: Report, json: Path | None, html: Path | None, plot: Path | None) -> None:
    """Print the summary or the JSON, then write the files that were asked for."""
    if json == Path("-"):
        for warning in report.warnings:
            typer.echo(f"ncut: warning: {_one_line(warning)}", err=True)
        typer.echo(report.to_json())
    else:
        from ncut.report.console import print_summary

        print_summary(report)
        if json:
            report.to_json(json)
    if html:
        report.to_html(html)
    if plot:
        from ncut.report.plots import save_picture

        save_picture(report, plot)


def _check_outputs(model: Path, json: Path | None, html: Path | None, plot: Path | None) -> None:
    """Raise before the long work what would go wrong after it."""
    from ncut.report.files import check_output
    from ncut.report.html import check_available
    from ncut.report.plots import check_format

    paths = [path for path in (json, html, plot) if path and path != Path("-")]
    for path in paths:
        check_output(path, model)
    if len({path.resolve() for path in paths}) < len(paths):
        raise InputError("--json, --html, --plot: the same file is named twice")
    if html:
        check_available()
    if plot:
        check_format(plot)


def _demo_report(name: str, shuffles: int, threads: int | None) -> Report:
    import ncut
    from ncut import networks
    from ncut.report.console import progress_bar

    with _warnings_in_one_line(), progress_bar(name) as progress:
        return ncut.analyze(
            networks.load(name), name=name, shuffles=shuffles, threads=threads, progress=progress
        )


def _existing(model: Path) -> Path:
    if not model.exists():
        raise ModelError(f"{model}: no such file")
    return model


def _given(**options: str | None) -> dict[str, Any]:
    """The options that were given; the others keep the library's defaults."""
    return {name: value for name, value in options.items() if value is not None}


def _count_or_auto(text: str) -> Any:
    if text == "auto":
        return text
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is neither a number nor 'auto'") from None


@contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """Tell Python's warnings on standard error in a line each, not in two with source code."""
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        yield


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    typer.echo(f"ncut: warning: {_one_line(message)}", err=True)


def _one_line(message: object) -> str:
    from ncut.report.words import printable

    return printable(" ".join(str(message).split()))
