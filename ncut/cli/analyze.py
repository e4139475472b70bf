"""`ncut analyze` and `ncut demo`: the report on a network."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ncut.cli.messages import check_page, one_line, wrote
from ncut.cli.options import Json, Model, Plot, takes_settings, warnings_in_one_line
from ncut.cli.outputs import check_outputs, existing_model, print_result
from ncut.errors import InputError, MissingExtraError, NcutError

if TYPE_CHECKING:
    from ncut.report import Profile, Report


# Settings that an analysis shares with the profile on its page.
OF_PROFILES = ("null", "normalize", "preset", "seed", "solver", "threads", "device")


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
    existing_model(model)
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
        check_outputs(model, json, None, None)
        _verdict(model, json, settings | options)
        return
    check_outputs(model, json, html, plot)
    for_profile = None if no_profile else _of(settings, *OF_PROFILES) | options
    minute = None if full or "shuffles" in settings else Minute()
    _analyze(model, (json, html, plot), settings | options, for_profile, name, minute)


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
    print_result(found, json)
    wrote(json)
    if interrupted:
        raise KeyboardInterrupt


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


def _demo_report(name: str, settings: dict[str, Any]) -> Report:
    import ncut
    from ncut import networks
    from ncut.report.console import progress_bar

    with warnings_in_one_line(), progress_bar(name) as progress:
        return ncut.analyze(networks.load(name), name=name, progress=progress, **settings)
