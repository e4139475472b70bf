"""Options shared by several commands; options for settings are made from the plan's fields."""

from __future__ import annotations

import functools
import inspect
import pkgutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from ncut.cli.messages import Level, level, one_line
from ncut.plan import PRESETS, SETTINGS, Plan

Model = Annotated[
    Path,
    typer.Argument(
        help="A model file or folder in a format that `ncut formats` lists; hf:ORG/NAME on the "
        "Hugging Face Hub; or an architecture such as torchvision:resnet50 with --weights.",
        show_default=False,
    ),
]
Json = Annotated[
    Path | None,
    typer.Option(help="Write the result as JSON to a file; '-' prints it instead of the summary."),
]
Plot = Annotated[
    Path | None, typer.Option(help="Write a picture, for example a .png, .svg or .pdf file.")
]

# Each option of `ncut.graph`: its type, or the place of the names that it takes, its help, and the
# default to show.
GRAPH: dict[str, tuple[Any, str, str]] = {
    "scope": (
        "ncut.types:Scope",
        "Layers in the graph of a convolutional network: 'paper' or 'all'.",
        "paper",
    ),
    "norm": (
        "ncut.types:KernelNorm",
        "Norm that reduces a convolution kernel to one edge weight: 'l1', 'l2' or 'column-sum'.",
        "l1",
    ),
    "residual": (
        "ncut.extract.lowering.wiring:Residual",
        "Treatment of residual sums: 'readers' (the inputs of each reader are vertices) or "
        "'stream' (each channel of the sum is one vertex).",
        "stream with attention, else readers",
    ),
    "layers": (
        str,
        "Names of a chain's weight arrays in order, separated by commas.",
        "inferred",
    ),
    "unknown": (
        "ncut.types:Unknown",
        "Treatment of a model's unknown operations: 'error', or 'elementwise' to assume that they "
        "act on each entry separately.",
        "error",
    ),
    "weights": (Path, "Weight file for an architecture given by name.", ""),
    "key": (
        str,
        "State dict to read from a checkpoint: its key, or the prefix of its names.",
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
        "Shape of an ONNX model's input, as NAME=1x512, or its value, as NAME:=16000.",
        "guessed",
    ),
}

LEAST = {"k": 2, "threads": 1, "max_shuffles": 1}
"""Smallest values, enforced by the command line."""
MACHINE = ("threads", "device", "solver")
"""Settings of the computation, apart from what is measured."""

TYPES: dict[str, str] = dict(Plan.__annotations__)
"""The type of each setting, as the plan writes it."""


def takes_settings(
    *names: str, graph: tuple[str, ...] = tuple(GRAPH), whole: tuple[str, ...] = (), **shown: str
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a command with options for settings and for reading the model.

    The options replace the command's parameters `settings` and `options`, which receive the given
    values by name, so that the library supplies defaults.

    Parameters
    ----------
    *names : str
        Settings of the plan.
    graph : tuple of str
        Options of `ncut.graph`.
    whole : tuple of str
        Settings that must be whole numbers here, never "auto".
    **shown : str
        Displayed defaults of single settings that differ from the plan's.
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
    default = setting.presets.get(PRESETS[0], setting.default)
    shown = shown or ("all cores" if default is None else str(default))
    types: dict[str, Any] = {"int": int, "float": float, "str": str, "bool": bool}
    if "|" in kind:  # such as a number or 'auto'
        types[kind] = int if whole else str
    panel = "Computing" if name in MACHINE else "Measurement"
    return _option(name, types.get(kind, f"ncut.types:{kind}"), setting.help, shown, panel)


def _option(
    name: str, kind: Any, help: str, shown: str, panel: str = "Reading the model"
) -> inspect.Parameter:
    flag = f"--{name.replace('_', '-')}"
    flags = {"k": [flag, "-k"], "example_inputs": ["--input"]}.get(name, [flag])
    if kind is bool:
        option = typer.Option(*flags, help=help, rich_help_panel=panel)
        return _parameter(name, Annotated[bool, option], False)
    more: dict[str, Any] = {}
    if isinstance(kind, str):
        more = {"metavar": "NAME", "autocompletion": _names_at(kind)}
        kind = str
    elif kind is int and name != "seed":
        more = {"min": LEAST.get(name, 0)}
    option = typer.Option(
        *flags, help=help, show_default=shown or False, rich_help_panel=panel, **more
    )
    return _parameter(name, Annotated[kind | None, option], None)


def _names_at(place: str) -> Callable[[str], list[str]]:
    """The names that an option takes, for a shell to complete; the library checks what is given."""

    def completed(incomplete: str) -> list[str]:
        names = get_args(pkgutil.resolve_name(place))
        return [name for name in names if name.startswith(incomplete)]

    return completed


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=annotation)


def _parsed(name: str, value: Any) -> Any:
    """Convert the text of a setting's option; None if it was not given."""
    if value is False:
        return None
    counted = "auto" in TYPES[name] and isinstance(value, str)
    return _count_or_auto(name, value) if counted else value


def _example(text: str) -> tuple[str, Any]:
    """An input: NAME=1x512 as its shape, NAME:=16000 or NAME:=1,2 as its value."""
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
    """The given options; the others keep the library's defaults."""
    return {name: value for name, value in options.items() if value is not None}


def _count_or_auto(name: str, text: str) -> Any:
    if text == "auto":
        return text
    if not text.isdecimal():
        raise typer.BadParameter(
            f"{text!r} is neither a whole number from 0 nor 'auto'",
            param_hint=f"--{name.replace('_', '-')}",
        )
    return int(text)


@contextmanager
def warnings_in_one_line() -> Iterator[None]:
    """Show Python's warnings on standard error in one line each, without source code."""
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        yield


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    if level() is not Level.QUIET:
        typer.echo(f"ncut: warning: {one_line(message)}", err=True)
