"""A scan's rows in words, for pages and terminals."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ncut.report.wording import ncut_text, p_text, printable, z_text
from ncut.scans.rows import DONE, FAILED

if TYPE_CHECKING:
    from pandas import DataFrame

NAMES = (
    *("model", "step", "n-cut", "shuffles", "Z", "p", "refined n-cut", "lower bound"),
    *("neurons", "edges"),
)


FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""First characters of a formula in spreadsheet programs."""


def rows(frame: DataFrame) -> list[list[str]]:
    """A row of text for each measured model, in the columns NAMES."""
    return [_cells(row) for row in frame[frame["status"] == DONE].to_dict("records")]


def common_folder(frame: DataFrame) -> str:
    """The common folder of all models, with a final slash; empty if there is none."""
    paths = [printable(str(path)) for path in frame["path"]]
    if not paths:
        return ""
    first, last = min(paths), max(paths)
    same = next(
        (at for at, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]),
        min(len(first), len(last)),
    )
    return first[: first.rfind("/", 0, same) + 1]


def failures(frame: DataFrame) -> list[tuple[str, str]]:
    """Path and error of each model that failed."""
    failed = frame[frame["status"] == FAILED]
    pairs = zip(failed["path"], failed["error"], strict=True)
    return [(printable(path), printable(error)) for path, error in pairs]


def csv_text(frame: DataFrame) -> str:
    """All rows as CSV; cells with several values are JSON, and no text is a formula."""

    def plain(value: Any) -> Any:
        if isinstance(value, str):
            return f"'{value}" if value.startswith(FORMULA) else value
        return json.dumps(value.tolist()) if hasattr(value, "tolist") else value

    texts = [name for name in frame.columns if frame[name].dtype.kind == "O"]
    frame = frame.assign(**{name: frame[name].map(plain) for name in texts})
    return str(frame.to_csv(index=False))


def _cells(row: dict[Any, Any]) -> list[str]:
    def number(name: str) -> float | None:
        value = row[name]
        return None if value is None or value != value else float(value)

    step = number("step")
    mean, std = number("shuffled_mean"), number("shuffled_std")
    return [
        printable(str(row["path"])),
        "" if step is None else str(int(step)),
        ncut_text(row["ncut"]),
        "" if mean is None or std is None else f"{mean:.3f} ± {std:.3f}",
        z_text(number("z_score")),
        p_text(number("p_value")),
        f"{row['refined_ncut']:.3f}",
        f"{row['lower_bound']:.3f}",
        f"{int(row['n_vertices']) - int(row['n_isolated']):,}",
        f"{int(row['n_edges']):,}",
    ]
