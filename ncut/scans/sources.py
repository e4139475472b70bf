"""Models of a scan: files, folders of models, patterns, lists of paths."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ncut.errors import InputError, printable
from ncut.files import reading

SUFFIXES = (
    *(".onnx", ".keras", ".h5", ".hdf5", ".npz", ".pt", ".pth", ".safetensors", ".gguf", ".jit"),
    *(".pt2", ".tflite", ".msgpack"),
)
"""Suffixes of model files in a folder; any file may be named explicitly."""

CONFIG = "config.json"
CONFIGS = (CONFIG, "beeg_config.json", "_METADATA", "_CHECKPOINT_METADATA")
"""A folder with one of these files is one model, not a folder of models."""

LIST = ".txt"
"""A file with this suffix lists paths, one per line; `#`, first or after a space, is a comment."""

STEP = re.compile(r"(?:step|epoch|iter|iteration|checkpoint|ckpt|batch)[-_=. ]?([0-9]+)", re.I)
"""A training step."""

NOT_MODELS = re.compile(r"(optimizer|scheduler|scaler|rng_state|training_args).*\.(pt|pth)")
"""Other files that training programs write next to a model's weights."""


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model of a scan.

    Attributes
    ----------
    path : str
        The path as given or found.
    key : str
        A short name for files: the first hexadecimal digits of the absolute path's SHA-256.
    fingerprint : str
        Changes with the sizes and times of the model's files; empty if there are none.
    state : str
        Also changes with the files' change times; it is not stored, since copying files changes it.
    n_bytes : int
        Size of the model's files.
    modified : float
        Modification time of the newest file, in seconds since 1970.
    step : int or None
        The training step that the path's last part names, see `step_of`.
    """

    path: str
    key: str
    fingerprint: str
    state: str
    n_bytes: int
    modified: float
    step: int | None

    @property
    def shown(self) -> str:
        """The path as text: bytes that are none are written out, as `\\xff`."""
        return os.fsencode(self.path).decode("utf-8", errors="backslashreplace")

    @property
    def group(self) -> str:
        """The model's folder, which is shared by checkpoints of one training run."""
        return str(Path(self.shown).parent)


def find_sources(paths: Sequence[str | Path]) -> list[ModelSource]:
    """The models at these paths, without duplicates, in the order of paths and numbers.

    Raises
    ------
    InputError
        If a path does not exist, a pattern or a folder has no models, or a list cannot be read.
        Paths in a list need not exist: those become sources without files.
    """
    if isinstance(paths, str | Path):
        paths = [paths]
    found: dict[str, ModelSource] = {}
    for path in paths:
        for one in _expanded(str(path)):
            source = source_of(one)
            found.setdefault(source.key, source)
    if not found:
        named = ", ".join(printable(str(path)) for path in paths)
        raise InputError(f"paths: no models {f'listed in {named}' if named else 'given'}")
    return list(found.values())


def models_in(folder: Path) -> Iterator[Path]:
    """The models in a folder and its subfolders, checkpoints in the order of their numbers.

    An unreadable folder is returned itself, as a model that will fail.
    """
    for here, entries in _walk(folder, lambda here: not _is_model(here)):
        if entries is None or _is_model(here):
            yield here
            continue
        for entry in entries:
            is_model = entry.suffix.lower() in SUFFIXES and not NOT_MODELS.fullmatch(entry.name)
            if is_model and not os.path.isdir(entry):
                yield entry


def _is_model(folder: Path) -> bool:
    return any(os.path.isfile(folder / name) for name in CONFIGS)


def _walk(
    folder: Path, goes_below: Callable[[Path], bool]
) -> Iterator[tuple[Path, list[Path] | None]]:
    """Each subfolder with its non-hidden content in order of numbers, or None if unreadable.

    A folder is visited once, under its own name rather than a link's; linked folders come last.
    """
    seen: set[tuple[int, int]] = set()
    linked = [folder]
    while linked:
        waiting = [linked.pop(0)]
        while waiting:
            here = waiting.pop()
            try:
                found = here.stat()
                names = os.listdir(here) if os.access(here, os.X_OK) else None
            except FileNotFoundError:
                continue
            except OSError:
                names = None
            if names is None:
                yield here, None
                continue
            if (found.st_dev, found.st_ino) in seen:
                continue
            seen.add((found.st_dev, found.st_ino))
            names.sort(key=_by_numbers)
            entries = [here / name for name in names if not name.startswith(".")]
            yield here, entries
            if goes_below(here):
                folders = [entry for entry in entries if os.path.isdir(entry)]
                linked += [entry for entry in folders if entry.is_symlink()]
                waiting += [entry for entry in reversed(folders) if not entry.is_symlink()]


