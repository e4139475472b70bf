"""The folder that a scan writes: what is finished, what is under way, and nothing half.

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
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ncut.errors import InputError, import_extra
from ncut.files import write_file
from ncut.report import Report
from ncut.report.serialize import from_dict
from ncut.scans.rows import schema
from ncut.scans.sources import Source
from ncut.scans.tasks import NETWORK, Outcome
from ncut.types import ShuffledNetwork

FORMAT = "ncut-scan"
FORMAT_VERSION = 1

LOCK_SECONDS = 3
"""How long to wait for a folder: children of a scan that was killed may have it a moment longer."""


class Store:
    """A scan's folder, open for writing."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self._write = import_extra("pyarrow.parquet", "scan").write_table
        self._table = import_extra("pyarrow", "scan").Table
        try:
            for name in ("models", "reports", "journal"):
                (folder / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"out: {folder} cannot be made: {error.strerror}") from error
        self._check_settings(dict(settings))

    def _check_settings(self, settings: dict[str, Any]) -> None:
        """Keep the settings of a new scan; refuse others than those of an old one."""
        path = self.folder / "scan.json"
        if not path.exists():
            content = {"format": FORMAT, "format_version": FORMAT_VERSION, "settings": settings}
            write_file(path, lambda part: part.write_text(json.dumps(content, indent=1)))
            return
        before = read_settings(self.folder)
        changed = [
            f"{name} {before.get(name)!r}, now {settings.get(name)!r}"
            for name in sorted({*before, *settings})
            if before.get(name) != settings.get(name)
        ]
        if changed:
            raise InputError(
                f"out: {self.folder} holds results of other settings ({'; '.join(changed)}); give "
                "the same settings, or another folder"
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other scans from writing here; the system lifts the lock if this process dies."""
        filelock = import_extra("filelock", "scan")
        lock = filelock.FileLock(self.folder / "lock")
        try:
            lock.acquire(timeout=LOCK_SECONDS)
        except filelock.Timeout:
            raise InputError(f"out: another scan is writing to {self.folder}") from None
        try:
            yield
        finally:
            lock.release()

    def states(self) -> dict[str, tuple[str, str]]:
        """(status, fingerprint) of each model that has a row, by its key."""
        dataset = import_extra("pyarrow.dataset", "scan")
        files = sorted((self.folder / "models").glob("[!.]*.parquet"))
        if not files:
            return {}
        table = dataset.dataset(files, schema=schema()).to_table(
            columns=["key", "status", "fingerprint"]
        )
        return {row["key"]: (row["status"], row["fingerprint"]) for row in table.to_pylist()}

    def finish(
        self, source: Source, row: Mapping[str, Any], report: Report | None, keep_journal: bool
    ) -> None:
        """Write what came of a model; from then on it is done."""
        path = self.folder / "reports" / f"{source.key}.json"
        if report is None:
            path.unlink(missing_ok=True)
        else:
            write_file(path, report.to_json)
        table = self._table.from_pylist([dict(row)], schema=schema())
        path = self.folder / "models" / f"{source.key}.parquet"
        write_file(path, lambda part: self._write(table, part))
        if not keep_journal:
            self._journal(source).unlink(missing_ok=True)

    def begin(self, source: Source) -> tuple[Report | None, dict[int, ShuffledNetwork], float]:
        """What a scan before this one measured of a model: network, shuffles, seconds.

        A journal of other files than the model has now, or of another version of ncut, is thrown
        away, and so is a last line that was not written to its end.
        """
        path = self._journal(source)
        lines = _whole_lines(path)
        head = {"fingerprint": source.fingerprint, "version": version("ncut")}
        if not lines or lines[0] != head:
            path.unlink(missing_ok=True)
            self._append(source, head)
            return None, {}, 0.0
        network: Report | None = None
        shuffles: dict[int, ShuffledNetwork] = {}
        seconds = 0.0
        for line in lines[1:]:
            seconds += line["seconds"]
            if line["number"] == NETWORK:
                network = from_dict(line["result"])
            else:
                shuffles[line["number"]] = ShuffledNetwork(**line["result"])
        return network, shuffles, seconds

    def add(self, source: Source, outcome: Outcome) -> None:
        """Append to a model's journal."""
        result = outcome.result
        if isinstance(result, ShuffledNetwork):
            result = asdict(result)
        line = {"number": outcome.number, "seconds": outcome.seconds, "result": result}
        self._append(source, line)

    def _append(self, source: Source, line: Mapping[str, Any]) -> None:
        with self._journal(source).open("ab") as file:
            file.write(json.dumps(line).encode() + b"\n")

    def _journal(self, source: Source) -> Path:
        return self.folder / "journal" / f"{source.key}.jsonl"


def read_settings(folder: Path) -> dict[str, Any]:
    """The settings that a scan wrote its folder with."""
    path = folder / "scan.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"out: {folder} is not the folder of a scan: no scan.json") from None
    except (OSError, ValueError) as error:
        raise InputError(f"out: {path} cannot be read: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"out: {path} was not written by a scan")
    if content.get("format_version") != FORMAT_VERSION:
        raise InputError(
            f"out: {folder} has format version {content.get('format_version')!r}, and this "
            f"version of ncut reads {FORMAT_VERSION}"
        )
    settings: dict[str, Any] = content["settings"]
    return settings


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a journal; one that is not whole is cut off, so that others can follow."""
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(path, len(whole))
    return [json.loads(line) for line in whole.splitlines()]
