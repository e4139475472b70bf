"""Which models a scan has: files, folders of models, patterns, lists of paths."""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ncut.errors import InputError

SUFFIXES = (".onnx", ".keras", ".h5", ".hdf5", ".npz", ".pt", ".pth", ".safetensors")
"""Files that are taken for models in a folder; any file may be named itself."""

CONFIG = "config.json"
"""A folder with this file is one model, not a folder of models."""

LIST = ".txt"
"""A file with this ending lists paths, one a line; `#` begins a comment."""

NOT_MODELS = re.compile(r"(optimizer|scheduler|scaler|rng_state|training_args).*\.(pt|pth)")
"""What training programs keep beside a model's weights."""


@dataclass(frozen=True, slots=True)
class Source:
    """A model of a scan.

    Attributes
    ----------
    path : str
        As it was given or found.
    key : str
        A short name for files: the first hexadecimal digits of the absolute path's SHA-256.
    fingerprint : str
        Changes with the sizes and times of the model's files; empty if there are none.
    n_bytes : int
        Size of the model's files.
    modified : float
        When the newest was last written, in seconds since 1970.
    step : int or None
        The last number in the path's last part, as in `checkpoint-500` or `epoch_07.pt`.
    """

    path: str
    key: str
    fingerprint: str
    n_bytes: int
    modified: float
    step: int | None

    @property
    def group(self) -> str:
        """The folder that it lies in: checkpoints of one training run lie together."""
        return str(Path(self.path).parent)


def find_sources(paths: Sequence[str | Path]) -> list[Source]:
    """The models at these paths, each once, in the order of the paths and of their numbers.

    Raises
    ------
    InputError
        If a path does not exist, a pattern or a folder has no models, or a list cannot be read.
        Paths in a list need not exist: those become sources without files.
    """
    if isinstance(paths, str | Path):
        paths = [paths]
    found: dict[str, Source] = {}
    for path in paths:
        for one in _expanded(str(path)):
            source = source_of(one)
            found.setdefault(source.key, source)
    if not found:
        raise InputError("paths: no models given")
    return list(found.values())


def models_in(folder: Path) -> Iterator[Path]:
    """The models in a folder and the folders below, checkpoints by their numbers."""
    if (folder / CONFIG).is_file():
        yield folder
        return
    try:
        entries = sorted(folder.iterdir(), key=lambda entry: _by_numbers(entry.name))
    except OSError as error:
        raise InputError(f"paths: {folder} cannot be read: {error.strerror}") from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from models_in(entry)
        elif entry.suffix.lower() in SUFFIXES and not NOT_MODELS.fullmatch(entry.name):
            yield entry


def source_of(path: str | Path) -> Source:
    """A model with the state of its files now."""
    absolute = os.path.abspath(path)
    files = _stats(Path(absolute))
    state = repr([(name, size, time) for name, size, time in files])
    numbers = re.findall(r"\d+", Path(path).name)
    return Source(
        path=str(path),
        key=hashlib.sha256(absolute.encode()).hexdigest()[:16],
        fingerprint=hashlib.sha256(state.encode()).hexdigest()[:16] if files else "",
        n_bytes=sum(size for _, size, _ in files),
        modified=max((time for _, _, time in files), default=0) / 1e9,
        step=int(numbers[-1]) if numbers and len(numbers[-1]) < 19 else None,
    )


def _expanded(path: str) -> Iterable[Path]:
    if Path(path).is_dir():
        models = [*models_in(Path(path))]
        if not models:
            raise InputError(
                f"paths: the folder {path} holds no models: no {CONFIG}, no {', '.join(SUFFIXES)}"
            )
        return models
    if Path(path).is_file():
        return _listed(Path(path)) if path.endswith(LIST) else [Path(path)]
    if glob.has_magic(path):
        matches = sorted(glob.glob(path, recursive=True), key=_by_numbers)
        found = [model for match in matches for model in _matched(Path(match))]
        if not found:
            raise InputError(f"paths: no model matches {path!r}")
        return found
    raise InputError(f"paths: {path}: no such file or folder")


def _matched(path: Path) -> Iterable[Path]:
    """What a pattern matches may also be something else: then it is passed over."""
    if path.is_dir():
        return models_in(path)
    return [path] if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") else []


def _listed(path: Path) -> Iterator[Path]:
    """The paths in a list; relative ones are relative to where the list is."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"paths: the list {path} cannot be read: {error}") from error
    for line in lines:
        entry = line.partition("#")[0].strip()
        if not entry:
            continue
        listed = path.parent / entry
        if listed.is_dir():
            yield from models_in(listed)
        else:
            yield listed


def _stats(path: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of a model's files."""
    files = [path] if path.is_file() else []
    if path.is_dir():
        files = sorted(entry for entry in path.iterdir() if entry.is_file())
    stats = [(file.name, file.stat()) for file in files]
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]


def _by_numbers(name: str) -> list[tuple[int, int, str]]:
    """A sort key: epoch-2 comes before epoch-10."""
    parts = re.split(r"(\d+)", name)
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts]
