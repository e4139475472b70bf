"""Records of trained networks, in files that are complete or absent."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ncut.errors import InputError
from ncut.files import make_folder, reading, regular_file, write_file
from ncut.paper.recipes import Recipe
from ncut.report import Report
from ncut.types import Normalization, Null

INITIAL, UNPRUNED, PRUNED = PHASES = ("initial", "unpruned", "pruned")

CHECKPOINT = "checkpoint.safetensors"


@dataclass(frozen=True)
class Analysis:
    """Settings for the measurement of a network: arguments of `ncut.analyze`."""

    k: int = 12
    shuffles: int = 50
    null: Null = "layer"
    normalize: Normalization = "none"

    @property
    def name(self) -> str:
        return f"k{self.k}-{self.null}-{self.normalize}-{self.shuffles}"


def keep(path: Path, write: Callable[[Path], object]) -> None:
    """Write a complete file into a folder, which is created if needed."""
    make_folder(path.parent)
    write_file(path, write, into_pipes=False)


def write_json(path: Path, content: object) -> None:
    text = json.dumps(content, indent=1) + "\n"
    keep(path, lambda part: part.write_text(text, encoding="utf-8"))


@dataclass(frozen=True)
class Record:
    """The files of one network: a recipe and a seed.

    `PHASE.safetensors` has its weights and `PHASE.json` its settings and metrics, PHASE being
    "unpruned" or "pruned"; the second file is written last. `PHASE-ANALYSIS.json` is a report.
    """

    out: Path
    recipe: Recipe
    seed: int

    @property
    def folder(self) -> Path:
        return self.out / "networks" / self.recipe.slug() / f"run-{self.seed}"

    def has(self, phase: str) -> bool:
        """Check whether the network was trained to the end of this phase."""
        return phase == INITIAL or self._metrics(phase).is_file()

    def save(self, phase: str, model: nn.Module, metrics: dict[str, Any]) -> None:
        state = {name: value.contiguous() for name, value in model.state_dict().items()}
        keep(self._weights(phase), lambda part: save_file(state, part))
        content = {"recipe": self.recipe.settings(), "seed": self.seed, "phase": phase, **metrics}
        write_json(self._metrics(phase), content)

    def load(self, phase: str, model: nn.Module) -> None:
        """Put the weights of a finished phase into a network."""
        try:
            with reading(self._weights(phase), "weights", InputError):
                tensors, _ = read_tensors(self._weights(phase))
                model.load_state_dict(tensors)
        except InputError as error:
            raise InputError(
                f"out: {error}; delete the folder {self.folder} to train this network again"
            ) from error

    def metrics(self, phase: str) -> dict[str, Any]:
        """The metrics at the end of a phase; empty for an untrained network."""
        if phase == INITIAL:
            return {}
        path = self._metrics(phase)
        found = _read_json(path)
        if not isinstance(found, dict):
            raise InputError(f"out: {path} is not a file of settings; delete it to train again")
        return found

    def has_report(self, phase: str, analysis: Analysis) -> bool:
        return self._report(phase, analysis).is_file()

    def save_report(self, phase: str, analysis: Analysis, report: Report) -> None:
        keep(self._report(phase, analysis), report.to_json)

    def report(self, phase: str, analysis: Analysis) -> Report:
        return load_report(self._report(phase, analysis))

    @property
    def checkpoint(self) -> Path:
        return self.folder / CHECKPOINT

    def _weights(self, phase: str) -> Path:
        return self.folder / f"{phase}.safetensors"

    def _metrics(self, phase: str) -> Path:
        return self.folder / f"{phase}.json"

    def _report(self, phase: str, analysis: Analysis) -> Path:
        return self.folder / f"{phase}-{analysis.name}.json"


def load_report(path: Path) -> Report:
    try:
        return Report.from_json(path)
    except InputError as error:
        raise InputError(f"out: {error}; delete {path} to measure again") from error


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file, and its metadata."""
    with (
        reading(path, "tensors", InputError),
        safe_open(regular_file(path, InputError), framework="pt") as file,
    ):
        tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, file.metadata() or {}


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    keep(path, lambda part: save_file(whole, part, metadata))


def _read_json(path: Path) -> Any:
    try:
        with reading(path, "JSON", InputError):
            return json.loads(regular_file(path, InputError).read_text(encoding="utf-8"))
    except InputError as error:
        raise InputError(f"out: {error}; delete it to train this network again") from error
