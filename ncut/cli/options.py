"""Options that several commands share, and what becomes of them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from ncut.axes import NORMALIZATIONS, NULL_MODELS
from ncut.cli.told import Level, level, one_line
from ncut.presets import PRESETS

Model = Annotated[
    Path,
    typer.Argument(
        help="A model: .onnx, .keras, .h5, a Hugging Face folder, weights as .npz, .pt, .pth or "
        ".safetensors, or an architecture such as torchvision:resnet50 with --weights.",
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
        help="How a convolution kernel becomes one edge weight: 'l1', 'l2' or 'column-sum'.",
        show_default="l1",
    ),
]
Residual = Annotated[
    str | None,
    typer.Option(
        help="What a residual sum is: 'readers' (inputs of each reader are vertices) or 'stream' "
        "(its channels are vertices once).",
        show_default="stream with attention, else readers",
    ),
]
Layers = Annotated[
    str | None,
    typer.Option(
        help="Names of the weight arrays of a chain in order, separated by commas.",
        show_default="inferred",
    ),
]
Unknown = Annotated[
    str | None,
    typer.Option(
        help="Unknown operations of a model: 'error', or 'elementwise' to take them as functions "
        "of each entry.",
        show_default="error",
    ),
]
WeightFile = Annotated[
    Path | None, typer.Option(help="The weights of an architecture that is given by name.")
]
Shuffles = Annotated[int, typer.Option(min=0, help="Shuffled networks to compare with.")]
NullModel = Annotated[
    str | None,
    typer.Option(help=f"How weights are shuffled: {', '.join(NULL_MODELS)}.", show_default="layer"),
]
Normalize = Annotated[
    str | None,
    typer.Option(
        help=f"The convention for the scale of weights: {', '.join(NORMALIZATIONS)}.",
        show_default="none",
    ),
]
PresetName = Annotated[str, typer.Option(help=f"Whose choices to follow: {' or '.join(PRESETS)}.")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same numbers.")]
Solver = Annotated[str, typer.Option(help="The eigensolver.")]
Device = Annotated[
    str, typer.Option(help="Where to compute: 'cpu', 'cuda' or 'cuda:N' (extra 'gpu').")
]
Json = Annotated[
    Path | None,
    typer.Option(help="Write the result as JSON; '-' prints it instead of the summary."),
]
Plot = Annotated[Path | None, typer.Option(help="Write a picture, such as a .png, .svg or .pdf.")]
Threads = Annotated[
    int | None, typer.Option(min=1, help="Threads to use.", show_default="all cores")
]


def graph_options(
    scope: str | None,
    norm: str | None,
    residual: str | None,
    layers: str | None,
    unknown: str | None,
    weights: Path | None,
) -> dict[str, Any]:
    """How to read a model, as far as that was said."""
    names = None if layers is None else [name.strip() for name in layers.split(",")]
    return given(
        scope=scope, norm=norm, residual=residual, unknown=unknown, layers=names, weights=weights
    )


def given(**options: Any) -> dict[str, Any]:
    """The options that were given; the others keep the library's defaults."""
    return {name: value for name, value in options.items() if value is not None}


def count_or_auto(text: str) -> Any:
    if text == "auto":
        return text
    if not text.isdecimal():
        raise typer.BadParameter(f"{text!r} is neither a number nor 'auto'")
    return int(text)


@contextmanager
def warnings_in_one_line() -> Iterator[None]:
    """Tell Python's warnings on standard error in a line each, not in two with source code."""
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        yield


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    if level() is not Level.QUIET:
        typer.echo(f"ncut: warning: {one_line(message)}", err=True)
