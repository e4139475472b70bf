"""Measurements to and from plain data and JSON, without loss."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ncut.errors import InputError
from ncut.files import reading, regular_file
from ncut.report import between
from ncut.report.top import findings_to_list
from ncut.results import Measurement, NetworkRecord
from ncut.types import Comparison, Layer, LeftOut

FORMAT = "ncut-report"
FORMAT_VERSION = 1

T = TypeVar("T")


def to_dict(report: Measurement, *, edges: bool = True) -> dict[str, Any]:
    """Plain lists, strings, numbers and None: the headline numbers, then the report's fields.

    With `edges`, also the data about the graph's edges and the attention heads.
    """
    found: dict[str, Any] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "model": str(report.model),
        "summary": findings_to_list(report),
        "k": int(report.k),
        "ncut": float(report.ncut),
        "shuffled_ncuts": report.shuffled_ncuts.tolist(),
        "shuffled_mean": _float_or_none(report.shuffled_mean),
        "shuffled_std": _float_or_none(report.shuffled_std),
        "p_value": _float_or_none(report.p_value),
        "z_score": _float_or_none(report.z_score),
        **{name: write(getattr(report, name)) for name, (write, _) in FIELDS.items()},
    }
    if edges:
        found["between"] = between.to_dict(between.of_report(report))
        found["heads"] = [int(n) for n in getattr(report, "heads", ())]
    return found


def record_to_dict(network: NetworkRecord) -> dict[str, Any]:
    """A network whose shuffles are yet to be measured, as plain data."""
    plain = {name: write(getattr(network, name)) for name, (write, _) in RECORD_FIELDS.items()}
    return {**plain, "values": dict(network.values)}


def record_from_dict(data: Any) -> NetworkRecord:
    """The network that `record_to_dict` wrote.

    Raises
    ------
    InputError
        If an entry is missing or has the wrong type, or the entries do not fit together.
    """
    facts = {name: _entry(data, name, read) for name, (_, read) in RECORD_FIELDS.items()}
    network = NetworkRecord(**facts, values=_entry(data, "values", _values))
    _check_consistent(network)
    return network


@contextmanager
def json_of(text_or_path: str | Path) -> Iterator[Any]:
    """The data of a JSON text or file, to be parsed inside this context.

    Raises
    ------
    InputError
        If it cannot be read or parsed; the message names the file, if any.
    """
    if isinstance(text_or_path, str) and text_or_path.lstrip()[:1] in ("{", "["):
        try:
            content = json.loads(text_or_path)
        except (ValueError, RecursionError) as error:
            raise InputError(f"report: not valid JSON: {error}") from error
        yield content
        return
    if not isinstance(text_or_path, str | Path):
        raise InputError(f"text_or_path: must be JSON or a path, got {type(text_or_path).__name__}")
    try:
        path = regular_file(text_or_path, InputError)
    except InputError as error:
        if isinstance(text_or_path, Path):
            raise
        raise InputError(f"neither a report nor a readable file: {error}") from None
    with reading(path, "a report", InputError):
        text = path.read_text(encoding="utf-8")
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}: not valid JSON: {error}") from error
        yield content


def from_dict(data: object) -> Measurement:
    """The measurement from the data of `to_dict`; unknown entries are ignored.

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
    data = {**LATER, **data}
    report = Measurement(**{name: _entry(data, name, read) for name, (_, read) in FIELDS.items()})
    _check_consistent(report)
    _check_shuffles(report)
    return report


def edges_from_dict(
    data: Mapping[str, Any], report: Measurement
) -> tuple[between.Between | None, tuple[int, ...]]:
    """The data of `to_dict` about the graph's edges, and the attention heads of each layer.

    Raises
    ------
    InputError
        If they do not fit the report; missing data are no error.
    """
    data = {"between": None, "heads": [], **data}
    heads = _entry(data, "heads", _list_of(_count))
    if heads and len(heads) != len(report.layers):
        raise InputError(f"report: {len(heads)} 'heads' for {len(report.layers)} layers")
    for n_heads, layer in zip(heads, report.layers, strict=False):
        if n_heads and layer.size % n_heads:
            raise InputError(f"report: {n_heads} 'heads' do not divide layer {layer.name!r}")
    kept = _entry(data, "between", lambda value: between.from_dict(value, report.k, report.layers))
    return kept, heads


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


def _statistics_to_dict(statistics: Mapping[str, Comparison]) -> dict[str, Any]:
    return {name: comparison_to_dict(compared) for name, compared in statistics.items()}


