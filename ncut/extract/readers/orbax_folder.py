"""Reads checkpoints of Orbax, Flax's usual format, as named arrays in PyTorch's layout."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncut.errors import ModelError, import_extra
from ncut.extract.readers.flax_file import MAX_DEPTH, named_as_torch
from ncut.extract.readers.folder.config import read_json
from ncut.files import Budget, reading

METADATA = "_METADATA"
"""File with the names of a checkpoint's arrays."""

MARKS = (METADATA, "_CHECKPOINT_METADATA", "manifest.ocdbt")
"""Files that identify a checkpoint's folder."""

CHUNK = 1024
"""Bytes that tensorstore needs to ask for a chunk, about."""

MAX_FILES = 2**20
"""Largest number of files of a checkpoint."""

_ONE_AT_A_TIME = {"cache_pool": {"total_bytes_limit": 0}, "data_copy_concurrency": {"limit": 1},
                  "file_io_concurrency": {"limit": 1}}  # fmt: skip


def is_orbax(path: Path) -> bool:
    """Check whether a folder is a checkpoint, or a manager's folder of numbered ones."""
    return any(os.path.lexists(place / mark) for place in (path, *_steps(path)) for mark in MARKS)


def read_orbax(path: Path, key: str | None = None) -> dict[str, NDArray[Any]]:
    """The arrays of an Orbax checkpoint, with PyTorch's names and layout.

    Names and layouts change as in `flax_file.read_flax`. Arrays outside `params` and
    `batch_stats` are not read; nothing in the folder is executed.

    Parameters
    ----------
    path : Path
        A folder that `orbax.checkpoint` saved a tree in (zarr or zarr3, in OCDBT or in a folder
        for each array), or one whose only item is such a folder.
    key : str, optional
        The key of the parameters, `"a/b"` if nested.

    Raises
    ------
    ModelError
        If the folder holds several checkpoints, is damaged, incomplete or has no arrays.
    InputError
        If `key` is missing.
    MissingExtraError
        If the package tensorstore is not installed.

    Source: orbax.checkpoint 0.12, `InternalTreeMetadata` and `ArrayReadSpec`.
    """
    with reading(path, "an Orbax checkpoint"):
        store = import_extra("tensorstore", "orbax")
        folder = _item(path)
        metadata = read_json(folder / METADATA)
        entries = metadata.get("tree_metadata")
        if not isinstance(entries, Mapping):
            raise ModelError(f"{folder / METADATA}: has no 'tree_metadata' with the arrays' names")
        arrays = _Arrays(store, folder, metadata)
        tree: dict[str, Any] = {}
        for entry in entries.values():
            steps = _checked(entry, folder)
            if steps:
                _place(tree, steps, arrays.reader(".".join(steps)), folder)
        return named_as_torch(tree, key, path)


def _steps(path: Path) -> list[Path]:
    """A manager's checkpoints, in folders with numbers as names, in order."""
    try:
        found = [place for place in path.iterdir() if place.name.isdecimal() and place.is_dir()]
    except OSError:  # an unreadable folder is refused for what it lacks
        return []
    return sorted(found, key=lambda place: int(place.name))


def _item(path: Path) -> Path:
    """The folder of the only tree in a checkpoint."""
    if (path / METADATA).is_file():
        return path
    inside = [place for place in path.iterdir() if (place / METADATA).is_file()]
    choices = _steps(path) or sorted(inside)
    if len(choices) == 1:
        return _item(choices[0])
    if choices:
        raise ModelError(f"{path}: holds several checkpoints; pass one, such as {choices[-1]}")
    raise ModelError(
        f"{path}: has no {METADATA} with the names of its arrays; it is incomplete, or of an early "
        "version of Orbax: restore it and save it again"
    )


