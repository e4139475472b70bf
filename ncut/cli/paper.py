"""`ncut paper`: reproduction of the tables of the paper behind the measure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ncut.errors import InputError

commands = typer.Typer(
    no_args_is_help=True,
    help="Reproduce the tables of Filan et al. (2021), Clusterability in Neural Networks.",
)

ALL = "all"


@commands.command("list")
def list_tables() -> None:
    """List the tables with their requirements."""
    from ncut.paper.listing import listed
    from ncut.report.console import print_rows

    print_rows(*listed())


@commands.command()
def run(
    tables: Annotated[
        list[str], typer.Argument(help=f"Tables, for example 1, A.6, 'figure A.1', or '{ALL}'.")
    ],
    data: Annotated[
        Path,
        typer.Option(
            help="Folder with the data sets mnist, fashion-mnist and cifar-10-batches-bin, or with "
            "the files of the only data set needed."
        ),
    ] = Path("data"),
    out: Annotated[
        Path, typer.Option(help="Folder for records of networks, tables and figures.")
    ] = Path("paper"),
    runs: Annotated[
        int | None, typer.Option(min=1, help="Networks per row.", show_default="the paper's")
    ] = None,
    epochs_scale: Annotated[
        float, typer.Option(help="Factor for all numbers of epochs, each at least 1.")
    ] = 1.0,
    shuffles: Annotated[
        int | None,
        typer.Option(min=1, help="Shuffled networks per network.", show_default="the table's"),
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(
            min=1, help="Number of training examples, taken from the start.", show_default="all"
        ),
    ] = None,
    procedure: Annotated[
        str,
        typer.Option(help="'authors' follows their code, 'text' the paper; see docs/paper.md."),
    ] = "authors",
    precision: Annotated[
        str, typer.Option(help="'float32', or 'bfloat16' for products in training.")
    ] = "float32",
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1, help="Networks in parallel, one thread each.", show_default="all cores"
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(help="Device for training: 'cpu', 'cuda' or 'cuda:1'.")
    ] = "cpu",
    records: Annotated[
        Path | None,
        typer.Option(
            help="Folder with TABLE-runs.csv of earlier runs: networks in them are not trained."
        ),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(help="For table A.11: a weight file, as VGG-16=vgg16.pth; repeatable."),
    ] = None,
    figures: Annotated[bool, typer.Option(help="Draw the tables' figures too.")] = True,
) -> None:
    """Train and measure the networks of tables, and compare the results with the published ones.

    Finished networks in --out are kept: the same command resumes where it was stopped, and
    --runs 5 after --runs 2 adds three.
    """
    from ncut.paper import Deviations, run_table
    from ncut.paper.tables import IMAGENET, TITLES, check_table
    from ncut.report.console import work_bar

    names = [check_table(table) for table in tables if table != ALL]
    if ALL in tables:
        names = [name for name in TITLES if name != IMAGENET or weights]
    options = Deviations(epochs_scale, shuffles, images, procedure, precision)
    files = dict(_name_and_path(text) for text in weights or ())
    if files and IMAGENET not in names:
        raise InputError(f"--weights: has no effect without table {IMAGENET}; leave it out")
    if figures:
        from ncut.paper.figures import check_available

        check_available()
    for name in names:
        with work_bar(name) as progress:
            result = run_table(
                name,
                data=data,
                out=out,
                runs=runs,
                options=options,
                jobs=jobs,
                device=device,
                records=records,
                weights=files,
                progress=progress,
            )
        typer.echo(result.to_markdown())
        if figures:
            from ncut.paper.figures import save_table

            save_table(result, out)


def _name_and_path(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not equals or not path:
        raise InputError(f"--weights: must be like VGG-16=vgg16.pth, got {text!r}")
    return name, Path(path)
