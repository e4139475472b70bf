"""Callbacks that log clusterability during training: TensorBoard, W&B, MLflow, a CSV file."""

from __future__ import annotations

import csv
import io
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

from ncut.errors import InputError
from ncut.files import append_line, reading, regular_file, write_text
from ncut.training.arguments import whole
from ncut.training.monitor import Monitor


class LoggingCallback(ABC):
    """Measures a network at regular steps and logs the values.

    Call it with the model and the step, in each step or at the end of each epoch. It logs the
    values of `Monitor.measure` ("ncut/ncut", "ncut/lower_bound", "ncut/alignment_p_value" ...), and
    with a regularizer the values of its `log()`, as "ncut/regularizer/value" and so on. In
    distributed training call it in one process.

    Parameters
    ----------
    monitor : Monitor, optional
        The measurement; `Monitor()` by default.
    every : int, default 100
        Steps between measurements: steps that are a multiple of `every` are measured. 0: none.
    regularizer : ncut.training.Regularizer, optional
        A regularizer whose `log()` is logged too.
    """

    def __init__(
        self, monitor: Monitor | None = None, *, every: int = 100, regularizer: Any = None
    ) -> None:
        self.monitor = Monitor() if monitor is None else monitor
        self.every = whole("every", every, 0)
        if regularizer is not None and not callable(getattr(regularizer, "log", None)):
            raise InputError(
                f"regularizer: must have a method log(), got {type(regularizer).__name__}"
            )
        self.regularizer = regularizer

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.monitor!r}, every={self.every})"

    def __call__(self, model: Any, step: int) -> dict[str, float]:
        """Measure and log, if `step` is a multiple of `every`.

        Parameters
        ----------
        model : torch.nn.Module
        step : int
            Number of the training step or epoch.

        Returns
        -------
        dict of str to float
            The logged values; empty in other steps, and if the measurement fails (a warning).
        """
        if not self.every or step % self.every:
            return {}
        values = self.monitor.measure(model)
        if self.regularizer is not None:
            values |= {f"ncut/regularizer/{k}": v for k, v in self.regularizer.log().items()}
        if values:
            self._pass_on(values, int(step))
        return values

    @abstractmethod
    def _pass_on(self, values: dict[str, float], step: int) -> None:
        """Write the values to the logger."""


class TensorBoardCallback(LoggingCallback):
    """Logs clusterability to TensorBoard.

    Parameters
    ----------
    writer : torch.utils.tensorboard.SummaryWriter
        Or any object with `add_scalar(tag, value, step)`.
    monitor, every, regularizer
        See `LoggingCallback`.
    """

    def __init__(
        self,
        writer: Any,
        monitor: Monitor | None = None,
        *,
        every: int = 100,
        regularizer: Any = None,
    ) -> None:
        super().__init__(monitor, every=every, regularizer=regularizer)
        self._add = _method(writer, "writer", "add_scalar")

    def _pass_on(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self._add(name, value, step)


class WandbCallback(LoggingCallback):
    """Logs clusterability to Weights & Biases.

    Parameters
    ----------
    run : wandb.Run
        The result of `wandb.init()`, or any object with `log(values, step=...)`. W&B drops values
        for a step below the last logged step.
    monitor, every, regularizer
        See `LoggingCallback`.
    """

    def __init__(
        self,
        run: Any,
        monitor: Monitor | None = None,
        *,
        every: int = 100,
        regularizer: Any = None,
    ) -> None:
        super().__init__(monitor, every=every, regularizer=regularizer)
        self._log = _method(run, "run", "log")

    def _pass_on(self, values: dict[str, float], step: int) -> None:
        self._log(values, step=step)


class MLflowCallback(LoggingCallback):
    """Logs clusterability to MLflow's active run.

    Parameters
    ----------
    mlflow : module
        The module `mlflow`, or any object with `log_metrics(values, step=...)`. Characters that
        MLflow refuses in names become "_".
    monitor, every, regularizer
        See `LoggingCallback`.
    """

    def __init__(
        self,
        mlflow: Any,
        monitor: Monitor | None = None,
        *,
        every: int = 100,
        regularizer: Any = None,
    ) -> None:
        super().__init__(monitor, every=every, regularizer=regularizer)
        self._log = _method(mlflow, "mlflow", "log_metrics")

    def _pass_on(self, values: dict[str, float], step: int) -> None:
        named = {re.sub(r"[^\w\-. /]", "_", name): value for name, value in values.items()}
        self._log(named, step=step)


class CSVCallback(LoggingCallback):
    """Logs clusterability to a CSV file, one line per measurement with the step first.

    A resumed run appends to an existing file. A missing value is an empty field; for a new value
    the file is rewritten with another column.

    Parameters
    ----------
    path : str or path
    monitor, every, regularizer
        See `LoggingCallback`.

    Raises
    ------
    InputError
        If an existing file does not begin with a column "step", or the file cannot be written.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        monitor: Monitor | None = None,
        *,
        every: int = 100,
        regularizer: Any = None,
    ) -> None:
        super().__init__(monitor, every=every, regularizer=regularizer)
        self.path = Path(path)
        self._found()

    def _found(self) -> tuple[str, list[str]]:
        """Text of the file, and its columns: only the step's if the file is empty."""
        if not self.path.exists():
            return "", ["step"]
        with reading(self.path, "a CSV file"):
            text = regular_file(self.path).read_text(encoding="utf-8")
        columns = next(csv.reader(io.StringIO(text)), ["step"])
        if columns[:1] != ["step"]:
            raise InputError(
                f"path: {str(self.path)!r} must begin with a column 'step', got {columns[:1]}"
            )
        return text, columns

    def _pass_on(self, values: dict[str, float], step: int) -> None:
        text, columns = self._found()
        new = [name for name in values if name not in columns]
        lines = io.StringIO()
        writer = csv.writer(lines, lineterminator="\n")
        if new:
            _, *rows = [row for row in csv.reader(io.StringIO(text)) if row] or [columns]
            n = len(columns) + len(new)
            writer.writerow(columns + new)
            writer.writerows([*row, *[""] * (n - len(row))] for row in rows)
        elif not text.endswith("\n"):
            lines.write("\n")  # terminates a truncated last line
        known: dict[str, Any] = {"step": step, **values}
        writer.writerow([known.get(name, "") for name in columns + new])
        if new:
            write_text(self.path, lines.getvalue())
        else:
            append_line(self.path, lines.getvalue().removesuffix("\n").encode())


def _method(owner: Any, argument: str, name: str) -> Callable[..., Any]:
    found = getattr(owner, name, None)
    if not callable(found):
        raise InputError(f"{argument}: must have a method {name}(), got {type(owner).__name__}")
    method: Callable[..., Any] = found
    return method
