"""Agreement of two partitions of the same neurons."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ncut.errors import InputError


def adjusted_rand_index(a: ArrayLike, b: ArrayLike) -> float:
    """Adjusted Rand index of two partitions: 1 if they are the same, 0 on average by chance.

    Chance: one partition's clusters keep their sizes and get random members.

    Parameters
    ----------
    a, b : array_like of int, shape (n,)
        The cluster of each of n objects in each partition, n at least 1, as any whole numbers; only
        equality matters.

    Returns
    -------
    float
        At most 1; also 1 if both have a single cluster, or both have only singletons.

    Raises
    ------
    InputError
        If they are not whole numbers, are empty, or differ in length.

    Source: Hubert and Arabie (1985), Comparing partitions.
    """
    first, second = np.asarray(a), np.asarray(b)
    if first.ndim != 1 or first.shape != second.shape or not first.size:
        raise InputError(
            f"a, b: must be the labels of the same things, got shapes {first.shape} and "
            f"{second.shape}"
        )
    if first.dtype.kind not in "iu" or second.dtype.kind not in "iu":
        raise InputError(
            f"a, b: labels must be whole numbers, got dtypes {first.dtype} and {second.dtype}"
        )
    _, rows, sizes = np.unique(first, return_inverse=True, return_counts=True)
    _, columns, other_sizes = np.unique(second, return_inverse=True, return_counts=True)
    _, both = np.unique(rows * other_sizes.size + columns, return_counts=True)
    together, in_first, in_second = _pairs(both), _pairs(sizes), _pairs(other_sizes)
    expected = in_first * in_second / max(_pairs(np.array([first.size])), 1)
    largest = (in_first + in_second) / 2
    if together == in_first == in_second:
        return 1.0
    return float((together - expected) / (largest - expected))


def _pairs(counts: NDArray[np.int64]) -> int:
    """Number of pairs within groups of these sizes."""
    return int((counts * (counts - 1) // 2).sum())
