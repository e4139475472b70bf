"""Reads the configuration and arrays of Keras files, which may be hostile.

Nothing in a file is executed, no link out of it is followed, and an array's size is checked
against its stored bytes before memory is allocated.
"""

from __future__ import annotations

import io
import json
import math
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncut.errors import ModelError, import_extra
from ncut.extract.arrays import as_array
from ncut.extract.readers.keras.probe import PROBER, member_of
from ncut.files import Budget, describe, regular_file

MAX_CONFIG = 2**26
"""Largest configuration in bytes."""

MAX_OBJECTS = 200_000
"""Largest number of groups and arrays in a file."""

MAX_KEPT = 10_000
"""Largest number of groups and arrays kept open."""

CONFIG, WEIGHTS = "config.json", "model.weights.h5"

_ZIP_MAGIC, _HDF5_MAGIC = b"PK", b"\x89HDF\r\n\x1a\n"


@dataclass(slots=True)
class Content:
    """The content of a file."""

    path: Path
    config: Any  # the model's configuration; None if the file holds weights alone
    tree: Tree  # its arrays


@contextmanager
def opened(path: Path) -> Iterator[Content]:
    """Open a `.keras` archive or an HDF5 file.

    Raises
    ------
    ModelError
        If the file is neither, or is incomplete.
    MissingExtraError
        If h5py is not installed.
    """
    with regular_file(path).open("rb") as file:
        magic = file.read(8)
    if magic == _HDF5_MAGIC:
        with _hdf5(path, path) as file:
            tree = Tree(path, file)
            yield Content(path, _json(path, tree.text("model_config"), "model_config"), tree)
    elif magic.startswith(_ZIP_MAGIC):
        with _archive(path) as archive:
            config = _member(path, archive, CONFIG, MAX_CONFIG)
            with _weights(path, archive) as stream, _hdf5(path, stream, WEIGHTS) as file:
                yield Content(path, _json(path, config, CONFIG), Tree(path, file))
    else:
        raise ModelError(
            f"{path}: neither a .keras archive nor an HDF5 file, or a damaged one; "
            "write it again with model.save(...)"
        )


