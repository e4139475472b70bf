"""Scan: the results of a scan, read from its folder."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ncut.errors import InputError, import_extra
from ncut.report import Report
from ncut.scans.rows import DONE, FAILED
from ncut.scans.sources import source_of, step_of
from ncut.scans.store import read_rows, read_settings

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame


KEY = re.compile("[0-9a-f]{16}")


class Scan:
    """The results of a scan, finished or in progress.

    The rows form a Parquet dataset that other programs can read: `FOLDER/models/*.parquet`.

    Parameters
    ----------
    folder : str or Path
        The folder that `ncut.scan` wrote.
    step_pattern : str, optional
        A regular expression whose first group is the training step in a model's path, such as
        `"it([0-9]+)"`. By default the number after step, epoch, iter, checkpoint or ckpt, or else a
        number at the end of the name.

    Attributes
    ----------
    folder : Path
    settings : dict
        The arguments that all models were measured with.

    Raises
    ------
    InputError
        If the folder is not a scan's folder, or the pattern is invalid.
    """

    def __init__(self, folder: str | Path, *, step_pattern: str | None = None) -> None:
        step_of("", step_pattern)
        self.step_pattern = step_pattern
        self.folder = Path(folder).expanduser()
        self.settings: dict[str, Any] = read_settings(self.folder)

    def to_frame(self) -> DataFrame:
        """A row for each model, in the order of groups (folders), steps and paths.

        Columns: `key`, `path`, `group`, `step` (see `step_pattern`), `model`; `status`
        ("done" or "failed"), `error`, `error_type`; `ncut`, `z_score`, `p_value`, the shuffles'
        mean, standard deviation, number and n-cuts; each statistic of `ncut.axes.STATISTICS`
        with `_z` and `_p`; the settings; sizes of the graph; `seconds` (of all tasks together),
        `measured` (when), `modified` (the model's files), `version`. Values that a failed model
        lacks are missing. A damaged row is left out, with a warning that names its file.

        Raises
        ------
        InputError
            If the folder cannot be read.
        MissingExtraError
            If pyarrow or pandas is not installed.
        """
        import_extra("pandas", "scan")
        table, damaged = read_rows(self.folder)
        for path in damaged:
            warnings.warn(
                f"{path}: damaged and left out; scan again to measure its model again",
                stacklevel=2,
            )
        frame: DataFrame = table.to_pandas(use_threads=False)
        steps = [step_of(path, self.step_pattern) for path in frame["path"]]
        frame["step"] = import_extra("pandas", "scan").array(steps, dtype="float64")
        return frame.sort_values(["group", "step", "path"], ignore_index=True)

    @property
    def failed(self) -> dict[str, str]:
        """The errors of models that could not be measured, by their paths."""
        frame = self.to_frame()
        bad = frame[frame["status"] == FAILED]
        return dict(zip(bad["path"], bad["error"], strict=True))

    def report(self, model: str | Path) -> Report:
        """The report of a model, given by its path or its key.

        Raises
        ------
        InputError
            If the scan has no report of the model; the message holds the error of a failed model.
        """
        keys = [source_of(model).key]
        if KEY.fullmatch(str(model)):
            keys.insert(0, str(model))
        for key in keys:
            path = self.folder / "reports" / f"{key}.json"
            if path.is_file():
                return Report.from_json(path)
        frame = self.to_frame()
        rows = frame[(frame["key"] == source_of(model).key) & (frame["status"] == FAILED)]
        why = f"it failed: {rows['error'].iloc[0]}" if len(rows) else "it is not in the scan"
        raise InputError(f"model: {model}: no report: {why}")

    def plot(self, statistic: str = "ncut", ax: Axes | None = None) -> Axes:
        """Draw a statistic over the checkpoints, one line per group.

        Parameters
        ----------
        statistic : str, default "ncut"
            A column of `to_frame`, such as "z_score" or "refined_ncut_z". For "ncut", the mean of
            the shuffles is drawn too, with a band of one standard deviation.
        ax : matplotlib Axes, optional
            Where to draw; a new pyplot figure by default.
        """
        from ncut.scans.course import draw_course

        return draw_course(self.to_frame(), statistic, ax)

    def to_html(self, path: str | Path, *, title: str | None = None) -> None:
        """Write a page with n-cut and Z over training, and a table of all models.

        Raises
        ------
        InputError
            If the file cannot be written.
        MissingExtraError
            If the extra `plot` is not installed.
        """
        from ncut.files import write_text
        from ncut.scans.page import html_page

        page = html_page(self.folder.resolve().name, self.settings, self.to_frame(), title)
        write_text(path, page)

    def __repr__(self) -> str:
        status = self.to_frame()["status"]
        done, failed = (int((status == one).sum()) for one in (DONE, FAILED))
        return f"Scan({str(self.folder)!r}: {done} models measured, {failed} failed)"
