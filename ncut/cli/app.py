"""The commands on single models: arguments -> analysis -> report, and exit codes.

0: done. 1: an error that the user can fix, shown in one line. 2: wrong usage. 130: Ctrl-C.
"""

from __future__ import annotations

import codecs
import errno
import io
import itertools
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ncut.cli import compare, paper, scan, selftest
from ncut.cli.group import EXAMPLES, Command, Commands
from ncut.cli.messages import AsciiFallback, check_page, one_line, wrote
from ncut.cli.options import (
    Json,
    Model,
    Plot,
    takes_settings,
    warnings_in_one_line,
)
from ncut.errors import InputError, MissingExtraError, NcutError

if TYPE_CHECKING:
    from ncut.report import Profile, Report, Verdict

# Settings that an analysis shares with the profile on its page.
OF_PROFILES = ("null", "normalize", "preset", "seed", "solver", "threads", "device")


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Measure whether a trained network's neurons form groups.",
    epilog=EXAMPLES,
)

app.add_typer(paper.commands, name="paper")
app.command("scan", cls=Command)(scan.scan)
app.command("report", cls=Command)(scan.report)
app.command("compare", cls=Command)(compare.compare)
app.command("selftest", cls=Command)(selftest.selftest)


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


@app.command(cls=Command)
@takes_settings("shuffles", "threads", graph=(), whole=("shuffles",))
def demo(
    settings: dict[str, Any],
    options: dict[str, Any],
    out: Annotated[Path, typer.Option(help="The HTML report to write.")] = Path("ncut-demo.html"),
) -> None:
    """Analyze two small networks that come with ncut, before and after pruning.

    Example: ncut demo
    """
    from ncut import networks
    from ncut.files import check_output, write_text
    from ncut.report.console import print_comparison
    from ncut.report.html import check_available, html_page

    check_page(out, "--out")
    check_output(out)
    try:
        check_available()
        missing = None
    except MissingExtraError as error:
        missing = error
    names = ("digits-unpruned", "digits-pruned")
    reports = [_demo_report(name, {"shuffles": 50, **settings}) for name in names]
    print_comparison(reports)
    if missing:
        typer.echo(f"ncut: no HTML report written: {one_line(missing)}", err=True)
        return
    profiles = [
        _page_profile(networks.load(name), report, _of(settings, "threads"))
        for name, report in zip(names, reports, strict=True)
    ]
    title = "A network of handwritten digits, before and after pruning"
    write_text(out, html_page(reports, title, profiles))
    wrote(out)


@app.command(cls=Command)
def formats() -> None:
    """List the supported formats with their requirements, and conversions for others."""
    from ncut.extract.formats import FORMATS, REFUSED

    for known in FORMATS:
        typer.echo(f"{known.name}: {' '.join(known.suffixes) or 'a folder'}")
        needs = f" (pip install 'ncut[{known.extra}]')" if known.extra else ""
        typer.echo(f"    {known.about}{needs}")
    typer.echo("\nnot read:")
    for refused in REFUSED:
        typer.echo(f"{refused.name}: {' '.join(refused.marks)}\n    {refused.way}")


@app.command(cls=Command)
@takes_settings()
def info(
    model: Model,
    settings: dict[str, Any],
    options: dict[str, Any],
    dot: Annotated[
        Path | None,
        typer.Option(
            help="Write the graph's layers and blocks for Graphviz; '-' prints them instead of the "
            "tables."
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Check the graph by running a torch or ONNX model with single neurons changed.",
        ),
    ] = False,
    program: Annotated[
        bool,
        typer.Option("--program", help="Print the model's forward pass node by node instead."),
    ] = False,
) -> None:
    """Show the graph of a model without clustering it: layers, blocks, the use of each weight.

    Also predict the time and memory of `ncut analyze`. Example: ncut info model.safetensors
    """
    import ncut
    from ncut.estimate import estimate
    from ncut.report.console import print_cost, print_graph
    from ncut.threads import n_threads

    if program:
        for key in options.keys() - {"layers", "unknown", "weights", "key"}:
            raise typer.BadParameter(f"--{key}: has no effect with --program; leave it out")
        typer.echo(ncut.program(_existing(model), **options))
        return
    with warnings_in_one_line():
        graph = ncut.graph(_existing(model), check=check, **options)
        if dot == Path("-"):
            typer.echo(graph.to_dot(), nl=False)
            return
        print_graph(graph)
        if graph.check is not None:
            print(f"check: {graph.check}")
    if dot:
        from ncut.files import check_output, write_text

        check_output(dot, model)
        write_text(dot, graph.to_dot())
        wrote(dot)
    cost = estimate(graph)
    what = f"ncut analyze with 50 shuffles and k = 12 on {n_threads(None)} threads"
    print_cost(cost.seconds, cost.peak_bytes, what)


