"""`ncut profile`: a network for many numbers of clusters."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ncut.cli.messages import wrote
from ncut.cli.options import Json, Model, Plot, takes_settings, warnings_in_one_line
from ncut.cli.outputs import check_outputs, existing_model, print_result

if TYPE_CHECKING:
    pass


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
    existing_model(model)
    check_outputs(model, json, None, plot)
    interrupted = False
    with warnings_in_one_line(), progress_bar() as progress:
        try:
            found = ncut.profile(model, ks, progress=progress, **settings, **options)
        except ncut.Interrupted as stopped:
            found, interrupted = stopped.finished, True
    print_result(found, json)
    if plot:
        from ncut.report.plots import save_axes

        save_axes(lambda ax: found.plot(ax=ax), plot)
    wrote(json, plot)
    if interrupted:
        raise KeyboardInterrupt


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
