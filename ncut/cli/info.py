"""`ncut info` and `ncut formats`: the graph of a model, and the supported formats."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ncut.cli.messages import wrote
from ncut.cli.options import Model, takes_settings, warnings_in_one_line
from ncut.cli.outputs import existing_model

if TYPE_CHECKING:
    pass


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
        typer.echo(ncut.program(existing_model(model), **options))
        return
    with warnings_in_one_line():
        graph = ncut.graph(existing_model(model), check=check, **options)
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
