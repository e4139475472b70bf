"""Reading data sets in the formats they are published in: IDX files and CIFAR-10's batches."""

from __future__ import annotations

import gzip
import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ncut.errors import InputError
from ncut.files import reading

Bytes = NDArray[np.uint8]

IDX_BYTES = 0x08
"""The IDX format's code for entries of one unsigned byte each."""

SIDE = 28
"""Pixels along a side of an image in MNIST's format."""

MAX_BYTES = 2**28
"""Largest file that is read, unpacked: five times the largest published one."""

CIFAR_SHAPE = (3, 32, 32)
N_CLASSES = 10


@dataclass(frozen=True)
class DataSource:
    """A published data set: the names of its folder, its origin, and its files.

    `checksums` are MD5 sums of the files' contents, unpacked, by the files' names.
    """

    title: str
    folders: tuple[str, ...]
    origin: str
    checksums: dict[str, str]


SOURCES = {
    "mnist": DataSource(
        "MNIST",
        ("mnist", "MNIST", "MNIST/raw"),
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        {
            "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
            "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
            "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
            "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
        },
    ),
    "fashion": DataSource(
        "Fashion-MNIST",
        ("fashion-mnist", "fashion", "fashion_mnist", "FashionMNIST", "FashionMNIST/raw"),
        "https://github.com/zalandoresearch/fashion-mnist, or Debian's package "
        "dataset-fashion-mnist",
        {
            "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
            "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
            "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
        },
    ),
    "cifar10": DataSource(
        "CIFAR-10, binary version",
        ("cifar-10-batches-bin", "cifar10", "cifar-10"),
        "https://www.cs.toronto.edu/~kriz/cifar.html",
        dict.fromkeys([*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin"], ""),
    ),
}
"""CIFAR-10's batches, recognized by their size of 10,000 images; they have no checksums here."""


@dataclass(frozen=True)
class Images:
    """A data set as stored in its files.

    Attributes
    ----------
    train, test : ndarray of uint8, shape (images, rows, columns) or (images, 3, rows, columns)
    train_labels, test_labels : ndarray of uint8, shape (images,)
        Classes from 0 to 9.
    is_original : bool
        Whether it is the whole published data set, unchanged according to the checksums.
    """

    train: Bytes
    train_labels: Bytes
    test: Bytes
    test_labels: Bytes
    is_original: bool


def read(name: str, folder: Path) -> Images:
    """Read a data set by its name ("mnist", "fashion", "cifar10") from a folder.

    `folder` is the data set's folder, or its parent with the data set under a usual name.

    Raises
    ------
    InputError
        If a file is missing, damaged or of another data set. The message names the
        file, its expected content and its source.
    """
    source = SOURCES[name]
    home = _home(source, folder)
    return _read_cifar(source, home) if name == "cifar10" else _read_idx_set(name, home)


def _home(source: DataSource, folder: Path) -> Path:
    """The folder with the data set's files: `folder` or one in it."""
    if not folder.is_dir():
        raise InputError(f"data: {folder} is no folder; {_where(source)}")
    places = [folder / name for name in source.folders] + [folder]
    first = next(iter(source.checksums))
    for place in places:
        if any(_path(place, name) for name in source.checksums):
            return place
    raise InputError(
        f"data: {folder / source.folders[0]} has no file {first}; looked in "
        f"{', '.join(str(place) for place in places)}; {_where(source)}"
    )


def _where(source: DataSource) -> str:
    return (
        f"{source.title} consists of the files {', '.join(source.checksums)} from {source.origin}"
    )


def _path(folder: Path, name: str) -> Path | None:
    """The path of a file, plain or gzipped, also as `train-images.idx3-ubyte`; None if missing."""
    spellings = (name, name.replace("-idx", ".idx"))
    candidates = (folder / f"{spelling}{end}" for spelling in spellings for end in ("", ".gz"))
    return next((path for path in candidates if path.is_file()), None)


def _content(source: DataSource, folder: Path, name: str) -> tuple[Path, bytes]:
    path = _path(folder, name)
    if path is None:
        raise InputError(f"data: {folder / name} is missing; {_where(source)}")
    try:
        with (
            reading(path, "a data set", InputError),
            gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file,
        ):
            content = file.read(MAX_BYTES + 1)
    except InputError as error:
        raise InputError(f"data: {error}; {_expected(source, name)}") from error
    if len(content) > MAX_BYTES:
        raise InputError(
            f"data: {path} is larger than any published file; {_expected(source, name)}"
        )
    return path, content


def _expected(source: DataSource, name: str) -> str:
    checksum = source.checksums[name]
    known = f"its MD5 sum, unpacked, is {checksum}; " if checksum else ""
    return f"{known}{source.title} is at {source.origin}"


def _read_idx_set(name: str, folder: Path) -> Images:
    source = SOURCES[name]
    arrays, sums = {}, {}
    for file in source.checksums:
        path, content = _content(source, folder, file)
        sums[file] = hashlib.md5(content, usedforsecurity=False).hexdigest()
        _refuse_other(name, path, sums[file])
        axes = 3 if "images" in file else 1
        arrays[file] = _parse_idx(source, path, file, content, axes)
    train, train_labels, test, test_labels = arrays.values()
    for images, labels, part in ((train, train_labels, "train"), (test, test_labels, "t10k")):
        if len(images) != len(labels):
            raise InputError(
                f"data: {folder} has {len(images)} images but {len(labels)} labels in its {part} "
                f"files; {_where(source)}"
            )
    return Images(train, train_labels, test, test_labels, sums == source.checksums)


def _refuse_other(name: str, path: Path, checksum: str) -> None:
    """Raise if the file belongs to another data set in the same format."""
    for other, source in SOURCES.items():
        if other != name and checksum in source.checksums.values():
            wanted = SOURCES[name]
            raise InputError(
                f"data: {path} belongs to {source.title}, not to {wanted.title}; put that in a "
                f"folder {wanted.folders[0]} beside it; {_where(wanted)}"
            )


def _parse_idx(source: DataSource, path: Path, name: str, content: bytes, axes: int) -> Bytes:
    """The array of an IDX file of bytes: a header of big-endian sizes, then the entries."""
    start = 4 + 4 * axes
    if len(content) < start or content[:4] != bytes((0, 0, IDX_BYTES, axes)):
        raise InputError(
            f"data: {path} is no IDX file of bytes with {axes} axes; {_expected(source, name)}"
        )
    shape = tuple(int(size) for size in np.frombuffer(content, ">i4", axes, 4))
    if min(shape) < 1 or len(content) != start + math.prod(shape):
        raise InputError(
            f"data: {path} declares the shape {shape}, which needs {math.prod(shape)} bytes, "
            f"and holds {len(content) - start}; {_expected(source, name)}"
        )
    if axes == 3 and shape[1:] != (SIDE, SIDE):
        raise InputError(
            f"data: {path} holds images of {shape[1]} x {shape[2]} pixels, not {SIDE} x {SIDE}; "
            f"{_expected(source, name)}"
        )
    array = np.frombuffer(content, np.uint8, offset=start).reshape(shape)
    if axes == 1:
        _check_labels(path, array)
    return array


def _check_labels(path: Path, labels: Bytes) -> None:
    if int(labels.max()) >= N_CLASSES:
        raise InputError(f"data: {path} has label {labels.max()}; classes are 0 to {N_CLASSES - 1}")


def _read_cifar(source: DataSource, folder: Path) -> Images:
    names = [name for name in source.checksums if name != "test_batch.bin" and _path(folder, name)]
    if not names:
        raise InputError(f"data: {folder / 'data_batch_1.bin'} is missing; {_where(source)}")
    batches = [_parse_cifar(source, folder, name) for name in names]
    test, test_labels = _parse_cifar(source, folder, "test_batch.bin")
    train = np.concatenate([images for images, _ in batches])
    labels = np.concatenate([labels for _, labels in batches])
    return Images(train, labels, test, test_labels, (len(train), len(test)) == (50_000, 10_000))


def _parse_cifar(source: DataSource, folder: Path, name: str) -> tuple[Bytes, Bytes]:
    """A batch: for each image a byte with its label, then its red, green and blue pixels."""
    path, content = _content(source, folder, name)
    size = 1 + math.prod(CIFAR_SHAPE)
    if not content or len(content) % size:
        raise InputError(
            f"data: {path} has {len(content)} bytes, no multiple of {size} (a label and "
            f"{CIFAR_SHAPE[1]} x {CIFAR_SHAPE[2]} pixels of 3 bytes); a whole batch has "
            f"{10_000 * size}; {source.title} is at {source.origin}"
        )
    rows = np.frombuffer(content, np.uint8).reshape(-1, size)
    _check_labels(path, rows[:, 0])
    return rows[:, 1:].reshape(-1, *CIFAR_SHAPE), rows[:, 0]
