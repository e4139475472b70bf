"""Tiny data sets in the formats of the published ones: each class has a pattern that can be learnt.

Each function returns the arrays that it wrote: train images and labels, test images and labels.
"""

from __future__ import annotations

import gzip
import math
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

Bytes = NDArray[np.uint8]
Arrays = tuple[Bytes, Bytes, Bytes, Bytes]

IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def patterned(shape: tuple[int, ...], n_train: int, n_test: int, seed: int) -> Arrays:
    """Images of ten classes, each a pattern of blobs with noise, those of a class about as many."""
    random = np.random.default_rng(seed)
    blobs = gaussian_filter(random.standard_normal((10, *shape)), (*[0] * (len(shape) - 1), 2, 2))
    patterns = np.where(blobs > 0, 200.0, 0.0)

    def part(n: int) -> tuple[Bytes, Bytes]:
        labels = random.permutation(np.arange(n) % 10).astype(np.uint8)
        noise = random.normal(0, 40, (n, *shape))
        return np.clip(patterns[labels] + noise, 0, 255).astype(np.uint8), labels

    return *part(n_train), *part(n_test)


def idx_bytes(array: Bytes, shape: tuple[int, ...] | None = None) -> bytes:
    """An array as the content of an IDX file, under a header with its shape or another one."""
    shape = array.shape if shape is None else shape
    return struct.pack(f">4B{len(shape)}i", 0, 0, 8, len(shape), *shape) + array.tobytes()


def cifar_bytes(images: Bytes, labels: Bytes) -> bytes:
    """Images, their channels first, as the content of one of CIFAR-10's batches."""
    return np.hstack([labels[:, None], images.reshape(len(images), -1)]).tobytes()


def write_idx_set(
    folder: Path, n_train: int = 200, n_test: int = 60, seed: int = 1, gz: bool = False
) -> Arrays:
    """A data set in MNIST's format, its four files gzipped if `gz`."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = patterned((28, 28), n_train, n_test, seed)
    for name, array in zip(IDX_FILES, arrays, strict=True):
        content = idx_bytes(array)
        if gz:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content, mtime=0))
        else:
            (folder / name).write_bytes(content)
    return arrays


def write_cifar(folder: Path, n_train: int = 100, n_test: int = 40, seed: int = 1) -> Arrays:
    """A data set in the format of CIFAR-10's binary version, with five batches to train on."""
    folder.mkdir(parents=True, exist_ok=True)
    train, labels, test, test_labels = arrays = patterned((3, 32, 32), n_train, n_test, seed)
    size = math.ceil(n_train / 5)
    for batch in range(5):
        part = slice(batch * size, (batch + 1) * size)
        if len(labels[part]):
            content = cifar_bytes(train[part], labels[part])
            (folder / f"data_batch_{batch + 1}.bin").write_bytes(content)
    (folder / "test_batch.bin").write_bytes(cifar_bytes(test, test_labels))
    return arrays


def write_all(folder: Path) -> dict[str, Arrays]:
    """Write all three data sets under their usual names; return their content by our names."""
    return {
        "mnist": write_idx_set(folder / "mnist", seed=1),
        "fashion": write_idx_set(folder / "fashion-mnist", seed=2),
        "cifar10": write_cifar(folder / "cifar-10-batches-bin", seed=3),
    }