class Tree:
    """The groups and arrays of an HDF5 file, by path."""

    def __init__(self, path: Path, file: Any) -> None:
        self._path = path
        self._file = file
        self._h5py = import_extra("h5py", "keras")
        self._read: dict[str, NDArray[np.floating]] = {}
        self._items: dict[str, Any] = {}
        self._budget = Budget(path, file.id.get_filesize())
        self._n_bytes = 0

    def text(self, name: str, at: str = "") -> str | None:
        """A string attribute; None if missing."""
        value = self._attribute(at, name)
        if isinstance(value, bytes):
            value = value.decode("utf-8", errors="replace")
        return value if isinstance(value, str) else None

    def texts(self, name: str, at: str = "") -> list[str] | None:
        """An attribute with a list of strings; long lists span several, numbered from 0."""
        values = self._attribute(at, name)
        if values is None:
            parts: list[Any] = []
            while (part := self._attribute(at, f"{name}{len(parts)}")) is not None:
                parts.append(np.ravel(part))
            if not parts:
                return None
            values = np.concatenate(parts)
        return [
            value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)
            for value in np.ravel(values).tolist()
        ]

    def is_group(self, at: str) -> bool:
        """Check whether there is a group at a path."""
        return isinstance(self._get(at), self._h5py.Group)

    def children(self, at: str = "") -> list[str]:
        """Names of the groups and arrays directly in a group, in the file's order."""
        group = self._get(at)
        if not isinstance(group, self._h5py.Group):
            return []
        if len(group) > MAX_OBJECTS:
            raise ModelError(f"{self._path}: {at or 'its root'!r} has {len(group)} entries")
        return [str(name) for name in group]

    def arrays(self, at: str = "") -> dict[str, tuple[int, ...]]:
        """Paths and shapes of all arrays in a group, recursively."""
        found: dict[str, tuple[int, ...]] = {}
        waiting, seen, n = [at], set(), 0
        while waiting:
            here = waiting.pop()
            item = self._get(here)
            if isinstance(item, self._h5py.Dataset):
                if item.shape is not None:
                    found[here] = tuple(int(size) for size in item.shape)
                continue
            if not isinstance(item, self._h5py.Group):
                continue
            # Hard links can make a group contain itself.
            address = self._h5py.h5o.get_info(item.id).addr
            if address in seen:
                continue
            seen.add(address)
            names = self.children(here)
            n += len(names)
            if n > MAX_OBJECTS:
                raise ModelError(f"{self._path}: holds more than {MAX_OBJECTS} arrays and groups")
            waiting += [f"{here}/{name}" if here else name for name in reversed(names)]
        return found

    def array(self, at: str) -> NDArray[np.floating]:
        """The values of an array, read once."""
        if at not in self._read:
            self._read[at] = self._values(at)
        return self._read[at]

    def _values(self, at: str) -> NDArray[np.floating]:
        dataset = self._dataset(at)
        where = f"{self._path}: {at!r}"
        shape = tuple(int(size) for size in dataset.shape)
        if dataset.dtype.kind not in "fiu" and not self._is_bfloat16(dataset):
            raise ModelError(f"{where}: holds values of type {dataset.dtype}, not numbers")
        if dataset.external or dataset.is_virtual:
            raise ModelError(f"{where}: its values lie in another file, which is not read")
        n_bytes = math.prod(shape) * dataset.dtype.itemsize
        # No memory is allocated for bytes missing in the file; all arrays share the budget.
        stored = min(dataset.id.get_storage_size(), self._file.id.get_filesize())
        chunked = dataset.chunks is not None
        self._n_bytes += 0 if chunked else n_bytes
        many = self._n_bytes > 2 * self._file.id.get_filesize()
        if (n_bytes > stored and not chunked) or many:
            raise ModelError(
                f"{where}: says to have shape {shape}, but the file holds {stored} bytes of it"
            )
        self._budget.take(f"array {at!r}", n_bytes)
        try:
            values: Any = np.empty(shape, dtype=dataset.dtype)
            if values.size:
                dataset.read_direct(values)
        except Exception as error:
            raise ModelError(f"{where}: cannot be read: {describe(error)}") from error
        if dataset.dtype.kind == "V":
            import ml_dtypes

            values = values.view(ml_dtypes.bfloat16)
        return as_array(values, where)

    def is_integer(self, at: str) -> bool:
        """Check whether an array holds integers, such as weights of quantized layers."""
        return bool(self._dataset(at).dtype.kind in "iu")

    def shape(self, at: str) -> tuple[int, ...]:
        """The shape of an array."""
        return tuple(int(size) for size in self._dataset(at).shape)

    def _dataset(self, at: str) -> Any:
        dataset = self._get(at)
        if not isinstance(dataset, self._h5py.Dataset) or dataset.shape is None:
            raise ModelError(f"{self._path}: no array at {at!r}")
        return dataset

    @staticmethod
    def _is_bfloat16(dataset: Any) -> bool:
        named = dataset.attrs.get("dtype") in ("bfloat16", b"bfloat16")
        return bool(named and dataset.dtype.kind == "V" and dataset.dtype.itemsize == 2)

    def _attribute(self, at: str, name: str) -> Any:
        item = self._get(at)
        try:
            if item is None or name not in item.attrs:
                return None
            stored = self._h5py.h5a.open(item.id, name.encode())
            if math.prod(stored.shape) * stored.dtype.itemsize > MAX_CONFIG:
                raise ModelError(f"{self._path}: attribute {name!r} is too large")
            return item.attrs[name]
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(
                f"{self._path}: attribute {name!r} cannot be read: {describe(error)}"
            ) from error

    def _get(self, at: str) -> Any:
        """The object at a path; the first `MAX_KEPT` stay open, as each step takes HDF5 a while."""
        if at in self._items:
            return self._items[at]
        item = self._resolved(at)
        if len(self._items) < MAX_KEPT:
            self._items[at] = item
        return item

    def _resolved(self, at: str) -> Any:
        """The object at a path, step by step, so that no link leads out of the file."""
        item = self._file
        for part in PurePosixPath(at).parts:
            try:
                if not isinstance(item, self._h5py.Group) or part not in item:
                    link = (
                        item.get(part, getlink=True) if isinstance(item, self._h5py.Group) else None
                    )
                    self._refuse_link(at, link)
                    return None
                self._refuse_link(at, item.get(part, getlink=True))
                item = item[part]
            except ModelError:
                raise
            except Exception as error:
                raise ModelError(
                    f"{self._path}: {at!r} cannot be read: {describe(error)}"
                ) from error
        return item

    def _refuse_link(self, at: str, link: Any) -> None:
        if isinstance(link, self._h5py.ExternalLink | self._h5py.SoftLink):
            raise ModelError(
                f"{self._path}: {at!r} is a link to {link.path!r}, and no links are followed; "
                "Keras writes none"
            )


