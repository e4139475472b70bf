"""Report to and from plain data and JSON, without loss."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ncut.errors import InputError
from ncut.files import reading, regular_file
from ncut.report import between
from ncut.report.report import Report
from ncut.types import Comparison, Layer, LeftOut

FORMAT = "ncut-report"
FORMAT_VERSION = 1

T = TypeVar("T")


def to_dict(report: Report, *, edges: bool = True) -> dict[str, Any]:
    """Plain lists, strings, numbers and None: the headline numbers, then the report's fields.

    With `edges` also what is kept of the graph's edges and the attention heads.
    """
    found: dict[str, Any] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "model": str(report.model),
        "k": int(report.k),
        "ncut": float(report.ncut),
        "shuffled_ncuts": report.shuffled_ncuts.tolist(),
        "shuffled_mean": _float_or_none(report.shuffled_mean),
        "shuffled_std": _float_or_none(report.shuffled_std),
        "p_value": _float_or_none(report.p_value),
        "z_score": _float_or_none(report.z_score),
        "labels": report.labels.tolist(),
        "eigenvalues": report.eigenvalues.tolist(),
        "statistics": {
            name: comparison_to_dict(compared) for name, compared in report.statistics.items()
        },
        "repeated_ncuts": report.repeated_ncuts.tolist(),
        "shuffled_repeats": report.shuffled_repeats.tolist(),
        "null": str(report.null),
        "normalize": str(report.normalize),
        "preset": str(report.preset),
        "sequential": str(report.sequential),
        "seed": int(report.seed),
        "n_init": int(report.n_init),
        "refine": bool(report.refine),
        "solver": str(report.solver),
        "residual": float(report.residual),
        "layers": [
            {
                "name": layer.name,
                "start": int(layer.start),
                "size": int(layer.size),
                "rescalable": layer.rescalable,
                "read_by": list(layer.read_by),
            }
            for layer in report.layers
        ],
        "degrees": report.degrees.tolist(),
        "n_edges": int(report.n_edges),
        "left_out": [
            {"name": item.name, "shape": [int(n) for n in item.shape], "reason": item.reason}
            for item in report.left_out
        ],
        "warnings": [str(text) for text in report.warnings],
        "version": str(report.version),
        "sums": str(report.sums),
        "device": str(report.device),
    }
    if edges:
        found["between"] = between.to_dict(report.between)
        found["heads"] = [int(n) for n in report.heads]
    return found


@contextmanager
def json_of(text_or_path: str | Path) -> Iterator[Any]:
    """What JSON text, or the file at a path, says, to be taken up inside this context.

    Raises
    ------
    InputError
        If it cannot be read, or not be taken up; where there is a file it is named.
    """
    if isinstance(text_or_path, str) and text_or_path.lstrip()[:1] in ("{", "["):
        try:
            content = json.loads(text_or_path)
        except (ValueError, RecursionError) as error:
            raise InputError(f"report: not valid JSON: {error}") from error
        yield content
        return
    try:
        path = regular_file(text_or_path, InputError)
    except InputError as error:
        raise InputError(f"neither a report nor a readable file: {error}") from None
    with reading(path, "a report", InputError):
        text = path.read_text(encoding="utf-8")
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}: not valid JSON: {error}") from error
        yield content


def from_dict(data: object) -> Report:
    """Make a report of what `to_dict` gives; unknown entries are ignored.

    Raises
    ------
    InputError
        If an entry is missing or has the wrong type, or the entries do not fit together.
    """
    if not isinstance(data, Mapping) or data.get("format") != FORMAT:
        raise InputError(f"report: not a report of ncut: 'format' must be {FORMAT!r}")
    if data.get("format_version") != FORMAT_VERSION:
        raise InputError(
            f"report: has format version {data.get('format_version')!r}, but this version of "
            f"ncut reads {FORMAT_VERSION}; read it with the version that wrote it"
        )
    # These came later to the format than the rest.
    data = {"sums": "", "device": "cpu", "between": None, "heads": [], **data}
    report = Report(**{name: _entry(data, name, read) for name, read in READERS.items()})
    _check_consistent(report)
    heads = _entry(data, "heads", _list_of(_count))
    if heads and len(heads) != len(report.layers):
        raise InputError(f"report: {len(heads)} 'heads' for {len(report.layers)} layers")
    for n_heads, layer in zip(heads, report.layers, strict=False):
        if n_heads and layer.size % n_heads:
            raise InputError(f"report: {n_heads} 'heads' do not divide layer {layer.name!r}")
    kept = _entry(data, "between", lambda value: between.from_dict(value, report.k, report.layers))
    return replace(report, kept=kept, kept_heads=heads)


def _entry(data: Mapping[str, Any], name: str, read: Callable[[Any], T]) -> T:
    if name not in data:
        raise InputError(f"report: {name!r} is missing")
    try:
        return read(data[name])
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise InputError(f"report: {name!r} is malformed: {error}") from error


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a string, got {_shown(value)}")
    return value


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"expected a whole number, got {_shown(value)}")
    return value


def _count(value: Any) -> int:
    if _whole(value) < 0:
        raise ValueError(f"expected a count, got {_shown(value)}")
    return int(value)


def _float(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"expected a number, got {_shown(value)}")
    if not math.isfinite(value):
        raise ValueError(f"expected a finite number, got {value}")
    return float(value)


def _float_or_none(value: Any) -> float | None:
    return None if value is None else float(value)


def _finite_or_none(value: Any) -> float | None:
    return None if value is None else _float(value)


def _list_of(read: Callable[[Any], T]) -> Callable[[Any], tuple[T, ...]]:
    def reader(value: Any) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise TypeError(f"expected a list, got {_shown(value)}")
        return tuple(read(item) for item in value)

    return reader


def _labels(value: Any) -> NDArray[np.int32]:
    return np.array(_list_of(_whole)(value), dtype=np.int32)


def _floats(value: Any) -> NDArray[np.float64]:
    return np.array(_list_of(_float)(value), dtype=np.float64)


def comparison_to_dict(compared: Comparison) -> dict[str, Any]:
    """A statistic's numbers as plain data."""
    return {
        "value": float(compared.value),
        "mean": _float_or_none(compared.mean),
        "std": _float_or_none(compared.std),
        "p_value": _float_or_none(compared.p_value),
        "z_score": _float_or_none(compared.z_score),
        "shuffled": compared.shuffled.tolist(),
    }