def source_of(path: str | Path) -> ModelSource:
    """A model with the current state of its files."""
    absolute = os.path.abspath(path)
    files = _stats(Path(absolute))
    return ModelSource(
        path=str(path),
        key=hashlib.sha256(os.fsencode(absolute)).hexdigest()[:16],
        fingerprint=_digest([(name, s.st_size, s.st_mtime_ns) for name, s in files]),
        state=_digest([(name, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for name, s in files]),
        n_bytes=sum(found.st_size for _, found in files),
        modified=max((found.st_mtime_ns for _, found in files), default=0) / 1e9,
        step=step_of(str(path)),
    )


def step_of(path: str, pattern: str | None = None) -> int | None:
    """The training step in a path's last part: 500 for `checkpoint-500`, 7 for `epoch_07.pt`.

    The number after step, epoch, iter, checkpoint or ckpt, or else a number at the end of the name;
    None without either, as in `mlp-seed-0-init.npz`. With a `pattern`, the first group of this
    regular expression in the path.

    Raises
    ------
    InputError
        If the pattern is not a regular expression with a group of digits.
    """
    name = Path(path).name
    if pattern is not None:
        try:
            compiled = re.compile(pattern)
        except re.error as error:
            raise InputError(
                f"step_pattern: {pattern!r} is not a regular expression: {error}"
            ) from None
        if not compiled.groups:
            raise InputError(
                f"step_pattern: {pattern!r} has no group; write it like 'step-([0-9]+)'"
            )
        found = compiled.search(path)
        digits = found.group(1) if found else None
        if digits is not None and not digits.isdecimal():
            raise InputError(
                f"step_pattern: {pattern!r} finds {digits!r} in {path!r}, not a whole number"
            )
    else:
        stem = re.sub(r"(\.[A-Za-z][A-Za-z0-9]*)+$", "", name)
        numbers = STEP.findall(stem) or re.findall(r"(?:^|[-_=])([0-9]+)$", stem)
        digits = numbers[-1] if numbers else None
    return int(digits) if digits is not None and len(digits) < 19 else None


def _digest(state: list[Any]) -> str:
    return hashlib.sha256(repr(state).encode()).hexdigest()[:16] if state else ""


def _expanded(path: str) -> Iterable[Path]:
    if os.path.isdir(path):
        models = [*models_in(Path(path))]
        if models == [Path(path)] and not _is_model(Path(path)):
            raise InputError(f"paths: the folder {path} cannot be read: no permission")
        if not models:
            raise InputError(
                f"paths: the folder {path} holds no models: no {CONFIG}, no {', '.join(SUFFIXES)}"
            )
        return models
    if os.path.isfile(path) and path.endswith(LIST):
        return _listed(Path(path))
    if os.path.exists(path):
        return [Path(path)]
    if glob.has_magic(path):
        try:
            matches = sorted(_globbed(path), key=_by_numbers)
        except (OSError, ValueError) as error:
            raise InputError(f"paths: {path}: not a pattern of paths: {error}") from error
        found = [model for match in matches for model in _matched(Path(match))]
        if not found:
            raise InputError(f"paths: no model matches {path!r}")
        return found
    raise InputError(f"paths: {path}: no such file or folder, or its folder cannot be read")


def _globbed(pattern: str) -> Iterable[str]:
    """Paths that match a pattern; `**` is expanded here, since `glob` follows circular links."""
    parts = Path(pattern).parts
    if "**" not in parts:
        return glob.glob(pattern)
    at = next(n for n, part in enumerate(parts) if glob.has_magic(part))
    base = Path(*parts[:at])
    walked = _walk(base, lambda here: True)
    entries = (entry for _, found in walked for entry in found or ())
    n_base = len(base.parts)
    return [str(e) for e in entries if _fits(e.parts[n_base:], parts[at:])]


def _fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_fits(parts[n:], pattern[1:]) for n in range(len(parts) + 1))
    return bool(parts) and fnmatch(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


def _matched(path: Path) -> Iterable[Path]:
    """Skip a path that matches a pattern but is not a model."""
    if os.path.isdir(path):
        return models_in(path)
    return [path] if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") else []


def _listed(path: Path) -> Iterator[Path]:
    """The paths in a list; relative paths are relative to the list's folder."""
    with reading(path, "a list of paths", InputError):
        lines = path.read_text(encoding="utf-8").splitlines()
    entries = [entry for line in lines if (entry := _without_comment(line, path.parent))]
    if not entries:
        raise InputError(f"paths: the list {path} names no models")
    for entry in entries:
        listed = path.parent / entry
        if os.path.isdir(listed):
            yield from models_in(listed)
        else:
            yield listed


def _without_comment(line: str, folder: Path) -> str:
    """The path on a line; ` #` begins a comment unless a file with the whole name exists."""
    entry = line.strip()
    if entry.startswith("#"):
        return ""
    bare = re.split(r"\s#", entry, maxsplit=1)[0].rstrip()
    return entry if bare == entry or os.path.lexists(folder / entry) else bare


def _stats(path: Path) -> list[tuple[str, os.stat_result]]:
    """Name and state of a model's files, including external tensors of an ONNX file."""
    if os.path.isdir(path):
        places = [Path(entry) for entry in _entries(path)]
    else:
        places = [path]
        if path.suffix.lower() == ".onnx":  # its larger tensors may lie in separate files
            places += [e for e in map(Path, _entries(path.parent)) if _belongs(e, path)]
    found = []
    for place in sorted(places):
        with contextlib.suppress(OSError, ValueError):  # gone, unreadable, or not a file name
            state = place.stat()
            if stat.S_ISREG(state.st_mode):
                found.append((os.fsencode(place.name).decode("latin-1"), state))
    return found


def _belongs(path: Path, model: Path) -> bool:
    """Check whether a file next to an ONNX file holds its tensors, by its name."""
    if path.name.startswith(model.name):
        return path != model
    return path.suffix in (".data", ".bin", ".weights") and path.stem == model.stem


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (OSError, ValueError):
        return []


def _by_numbers(name: str) -> list[tuple[int, int, str]]:
    """A sort key: epoch-2 comes before epoch-10."""
    parts = re.split(r"([0-9]+)", name)
    return [(1, int(part), "") if n % 2 else (0, 0, part) for n, part in enumerate(parts)]
