"""Derived and synthetic data sets: halves, stacks, lines, mixtures, noise, polynomials.

All are NumPy arrays, images of bytes from 0 to 255, and depend only on the given generator. Source:
Filan et al. (2021), Clusterability in Neural Networks, sections 2.1 and 3.2, appendices A.5, A.7
and A.8; where the text leaves something open, the code published with it.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from ncut.paper.files import N_CLASSES, SIDE, Bytes

Part = tuple[NDArray[Any], Bytes]
"""Images, their pixels from 0 to 255, and their labels."""

MAX_LINES = 10
EXPONENTS = (0, 1, 2)


def resizing(n: int, n_out: int) -> NDArray[np.float64]:
    """The matrix (n_out, n) that resizes one axis like scikit-image's `resize`.

    A Gaussian of standard deviation (factor - 1) / 2 against aliasing, then linear interpolation.
    """
    factor = n / n_out
    smooth = gaussian_filter1d(np.eye(n), (factor - 1) / 2, axis=0, mode="mirror")
    centres = (np.arange(n_out) + 0.5) * factor - 0.5
    left = np.floor(centres).astype(int)
    share = (centres - left)[:, None]
    resized: NDArray[np.float64] = (1 - share) * smooth[left] + share * smooth[left + 1]
    return resized


def resized(images: Bytes, side: int) -> NDArray[np.float32]:
    """Images of side x side pixels, with real values from 0 to 255."""
    rows = resizing(images.shape[1], side).astype(np.float32)
    found: NDArray[np.float32] = rows @ images.astype(np.float32) @ rows.T
    return found


def halves(images: Bytes, labels: Bytes, same: bool, random: np.random.Generator) -> Part:
    """Two images side by side, each half as wide, rescaled to values up to 255.

    `same`: each image with one of its class. Otherwise two random images, labelled with the sum
    of their classes modulo 10.
    """
    columns = resizing(images.shape[2], images.shape[2] // 2).astype(np.float32)
    narrow = images.astype(np.float32) @ columns.T
    narrow = np.rint(narrow * (255 / narrow.max())).astype(np.uint8)
    left, right, found = _pairs(labels, same, random)
    return np.concatenate([narrow[left], narrow[right]], axis=2), found


def stacked(images: Bytes, labels: Bytes, same: bool, random: np.random.Generator) -> Part:
    """Two images as the two channels of one; otherwise as `halves`."""
    left, right, found = _pairs(labels, same, random)
    return np.stack([images[left], images[right]], axis=1), found


def _pairs(
    labels: Bytes, same: bool, random: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.intp], Bytes]:
    """The indices of both images of each pair, and the pairs' labels."""
    n = len(labels)
    if not same:
        left, right = random.integers(n, size=(2, n))
        return left, right, (labels[left] + labels[right]) % N_CLASSES
    left, right = np.arange(n), np.empty(n, np.intp)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        right[members] = random.choice(members, len(members))
    return left, right, labels


def lines(n: int, random: np.random.Generator) -> Part:
    """1 to 10 different vertical lines, one pixel wide; the label is their number minus one."""
    counts = random.integers(1, MAX_LINES + 1, n)
    ranks = random.random((n, SIDE)).argsort(axis=1).argsort(axis=1)
    rows = np.where(ranks < counts[:, None], 255, 0).astype(np.uint8)
    return np.repeat(rows[:, None, :], SIDE, axis=1), (counts - 1).astype(np.uint8)


def mixture(first: Part, second: Part, separate: bool, random: np.random.Generator) -> Part:
    """Both sets, shuffled.

    `separate`: only classes 0 to 4 of the first and 5 to 9 of the second.
    """
    if separate:
        low, high = first[1] < N_CLASSES // 2, second[1] >= N_CLASSES // 2
        first, second = (first[0][low], first[1][low]), (second[0][high], second[1][high])
    images, labels = (np.concatenate(pair) for pair in zip(first, second, strict=True))
    order = random.permutation(len(labels))
    return images[order], labels[order]


def noise(n: int, random: np.random.Generator) -> Part:
    """Images of independent uniform bytes, with random labels."""
    images = random.integers(256, size=(n, SIDE, SIDE), dtype=np.uint8)
    return images, random.integers(N_CLASSES, size=n, dtype=np.uint8)


def polynomials(
    n: int, random: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Normal x and y, and 512 polynomials of them.

    They are all sums of subsets of the nine monomials x^a y^b, a and b at most 2: shapes (n, 2) and
    (n, 512).
    """
    inputs = random.standard_normal((n, 2))
    exponents = np.array(list(itertools.product(EXPONENTS, repeat=2)))
    monomials = (inputs[:, None, :] ** exponents).prod(axis=2)
    coefficients = np.array(list(itertools.product((0, 1), repeat=len(exponents))))
    return inputs.astype(np.float32), (monomials @ coefficients.T).astype(np.float32)
