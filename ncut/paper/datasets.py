"""The paper's data sets by name, as tensors in memory."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ncut.errors import InputError
from ncut.paper import composites, files
from ncut.paper.composites import Part
from ncut.paper.files import Bytes

SEED = 42
"""Seed of all generated data sets, which the networks of a table share."""

N_TRAIN, N_TEST = 60_000, 10_000
"""Sizes of the synthetic sets."""

N_MEMORIZED = 3_000


@dataclass(frozen=True)
class Data:
    """A data set ready for training.

    Attributes
    ----------
    inputs, test_inputs : float32 Tensor, shape (examples, features) or (examples, channels, 28, 28)
        Pixels from 0 to 1.
    targets, test_targets : int64 Tensor, shape (examples,), or float32, shape (examples, outputs)
        Classes, or the values of a regression.
    is_original : bool
        Whether it is all of the published data, or derived from all of it.
    """

    inputs: Tensor
    targets: Tensor
    test_inputs: Tensor
    test_targets: Tensor
    is_original: bool

    @property
    def is_regression(self) -> bool:
        return self.targets.is_floating_point()

    def to(self, device: torch.device) -> Data:
        """The same data on a device."""
        return replace(
            self,
            inputs=self.inputs.to(device),
            targets=self.targets.to(device),
            test_inputs=self.test_inputs.to(device),
            test_targets=self.test_targets.to(device),
        )

    def checksum(self) -> int:
        """Fingerprint of the training examples, to recognize a data set."""
        return zlib.crc32(self.targets.numpy().data, zlib.crc32(self.inputs.numpy().data))


Parts = tuple[Part, Part]
Maker = Callable[["_Reader"], Parts]


class _Reader:
    """Inputs of data sets: files in a folder, a number of examples, a generator."""

    def __init__(self, folder: Path, images: int | None) -> None:
        self.folder = folder
        self.images = images
        self.is_original = images is None
        self.random = np.random.default_rng(SEED)

    def read(self, name: str) -> Parts:
        found = files.read(name, self.folder)
        self.is_original &= found.is_original
        chosen = slice(self.images)
        return (found.train[chosen], found.train_labels[chosen]), (found.test, found.test_labels)

    def make(self, maker: Callable[[int, np.random.Generator], Part]) -> Parts:
        sizes = (N_TRAIN, N_TEST) if self.images is None else (self.images, self.images)
        train, test = (maker(size, self.random) for size in sizes)
        return train, test

    def mixed(self, name: str, separate: bool) -> Parts:
        both = zip(self.make(composites.lines), self.read(name), strict=True)
        train, test = (composites.mixture(*pair, separate, self.random) for pair in both)
        return train, test


def _paired(reader: _Reader, name: str, maker: Callable[..., Part], same: bool) -> Parts:
    train, test = (maker(*part, same, reader.random) for part in reader.read(name))
    return train, test


def _small(reader: _Reader) -> Parts:
    train, test = ((composites.resized(part[0], 7), part[1]) for part in reader.read("mnist"))
    return train, test


def _memorized(reader: _Reader) -> Parts:
    (images, labels), test = reader.make(composites.noise)
    return (images[:N_MEMORIZED], labels[:N_MEMORIZED]), test


MAKERS: dict[str, Maker] = {
    "mnist": lambda reader: reader.read("mnist"),
    "fashion": lambda reader: reader.read("fashion"),
    "cifar10": lambda reader: reader.read("cifar10"),
    "mnist-7x7": _small,
    **{
        f"{name}-{kind}-{partner}": partial(_paired, name=name, maker=maker, same=same)
        for name in ("mnist", "fashion")
        for kind, maker in (("halves", composites.halves), ("stack", composites.stacked))
        for partner, same in (("same", True), ("diff", False))
    },
    "lines": lambda reader: reader.make(composites.lines),
    "lines-mnist": lambda reader: reader.mixed("mnist", separate=False),
    "lines-mnist-sep": lambda reader: reader.mixed("mnist", separate=True),
    "random": lambda reader: reader.make(composites.noise),
    "random-3000": _memorized,
}
"""Names of the image data sets; the other data set is "polynomial"."""

NAMES = (*MAKERS, "polynomial")


def n_examples(name: str) -> int:
    """Number of training examples of a whole data set."""
    sizes = {
        "cifar10": 50_000,
        "lines-mnist": 2 * N_TRAIN,
        "lines-mnist-sep": 59_394,  # half of the classes of each
        "random-3000": N_MEMORIZED,
    }
    return sizes.get(name, N_TRAIN)


def load(name: str, folder: Path, images: int | None = None, *, flat: bool = True) -> Data:
    """Make a data set of the paper.

    Parameters
    ----------
    name : str
        One of `NAMES`.
    folder : Path
        The folder of the published files; see `files.read`. Synthetic sets do not use it.
    images : int or None
        Use only the first `images` training examples; None: all.
    flat : bool
        A vector for each image, as MLPs read it; otherwise with an axis of channels.

    Raises
    ------
    InputError
        If files are missing or damaged, or `images` is not a positive number.
    """
    if images is not None and images < 1:
        raise InputError(f"images: must be at least 1, got {images}")
    reader = _Reader(folder, images)
    if name == "polynomial":
        sizes = (N_TRAIN, N_TEST) if images is None else (images, images)
        pairs = [composites.polynomials(size, reader.random) for size in sizes]
        train, test = (tuple(map(torch.from_numpy, pair)) for pair in pairs)
    else:
        train, test = (_tensors(*part, flat) for part in MAKERS[name](reader))
    return Data(train[0], train[1], test[0], test[1], reader.is_original)


def _tensors(images: NDArray[Any], labels: Bytes, flat: bool) -> tuple[Tensor, Tensor]:
    pixels = torch.from_numpy(images.astype(np.float32)).div_(255)
    if flat:
        pixels = pixels.flatten(1)
    elif pixels.ndim == 3:
        pixels = pixels[:, None]
    return pixels, torch.from_numpy(labels.astype(np.int64))