@contextmanager
def _hdf5(path: Path, source: Path | io.BufferedIOBase, member: str | None = None) -> Iterator[Any]:
    """Open the file in HDF5, after the probing process has read it to the end."""
    h5py = import_extra("h5py", "keras")
    if not PROBER.ends(path, member):
        raise ModelError(
            f"{path}: damaged: HDF5 does not come to an end of it, dies of it, or takes far more "
            "memory than it stores"
        )
    with h5py.File(source, "r") as file:
        yield file


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    with zipfile.ZipFile(path) as archive:
        budget = Budget(path, path.stat().st_size)
        for info in archive.infolist():
            budget.entry(info)
            parts = PurePosixPath(info.filename.replace("\\", "/")).parts
            is_link = stat.S_ISLNK(info.external_attr >> 16)
            if info.filename.startswith(("/", "\\")) or ".." in parts or is_link:
                raise ModelError(
                    f"{path}: holds a member {info.filename!r}, which leads out of the archive; "
                    "Keras writes none such"
                )
        yield archive


def _info(path: Path, archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    try:
        info = archive.getinfo(name)
    except KeyError as error:
        members = ", ".join(repr(n) for n in archive.namelist()[:5]) or "nothing"
        raise ModelError(
            f"{path}: not a Keras model: has no {name!r}, but {members}; write it with "
            "model.save('name.keras')"
        ) from error
    if info.flag_bits & 1:
        raise ModelError(f"{path}: {name!r} is encrypted")
    return info


def _member(path: Path, archive: zipfile.ZipFile, name: str, limit: int) -> str:
    info = _info(path, archive, name)
    if info.file_size > limit:
        raise ModelError(f"{path}: {name!r} has {info.file_size} bytes; at most {limit} are read")
    return archive.read(info).decode("utf-8", errors="replace")


@contextmanager
def _weights(path: Path, archive: zipfile.ZipFile) -> Iterator[io.BufferedIOBase]:
    """The HDF5 file in the archive, in place if it is not compressed (Keras' default)."""
    info = _info(path, archive, WEIGHTS)
    with member_of(path, archive, info) as stream:
        # HDF5 does not detect damage.
        checksum = 0
        while part := stream.read(2**20):
            checksum = zlib.crc32(part, checksum)
        if checksum != info.CRC:
            raise ModelError(f"{path}: {WEIGHTS!r} is damaged: its checksum is wrong")
        stream.seek(0)
        yield stream


def _json(path: Path, text: str | None, what: str) -> Any:
    if text is None:
        return None
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else error
        raise ModelError(f"{path}: {what} is no configuration of a model: {reason}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: {what} is no configuration of a model")
    return content