@app.command(cls=Command)
@takes_settings(
    *("k", "shuffles", "null", "normalize", "preset", "seed", "solver", "n_init", "refine"),
    *("max_shuffles", "level", "sequential", "threads", "device", "tests"),
    shuffles="50, with --verdict 20 for each combination",
    tests="alignment, with 19 shuffles, where the graph allows it",
)
def analyze(
    model: Model,
    settings: dict[str, Any],
    options: dict[str, Any],
    verdict: Annotated[
        bool,
        typer.Option("--verdict", help="Measure under every statistic, scale and null model."),
    ] = False,
    json: Json = None,
    html: Annotated[
        Path | None,
        typer.Option(
            help="Write the report as a self-contained HTML page, with a profile over 2 to 20 "
            "clusters."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="The page's title.", show_default="the model's name")
    ] = None,
    no_profile: Annotated[
        bool,
        typer.Option(
            "--no-profile",
            help="Leave the profile out of the HTML page. The profile reads the model again and "
            "measures 20 more shuffles; with dense layers of thousands of neurons it takes two to "
            "three times as long as the 50 shuffles of the analysis.",
        ),
    ] = False,
    plot: Plot = None,
    full: Annotated[
        bool,
        typer.Option(
            "--full",
            help="Measure the default number of shuffles, however long it takes. Without this or "
            "--shuffles the command stops after a minute and estimates the remaining time.",
        ),
    ] = False,
) -> None:
    """Measure how clusterable a network is, by itself and against shuffled networks.

    Example: ncut analyze model.pt --html report.html
    """
    _existing(model)
    if verdict:
        refused = {
            "html": html,
            "no_profile": no_profile or None,
            "plot": plot,
            "full": full or None,
        }
        ignored = ("refine", "max_shuffles", "sequential", "tests")
        refused |= {name: settings.get(name) for name in ignored}
        for name, value in refused.items():
            if value is not None:
                flag = f"--{name.replace('_', '-')}"
                raise InputError(f"{flag}: has no effect with --verdict; leave it out")
        _check_outputs(model, json, None, None)
        _verdict(model, json, settings | options)
        return
    _check_outputs(model, json, html, plot)
    for_profile = None if no_profile else _of(settings, *OF_PROFILES) | options
    minute = None if full or "shuffles" in settings else Minute()
    _analyze(model, (json, html, plot), settings | options, for_profile, name, minute)


@app.command(cls=Command)
@takes_settings(
    *("shuffles", "null", "normalize", "preset", "seed", "solver", "threads", "device"),
    whole=("shuffles",),
)
def profile(
    model: Model,
    settings: dict[str, Any],
    options: dict[str, Any],
    k: Annotated[
        str, typer.Option("--k", "-k", help="Numbers of clusters, as 2-20 or 4,8,12.")
    ] = "2-20",
    json: Json = None,
    plot: Plot = None,
) -> None:
    """Measure a network for many numbers of clusters, and suggest one.

    Example: ncut profile model.npz --k 2-20
    """
    import ncut
    from ncut.profiles import NUMBERS
    from ncut.report.console import progress_bar

    ks = NUMBERS if k == "2-20" else _numbers(k)
    _existing(model)
    _check_outputs(model, json, None, plot)
    interrupted = False
    with warnings_in_one_line(), progress_bar() as progress:
        try:
            found = ncut.profile(model, ks, progress=progress, **settings, **options)
        except ncut.Interrupted as stopped:
            found, interrupted = stopped.finished, True
    _print_result(found, json)
    if plot:
        from ncut.report.plots import save_axes

        save_axes(lambda ax: found.plot(ax=ax), plot)
    wrote(json, plot)
    if interrupted:
        raise KeyboardInterrupt


def _of(settings: dict[str, Any], *names: str) -> dict[str, Any]:
    """The settings of these names that were given."""
    return {name: settings[name] for name in names if name in settings}


class Minute:
    """Ends the shuffles of a large model after a minute, as Ctrl-C does."""

    SECONDS = 60.0

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._first: float | None = None
        self.rest = ""
        """The missing shuffles and the time they take, in words; empty if none are missing."""

    def passed(self, done: int, total: int) -> None:
        """Raise KeyboardInterrupt where the time is over and shuffles are missing."""
        now = time.monotonic()
        self._first = self._first or now
        if done < total and now - self._started > self.SECONDS:
            each = (now - self._started) / done if done < 3 else (now - self._first) / (done - 1)
            left = each * (total - done)
            time_left = f"{left:.0f} s" if left < 120 else f"{left / 60:.0f} min"
            self.rest = f"{done} of {total} shuffles in a minute; the others take about {time_left}"
            raise KeyboardInterrupt


