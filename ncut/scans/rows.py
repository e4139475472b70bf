"""A model's row in the Parquet dataset."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from typing import Any

from ncut.axes import STATISTICS
from ncut.errors import import_extra
from ncut.results import Measurement
from ncut.scans.sources import ModelSource

DONE, FAILED = "done", "failed"

# Column -> the type's name in pyarrow; the statistics' columns follow.
COLUMNS = {
    "key": "string", "path": "string", "group": "string", "step": "int64", "model": "string",
    "status": "string", "error": "string", "error_type": "string",
    "ncut": "float64", "z_score": "float64", "p_value": "float64",
    "shuffled_mean": "float64", "shuffled_std": "float64", "n_shuffles": "int64",
    "kmeans_std": "float64", "shuffled_kmeans_std": "float64",
    "k": "int64", "null": "string", "normalize": "string", "preset": "string", "refine": "bool_",
    "seed": "int64", "n_init": "int64", "solver": "string", "sequential": "string",
    "n_vertices": "int64", "n_isolated": "int64", "n_edges": "int64", "n_layers": "int64",
    "shuffled_ncuts": "list", "eigenvalues": "list", "warnings": "strings",
    "bytes": "int64", "modified": "time", "fingerprint": "string",
    "seconds": "float64", "measured": "time", "version": "string",
}  # fmt: skip

_OF_REPORT = (
    *("model", "ncut", "z_score", "p_value", "shuffled_mean", "shuffled_std", "n_shuffles"),
    *("kmeans_std", "shuffled_kmeans_std", "k", "null", "normalize", "preset", "refine", "seed"),
    *("n_init", "solver", "sequential", "n_vertices", "n_isolated", "n_edges", "version"),
)


@cache
def schema() -> Any:
    """The columns of all rows, so that rows of failed models match the others."""
    pyarrow = import_extra("pyarrow", "scan")
    types = {
        "list": pyarrow.list_(pyarrow.float64()),
        "strings": pyarrow.list_(pyarrow.string()),
        "time": pyarrow.timestamp("us", tz="UTC"),
    }
    names = {**COLUMNS, **dict.fromkeys(_statistic_columns(), "float64")}
    fields = [
        (name, types[kind] if kind in types else getattr(pyarrow, kind)())
        for name, kind in names.items()
    ]
    return pyarrow.schema(fields)


def _statistic_columns() -> list[str]:
    return [name + part for name in STATISTICS for part in ("", "_z", "_p")]


def done_row(source: ModelSource, report: Measurement, seconds: float) -> dict[str, Any]:
    """Row of a measured model."""
    row = {**_common(source, seconds), "status": DONE}
    row |= {name: getattr(report, name) for name in _OF_REPORT}
    row |= {
        "n_layers": len(report.layers),
        "shuffled_ncuts": report.shuffled_ncuts.tolist(),
        "eigenvalues": report.eigenvalues.tolist(),
        "warnings": list(report.warnings),
    }
    for name, compared in report.statistics.items():
        row[name] = compared.value
        row[f"{name}_z"], row[f"{name}_p"] = compared.z_score, compared.p_value
    return row


def failed_row(
    source: ModelSource, error: str, error_type: str, settings: Mapping[str, Any], seconds: float
) -> dict[str, Any]:
    """Row of a model that could not be measured."""
    return {
        **_common(source, seconds),
        "status": FAILED,
        "error": error,
        "error_type": error_type,
        "version": version("ncut"),
        # n_init may be "auto", and nothing chose.
        **{name: settings[name] for name in _OF_REPORT if name in settings and name != "n_init"},
    }


def _common(source: ModelSource, seconds: float) -> dict[str, Any]:
    return {
        "key": source.key,
        "path": source.shown,
        "group": source.group,
        "step": source.step,
        "bytes": source.n_bytes,
        "modified": _time(source.modified) if source.fingerprint else None,
        "fingerprint": source.fingerprint,
        "seconds": seconds,
        "measured": datetime.now(UTC),
    }


def _time(seconds: float) -> datetime | None:
    """A time; None before the year 1 and after 9999, which clocks may report."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None
