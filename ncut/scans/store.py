"""The folder that a scan writes: finished and ongoing work, and no partial files.

    results/
      scan.json          the settings: one set for all models
      models/KEY.parquet a row for each model, finished or failed: together one Parquet dataset
      reports/KEY.json   the report of each finished model
      journal/KEY.jsonl  of a model under way: its network, and a line for each shuffle so far

A file gets its name when it is complete, and a journal grows by whole lines, so that a scan that
is killed leaves nothing that a later one could mistake for a result.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ncut.errors import InputError, import_extra
from ncut.files import (
    append_line,
    cut_file,
    make_folder,
    reading,
    reason,
    regular_file,
    remove_file,
    remove_parts,
    write_file,
    write_json,
)
from ncut.randomness import NETWORK
from ncut.report.serialize import record_from_dict, record_to_dict, to_dict
from ncut.results import Measurement, NetworkRecord
from ncut.scans.rows import DONE, FAILED, schema
from ncut.scans.sources import ModelSource
from ncut.scans.tasks import TaskResult
from ncut.types import ShuffledNetwork

FORMAT = "ncut-scan"
FORMAT_VERSION = 1
JOURNAL_VERSION = 2
"""Format of a journal's lines; a journal of another format is discarded."""

FOLDERS = ("models", "reports", "journal")

NEEDED = ("ncut", "refined_ncut", "lower_bound", "n_vertices", "n_isolated", "n_edges")
"""Required columns of a measured model."""

LOCK_SECONDS = 3
"""Seconds to wait for the lock: children of a killed scan may hold it a moment longer."""