def _comparison(value: Any) -> Comparison:
    numbers = {name: _finite_or_none(value[name]) for name in ("mean", "std", "p_value", "z_score")}
    shuffled = _floats(value["shuffled"])
    if shuffled.size and None in (numbers["mean"], numbers["std"], numbers["p_value"]):
        raise ValueError("has shuffles but no mean, standard deviation or p-value")
    return Comparison(value=_float(value["value"]), shuffled=shuffled, **numbers)


def _statistics(value: Any) -> dict[str, Comparison]:
    if not isinstance(value, dict) or not {"spectral_ncut", "refined_ncut"} <= value.keys():
        raise TypeError("expected an object with 'spectral_ncut', 'refined_ncut' and others")
    return {_string(name): _comparison(compared) for name, compared in value.items()}


def _layer(value: Any) -> Layer:
    rescalable = value["rescalable"]
    return Layer(
        _string(value["name"]),
        _count(value["start"]),
        _count(value["size"]),
        None if rescalable is None else _bool(rescalable),
        _list_of(_string)(value["read_by"]),
    )


def _left_out(value: Any) -> LeftOut:
    return LeftOut(
        _string(value["name"]), _list_of(_whole)(value["shape"]), _string(value["reason"])
    )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:56]} ..."


def _bool(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"expected true or false, got {_shown(value)}")
    return value


READERS: dict[str, Callable[[Any], Any]] = {
    "model": _string,
    "k": _count,
    "labels": _labels,
    "eigenvalues": _floats,
    "statistics": _statistics,
    "repeated_ncuts": _floats,
    "shuffled_repeats": _floats,
    "null": _string,
    "normalize": _string,
    "preset": _string,
    "sequential": _string,
    "seed": _whole,
    "n_init": _count,
    "refine": _bool,
    "solver": _string,
    "residual": _float,
    "layers": _list_of(_layer),
    "degrees": _floats,
    "n_edges": _count,
    "left_out": _list_of(_left_out),
    "warnings": _list_of(_string),
    "version": _string,
    "sums": _string,
    "device": _string,
}


def _check_consistent(report: Report) -> None:
    """Raise InputError where the entries' lengths and ranges contradict each other."""
    n = 0
    for layer in report.layers:
        if layer.start != n:
            raise InputError(
                f"report: layer {layer.name!r} starts at vertex {layer.start}, expected {n}"
            )
        n += layer.size
    for name, values in (("labels", report.labels), ("degrees", report.degrees)):
        if values.size != n:
            raise InputError(f"report: {name!r} has {values.size} entries for {n} vertices")
    if report.eigenvalues.size != report.k:
        raise InputError(f"report: {report.eigenvalues.size} eigenvalues for k = {report.k}")
    if n and not -1 <= report.labels.min() <= report.labels.max() < report.k:
        raise InputError(f"report: 'labels' must lie between -1 and {report.k - 1}")
    if len({compared.shuffled.size for compared in report.statistics.values()}) > 1:
        raise InputError("report: the statistics have different numbers of shuffles")
    if report.shuffled_repeats.size > report.n_shuffles:
        raise InputError("report: more 'shuffled_repeats' than shuffles")
