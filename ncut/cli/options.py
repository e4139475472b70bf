"""Options that several commands share; those of settings are made from the plan's fields."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from ncut.cli.told import Level, level, one_line
from ncut.plan import PRESETS, SETTINGS, Plan

Model = Annotated[
    Path,
    typer.Argument(
        help="A model's file or folder, of a format that `ncut formats` lists; hf:ORG/NAME of the "
        "Hugging Face Hub; or an architecture such as torchvision:resnet50 with --weights.",
        show_default=False,
    ),
]
Json = Annotated[
    Path | None,
    typer.Option(help="Write the result as JSON; '-' prints it instead of the summary."),
]
Plot = Annotated[Path | None, typer.Option(help="Write a picture, such as a .png, .svg or .pdf.")]

# Each option of `ncut.graph`: its type, its help and the default to show.
GRAPH: dict[str, tuple[Any, str, str]] = {
    "scope": (
        str,
        "Which layers are in the graph of a convolutional network: 'paper' or 'all'.",
        "paper",
    ),
    "norm": (
        str,
        "How a convolution kernel becomes one edge weight: 'l1', 'l2' or 'column-sum'.",
        "l1",
    ),
    "residual": (
        str,
        "What a residual sum is: 'readers' (inputs of each reader are vertices) or 'stream' (its "
        "channels are vertices once).",
        "stream with attention, else readers",
    ),
    "layers": (
        str,
        "Names of the weight arrays of a chain in order, separated by commas.",
        "inferred",
    ),
    "unknown": (
        str,
        "Unknown operations of a model: 'error', or 'elementwise' to take them as functions of "
        "each entry.",
        "error",
    ),
    "weights": (Path, "The weights of an architecture that is given by name.", ""),
    "key": (
        str,
        "Which state dict of a checkpoint: its key, or what its names begin with.",
        "the only one",
    ),
    "part": (
        str,
        "The part of the model to keep: 'mlp', 'attention', or the name of a module, such as "
        "encoder.layer.3.",
        "all of it",
    ),
    "example_inputs": (
        list[str],
        "Sizes of an ONNX model's input, as NAME=1x512, or its value, as NAME:=16000.",
        "guessed",
    ),
}

LEAST = {"k": 2, "threads": 1, "max_shuffles": 1}
"""Smallest values, refused by the command line already."""

TYPES: dict[str, str] = dict(Plan.__annotations__)
"""The type of each setting, as the plan writes it."""


def takes_settings(
    *names: str, graph: tuple[str, ...] = tuple(GRAPH), whole: tuple[str, ...] = (), **shown: str
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a command with options for settings and for reading the model.

    In the place of the command's parameters `settings` and `options` come the options; these
    parameters get what was given of them by name, so that defaults are the library's.

    Parameters
    ----------
    *names : str
        Settings of the plan.
    graph : tuple of str
        Options of `ncut.graph`.
    whole : tuple of str
        Settings that must be whole numbers here, never "auto".
    **shown : str
        For single settings another default to show than the plan's.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        def command(**values: Any) -> None:
            settings = given(**{name: _parsed(name, values.pop(name)) for name in names})
            options = given(**{name: values.pop(name) for name in graph})
            if "layers" in options:
                options["layers"] = [name.strip() for name in options["layers"].split(",")]
            if options.get("example_inputs"):
                options["example_inputs"] = dict(map(_example, options["example_inputs"]))
            else:
                options.pop("example_inputs", None)
            function(**values, settings=settings, options=options)

        places = {
            "settings": [_setting_option(n, n in whole, shown.get(n)) for n in names],
            "options": [_option(n, *GRAPH[n]) for n in graph],
        }
        own = inspect.signature(function, eval_str=True)
        parameters = [
            option for name, one in own.parameters.items() for option in places.get(name, [one])
        ]
        parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in parameters]
        functools.update_wrapper(command, function)
        del command.__wrapped__  # type: ignore[attr-defined]
        command.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {one.name: one.annotation for one in parameters}
        return command

    return decorate


def _setting_option(name: str, whole: bool, shown: str | None) -> inspect.Parameter:
    setting = SETTINGS[name]
    kind = TYPES[name]
    if kind == "bool":
        return _option(name, bool, setting.help, "")
    default = setting.presets.get(PRESETS[0], setting.default)
    shown = shown or ("all cores" if default is None else str(default))
    types: dict[str, Any] = {"int": int, "float": float}
    return _option(name, int if whole else types.get(kind, str), setting.help, shown)


def _option(name: str, kind: Any, help: str, shown: str) -> inspect.Parameter:
    flag = f"--{name.replace('_', '-')}"
    flags = {"k": [flag, "-k"], "example_inputs": ["--input"]}.get(name, [flag])
    if kind is bool:
        option = typer.Option(*flags, help=help)
        return _parameter(name, Annotated[bool, option], False)
    least = LEAST.get(name, 0) if kind is int and name != "seed" else None
    option = typer.Option(*flags, help=help, min=least, show_default=shown or False)
    return _parameter(name, Annotated[kind | None, option], None)


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=annotation)


def _parsed(name: str, value: Any) -> Any:
    """Convert the text of a setting's option; None where none was given."""
    if value is False:
        return None
    counted = "auto" in TYPES[name] and isinstance(value, str)
    return count_or_auto(value) if counted else value


def _example(text: str) -> tuple[str, Any]:
    """An input of NAME=1x512 as its sizes, of NAME:=16000 or NAME:=1,2 as its value."""
    import numpy as np

    name, sign, value = text.rpartition(":=")
    if not sign:
        name, sign, value = text.rpartition("=")
    try:
        if not name or not value:
            raise ValueError
        if sign == "=":
            return name, tuple(int(size) for size in value.split("x"))
        numbers = [float(n) if set(n) & set(".einf") else int(n) for n in value.split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"--input: {text!r} is neither like NAME=1x512 nor like NAME:=16000"
        ) from None
    return name, np.array(numbers[0] if "," not in value else numbers)


def given(**options: Any) -> dict[str, Any]:
    """The options that were given; the others keep the library's defaults."""
    return {name: value for name, value in options.items() if value is not None}


def count_or_auto(text: str) -> Any:
    if text == "auto":
        return text
    if not text.isdecimal():
        raise typer.BadParameter(f"{text!r} is neither a whole number from 0 nor 'auto'")
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