def _checked(entry: Any, folder: Path) -> tuple[str, ...]:
    """The keys of an array; none for what is stored without values."""
    value = entry.get("value_metadata") if isinstance(entry, Mapping) else None
    keys = entry.get("key_metadata") if isinstance(entry, Mapping) else None
    if not isinstance(value, Mapping) or not isinstance(keys, list):
        raise ModelError(f"{folder / METADATA}: an array without a name")
    steps = tuple(key.get("key") if isinstance(key, Mapping) else None for key in keys)
    if not all(isinstance(step, str) for step in steps) or not 0 < len(steps) <= MAX_DEPTH:
        raise ModelError(f"{folder / METADATA}: an array with the keys {str(steps)[:80]}")
    stored = value.get("value_type") not in ("None", "Dict", "List", "string")
    return steps if stored and value.get("skip_deserialize") is not True else ()  # type: ignore[return-value]


def _place(tree: dict[str, Any], steps: tuple[str, ...], leaf: object, folder: Path) -> None:
    for step in steps[:-1]:
        tree = tree.setdefault(step, {})
        if not isinstance(tree, dict):
            raise ModelError(f"{folder / METADATA}: {'.'.join(steps)!r} is inside an array")
    if steps[-1] in tree:
        raise ModelError(f"{folder / METADATA}: has two arrays {'.'.join(steps)!r}")
    tree[steps[-1]] = leaf


class _Arrays:
    """The arrays of a folder, each read when its reader is called."""

    def __init__(self, store: Any, folder: Path, metadata: Mapping[str, Any]) -> None:
        self._store = store
        self._folder = folder
        base = {"driver": "file", "path": f"{folder.resolve()}/"}
        self._in_one = metadata.get("use_ocdbt", (folder / "manifest.ocdbt").is_file()) is True
        self._base = {"driver": "ocdbt", "base": base} if self._in_one else base
        self._driver = "zarr3" if metadata.get("use_zarr3") is True else "zarr"
        # Writers may leave out chunks of zeros if this says so; else a missing chunk is damage.
        self._all_there = metadata.get("store_array_data_equal_to_fill_value") is True
        self._budget = Budget(folder, sum(_sizes(folder)))
        self._context = store.Context(_ONE_AT_A_TIME)

    def reader(self, name: str) -> Callable[[], NDArray[Any]]:
        """A function that reads an array."""
        return lambda: self._read(name)

    def _read(self, name: str) -> NDArray[Any]:
        where = f"{self._base['path']}{name}/" if not self._in_one else f"{name}/"
        spec = {"driver": self._driver, "kvstore": {**self._base, "path": where},
                "fill_missing_data_reads": not self._all_there}  # fmt: skip
        try:
            array = self._store.open(spec, open=True, read=True, context=self._context).result()
            layout, itemsize = array.chunk_layout, array.dtype.numpy_dtype.itemsize
            for what, shape in (
                ("", array.shape),
                ("a chunk of ", layout.read_chunk.shape or ()),
                ("a shard of ", layout.write_chunk.shape or ()),
            ):
                self._budget.take(f"{what}{name!r}", math.prod(map(int, shape)) * itemsize)
            sides = zip(array.shape, layout.read_chunk.shape or (), strict=False)
            n_chunks = math.prod(-(-int(size) // max(int(part), 1)) for size, part in sides)
            self._budget.take(f"the list of chunks of {name!r}", n_chunks * CHUNK)
            return np.asarray(array.read().result())
        except ModelError:
            raise
        except Exception as error:  # from tensorstore: a missing or damaged chunk, any metadata
            words = " ".join(str(error).split())[:300]
            raise ModelError(f"{self._folder}: {name!r} cannot be read: {words}") from None


def _sizes(folder: Path) -> Iterator[int]:
    """The sizes of all files of a checkpoint, in bytes."""
    n = 0
    for place, _, files in os.walk(folder):
        for file in files:
            n += 1
            if n > MAX_FILES:
                raise ModelError(f"{folder}: has more than {MAX_FILES:,} files")
            yield os.lstat(os.path.join(place, file)).st_size