class Store:
    """A scan's folder, open for writing."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self._parquet = import_extra("pyarrow.parquet", "scan")
        self._table = import_extra("pyarrow", "scan").Table
        self._settings = dict(settings)
        for name in FOLDERS:
            make_folder(folder / name)

    def _check_settings(self, settings: dict[str, Any]) -> None:
        """Store the settings of a new scan; refuse settings that differ from an old one's."""
        path = self.folder / "scan.json"
        if not os.path.lexists(path):
            content = {"format": FORMAT, "format_version": FORMAT_VERSION, "settings": settings}
            write_json(content, path, 1, "settings")
            return
        before = read_settings(self.folder)
        changed = [
            f"{name} {before.get(name)!r}, now {settings.get(name)!r}"
            for name in sorted({*before, *settings})
            if before.get(name) != settings.get(name)
        ]
        if changed:
            raise InputError(
                f"out: {self.folder} holds results of other settings ({'; '.join(changed)}); use "
                "the same settings or another folder"
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other scans from writing here; the system releases the lock if this process dies.

        Settings are stored, or compared with the stored ones; partial files of a killed scan are
        removed.
        """
        filelock = import_extra("filelock", "scan")
        lock = filelock.FileLock(self.folder / "lock")
        try:
            lock.acquire(timeout=LOCK_SECONDS)
        except filelock.Timeout:
            raise InputError(f"out: another scan is writing to {self.folder}") from None
        except (OSError, NotImplementedError) as error:
            raise InputError(f"out: {self.folder / 'lock'}: {reason(error)}") from error
        try:
            for name in (".", *FOLDERS):
                remove_parts(self.folder / name, older_than=-math.inf)
            self._check_settings(self._settings)
            yield
        finally:
            lock.release()

    def states(self) -> dict[str, tuple[str, str]]:
        """(status, fingerprint) of each model with a row, by its key.

        A damaged row does not count; its model is measured again.
        """
        table, _ = read_rows(self.folder)
        columns = table.select(["key", "status", "fingerprint"]).to_pylist()
        return {row["key"]: (row["status"], row["fingerprint"] or "") for row in columns}

    def finish(
        self,
        source: ModelSource,
        row: Mapping[str, Any],
        report: Measurement | None,
        keep_journal: bool,
    ) -> None:
        """Write a model's row, which marks it as done."""
        path = self.folder / "reports" / f"{source.key}.json"
        if report is None:
            remove_file(path)
        else:
            plain = to_dict(report)
            write_file(path, lambda part: write_json(plain, part, None, "report"), into_pipes=False)
        table = self._table.from_pylist([dict(row)], schema=schema())
        path = self.folder / "models" / f"{source.key}.parquet"
        write_file(path, lambda part: self._parquet.write_table(table, part), into_pipes=False)
        if not keep_journal:
            remove_file(self._journal(source))

    def begin(
        self, source: ModelSource
    ) -> tuple[NetworkRecord | None, dict[int, ShuffledNetwork], float]:
        """Resume a model from its journal: network, shuffles, seconds.

        A journal of other model files, or of another version of ncut, is discarded, and so is
        everything from the first damaged or incomplete line on.
        """
        path = self._journal(source)
        head = {
            "fingerprint": source.fingerprint,
            "version": version("ncut"),
            "journal": JOURNAL_VERSION,
        }
        begun = _Begun()
        content = _content(path)
        good = 0
        for line in content.splitlines(keepends=True):
            try:
                parsed = json.loads(line)
                if not line.endswith(b"\n") or (not good and parsed != head):
                    break
                if good:
                    begun.take(parsed)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                break
            good += len(line)
        if good < len(content):
            cut_file(path, good)
        if not good:
            self._append(source, head)
        return begun.network, begun.fitting(), begun.seconds

    def add(self, source: ModelSource, outcome: TaskResult) -> None:
        """Append to a model's journal."""
        found = outcome.result
        assert found is not None
        plain = record_to_dict(found) if isinstance(found, NetworkRecord) else asdict(found)
        line = {"number": outcome.number, "seconds": outcome.seconds, "result": plain}
        self._append(source, line)

    def _append(self, source: ModelSource, line: Mapping[str, Any]) -> None:
        append_line(self._journal(source), json.dumps(line).encode())

    def _journal(self, source: ModelSource) -> Path:
        return self.folder / "journal" / f"{source.key}.jsonl"


@dataclass
class _Begun:
    """Contents of a journal."""

    network: NetworkRecord | None = None
    shuffles: dict[int, ShuffledNetwork] = field(default_factory=dict)
    seconds: float = 0.0

    def take(self, line: Any) -> None:
        """Add a line; raise ValueError, KeyError or TypeError if it is invalid."""
        number, seconds = line["number"], line["seconds"]
        # An integer may be too large for a float.
        if type(number) is not int or number < NETWORK or not 0 <= seconds <= sys.float_info.max:
            raise ValueError("no line of a journal")
        if number == NETWORK:
            self.network = record_from_dict(line["result"])
        else:
            self.shuffles[number] = _shuffle(**line["result"])
        self.seconds += seconds

    def fitting(self) -> dict[int, ShuffledNetwork]:
        """The shuffles with all statistics of the network."""
        if self.network is None:
            return self.shuffles
        names = self.network.values.keys()
        return {n: one for n, one in self.shuffles.items() if one.statistics.keys() == names}


def _shuffle(
    statistics: dict[str, float], repeated_ncut: float | None, converged: bool
) -> ShuffledNetwork:
    numbers = [*statistics.values(), 0.0 if repeated_ncut is None else repeated_ncut]
    if type(converged) is not bool or not all(map(math.isfinite, numbers)):
        raise ValueError("no shuffle")
    return ShuffledNetwork(statistics, repeated_ncut, converged)


def read_rows(folder: Path) -> tuple[Any, list[Path]]:
    """The rows of a scan, as a pyarrow table, and the files without a readable row.

    Raises
    ------
    InputError
        If the folder cannot be read.
    """
    home = folder / "models"
    try:
        names = sorted(os.listdir(home)) if home.exists() else []
    except OSError as error:
        raise InputError(f"out: {home} cannot be read: {reason(error)}") from error
    files = [home / name for name in names if name.endswith(".parquet") and name[0] != "."]
    if not files:
        return schema().empty_table(), []
    found, damaged = {}, []
    for file in files:
        try:
            with reading(file, "the row of a model", InputError):
                found[file] = _columns(regular_file(file, InputError))
        except InputError:
            damaged.append(file)
    concat = import_extra("pyarrow", "scan").concat_tables
    together = concat([schema().empty_table(), *found.values()])
    if not _are_rows(together):
        damaged += [file for file, table in found.items() if not _are_rows(table)]
        whole = [table for file, table in found.items() if file not in damaged]
        together = concat([schema().empty_table(), *whole])
    return together, sorted(damaged)


def _columns(file: Path) -> Any:
    """The table in a file, with the columns of all rows.

    Read in this thread: pyarrow's datasets, and its own file objects, hand the work to a pool of
    threads, and wait forever for a thread that there is no memory for.
    """
    pyarrow = import_extra("pyarrow", "scan")
    parquet = import_extra("pyarrow.parquet", "scan")
    source = pyarrow.BufferReader(file.read_bytes())
    table = parquet.ParquetFile(source, pre_buffer=False).read(use_threads=False)
    if not len(table):
        raise InputError("no row")
    if table.schema.equals(schema()):
        return table
    columns = [
        table[field.name].cast(field.type)
        if field.name in table.column_names
        else pyarrow.nulls(len(table), field.type)
        for field in schema()
    ]
    return pyarrow.table(columns, schema=schema())


def _are_rows(table: Any) -> bool:
    """Check whether a table holds rows of models: finished or failed, with the columns of each."""
    compute = import_extra("pyarrow.compute", "scan")
    done = table.filter(compute.equal(table["status"], DONE))
    failed = table.filter(compute.equal(table["status"], FAILED))
    needed = [(table, ("key", "path", "group")), (done, NEEDED), (failed, ("error",))]
    whole = len(done) + len(failed) == len(table)
    whole &= all(rows[name].null_count == 0 for rows, names in needed for name in names)
    for column, kind in zip(table.columns, table.schema.types, strict=True):
        if kind == "double":
            whole &= not compute.any(compute.is_inf(column)).as_py()
    return whole


def read_settings(folder: Path) -> dict[str, Any]:
    """The settings in a scan's folder."""
    path = folder / "scan.json"
    if not os.path.lexists(path):
        raise InputError(f"out: {folder} is not the folder of a scan: no scan.json")
    with reading(path, "the settings of a scan", InputError):
        content = json.loads(regular_file(path, InputError).read_text(encoding="utf-8"))
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"out: {path} was not written by a scan")
    if content.get("format_version") != FORMAT_VERSION:
        raise InputError(
            f"out: {folder} has format version {content.get('format_version')!r}, and this "
            f"version of ncut reads {FORMAT_VERSION}"
        )
    settings = content.get("settings")
    if not isinstance(settings, dict):
        raise InputError(f"out: {path} holds no settings; use another folder or repair the file")
    return settings


def _content(path: Path) -> bytes:
    """The bytes of a journal; empty if it does not exist."""
    if not os.path.lexists(path):
        return b""
    with reading(path, "a journal", InputError):
        return regular_file(path, InputError).read_bytes()