def _analyze(
    model: Path,
    outputs: tuple[Path | None, Path | None, Path | None],
    settings: dict[str, Any],
    for_profile: dict[str, Any] | None,
    name: str | None,
    minute: Minute | None,
) -> None:
    import ncut
    from ncut.report.console import progress_bar
    from ncut.scans.sources import source_of

    interrupted = False
    state = source_of(model).state
    with warnings_in_one_line(), progress_bar() as progress:

        def callback(done: int, total: int) -> None:
            progress(done, total)
            if minute:
                minute.passed(done, total)

        try:
            report = ncut.analyze(model, progress=callback, **settings)
        except ncut.Interrupted as stopped:
            report, interrupted = stopped.finished, True
    rest = minute.rest if minute else ""
    json, html, plot = outputs
    _print_report(report, json, plot)
    if html:
        wanted = for_profile is not None and not interrupted
        found = _page_profile(model, report, for_profile or {}) if wanted else None
        if found is not None and source_of(model).state != state:
            typer.echo(f"ncut: warning: {model} changed: no profile in the page", err=True)
            found = None
        report.to_html(html, title=name, profile=found)
    wrote(json, html, plot)
    if rest:
        typer.echo(f"ncut: {rest}: add --full", err=True)
    elif interrupted:
        raise KeyboardInterrupt


def _page_profile(model: Any, report: Report, settings: dict[str, Any]) -> Profile | None:
    """The profile of a report's page; partial after Ctrl-C, None after an error."""
    import ncut
    from ncut.report.console import progress_bar

    most = min(20, report.n_vertices - report.n_isolated - 2)
    if most < 2:
        return None
    with warnings_in_one_line(), progress_bar("profile:") as progress:
        try:
            return ncut.profile(
                model, range(2, most + 1), shuffles=20, progress=progress, **settings
            )
        except ncut.Interrupted as stopped:
            found: Profile = stopped.finished
            return found
        except NcutError as error:
            typer.echo(f"ncut: warning: no profile in the page: {one_line(error)}", err=True)
            return None


def _verdict(model: Path, json: Path | None, settings: dict[str, Any]) -> None:
    import ncut
    from ncut.report.console import progress_bar

    interrupted = False
    with warnings_in_one_line(), progress_bar() as progress:
        try:
            found = ncut.verdict(model, progress=progress, **settings)
        except ncut.Interrupted as stopped:
            found, interrupted = stopped.finished, True
    _print_result(found, json)
    wrote(json)
    if interrupted:
        raise KeyboardInterrupt


def _print_result(found: Verdict | Profile, json: Path | None) -> None:
    """Print the summary or the JSON, then write the requested file."""
    if json == Path("-"):
        typer.echo(found.to_json())
        return
    typer.echo(str(found))
    if json:
        found.to_json(json)


def _numbers(text: str) -> Iterator[int]:
    """The numbers of "2-20" or "4,8,12"."""
    parts = [part.partition("-") for part in text.split(",")]
    try:
        ranges = [range(int(a), int(b if dash else a) + 1) for a, dash, b in parts]
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is neither like 2-20 nor like 4,8,12", param_hint="--k"
        ) from None
    if not all(ranges):
        raise typer.BadParameter(
            f"{text!r}: a range goes from the smaller number to the larger one", param_hint="--k"
        )
    return itertools.chain.from_iterable(ranges)


def _print_report(report: Report, json: Path | None, plot: Path | None) -> None:
    """Print the summary or the JSON, then write the requested files."""
    if json == Path("-"):
        for warning in report.warnings:
            typer.echo(f"ncut: warning: {one_line(warning)}", err=True)
        typer.echo(report.to_json())
    else:
        from ncut.report.console import print_summary

        print_summary(report)
        if json:
            report.to_json(json)
    if plot:
        from ncut.report.plots import save_picture

        save_picture(report, plot)


def _check_outputs(model: Path, json: Path | None, html: Path | None, plot: Path | None) -> None:
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


def _demo_report(name: str, settings: dict[str, Any]) -> Report:
    import ncut
    from ncut import networks
    from ncut.report.console import progress_bar

    with warnings_in_one_line(), progress_bar(name) as progress:
        return ncut.analyze(networks.load(name), name=name, progress=progress, **settings)


def _existing(model: Path) -> Path:
    from ncut.extract.formats import existing
    from ncut.extract.hub import is_on_hub
    from ncut.extract.named import is_named

    if str(model) == "-":
        raise InputError("model: cannot be read from standard input; name a file")
    if not (is_named(model) or is_on_hub(model) or os.path.isdir(model)):
        existing(model)
    return model