def _statistics(value: Any) -> dict[str, Comparison]:
    if not isinstance(value, dict) or not {"spectral_ncut", "refined_ncut"} <= value.keys():
        raise TypeError("expected an object with 'spectral_ncut', 'refined_ncut' and others")
    return {_string(name): _comparison(compared) for name, compared in value.items()}


def _values(value: Any) -> dict[str, float]:
    if not isinstance(value, dict) or not {"spectral_ncut", "refined_ncut"} <= value.keys():
        raise TypeError("expected an object with 'spectral_ncut', 'refined_ncut' and others")
    return {_string(name): _float(number) for name, number in value.items()}


def _layer_to_dict(layer: Layer) -> dict[str, Any]:
    return {
        "name": layer.name,
        "start": int(layer.start),
        "size": int(layer.size),
        "rescalable": layer.rescalable,
        "read_by": list(layer.read_by),
    }


def _layer(value: Any) -> Layer:
    rescalable = value["rescalable"]
    return Layer(
        _string(value["name"]),
        _count(value["start"]),
        _count(value["size"]),
        None if rescalable is None else _bool(rescalable),
        _list_of(_string)(value["read_by"]),
    )


def _left_out_to_dict(item: LeftOut) -> dict[str, Any]:
    return {"name": item.name, "shape": [int(n) for n in item.shape], "reason": item.reason}


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


def _written(write: Callable[[Any], Any]) -> Callable[[Any], list[Any]]:
    return lambda values: [write(value) for value in values]


_TEXT = (str, _string)
_COUNT = (int, _count)
_FLOATS = (np.ndarray.tolist, _floats)


def _dict_of(read: Callable[[Any], T]) -> Callable[[Any], dict[str, T]]:
    def reader(value: Any) -> dict[str, T]:
        if not isinstance(value, dict):
            raise TypeError(f"expected an object, got {_shown(value)}")
        return {_string(name): read(item) for name, item in value.items()}

    return reader


def _agreement(value: Any) -> dict[int, float]:
    return {int(k): number for k, number in _dict_of(_float)(value).items()}


def _agreement_to_dict(agreement: Any) -> dict[str, float]:
    return {str(k): float(value) for k, value in agreement.items()}


def _tests_to_dict(tests: Any) -> dict[str, Any]:
    return {name: comparison_to_dict(one) for name, one in tests.items()}


LATER: dict[str, Any] = {
    **{"sums": "", "device": "cpu", "tests": {}, "untested": {}, "agreement": {}},
    **{"cut_share": None, "chance_share": None},
}
"""Defaults of later additions to the format."""

FIELDS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "model": _TEXT,
    "k": _COUNT,
    "labels": (np.ndarray.tolist, _labels),
    "eigenvalues": _FLOATS,
    "statistics": (_statistics_to_dict, _statistics),
    "repeated_ncuts": _FLOATS,
    "shuffled_repeats": _FLOATS,
    "null": _TEXT,
    "normalize": _TEXT,
    "preset": _TEXT,
    "sequential": _TEXT,
    "seed": (int, _whole),
    "n_init": _COUNT,
    "refine": (bool, _bool),
    "solver": _TEXT,
    "residual": (float, _float),
    "layers": (_written(_layer_to_dict), _list_of(_layer)),
    "degrees": _FLOATS,
    "n_edges": _COUNT,
    "left_out": (_written(_left_out_to_dict), _list_of(_left_out)),
    "warnings": (_written(str), _list_of(_string)),
    "version": _TEXT,
    "sums": _TEXT,
    "device": _TEXT,
    "tests": (_tests_to_dict, _dict_of(_comparison)),
    "untested": (dict, _dict_of(_string)),
    "cut_share": (_float_or_none, _finite_or_none),
    "chance_share": (_float_or_none, _finite_or_none),
    "agreement": (_agreement_to_dict, _agreement),
}
"""Writer and reader of each field of a report, in the order of the file."""

RECORD_FIELDS = {
    name: codec
    for name, codec in FIELDS.items()
    if name not in ("statistics", "shuffled_repeats", "sequential")
}


def _check_consistent(report: Measurement | NetworkRecord) -> None:
    """Raise InputError if the entries' lengths and ranges contradict each other."""
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


def _check_shuffles(report: Measurement) -> None:
    if len({compared.shuffled.size for compared in report.statistics.values()}) > 1:
        raise InputError("report: the statistics have different numbers of shuffles")
    if report.shuffled_repeats.size > report.n_shuffles:
        raise InputError("report: more 'shuffled_repeats' than shuffles")
